"""Writing all rows of a table into a new storage: under the lock that keeps everybody away, or beside writers.

Beside writers, under a lock that only keeps other DDL away: the rows of one moment are copied, then what was committed
since is applied in rounds until little is left. Then everybody is kept away, for the last round and the new descriptor.
A row's versions tell what was committed since (`txn.feed`, which keeps them from being collected), so that writers pay
nothing for it. A failure leaves the marker under which all of it was written (`bulk`), and the rows are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import ROWID_COLUMN, Table
from shardforge.sql.ddl.backfill import Evaluate
from shardforge.sql.ddl.bulk import BulkWriter
from shardforge.sql.ddl.catchup import catch_up
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.ddl.conversion import Conversion, copy
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.txn.feed import COALESCE_SECONDS, Feed

ROWS_UNDER_THE_LOCK: Final = 1000
"""A table of no more rows is rewritten under the lock: it takes less than a round beside writers."""
BATCH_BESIDE_WRITERS: Final = 500
"""Rows and entries a commit: nobody else runs while one is made ready and applied."""
LAST_ROUND_CHANGES: Final = 200
ROUNDS_MAX: Final = 20
"""When writers are as fast as the rounds, these end here."""


async def rewrite(ddl: Ddl, old: Table, new: Table, columns: Sequence[Evaluate | None]) -> Table:
    """Write every row of `old` into a new storage in the layout of `new`, with all its indexes.

    `columns` gives each column of the new layout from an old row; None: a fresh row number. Unless the table is locked
    exclusively already, where a row goes to must not be volatile. Raises: 23505, 23502.
    """
    new = replace(
        new, storage_id=await ddl.new_oid(), epoch=old.epoch + 1, version=old.version + 1,
        layouts=(new.layouts[-1],), columns=tuple(replace(c, missing=None) for c in new.columns),
    )  # fmt: skip
    conversion = Conversion(ddl, old, new, columns)
    marker = codec.Dropped(new)
    if ddl.admits_writers(old):
        writer = BulkWriter(ddl, marker, BATCH_BESIDE_WRITERS)
        await _copy_beside_writers(ddl, conversion, writer)
    else:
        writer = BulkWriter(ddl, marker)
        await copy(ddl, conversion, writer)
    await writer.finish()
    if conversion.numbered < 0 and ROWID_COLUMN in conversion.rows.position:
        await ddl.store.sequences.continue_rowids(new.storage_id, old.storage_id or old.id)
    await ddl.mark_dropped(old)
    await ddl.put(new)
    return new


async def _copy_beside_writers(ddl: Ddl, conversion: Conversion, writer: BulkWriter) -> None:
    """As `copy`, and the table is locked exclusively from a moment in it on."""
    coordinator = ddl.store.coordinator
    space = IndexSpace(conversion.old, conversion.old.indexes[0])
    feed = Feed(coordinator, space.whole(), space.owner(), coordinator.oracle.last)
    try:
        reading = coordinator.begin_past(feed.position)
        try:
            await copy(ddl, conversion, writer, reading)
        finally:
            await reading.rollback()
        await writer.flush()
        for _ in range(ROUNDS_MAX):
            if await catch_up(ddl, feed, conversion, writer) <= LAST_ROUND_CHANGES:
                break
        await ddl.lock_exclusively(conversion.old)
        last = await coordinator.oracle.next()
        while feed.position < last:
            await catch_up(ddl, feed, conversion, writer)
            if feed.position < last:  # a commit is known to its client and not applied everywhere
                await feed.wait(COALESCE_SECONDS)
    finally:
        feed.close()
