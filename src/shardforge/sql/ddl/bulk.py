"""Writing many new keys for a DDL: entries of a new index, rows of a rewritten table.

The keys are new: no statement can name them before the DDL commits. Fewer than `BATCH` of them go into the DDL's own
transaction. More are committed in batches of their own, behind a marker that says "remove these" and that only the
DDL's commit takes away, so a rollback or a crash leaves nothing for good. Unique keys are locked before they are
written: two rows with one key are found wherever they are.
"""

from __future__ import annotations

from typing import Final

from shardforge.sql.catalog import codec
from shardforge.sql.ddl.context import Ddl
from shardforge.txn.coordinator import Isolation, LockStrength, Transaction, WaitPolicy

BATCH: Final = 2000


class DuplicateKeyError(Exception):
    """Two rows have the same unique key; `value` is what was to be written second."""

    def __init__(self, key: bytes) -> None:
        super().__init__("duplicate key")
        self.key = key


class BulkWriter:
    """Writes (key, value) pairs that are new, under one marker."""

    def __init__(self, ddl: Ddl, marker: codec.Dropped) -> None:
        self._ddl = ddl
        self._marker = marker
        self._marker_key = b""
        self._pending: dict[bytes, bytes] = {}
        self._unique: set[bytes] = set()

    def add(self, key: bytes, value: bytes, *, unique: bool) -> bool:
        """Take one pair; true when it is time to `flush`. Raises: DuplicateKeyError for a pair of this batch."""
        pending = self._pending
        if key in pending:
            raise DuplicateKeyError(key)
        pending[key] = value
        if unique:
            self._unique.add(key)
        return len(pending) >= BATCH

    async def finish(self) -> None:
        """Write what is left; the marker goes when the DDL commits."""
        if not self._marker_key:
            await self._write(self._ddl.transaction)
            return
        await self.flush()
        transaction = self._ddl.transaction
        await transaction.lock([self._marker_key], LockStrength.UPDATE, WaitPolicy.BLOCK)
        transaction.delete(self._marker_key)

    async def flush(self) -> None:
        """Commit what has been added. Raises: DuplicateKeyError for a pair that an earlier batch has written."""
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
        unique = sorted(self._unique)
        locked = await transaction.lock(unique, LockStrength.UPDATE, WaitPolicy.BLOCK)
        for lock in locked:
            if lock.value is not None:
                raise DuplicateKeyError(lock.key)
        for key, value in self._pending.items():
            transaction.put(key, value, blind=True)
        self._pending.clear()
        self._unique.clear()
