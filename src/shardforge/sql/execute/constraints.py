"""NOT NULL, CHECK and UNIQUE, with PostgreSQL's messages and error fields.

Source: PostgreSQL 15, ExecConstraints and ExecBuildSlotValueDescription (execMain.c), _bt_check_unique (nbtinsert.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import ROWID_COLUMN, Index, Table
from shardforge.sql.execute.context import Row
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.execute.keyspace import column_of
from shardforge.sql.execute.rowwriter import RowWriter
from shardforge.sql.plan.nodes import TableChange
from shardforge.sql.types.registry import output_function

SHOWN_CHARACTERS = 64


def shown_row(table: Table, attnums: Sequence[int], row: Row, settings: Any) -> str:
    """A row as error details show it: long values are cut."""
    parts = []
    columns = {column.id: column for column in table.columns}
    for attnum, value in zip(attnums, row, strict=True):
        column = columns.get(attnum)
        if column is None or column.dropped or attnum == ROWID_COLUMN:
            continue
        text = "null" if value is None else output_function(column.type_oid, settings)(value)
        parts.append(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")
    return f"Failing row contains ({', '.join(parts)})."


def shown_key(table: Table, attnums: Sequence[int], values: Sequence[Any], settings: Any) -> str:
    """`(a, b)=(1, 2)`."""
    columns = [column_of(table, attnum) for attnum in attnums]
    names = ", ".join(column.name for column in columns)
    return f"({names})=({_shown_values([c.type_oid for c in columns], values, settings)})"


def _shown_values(types: Sequence[int], values: Sequence[Any], settings: Any) -> str:
    return ", ".join(
        "null" if value is None else output_function(oid, settings)(value)
        for oid, value in zip(types, values, strict=True)
    )


def unique_violation(
    change: TableChange, writer: RowWriter, index: Index, row: Row, ctx: Any
) -> QueryError:
    """23505: the key is another row's."""
    table = change.table
    if index.primary:
        values: Sequence[Any] = [row[writer.position[p.column_id]] for p in index.columns]
        types = [oid for oid, _, _ in writer.primary.columns]
    else:
        found = next(w for w in writer.indexes if w.index.id == index.id)
        values, types = found.values(row, ctx), [oid for oid, _, _ in found.space.columns]
    names = ", ".join(
        column_of(table, part.column_id).name if part.column_id else (part.expression or "")
        for part in index.columns
    )
    shown = _shown_values(types, values, ctx.eval.settings)
    return QueryError(
        f'duplicate key value violates unique constraint "{index.name}"',
        "23505",
        detail=f"Key ({names})=({shown}) already exists.",
        schema=change.schema,
        table=table.name,
        constraint=index.name,
    )


class RowRules:
    """What every new row of a table must fulfil, and its generated columns."""

    def __init__(self, change: TableChange, writer: RowWriter) -> None:
        self._change = change
        self._writer = writer
        table = change.table
        self._not_null = [
            (writer.position[column.id], column)
            for column in table.columns
            if column.not_null and column.id in writer.position
        ]
        self._not_null_offsets = [offset for offset, _ in self._not_null]
        self._checks = [
            (name, compile_expression(condition, writer.layout))
            for name, condition in sorted(change.checks)
        ]
        self._generated = [
            (writer.position[attnum], compile_expression(value, writer.layout))
            for attnum, value in change.generated
        ]
        self.trivial = not self._checks and not self._generated

    def completed(self, row: Row, ctx: Any) -> Row:
        """The row with its generated columns. Raises: 23502, 23514."""
        if self._generated:
            values = list(row)
            for offset, function in self._generated:
                values[offset] = function(row, ctx)
            row = tuple(values)
        if None in row:
            for offset in self._not_null_offsets:
                if row[offset] is None:
                    raise self._null(row, ctx)
        for name, check in self._checks:
            if check(row, ctx) is False:
                raise self._failed(name, row, ctx)
        return row

    def _null(self, row: Row, ctx: Any) -> QueryError:
        table = self._change.table
        column = next(column for offset, column in self._not_null if row[offset] is None)
        return QueryError(
            f'null value in column "{column.name}" of relation "{table.name}" violates not-null constraint',
            "23502",
            detail=shown_row(table, self._writer.attnums, row, ctx.eval.settings),
            schema=self._change.schema,
            table=table.name,
            column=column.name,
        )

    def _failed(self, name: str, row: Row, ctx: Any) -> QueryError:
        table = self._change.table
        return QueryError(
            f'new row for relation "{table.name}" violates check constraint "{name}"',
            "23514",
            detail=shown_row(table, self._writer.attnums, row, ctx.eval.settings),
            schema=self._change.schema,
            table=table.name,
            constraint=name,
        )
