"""Commit keys: a transaction that names one takes effect once, however often its client repeats it.

A key has a record, an ordinary version in the store that the transaction writes with its rows. Whoever commits
with the key first claims the record, which is a row lock on it: so of several attempts one at a time decides, an
attempt whose commit is under way is waited for by its mark, and after a change of leadership the record's version is
checked again (rule R4). The record's version *is* the commit timestamp. Records are kept for a day.

Invariant: a transaction that writes a record has held the claim, and found no record, up to its commit timestamp.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shardforge.errors import DatabaseError
from shardforge.ids import Timestamp
from shardforge.keys import BUCKETS, commit_key_prefix, prefix_end
from shardforge.ports import Clock
from shardforge.txn.locks import LockStrength
from shardforge.txn.transaction import Isolation, Transaction, WaitPolicy

if TYPE_CHECKING:
    from shardforge.txn.coordinator import Coordinator

RETENTION_US = 24 * 3600 * 1_000_000
INTERVAL_SECONDS = 600.0
RECORDS_A_TRANSACTION = 500

logger = logging.getLogger("shardforge.commit_keys")


class KeyRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a transaction that was committed with a key."""

    tables: tuple[int, ...]
    """What it wrote to, for telling it from another one."""


class Committed(NamedTuple):
    """A record, and when its transaction was committed."""

    timestamp: Timestamp
    record: KeyRecord


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(KeyRecord)


async def claim(transaction: Transaction, key: bytes) -> Committed | None:
    """Hold the key until the transaction ends; what was committed with it, if anything.

    Waits for others who hold it. Raises 40P01 and 55P03 as row locks do, and 57P03 while nobody can tell how an
    earlier commit ended.
    """
    timestamp, data = await transaction.claim(key)
    return None if data is None else Committed(Timestamp(timestamp), _decoder.decode(data))


def remember(transaction: Transaction, key: bytes, record: KeyRecord) -> None:
    """Let the transaction, which has claimed the key, commit with it."""
    transaction.put(key, _encoder.encode(record))


class CommitKeyCollector:
    """Removes records that are older than a day."""

    def __init__(self, coordinator: Coordinator, clock: Clock) -> None:
        self._coordinator = coordinator
        self._clock = clock

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL_SECONDS)
            try:
                await self.collect(RETENTION_US)
            except DatabaseError as error:
                logger.warning("old commit keys are left for later: %s", error)

    async def collect(self, retention_us: int) -> int:
        """Remove what is older than so many microseconds; how many records that were."""
        horizon = Timestamp(max(0, self._coordinator.oracle.last - retention_us))
        total = 0
        for bucket in range(BUCKETS):
            start = commit_key_prefix(bucket)
            end = prefix_end(start)
            while keys := await self._old(start, end, horizon):
                total += await self._remove(keys, horizon)
                start = keys[-1] + b"\x00"
        return total

    async def _old(self, start: bytes, end: bytes, horizon: Timestamp) -> list[bytes]:
        for participant, low, high in self._coordinator.router.shards_of(start, end):
            if participant.remote is not None:
                page = await participant.remote.scan(
                    ((low, high),), horizon, RECORDS_A_TRANSACTION, reverse=False
                )
                keys = [key for key, _, _ in page.rows]
            else:
                found = participant.open_scan(low, high, horizon, reverse=False)
                keys = [key for key, _, _ in islice(found, RECORDS_A_TRANSACTION)]
            if keys:
                return keys
        return []

    async def _remove(self, keys: list[bytes], horizon: Timestamp) -> int:
        """Remove those that nobody holds, and that have not been written again since."""
        transaction = self._coordinator.begin(Isolation.READ_COMMITTED)
        removed = 0
        try:
            for row in await transaction.lock(keys, LockStrength.UPDATE, WaitPolicy.SKIP):
                if row.value is not None and transaction.locks[row.key].version <= horizon:
                    transaction.delete(row.key)
                    removed += 1
            await transaction.commit()
        finally:
            await transaction.rollback()
        return removed
