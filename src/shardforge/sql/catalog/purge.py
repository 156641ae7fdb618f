"""Removing the stored rows of tables and indexes that no longer exist.

DROP, TRUNCATE and rewrites leave a marker in the meta shard with their commit; rows are removed afterwards, a span that
is the table's alone by one command a shard, others in batches, and the marker last, so that a crash in between only
means that it is done again. Nobody can read these rows any more: their table's lock was held exclusively until the
marker was committed. Readers of the past on other nodes are told where it begins (`Clear.horizon`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from shardforge.ids import Timestamp
from shardforge.keys import prefix_end
from shardforge.sql.catalog import codec
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.txn.coordinator import (
    Coordinator,
    Isolation,
    LockStrength,
    Transaction,
    WaitPolicy,
)

Owns = Callable[[bytes], bool]
_BATCH: Final = 1000


def spaces_of(dropped: codec.Dropped) -> Iterator[IndexSpace]:
    """The key spaces to be emptied."""
    for index in dropped.table.indexes:
        if not dropped.indexes or index.number in dropped.indexes:
            yield IndexSpace(dropped.table, index)


async def purge(
    coordinator: Coordinator,
    building: dict[bytes, Transaction],
    pause: Callable[[], Awaitable[None]],
    *,
    limit: int = 100_000,
) -> int:
    """Remove what markers name; of spans shared with other tables up to about `limit` keys. 0: nothing is left.

    `pause` is awaited before: what other nodes read of the past moves on meanwhile, past the markers.
    """
    for key in [k for k, owner in building.items() if not owner.is_open]:
        del building[key]
    removed = 0
    markers, horizon = await _markers(coordinator)
    if markers:
        await pause()
    for key, dropped in markers:
        if key in building:
            continue
        for space in spaces_of(dropped):
            owns = space.owner()
            if owns is None:
                await coordinator.clear(list(space.whole()), horizon)
                continue
            for start, end in space.whole():
                removed += await _remove_span(coordinator, start, end, owns, limit - removed)
                if removed >= limit:
                    return removed
        await _remove_marker(coordinator, key)
    return removed


async def _markers(
    coordinator: Coordinator,
) -> tuple[list[tuple[bytes, codec.Dropped]], Timestamp]:
    """The markers, and the timestamp at which they were read: from it on the catalog does not name what they do."""
    found: list[tuple[bytes, codec.Dropped]] = []
    start = codec.DROPPED_PREFIX
    transaction = coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
    try:
        horizon = await transaction.read_timestamp()
        async for chunk in transaction.scan(start, prefix_end(start)):
            found += [(key, codec.decode_dropped(value)) for key, value in chunk]
    finally:
        await transaction.rollback()
    return found, horizon


async def _remove_span(
    coordinator: Coordinator, start: bytes, end: bytes, owns: Owns, limit: int
) -> int:
    removed = 0
    while removed < limit:
        keys = await _keys(coordinator, start, end)
        if not keys:
            break
        mine = [key for key in keys if owns(key)]
        if mine:
            await _delete(coordinator, mine)
            removed += len(mine)
        start = keys[-1] + b"\x00"
    return removed


async def _keys(coordinator: Coordinator, start: bytes, end: bytes) -> list[bytes]:
    transaction = coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
    keys: list[bytes] = []
    try:
        async for chunk in transaction.scan(start, end, limit=_BATCH):
            keys += [key for key, _ in chunk]
    finally:
        await transaction.rollback()
    return keys


async def _delete(coordinator: Coordinator, keys: list[bytes]) -> None:
    transaction = coordinator.begin(Isolation.READ_COMMITTED)
    try:
        for key in keys:
            transaction.delete(key, blind=True)
    except BaseException:
        await transaction.rollback()
        raise
    await transaction.commit()


async def _remove_marker(coordinator: Coordinator, key: bytes) -> None:
    transaction = coordinator.begin(Isolation.READ_COMMITTED)
    try:
        await transaction.lock([key], LockStrength.UPDATE, WaitPolicy.BLOCK)
        transaction.delete(key)
    except BaseException:
        await transaction.rollback()
        raise
    await transaction.commit()
