"""Work over all rows of a table: building an index, rewriting the rows, verifying a new constraint, counting.

The table is locked against writers, so its rows are those of the newest committed versions and the transaction's own
writes. Source: PostgreSQL 15, src/backend/commands/tablecmds.c (ATRewriteTable), catalog/index.c.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import ROWID_COLUMN, Check, ForeignKey, Index, Table
from shardforge.sql.catalog.sequences import SequenceWait
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl.bulk import BulkWriter, DuplicateKeyError
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.execute.tablestore import IndexKeys, TableStore, table_store
from shardforge.sql.types.registry import output_function
from shardforge.txn.coordinator import Isolation

Row = Sequence[Any]
Evaluate = Callable[[Row], Any]
_COLOCATED: Final = (b"g", b"h")


async def scan_rows(ddl: Ddl, table: Table) -> AsyncIterator[list[tuple[bytes, Row]]]:
    """Chunks of (row key, row in the newest layout), every row of the table once."""
    transaction = ddl.transaction
    if transaction.isolation is Isolation.READ_COMMITTED:
        transaction.begin_statement()
    elif transaction.snapshot and table.version > 1:
        raise unsupported(
            "a change of a table's rows in a REPEATABLE READ or SERIALIZABLE transaction that has read already"
        )
    store = table_store(table)
    decode = store.codec.decode
    if store.primary.hashed or table.sharding.kind == "range":
        for start, end in store.table_spans():
            async for chunk in transaction.scan(start, end):
                yield [(key, decode(value)) for key, value in chunk]
        return
    place = table.storage_id.to_bytes(4, "big") + store.primary.index.number.to_bytes(4, "big")
    async for chunk in transaction.scan(*_COLOCATED):
        found = [(k, v) for k, v in chunk if place in k]
        rows = [(key, row) for key, value in found if (row := _own_row(store, key, value))]
        if rows:
            yield rows


def _own_row(store: TableStore, key: bytes, value: bytes) -> Row | None:
    """The row, if the key is one of this table: tables with one shard key lie between each other."""
    try:
        row: Row = store.codec.decode(value)
        return row if store.row_key(row) == key else None
    except Exception:  # noqa: BLE001 - another table's bytes read with this table's codec may fail in any way
        return None


async def count_rows(ddl: Ddl, table: Table) -> int:
    """How many rows the table has."""
    total = 0
    async for chunk in scan_rows(ddl, table):
        total += len(chunk)
    return total


async def has_rows(ddl: Ddl, table: Table) -> bool:
    """Whether the table has a row."""
    async for chunk in scan_rows(ddl, table):
        if chunk:
            return True
    return False


# ---- expressions over rows -----------------------------------------------------------------------


def evaluator(ddl: Ddl, table: Table, expression: tree.Expression) -> Evaluate:
    """An expression over the table's columns as a function of a row in its newest layout."""
    layout = {
        tree.ColumnId(column_id): position
        for position, (column_id, _) in enumerate(table.layouts[-1])
    }
    compiled = compile_expression(expression, layout)
    context = ddl.ctx.execution
    return lambda row: compiled(row, context)


async def evaluate(function: Evaluate, row: Row) -> Any:
    """The function's value, waiting for sequence values where it needs them."""
    while True:
        try:
            return function(row)
        except SequenceWait as wait:
            await wait.wait()


# ---- indexes -------------------------------------------------------------------------------------


class IndexEntries:
    """The entries of one index over rows of its table."""

    def __init__(self, ddl: Ddl, table: Table, index: Index) -> None:
        self._store = table_store(table)
        self.keys: IndexKeys = self._store.keys_of(index)
        self.index = index
        self._columns = [self._column(ddl, table, part) for part in index.columns]
        self._predicate = None
        if index.predicate is not None:
            bound = expressions.bind(ddl, table, index.predicate)
            self._predicate = evaluator(ddl, table, bound)

    def _column(self, ddl: Ddl, table: Table, part: Any) -> Evaluate:
        if part.column_id:
            position = self._store.positions[part.column_id]
            return lambda row: row[position]
        return evaluator(ddl, table, expressions.bind(ddl, table, part.expression))

    def values(self, row: Row) -> tuple[Any, ...] | None:
        """The index columns of a row; None when the index leaves it out."""
        if self._predicate is not None and self._predicate(row) is not True:
            return None
        return tuple([column(row) for column in self._columns])

    def entry(self, row: Row, values: tuple[Any, ...]) -> tuple[bytes, bool]:
        """(key, whether it must be unique) of the row's entry."""
        return self.keys.entry(values, self._store.encoded_primary(row))


