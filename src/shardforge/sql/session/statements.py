"""Prepared statements: text to something that can be run, through the node's plan cache.

A `Prepared` is bound to one catalog version and one set of binding settings; a session that has moved on prepares
again from the text. Statements over a session's own uncommitted DDL are not shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.bind import BindEnvironment, bind_statement
from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.execute import Executable, compile_plan
from shardforge.sql.parse import Statement
from shardforge.sql.plan import plan
from shardforge.sql.session.settings import Settings
from shardforge.sql.session.table_use import TableUse, tables_used

PLANNABLE = {
    "SelectStmt": "select",
    "InsertStmt": "insert",
    "UpdateStmt": "update",
    "DeleteStmt": "delete",
}
UNKNOWN_TYPES = (0, 705)
TEXT = 25


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


def kind_of(node: dict[str, Any]) -> str:
    """The statement's kind: 'select', 'insert', ... or the parser's node name in lower case."""
    name = next(iter(node))
    return PLANNABLE.get(name, name.lower())


def prepare_statement(
    statement: Statement,
    declared_types: Sequence[int],
    catalog: CatalogSnapshot,
    settings: Settings,
    search_path: tuple[str, ...],
    result_columns: tuple[OutputColumn, ...] | None = None,
) -> Prepared:
    """Bind and plan `statement`; one that is not a query is kept as it is, for the session to carry out.

    `result_columns` describes the rows of a utility statement that has some (SHOW, EXPLAIN, FETCH, EXECUTE).
    Raises QueryError 42P18 for a parameter whose type nothing tells.
    """
    kind = kind_of(statement.node)
    declared = tuple(declared_types)
    if next(iter(statement.node)) not in PLANNABLE or _is_select_into(statement.node):
        return Prepared(
            statement,
            kind,
            declared,
            result_columns,
            None,
            catalog.version,
            settings.binding,
            declared,
        )
    parameter_types: list[int | None] = [None if t in UNKNOWN_TYPES else t for t in declared]
    environment = BindEnvironment(
        catalog=catalog,
        search_path=search_path,
        settings=settings,
        parameter_types=parameter_types,
        text=statement.text,
    )
    bound = bind_statement(statement.node, environment)
    plan_ = plan(bound, catalog)
    types = tuple(TEXT if t in (None, *UNKNOWN_TYPES) else t for t in environment.parameter_types)
    executable = compile_plan(plan_)
    return Prepared(
        statement,
        kind,
        types,
        plan_.columns,
        executable,
        catalog.version,
        settings.binding,
        declared,
        locks=tables_used(bound, catalog),
    )


def effective_search_path(settings: Settings, user: str) -> tuple[str, ...]:
    """search_path with "$user" replaced."""
    return tuple(user if name == "$user" else name for name in settings.search_path)


def _is_select_into(node: dict[str, Any]) -> bool:
    select = node.get("SelectStmt")
    return select is not None and "intoClause" in select


def check_parameter_count(prepared: Prepared, given: int) -> None:
    """08P01 unless `given` parameters are what the statement takes."""
    required = len(prepared.parameter_types)
    if given != required:
        raise QueryError(
            f"bind message supplies {given} parameters, but prepared statement requires {required}",
            "08P01",
        )
