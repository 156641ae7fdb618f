"""Writing many new keys for a DDL: entries of a new index, rows of a rewritten table.

The keys are new: no statement can name them before the DDL commits. Fewer than `BATCH` of them go into the DDL's own
transaction. More are committed in batches of their own, behind a marker that says "remove these" and that only the
DDL's commit takes away, so a rollback or a crash leaves nothing for good. Nobody else can name the keys, so they need
no lock, and no look at what is there: two rows with one key in different batches leave fewer keys than were written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from shardforge.sql.catalog import codec
from shardforge.sql.catalog.store import put_locked
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.txn.coordinator import Isolation, LockStrength, Transaction, WaitPolicy

BATCH: Final = 2000


class DuplicateKeyError(Exception):
    """Two rows have the same unique key."""


class BulkWriter:
    """Writes (key, value) pairs that are new, under one marker."""

    def __init__(self, ddl: Ddl, marker: codec.Dropped, batch: int = BATCH) -> None:
        self._ddl = ddl
        self._marker = marker
        self._batch = batch
        self._marker_key = b""
        self._pending: dict[bytes, bytes] = {}
        self._unique = 0

    def add(self, key: bytes, value: bytes, *, unique: bool) -> bool:
        """Take one pair, of a unique index or not; true when it is time to `flush`.

        Raises: DuplicateKeyError for a second pair with the key in this batch.
        """
        pending = self._pending
        if key in pending:
            raise DuplicateKeyError
        pending[key] = value
        self._unique += unique
        return len(pending) >= self._batch

    async def verify(self) -> None:
        """Write what is left of many pairs, and count.

        Raises: DuplicateKeyError for two pairs with one key in different batches.
        """
        if self._marker_key:
            await self.flush()
            if await self._unique_keys() < self._unique:
                raise DuplicateKeyError

    async def change(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Commit changes of what was flushed, all at once (None removes). The caller has looked for duplicates."""
        assert self._marker_key, "what was written alone is under the marker"

        async def write(transaction: Transaction) -> None:
            await put_locked(transaction, writes)  # locked, so that what they replace is collected

        await self._alone(write)

    async def finish(self) -> None:
        """What has been added and changed, and verified, is there once the DDL commits: the marker goes with that."""
        if not self._marker_key:
            await self._write(self._ddl.transaction)
            return
        table, numbers = self._marker.table, self._marker.indexes
        indexes = [index.id for index in table.indexes if index.number in numbers]
        self._ddl.store.note_unseen(indexes if numbers else [table.storage_id])
        transaction = self._ddl.transaction
        await transaction.claim(self._marker_key)  # newer than the transaction's snapshot
        transaction.delete(self._marker_key)

    async def flush(self) -> None:
        """Commit what has been added."""
        if not self._marker_key:
            self._marker_key = await self._place_marker()
        await self._alone(self._write)

    async def _place_marker(self) -> bytes:
        key = codec.dropped_key(await self._ddl.new_oid())
        self._ddl.store.building[key] = self._ddl.transaction

        async def place(transaction: Transaction) -> None:
            await transaction.lock([key], LockStrength.UPDATE, WaitPolicy.BLOCK)
            transaction.put(key, codec.encode(self._marker))

        await self._alone(place)
        self._ddl.store.purge_wanted.set()
        return key

    async def _alone(self, work: object) -> None:
        """Run `work(transaction)` in a transaction of its own and commit it."""
        assert callable(work), "a coroutine function"
        transaction = self._ddl.store.coordinator.begin(Isolation.READ_COMMITTED)
        try:
            await work(transaction)
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()

    async def _write(self, transaction: Transaction) -> None:
        for key, value in self._pending.items():
            transaction.put(key, value, blind=True)
        self._pending.clear()

    async def _unique_keys(self) -> int:
        """How many keys the unique indexes under the marker have."""
        table, numbers = self._marker.table, self._marker.indexes
        transaction = self._ddl.store.coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
        total = 0
        try:
            for index in table.indexes:
                if not index.unique or (numbers and index.number not in numbers):
                    continue
                space = IndexSpace(table, index)
                owns = space.owner()
                async for chunk in transaction.scan_spans(space.whole()):
                    total += len(chunk) if owns is None else sum(owns(key) for key, _ in chunk)
                    await asyncio.sleep(0)
        finally:
            await transaction.rollback()
        return total