def duplicate(ddl: Ddl, table: Table, index: Index, values: Sequence[Any]) -> QueryError:
    """The error for two rows with the same unique key."""
    by_id = {c.id: c.name for c in table.columns}
    names = ", ".join(by_id.get(part.column_id) or str(part.expression) for part in index.columns)
    return QueryError(
        f'could not create unique index "{index.name}"', "23505",
        detail=f"Key ({names})=({shown_values(ddl, table, index, values)}) is duplicated.",
        table=table.name, constraint=index.name,
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
    entries = IndexEntries(ddl, table, index)
    writer = BulkWriter(ddl, codec.Dropped(table.storage_id, table.sharding.kind, (index.number,)))
    seen: dict[bytes, tuple[Any, ...]] = {}
    async for chunk in scan_rows(ddl, table):
        for row_key, row in chunk:
            values = entries.values(row)
            if values is None:
                continue
            key, unique = entries.entry(row, values)
            seen[key] = values
            await _add(ddl, table, index, writer, seen, key, row_key, unique=unique)
        seen.clear()
    try:
        await writer.finish()
    except DuplicateKeyError as failure:
        raise await _found_twice(ddl, table, index, failure.key) from None
    await ddl.put(table)
    return table


async def _add(
    ddl: Ddl, table: Table, index: Index, writer: BulkWriter, seen: dict[bytes, tuple[Any, ...]],
    key: bytes, value: bytes, *, unique: bool,
) -> None:  # fmt: skip
    try:
        await writer.add(key, value, unique=unique)
    except DuplicateKeyError as failure:
        if failure.key in seen:
            raise duplicate(ddl, table, index, seen[failure.key]) from None
        raise await _found_twice(ddl, table, index, failure.key) from None


async def _found_twice(ddl: Ddl, table: Table, index: Index, key: bytes) -> QueryError:
    """The error for a duplicate whose row is no longer at hand: look for it."""
    entries = IndexEntries(ddl, table, index)
    async for chunk in scan_rows(ddl, table):
        for _, row in chunk:
            values = entries.values(row)
            if values is not None and entries.entry(row, values)[0] == key:
                return duplicate(ddl, table, index, values)
    return QueryError(f'could not create unique index "{index.name}"', "23505")


# ---- rewriting -----------------------------------------------------------------------------------


async def rewrite(ddl: Ddl, old: Table, new: Table, columns: Sequence[Evaluate | None]) -> Table:
    """Write every row of `old` into a new storage in the layout of `new`, with all its indexes.

    `columns` gives each column of the new layout from an old row; None: a fresh row number. Raises: 23505, 23502.
    """
    storage_id = await ddl.new_oid()
    new = replace(
        new, storage_id=storage_id, epoch=old.epoch + 1, version=old.version + 1,
        layouts=(new.layouts[-1],), columns=tuple(replace(c, missing=None) for c in new.columns),
    )  # fmt: skip
    store = table_store(new)
    indexes = [IndexEntries(ddl, new, index) for index in new.indexes[1:]]
    writer = BulkWriter(ddl, codec.Dropped(storage_id, new.sharding.kind, ()))
    required = [
        (store.positions[c.id], c.name) for c in new.columns if c.not_null and not c.dropped
    ]
    primary = new.indexes[0]
    async for chunk in scan_rows(ddl, old):
        for _, source in chunk:
            row = [await _new_value(ddl, storage_id, column, source) for column in columns]
            for position, name in required:
                if row[position] is None:
                    raise contains_nulls(new, name)
            await _write_row(ddl, new, store, primary, indexes, writer, row)
    try:
        await writer.finish()
    except DuplicateKeyError:
        raise QueryError(
            f'could not create unique index "{primary.name}"', "23505", table=new.name
        ) from None
    await ddl.mark_dropped(old)
    await ddl.put(new)
    return new


async def _write_row(
    ddl: Ddl, table: Table, store: TableStore, primary: Index, indexes: list[IndexEntries],
    writer: BulkWriter, row: Row,
) -> None:  # fmt: skip
    row_key = store.row_key(row)
    values = tuple(row[p] for p in store.primary_positions)
    at, at_values = primary, values
    try:
        await writer.add(row_key, store.codec.encode(row), unique=True)
        for entries in indexes:
            found = entries.values(row)
            if found is not None:
                at, at_values = entries.index, found
                key, unique = entries.entry(row, found)
                await writer.add(key, row_key, unique=unique)
    except DuplicateKeyError:
        raise duplicate(ddl, table, at, at_values) from None


async def _new_value(ddl: Ddl, storage_id: int, column: Evaluate | None, source: Row) -> Any:
    if column is None:
        return await ddl.store.sequences.rowid(storage_id)
    return await evaluate(column, source)


def contains_nulls(table: Table, column: str) -> QueryError:
    """The error for a NOT NULL that rows already break."""
    return QueryError(
        f'column "{column}" of relation "{table.name}" contains null values', "23502",
        table=table.name, column=column,
    )  # fmt: skip


def copied_columns(old: Table, new: Table) -> list[Evaluate | None]:
    """For `rewrite`: each column of the new layout that the old one has is copied; a new row number is drawn."""
    positions = {column_id: at for at, (column_id, _) in enumerate(old.layouts[-1])}
    columns: list[Evaluate | None] = []
    for column_id, _ in new.layouts[-1]:
        position = positions.get(column_id)
        if position is None:
            assert column_id == ROWID_COLUMN, "the caller gives the values of other new columns"
            columns.append(None)
        else:
            columns.append(_item(position))
    return columns


def _item(position: int) -> Evaluate:
    return lambda row: row[position]


# ---- verifying -----------------------------------------------------------------------------------


async def verify_check(ddl: Ddl, table: Table, check: Check) -> None:
    """23514 when a row does not satisfy the check."""
    holds = evaluator(ddl, table, expressions.bind(ddl, table, check.expression))
    async for chunk in scan_rows(ddl, table):
        for _, row in chunk:
            if holds(row) is False:
                raise QueryError(
                    f'check constraint "{check.name}" of relation "{table.name}" is violated by some row',
                    "23514", table=table.name, constraint=check.name,
                )  # fmt: skip


async def verify_not_null(ddl: Ddl, table: Table, column_id: int, name: str) -> None:
    """23502 when a row has NULL in the column."""
    position = table_store(table).positions[column_id]
    async for chunk in scan_rows(ddl, table):
        if any(row[position] is None for _, row in chunk):
            raise contains_nulls(table, name)


async def verify_foreign_key(ddl: Ddl, table: Table, key: ForeignKey, target: Table) -> None:
    """23503 when a row's key is not in the referenced table."""
    index = next(
        i for i in target.indexes
        if i.unique and i.predicate is None
        and sorted(p.column_id for p in i.columns) == sorted(key.target_columns)
    )  # fmt: skip
    reference = table_store(target).keys_of(index)
    source = dict(zip(key.target_columns, key.columns, strict=True))
    store = table_store(table)
    places = [store.positions[source[part.column_id]] for part in index.columns]
    async for chunk in scan_rows(ddl, table):
        wanted = [[row[p] for p in places] for _, row in chunk]
        for values in wanted:
            if key.match_full and any(v is None for v in values) and any(values):
                raise _dangling(ddl, table, key, target, None)
        complete = [values for values in wanted if None not in values]
        keys = [reference.key(values) for values in complete]
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
        "23503", detail=detail, table=table.name, constraint=key.name,
    )  # fmt: skip
