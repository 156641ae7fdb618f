"""Definitions as SQL text: what pg_get_indexdef, pg_get_constraintdef, pg_get_viewdef and pg_get_expr show.

Source: PostgreSQL 15, src/backend/utils/adt/ruleutils.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from shardforge.sql.catalog.descriptors import (
    Check,
    Enum,
    ForeignKey,
    Index,
    IndexColumn,
    Table,
    View,
)
from shardforge.sql.catalog.expressions import bind_stored, columns_of
from shardforge.sql.catalog.quoting import quote_identifier, quote_qualified
from shardforge.sql.catalog.ruleutils import expression_text, visible_names
from shardforge.sql.catalog.snapshot import CatalogSnapshot, Relation
from shardforge.sql.catalog.typenames import enum_name, visible_types

_ACTIONS: Final = {"r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


@lru_cache(maxsize=1024)
def _columns_used(
    text: str, columns: tuple[tuple[int, str, int, int], ...], table: _Same
) -> frozenset[int]:
    return frozenset(columns_of(bind_stored(table.table, text)))


class _Same:
    """A table that equals any other: the cache key is the columns beside it."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same)


def _shape(table: Table) -> tuple[tuple[int, str, int, int], ...]:
    return tuple((c.id, c.name, c.type_oid, c.typmod) for c in table.columns)


def columns_of_check(table: Table, check: Check) -> frozenset[int]:
    """The ids of the columns that a check uses."""
    return _columns_used(check.expression, _shape(table), _Same(table))


@lru_cache(maxsize=1024)
def _pretty(text: str, columns: tuple[tuple[int, str, int, int], ...], table: _Same) -> str:
    names = {column_id: name for column_id, name, _, _ in columns}
    return expression_text(bind_stored(table.table, text), names, pretty=True)


class Definitions:
    """Definitions as a session sees them: names are qualified where its search path does not find them."""

    def __init__(self, snapshot: CatalogSnapshot, search_path: Sequence[str]) -> None:
        self._snapshot = snapshot
        self._search_path = search_path

    def name(self, relation: Relation) -> str:
        """The relation's name as SQL, with its schema when the bare name would not mean it."""
        if self._snapshot.is_visible(relation, self._search_path):
            return quote_identifier(relation.name)
        return quote_qualified(*self._snapshot.qualified_name(relation))

    def name_by_id(self, oid: int) -> str | None:
        """`name` of an oid, or None."""
        relation = self._snapshot.relation_by_id(oid)
        return None if relation is None else self.name(relation)

    def expression(self, table: Table, text: str, *, pretty: bool = False) -> str:
        """A stored expression over the table's columns."""
        shown = _pretty(text, _shape(table), _Same(table)) if pretty else text
        return self.visible(shown)

    def visible(self, text: str) -> str:
        """Stored text with names instead of oids."""
        return visible_types(
            visible_names(text, self.name_by_id), self._snapshot, self._search_path
        )

    def enum_name(self, enum: Enum) -> str:
        """`name` of an enum type."""
        return enum_name(enum, self._snapshot, self._search_path)

    # ---- indexes ---------------------------------------------------------------------------------

    def index_column(self, table: Table, part: IndexColumn, *, pretty: bool = False) -> str:
        """One key column: a name, a function call, or an expression in parentheses."""
        if part.expression is None:
            return quote_identifier(_column_name(table, part.column_id))
        text = self.expression(table, part.expression, pretty=pretty)
        head = text.partition("(")[0]
        is_call = text.endswith(")") and head != "" and head.replace('"', "").isidentifier()
        return text if is_call else f"({text})"

    def index(
        self, table: Table, index: Index, *, pretty: bool = False, qualified: bool = True
    ) -> str:
        """CREATE INDEX as a statement."""
        columns = []
        for part in index.columns:
            text = self.index_column(table, part, pretty=pretty)
            if part.descending:
                text += " DESC" if part.nulls_first else " DESC NULLS LAST"
            elif part.nulls_first:
                text += " NULLS FIRST"
            columns.append(text)
        on = (
            quote_qualified(*self._snapshot.qualified_name(table))
            if qualified
            else self.name(table)
        )
        unique = "UNIQUE " if index.unique else ""
        text = (
            f"CREATE {unique}INDEX {quote_identifier(index.name)} ON {on} USING {index.method}"
            f" ({', '.join(columns)})"
        )
        if index.include:
            text += f" INCLUDE ({_column_list(table, index.include)})"
        if index.options:
            options = (option.split("=", 1) for option in index.options)
            text += " WITH (" + ", ".join(f"{name}='{value}'" for name, value in options) + ")"
        if index.predicate is not None:
            text += f" WHERE {self.expression(table, index.predicate, pretty=pretty)}"
        return text

    # ---- constraints -----------------------------------------------------------------------------

    def key(self, table: Table, index: Index) -> str:
        """PRIMARY KEY or UNIQUE as a clause."""
        word = "PRIMARY KEY" if index.primary else "UNIQUE"
        columns = _column_list(table, [part.column_id for part in index.columns])
        text = f"{word} ({columns})"
        if index.include:
            text += f" INCLUDE ({_column_list(table, index.include)})"
        return text

    def check(self, table: Table, check: Check, *, pretty: bool = False) -> str:
        """CHECK as a clause."""
        text = f"CHECK ({self.expression(table, check.expression, pretty=pretty)})"
        return text if check.validated else text + " NOT VALID"

    def foreign_key(self, table: Table, key: ForeignKey) -> str:
        """FOREIGN KEY as a clause."""
        target = self._snapshot.table_by_id(key.target)
        assert target is not None, "a referenced table cannot be dropped alone"
        text = (
            f"FOREIGN KEY ({_column_list(table, key.columns)}) REFERENCES"
            f" {self.name(target)}({_column_list(target, key.target_columns)})"
        )
        if key.match_full:
            text += " MATCH FULL"
        if key.on_update != "a":
            text += f" ON UPDATE {_ACTIONS[key.on_update]}"
        if key.on_delete != "a":
            text += f" ON DELETE {_ACTIONS[key.on_delete]}"
        if key.deferrable:
            text += " DEFERRABLE"
        if key.initially_deferred:
            text += " INITIALLY DEFERRED"
        return text if key.validated else text + " NOT VALID"

    def constraint(self, oid: int, *, pretty: bool = False) -> str | None:
        """The clause of the constraint with an oid."""
        for table in self._snapshot.tables():
            for index in table.indexes:
                if index.constraint and index.constraint_oid == oid:
                    return self.key(table, index)
            for check in table.checks:
                if check.oid == oid:
                    return self.check(table, check, pretty=pretty)
            for key in table.foreign_keys:
                if key.oid == oid:
                    return self.foreign_key(table, key)
        return None

    # ---- views -----------------------------------------------------------------------------------

    def view(self, view: View) -> str:
        """The view's query."""
        return f" {view.query};"


def _column_name(table: Table, column_id: int) -> str:
    return next(column.name for column in table.columns if column.id == column_id)


def _column_list(table: Table, ids: Sequence[int]) -> str:
    return ", ".join(quote_identifier(_column_name(table, column_id)) for column_id in ids)
