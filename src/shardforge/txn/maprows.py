"""Writing rows of the shard map: a transaction like any other."""

from __future__ import annotations

from collections.abc import Mapping

from shardforge.ids import ShardId
from shardforge.txn.coordinator import Coordinator, Isolation, LockStrength, WaitPolicy
from shardforge.txn.shardmap import ShardRow, encode_row, shard_key


async def put_rows(coordinator: Coordinator, rows: Mapping[ShardId, ShardRow | None]) -> None:
    """Write rows, or take them back (None), all or none. Raises DatabaseError."""
    transaction = coordinator.begin(Isolation.READ_COMMITTED)
    try:
        keys = [shard_key(shard) for shard in rows]
        await transaction.lock(keys, LockStrength.UPDATE, WaitPolicy.BLOCK)
        for key, row in zip(keys, rows.values(), strict=True):
            if row is None:
                transaction.delete(key)
            else:
                transaction.put(key, encode_row(row))
        await transaction.commit()
    except BaseException:
        await transaction.rollback()
        raise
