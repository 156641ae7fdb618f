"""Work over all rows of a table: building an index, verifying a new constraint, counting; for rewriting see `rewrite`.

The table is locked against writers, so its rows are those of the newest committed versions and the transaction's own
writes; or another transaction gives the snapshot that is read.
Source: PostgreSQL 15, src/backend/commands/tablecmds.c, catalog/index.c.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import Check, ForeignKey, Index, Table
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl.bulk import BulkWriter, DuplicateKeyError
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.ddl.names import schema_of
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.execute.rowwriter import IndexWriter, RowWriter, row_codec, stored_positions
from shardforge.sql.functions.waiting import waited
from shardforge.sql.types.registry import output_function
from shardforge.txn.coordinator import Isolation, Transaction

ROWS_A_TURN: Final = 100
"""What is done with them takes some milliseconds, in which nobody else runs."""

Row = tuple[Any, ...]
Evaluate = Callable[[Row], Any]


def row_writer(ddl: Ddl, table: Table) -> RowWriter:
    """Keys, entries and codec of the table's rows, with its index expressions bound."""
    bound: dict[int, list[tree.Expression | None]] = {
        index.id: [
            None if part.expression is None else expressions.bind(ddl, table, part.expression)
            for part in index.columns
        ]
        for index in table.indexes
    }
    predicates: dict[int, tree.Expression] = {
        index.id: expressions.bind(ddl, table, index.predicate)
        for index in table.indexes
        if index.predicate is not None
    }
    return RowWriter(table, bound, predicates)


async def _scan(
    ddl: Ddl, table: Table, reading: Transaction | None = None
) -> AsyncGenerator[list[tuple[bytes, bytes]], None]:
    """Chunks of (row key, row bytes), every row of the table once."""
    transaction = reading or _newest(ddl, table)
    space = IndexSpace(table, table.indexes[0])
    owns = space.owner()
    for start, end in space.whole():
        async with aclosing(transaction.scan(start, end)) as chunks:
            async for chunk in chunks:
                yield chunk if owns is None else [pair for pair in chunk if owns(pair[0])]


def _newest(ddl: Ddl, table: Table) -> Transaction:
    """The statement's own transaction, about to read what is newest."""
    transaction = ddl.transaction
    if transaction.isolation is Isolation.READ_COMMITTED:
        transaction.begin_statement()
    elif transaction.snapshot and (table.version > 1 or ddl.is_committed(table)):
        raise unsupported(
            "a change of a table's rows in a REPEATABLE READ or SERIALIZABLE transaction that has read already"
        )
    return transaction


async def scan_rows(
    ddl: Ddl, table: Table, reading: Transaction | None = None
) -> AsyncGenerator[list[tuple[bytes, Row]], None]:
    """Chunks of (row key, row in the newest layout), every row of the table once; as `reading` sees them."""
    decode = row_codec(table).decode
    async with aclosing(_scan(ddl, table, reading)) as chunks:
        async for chunk in chunks:
            for start in range(0, len(chunk), ROWS_A_TURN):
                part = chunk[start : start + ROWS_A_TURN]
                yield [(key, decode(value)) for key, value in part]
                await asyncio.sleep(0)  # a scan in memory never waits: let others run


async def count_rows(ddl: Ddl, table: Table) -> int:
    """How many rows the table has."""
    total = 0
    async for chunk in _scan(ddl, table):
        total += len(chunk)
        await asyncio.sleep(0)
    return total


async def has_rows(ddl: Ddl, table: Table, *, more_than: int = 0) -> bool:
    """Whether the table has a row, or more than so many."""
    found = 0
    async with aclosing(_scan(ddl, table)) as chunks:
        async for chunk in chunks:
            found += len(chunk)
            if found > more_than:
                return True
    return False


# ---- expressions over rows -----------------------------------------------------------------------


def evaluator(ddl: Ddl, table: Table, expression: tree.Expression) -> Evaluate:
    """An expression over the table's columns as a function of a row in its newest layout."""
    layout = {tree.ColumnId(i): at for i, at in stored_positions(table).items()}
    compiled = compile_expression(expression, layout)
    context = ddl.ctx.execution
    return lambda row: compiled(row, context)


async def evaluate(ddl: Ddl, function: Evaluate, row: Row) -> Any:
    """The function's value, waiting for sequence values where it needs them."""
    return await waited(lambda: function(row), ddl.ctx.execution.eval)


# ---- indexes -------------------------------------------------------------------------------------


def duplicate(ddl: Ddl, table: Table, index: Index, values: Sequence[Any]) -> QueryError:
    """The error for two rows with the same unique key."""
    by_id = {c.id: c.name for c in table.columns}
    names = ", ".join(by_id.get(part.column_id) or str(part.expression) for part in index.columns)
    return QueryError(
        f'could not create unique index "{index.name}"', "23505",
        detail=f"Key ({names})=({shown_values(ddl, table, index, values)}) is duplicated.",
        schema=schema_of(ddl, table).name, table=table.name, constraint=index.name,
    )  # fmt: skip


