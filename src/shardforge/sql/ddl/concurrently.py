"""CREATE INDEX CONCURRENTLY: an index that is built while clients write to the table.

First the index is declared in a transaction of its own, "write_only": once the lock against writers is let go, every
statement keeps it up, and none reads it. Then the rows that were there before get their entries, a batch at a time:
each batch locks its rows for share, so that nobody changes one while its entry is written, and takes them as they are
by then. At last the index is made public. What fails on the way leaves an index that is not valid, to be dropped.
Source: PostgreSQL 15, chapter "CREATE INDEX" (Building Indexes Concurrently); Rae et al., "Online, Asynchronous Schema
Change in F1", section 3.2 (delete-only and write-only states; writers here change over at one moment).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from shardforge.errors import DatabaseError, QueryError
from shardforge.ids import TableId
from shardforge.sql.catalog.descriptors import Index, Table
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl.backfill import duplicate, row_writer
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.create_index import define_index
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.execute.rowwriter import IndexWriter, RowWriter
from shardforge.txn.coordinator import Isolation, LockStrength, Transaction, WaitPolicy

ROWS_A_BATCH: Final = 200
"""Their writers wait for one commit."""
ATTEMPTS: Final = 100
_AGAIN: Final = {"40001", "40P01"}


async def declare(ddl: Ddl, node: Node) -> tuple[TableId, TableId] | None:
    """Add the index, kept up from this transaction's end on. The table's id and the index's; None: nothing to do."""
    defined = await define_index(ddl, node)
    if defined is None:
        return None
    table, index = defined
    indexes = tuple(
        replace(one, state="write_only") if one.id == index.id else one for one in table.indexes
    )
    await ddl.put(replace(table, indexes=indexes, version=table.version + 1))
    return table.id, index.id


async def complete(ddl: Ddl, table_id: TableId, index_id: TableId) -> None:
    """Write the entries of the rows that are there, and make the index public. Raises: 23505, 42P01."""
    table = ddl.catalog.table_by_id(table_id)
    if table is not None:
        table = await ddl.lock(table, TableLockMode.SHARE_UPDATE_EXCLUSIVE)
    index = next((i for i in table.indexes if i.id == index_id), None) if table else None
    if table is None or index is None:
        raise QueryError("the index was dropped while it was built", "42P01")
    await _fill(ddl, table, index)
    indexes = tuple(
        replace(one, state="public") if one.id == index_id else one for one in table.indexes
    )
    ddl.store.note_unseen([index_id])
    await ddl.put(replace(table, indexes=indexes, version=table.version + 1))


async def _fill(ddl: Ddl, table: Table, index: Index) -> None:
    rows = row_writer(ddl, table)
    entries = next(writer for writer in rows.indexes if writer.index.id == index.id)
    space = IndexSpace(table, table.indexes[0])
    owns = space.owner()
    reading = ddl.store.coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
    try:
        async for chunk in reading.scan_spans(space.whole()):
            keys = [key for key, _ in chunk if owns is None or owns(key)]
            for start in range(0, len(keys), ROWS_A_BATCH):
                await _fill_batch(ddl, rows, entries, keys[start : start + ROWS_A_BATCH])
    finally:
        await reading.rollback()


async def _fill_batch(
    ddl: Ddl, rows: RowWriter, entries: IndexWriter, keys: Sequence[bytes]
) -> None:
    """Once more, should a writer get in the way."""
    for attempt in range(1, ATTEMPTS + 1):
        transaction = ddl.store.coordinator.begin(Isolation.READ_COMMITTED)
        try:
            await _write_entries(ddl, transaction, rows, entries, keys)
            await transaction.commit()
        except DatabaseError as error:
            await transaction.rollback()
            if error.sqlstate not in _AGAIN or attempt == ATTEMPTS:
                raise
        except BaseException:
            await transaction.rollback()
            raise
        else:
            return


async def _write_entries(
    ddl: Ddl, transaction: Transaction, rows: RowWriter, entries: IndexWriter, keys: Sequence[bytes]
) -> None:
    """Of the rows under `keys`, as they are now."""
    unique: dict[bytes, tuple[bytes, Sequence[object]]] = {}
    context = ddl.ctx.execution
    for locked in await transaction.lock(keys, LockStrength.SHARE, WaitPolicy.BLOCK):
        if locked.value is None:
            continue  # it was deleted meanwhile
        row = rows.decode(locked.value)
        found = entries.entry(row, context)
        if found is None:
            continue
        if not found.unique:
            transaction.put(found.key, locked.key, blind=True)
            continue
        values = entries.values(row, context)
        if found.key in unique:
            raise duplicate(ddl, rows.table, entries.index, values)
        unique[found.key] = (locked.key, values)
    wanted = sorted(unique)
    for entry in await transaction.lock(wanted, LockStrength.UPDATE, WaitPolicy.BLOCK):
        row_key, values = unique[entry.key]
        if entry.value is None:
            transaction.put(entry.key, row_key)
        elif entry.value != row_key:
            raise duplicate(ddl, rows.table, entries.index, values)
