"""What others commit to a table while its rows are copied, applied to the copy.

A change takes out what is stored of the row as it was, and stores it as it is. Several changes of one row count as one.
What was stored is read there and not computed again: a volatile default had another value then.

Invariant: commits are applied whole, so that no unique value that moves from one row to another is there twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Final

from shardforge.sql.ddl.backfill import Row
from shardforge.sql.ddl.bulk import BulkWriter
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.ddl.conversion import Conversion, Pair
from shardforge.txn.coordinator import Isolation, Transaction
from shardforge.txn.feed import Change, Feed, changes

CHANGES_A_COMMIT: Final = 1000
"""A transaction that made more is applied in several commits, and held in memory till then."""


async def catch_up(ddl: Ddl, feed: Feed, conversion: Conversion, writer: BulkWriter) -> int:
    """Apply what was committed up to now, and tell how many changes that was. Raises what copying raises."""
    applied = 0
    async with aclosing(_portions(feed)) as portions:
        async for portion in portions:
            await _apply(ddl, portion, conversion, writer)
            applied += len(portion)
    return applied


async def _portions(feed: Feed) -> AsyncGenerator[list[Change], None]:
    """The changes in order, cut between commits."""
    portion: list[Change] = []
    async for batch in changes(feed):
        for change in batch:
            if len(portion) >= CHANGES_A_COMMIT and change.timestamp != portion[-1].timestamp:
                yield portion
                portion = []
            portion.append(change)
    if portion:
        yield portion


async def _apply(
    ddl: Ddl, portion: Sequence[Change], conversion: Conversion, writer: BulkWriter
) -> None:
    before = {change.key: change.before for change in reversed(portion)}.values()
    after = {change.key: change.after for change in portion}.values()
    if len(portion) <= CHANGES_A_COMMIT:
        await _exchange(ddl, before, after, conversion, writer)
        return
    # Too many for one commit here: everything is taken out before anything is stored.
    for some in _pieces(before):
        await _exchange(ddl, some, (), conversion, writer)
    for some in _pieces(after):
        await _exchange(ddl, (), some, conversion, writer)


def _pieces(images: Iterable[bytes | None]) -> Iterator[list[bytes | None]]:
    left = iter(images)
    while piece := list(islice(left, CHANGES_A_COMMIT)):
        yield piece


async def _exchange(
    ddl: Ddl, before: Iterable[bytes | None], after: Iterable[bytes | None], conversion: Conversion,
    writer: BulkWriter,
) -> None:  # fmt: skip
    """Take out what is stored of these rows, and store these, in one commit."""
    decode = conversion.decode
    reading = ddl.store.coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
    try:
        old = [decode(data) for data in before if data is not None]
        gone = await _stored(ddl, reading, conversion, old)
        new = [decode(data) for data in after if data is not None]
        come = await _to_store(ddl, reading, conversion, new, gone)
    finally:
        await reading.rollback()
    writes: dict[bytes, bytes | None] = dict.fromkeys(gone.keys() - come.keys())
    writes.update((key, value) for key, value in come.items() if gone.get(key) != value)
    await writer.change(writes)


async def _stored(
    ddl: Ddl, reading: Transaction, conversion: Conversion, old: Iterable[Row]
) -> dict[bytes, bytes]:
    """What is stored of these rows, entries too."""
    rows, context = conversion.rows, ddl.ctx.execution
    stored: dict[bytes, bytes] = {}
    keys = [await conversion.key(source) for source in old]
    for key, value in zip(keys, await _read(ddl, reading, keys), strict=True):
        assert value is not None, "the row was copied, or stored when it came"
        stored[key] = value
        for entry in rows.entries(rows.decode(value), context):
            stored[entry.key] = key
    return stored


async def _to_store(
    ddl: Ddl, reading: Transaction, conversion: Conversion, new: Iterable[Row],
    gone: dict[bytes, bytes],
) -> dict[bytes, bytes]:  # fmt: skip
    """What is to be stored of these rows once what is gone is out. Raises: 23505."""
    come: dict[bytes, bytes] = {}
    doubtful: dict[bytes, tuple[Pair, Row]] = {}
    for source in new:
        row = await conversion.row(source)
        for pair in conversion.pairs(row):
            if pair.key in come:
                raise conversion.duplicate(pair.by, row)
            come[pair.key] = pair.value
            if pair.unique and pair.key not in gone:
                doubtful[pair.key] = (pair, row)
    for key, value in zip(doubtful, await _read(ddl, reading, list(doubtful)), strict=True):
        if value is not None:
            pair, row = doubtful[key]
            raise conversion.duplicate(pair.by, row)
    return come


async def _read(ddl: Ddl, reading: Transaction, keys: Sequence[bytes]) -> list[bytes | None]:
    await ddl.store.coordinator.fetch(keys)  # those of other nodes' shards together
    return await reading.get_many(keys)