def shown_values(ddl: Ddl, table: Table, index: Index, values: Sequence[Any]) -> str:
    """Key values as messages show them."""
    types = {c.id: c.type_oid for c in table.columns}
    texts = []
    for part, value in zip(index.columns, values, strict=True):
        oid = types.get(part.column_id, part.type_oid)
        texts.append("null" if value is None else output_function(oid, ddl.ctx.settings)(value))
    return ", ".join(texts)


async def build_index(ddl: Ddl, table: Table, index: Index) -> Table:
    """Write the entries of the table's new index, then the descriptor. Raises: 23505."""
    table = replace(table, version=table.version + 1)
    entries = next(w for w in row_writer(ddl, table).indexes if w.index.id == index.id)
    context = ddl.ctx.execution
    writer = BulkWriter(ddl, codec.Dropped(table, (index.number,)))
    try:
        async for chunk in scan_rows(ddl, table):
            for row_key, row in chunk:
                found = entries.entry(row, context)
                if found is not None and writer.add(found.key, row_key, unique=index.unique):
                    await writer.flush()
        await writer.verify()
    except DuplicateKeyError:
        raise await _found_twice(ddl, table, entries) from None
    await writer.finish()
    await ddl.put(table)
    return table


async def _found_twice(ddl: Ddl, table: Table, entries: IndexWriter) -> QueryError:
    """The error for two rows with the same entry: look for them again, to show its values."""
    context = ddl.ctx.execution
    seen: set[bytes] = set()
    async for chunk in scan_rows(ddl, table):
        for _, row in chunk:
            found = entries.entry(row, context)
            if found is None or not found.unique:
                continue
            if found.key in seen:
                return duplicate(ddl, table, entries.index, entries.values(row, context))
            seen.add(found.key)
    raise AssertionError("the duplicate's rows are in the table, which is locked")


# ---- verifying -----------------------------------------------------------------------------------


def contains_nulls(ddl: Ddl, table: Table, column: str) -> QueryError:
    """The error for a NOT NULL that rows already break."""
    return QueryError(
        f'column "{column}" of relation "{table.name}" contains null values', "23502",
        schema=schema_of(ddl, table).name, table=table.name, column=column,
    )  # fmt: skip


async def verify_check(ddl: Ddl, table: Table, check: Check) -> None:
    """23514 when a row does not satisfy the check."""
    holds = evaluator(ddl, table, expressions.bind(ddl, table, check.expression))
    async for chunk in scan_rows(ddl, table):
        for _, row in chunk:
            if holds(row) is False:
                raise QueryError(
                    f'check constraint "{check.name}" of relation "{table.name}" is violated by some row',
                    "23514", schema=schema_of(ddl, table).name, table=table.name, constraint=check.name,
                )  # fmt: skip


async def verify_not_null(ddl: Ddl, table: Table, column_id: int, name: str) -> None:
    """23502 when a row has NULL in the column."""
    position = stored_positions(table)[column_id]
    async for chunk in scan_rows(ddl, table):
        if any(row[position] is None for _, row in chunk):
            raise contains_nulls(ddl, table, name)


async def verify_foreign_key(ddl: Ddl, table: Table, key: ForeignKey, target: Table) -> None:
    """23503 when a row's key is not in the referenced table."""
    index = next(
        i for i in target.indexes
        if i.unique and i.predicate is None
        and sorted(p.column_id for p in i.columns) == sorted(key.target_columns)
    )  # fmt: skip
    reference = IndexSpace(target, index)
    source = dict(zip(key.target_columns, key.columns, strict=True))
    position = stored_positions(table)
    places = [position[source[part.column_id]] for part in index.columns]
    by_column = {part.column_id: at for at, part in enumerate(index.columns)}
    shard = [by_column[column_id] for column_id in reference.shard_key]
    async for chunk in scan_rows(ddl, table):
        wanted = [[row[p] for p in places] for _, row in chunk]
        for values in wanted:
            if key.match_full and any(v is None for v in values) and any(values):
                raise _dangling(ddl, table, key, target, None)
        complete = [values for values in wanted if None not in values]
        keys = [reference.unique_key(values, [values[p] for p in shard]) for values in complete]
        found = await ddl.transaction.get_many(keys)
        for values, present in zip(complete, found, strict=True):
            if present is None:
                by_target = dict(zip((p.column_id for p in index.columns), values, strict=True))
                ordered = [by_target[column_id] for column_id in key.target_columns]
                raise _dangling(ddl, table, key, target, ordered)


def _dangling(
    ddl: Ddl, table: Table, key: ForeignKey, target: Table, values: list[Any] | None
) -> QueryError:
    by_id = {c.id: c for c in table.columns}
    columns = [by_id[column_id] for column_id in key.columns]
    if values is None:
        detail = "MATCH FULL does not allow mixing of null and nonnull key values."
    else:
        texts = [
            output_function(column.type_oid, ddl.ctx.settings)(value)
            for column, value in zip(columns, values, strict=True)
        ]
        names = ", ".join(column.name for column in columns)
        detail = f'Key ({names})=({", ".join(texts)}) is not present in table "{target.name}".'
    return QueryError(
        f'insert or update on table "{table.name}" violates foreign key constraint "{key.name}"',
        "23503", detail=detail, schema=schema_of(ddl, table).name, table=table.name, constraint=key.name,
    )  # fmt: skip
