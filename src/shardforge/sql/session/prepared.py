"""What a prepared statement is. It is bound to one catalog version and one set of binding settings; a session that has
moved on prepares again from the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.execute import Executable
from shardforge.sql.parse import Statement, parse
from shardforge.sql.session.table_use import TableUse


@dataclass(slots=True)
class Prepared:
    """A statement ready to run. `kind` is the lower-case statement kind, such as 'select' or 'createstmt'."""

    statement: Statement
    kind: str
    parameter_types: tuple[int, ...]
    columns: tuple[OutputColumn, ...] | None
    executable: Executable | None
    catalog_version: int
    binding: tuple[Any, ...]
    declared_types: tuple[int, ...] = ()
    by_sql: bool = False
    """Made by PREPARE rather than by the protocol."""
    locks: tuple[TableUse, ...] = ()
    """The tables to lock before it runs."""
    constants: tuple[Any, ...] | None = None
    """The values of the literals that were lifted out of the text: what the executable runs with."""

    @property
    def node(self) -> dict[str, Any]:
        """The parser's tree: one key, the node's name."""
        return self.statement.node

    @property
    def text(self) -> str:
        """The statement's text."""
        return self.statement.text

    @property
    def tag(self) -> str:
        """The word of the command tag."""
        return "INSERT 0" if self.kind == "insert" else self.kind.upper()

    @property
    def shape(self) -> list[tuple[str, int]]:
        """Names and types of the result columns."""
        return [(column.name, column.type) for column in self.columns or ()]

    def parsed(self) -> Statement:
        """The statement with its whole tree, which one with lifted constants does not keep."""
        return self.statement if self.constants is None else parse(self.text)[0]
