"""One transaction as its session sees it: reads at a snapshot, row locks, buffered writes, savepoints.

READ COMMITTED draws a snapshot a statement, REPEATABLE READ and SERIALIZABLE one a transaction; none is
drawn before something is read. Locks are taken at the shards' leaders at once and held to the end; writes
stay here until `commit` hands them to `commit.CommitProcess`.

Methods that need not wait do not suspend. Invariant: a row is written only under a NO_KEY_UPDATE or UPDATE
lock (`blind` writes are index entries, which their row's lock protects).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from shardforge.errors import QueryError, TransactionError, serialization_failure
from shardforge.ids import Timestamp, TxnId
from shardforge.storage.newest_cache import Entry
from shardforge.txn.locks import LockStrength
from shardforge.txn.participant import Participant
from shardforge.txn.reads import (
    Chunk,
    ReadSet,
    begun,
    intent_on,
    newest_settled,
    read_settled,
)
from shardforge.txn.sieve import Sieve
from shardforge.txn.spans import scan, scan_spans
from shardforge.txn.streamed import Streamed, stream
from shardforge.txn.writes import WriteBuffer

if TYPE_CHECKING:
    from shardforge.txn.coordinator import Coordinator


class Isolation(enum.Enum):
    """The isolation levels; READ UNCOMMITTED is READ COMMITTED, as in PostgreSQL."""

    READ_COMMITTED = "read committed"
    REPEATABLE_READ = "repeatable read"
    SERIALIZABLE = "serializable"


class WaitPolicy(enum.Enum):
    """What to do about a row that another transaction has locked."""

    BLOCK = "wait"
    ERROR = "nowait"
    SKIP = "skip locked"


class Locked(NamedTuple):
    """A row after `Transaction.lock`: the newest value, own writes included."""

    key: bytes
    granted: bool
    value: bytes | None
    changed: bool
    """Committed after the statement's snapshot by another transaction."""


class HeldLock(NamedTuple):
    """What the transaction remembers of a lock it holds."""

    strength: LockStrength
    version: Timestamp
    """The row's newest version when the lock was granted; 0: none (rule R4)."""
    participant: Participant
    term: int


ROW_BYTES_MAX = 256 * 1024 * 1024
"""The log holds a command in one record of at most 1 GiB."""
LOCKS_A_TURN = 4096
"""Locks taken, or released, before others run."""
_MANY = 64
"""Keys locked at once from which on their newest versions are read together."""
_WRITE_STRENGTH = LockStrength.NO_KEY_UPDATE


class Transaction:
    """A transaction of one session. Not for use by several tasks at once."""

    __slots__ = (
        "_coordinator",
        "_last",
        "_lock_log",
        "_open",
        "_savepoints",
        "as_of",
        "committed",
        "floor",
        "id",
        "isolation",
        "lock_timeout_ms",
        "locks",
        "on_end",
        "read_only",
        "reads",
        "snapshot",
        "streamed",
        "undecided",
        "writes",
    )

    def __init__(
        self, coordinator: Coordinator, txn: TxnId, isolation: Isolation, *, read_only: bool
    ) -> None:
        self._coordinator = coordinator
        self.id = txn
        self.isolation = isolation
        self.read_only = read_only
        self.lock_timeout_ms = 0
        self.as_of = Timestamp(0)
        """The past timestamp that is read at; 0: the present."""
        self.snapshot = Timestamp(0)
        """The read timestamp; 0 until the next read draws one."""
        self.floor = Timestamp(0)
        """The latest read timestamp so far (rule R1)."""
        self.writes = WriteBuffer(coordinator.memory)
        self.streamed: Streamed | None = None
        """What it wrote before that, once it is large."""
        self.locks: dict[bytes, HeldLock] = {}
        self._last: HeldLock | None = None
        self.reads = ReadSet() if isolation is Isolation.SERIALIZABLE and not read_only else None
        self.undecided = False
        """Whether its commit is under way, or has ended without anybody knowing how."""
        self.committed = False
        """Whether its commit is known to have happened."""
        self.on_end: Callable[[bool], None] | None = None
        """Called once with whether it is committed, when a commit that nobody waits for any more is decided."""
        self._savepoints: list[tuple[int, int]] = []
        self._lock_log: list[tuple[bytes, HeldLock | None]] = []
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether neither commit nor rollback has begun."""
        return self._open

    @property
    def has_written(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.writes.values) or self.streamed is not None

    # ---- reads -----------------------------------------------------------------------------------

    def begin_statement(self) -> None:
        """A new statement: in READ COMMITTED the next read draws a new snapshot."""
        if self.snapshot and self.isolation is Isolation.READ_COMMITTED:
            self._coordinator.snapshots.unpin(self.snapshot)
            self.snapshot = Timestamp(0)

    async def read_timestamp(self) -> Timestamp:
        """The snapshot, drawn now if there is none."""
        if not self.snapshot:
            coordinator = self._coordinator
            drawn = coordinator.oracle.try_next()
            if drawn is None:
                drawn = await coordinator.oracle.next()
            if self.as_of:
                drawn = coordinator.past(self.as_of, drawn)
            coordinator.snapshots.pin(drawn)
            self.snapshot = self.floor = drawn
        return self.snapshot

    async def get(self, key: bytes) -> bytes | None:
        """The value of `key`: own write, or as of the snapshot."""
        values = self.writes.values
        if values and key in values:
            return values[key]
        if self._is_intent(key):
            return await self._streamed_value(key)
        timestamp = self.snapshot or await self.read_timestamp()
        if self.reads is not None:
            self.reads.keys.add(key)
        router = self._coordinator.router
        participant = router.shard_of(key)
        if key in participant.pending.by_key or not participant.replica.serving_term:
            return await read_settled(router, key, timestamp)
        return participant.read_now(key, timestamp)

    def newest_now(self, key: bytes) -> Entry | None:
        """What a statement of READ COMMITTED sees that reads nothing but `key`; None when it takes `get`.

        Its snapshot is this moment, in which the newest committed version is the one to be seen: none is drawn.
        """
        values = self.writes.values
        if values and key in values:
            return (0, values[key])
        if self.isolation is not Isolation.READ_COMMITTED or self.streamed is not None:
            return None
        return self._coordinator.newest_now(key)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in their order."""
        return [await self.get(key) for key in keys]

    def scan(
        self, start: bytes, end: bytes, *, reverse: bool = False, limit: int | None = None, sieve: Sieve | None = None
    ) -> AsyncGenerator[Chunk, None]:  # fmt: skip
        """Chunks of (key, value) of [start, end) in key order, or against it; own writes included.

        What does not pass the sieve may be left out, and does not count then.
        """
        return scan(self, self._coordinator, start, end, reverse=reverse, limit=limit, sieve=sieve)

    def scan_spans(
        self, spans: Sequence[tuple[bytes, bytes]], *, reverse: bool = False, sieve: Sieve | None = None
    ) -> AsyncGenerator[Chunk, None]:  # fmt: skip
        """Chunks of (key, value) of one span after the other, as `scan` gives them; cheaper for many spans."""
        return scan_spans(self, self._coordinator, spans, reverse=reverse, sieve=sieve)

    # ---- locks -----------------------------------------------------------------------------------

    async def lock(
        self, keys: Sequence[bytes], strength: LockStrength, policy: WaitPolicy
    ) -> list[Locked]:
        """Lock the rows, in the order given, and return their newest values.

        Raises 55P03 (NOWAIT, or the lock timeout), 40P01 (chosen as a deadlock's victim), and 40001 when a
        row changed after the snapshot of a REPEATABLE READ or SERIALIZABLE transaction.
        """
        if not self.snapshot and self.isolation is not Isolation.READ_COMMITTED:
            await self.read_timestamp()
        if self.reads is not None and strength is LockStrength.KEY_SHARE:
            self.reads.keys.update(keys)  # the weakest lock lets the row change under it
        result: list[Locked] = []
        for start in range(0, len(keys), LOCKS_A_TURN):
            if start:
                await asyncio.sleep(0)
            await self._lock_portion(keys[start : start + LOCKS_A_TURN], strength, policy, result)
        return result

    async def _lock_portion(
        self,
        keys: Sequence[bytes],
        strength: LockStrength,
        policy: WaitPolicy,
        result: list[Locked],
    ) -> None:
        if len(keys) >= _MANY:
            await self._coordinator.fetch(keys)
        for key in keys:
            locked = self._lock_now(key, strength)
            if locked is None:
                locked = await self._lock_in_turn(key, strength, policy)
            result.append(locked)

    def lock_now(self, key: bytes, strength: LockStrength) -> Locked | None:
        """Lock one row as `lock` does; None when nothing was done because it takes `lock`."""
        if self.isolation is not Isolation.READ_COMMITTED:
            return None
        return self._lock_now(key, strength)

    def _lock_now(self, key: bytes, strength: LockStrength) -> Locked | None:
        participant = self._coordinator.router.shard_of(key)
        term = participant.replica.serving_term
        if not term or key in participant.pending.by_key or self._is_intent(key):
            return None
        newest = participant.newest(key)
        held = self.locks.get(key)
        if held is None or held.strength < strength:
            if held is not None and held.term != term:
                return None
            if not participant.locks.acquire(key, self.id, strength):
                return None
            last = self._last  # many rows have the same: they keep one for all
            if (
                last is None or last.version != newest[0] or last.strength is not strength
                or last.participant is not participant or last.term != term
            ):  # fmt: skip
                last = self._last = HeldLock(strength, Timestamp(newest[0]), participant, term)
            self._note_lock(key, last, held)
        elif held.term != term:
            return None
        return self._locked(key, newest)

    def _note_lock(self, key: bytes, noted: HeldLock, held: HeldLock | None) -> None:
        if self._savepoints:
            self._lock_log.append((key, held))
        self.locks[key] = noted

    async def _lock_in_turn(self, key: bytes, strength: LockStrength, policy: WaitPolicy) -> Locked:
        """Lock a row that others hold, or commit at this moment."""
        newest = await self._newest_locked(key, strength, policy)
        if newest is None:
            return Locked(key, granted=False, value=None, changed=False)
        if self._is_intent(key) and key not in self.writes.values:
            return Locked(key, granted=True, value=await self._streamed_value(key), changed=False)
        return self._locked(key, newest)

    async def claim(self, key: bytes) -> Entry:
        """Lock a key that is no row for itself: its newest version, also one above the snapshot."""
        newest = await self._newest_locked(key, LockStrength.UPDATE, WaitPolicy.BLOCK)
        assert newest is not None, "a lock that is waited for is granted"
        self.locks[key] = self.locks[key]._replace(version=Timestamp(newest[0]))
        return newest

    async def _newest_locked(
        self, key: bytes, strength: LockStrength, policy: WaitPolicy
    ) -> Entry | None:
        router = self._coordinator.router
        participant = router.shard_of(key)
        held = self.locks.get(key)
        broken = held is not None and held.term != participant.term
        if held is None or held.strength < strength or broken:
            if not await self._acquire(participant, key, strength, policy):
                return None
            # Noted before anything else can fail, so that it is released at the end in any case.
            version = Timestamp(0) if held is None else held.version
            participant = router.shard_of(
                key
            )  # it may have been split while the lock was waited for
            self._note_lock(key, HeldLock(strength, version, participant, participant.term), held)
        newest = await newest_settled(router, key)
        if held is not None and broken and held.version != newest[0]:
            raise serialization_failure()  # the row was not locked all the time (rule R4)
        return newest

    def _locked(self, key: bytes, newest: Entry) -> Locked:
        """The row, just locked or locked before, as its transaction sees it."""
        version, value = newest
        held = self.locks[key]
        if held.version != version:
            self.locks[key] = held._replace(version=Timestamp(version))
        values = self.writes.values
        if values and key in values:
            return Locked(key, granted=True, value=values[key], changed=False)
        changed = 0 < self.snapshot < version
        if changed and self.isolation is not Isolation.READ_COMMITTED:
            raise serialization_failure()
        return Locked(key, granted=True, value=value, changed=changed)

    async def _acquire(
        self,
        participant: Participant,
        key: bytes,
        strength: LockStrength,
        policy: WaitPolicy,
    ) -> bool:
        if not participant.term:
            await begun(participant)
        if participant.locks.acquire(key, self.id, strength):
            return True
        if policy is WaitPolicy.SKIP:
            return False
        if policy is WaitPolicy.ERROR:
            raise TransactionError("could not obtain lock on row", "55P03")
        table = participant.locks
        before = table.holds(key, self.id)
        try:
            await self._coordinator.waits.wait(table, key, self.id, strength, self.lock_timeout_ms)
        except BaseException:
            # Granted in the same turn in which the wait was given up: nobody else would release it.
            if before is None:
                table.release(key, self.id)
            else:
                table.downgrade(key, self.id, before)
            raise
        return True

    # ---- writes ----------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, *, blind: bool = False) -> None:
        """Buffer a write. `blind`: an index entry, protected by the lock on its row."""
        self._check_write(key, blind=blind)
        if len(value) > ROW_BYTES_MAX:
            raise QueryError(
                f"row is too big: size {len(value)}, maximum size {ROW_BYTES_MAX}", "54000"
            )
        self.writes.set(key, value)

    def delete(self, key: bytes, *, blind: bool = False) -> None:
        """Buffer a deletion; `blind` as for `put`."""
        self._check_write(key, blind=blind)
        self.writes.set(key, None)

    def _check_write(self, key: bytes, *, blind: bool) -> None:
        assert self._open, "the transaction has ended"
        if self.read_only:
            raise TransactionError("cannot write in a read-only transaction", "25006")
        if not blind:
            held = self.locks.get(key)
            assert held is not None, "a row is locked before it is written"
            assert held.strength >= _WRITE_STRENGTH, "the row lock is too weak to write"

    # ---- what is intents already -----------------------------------------------------------------

    async def stream(self) -> None:
        """Let the writes so far leave this node's memory, if the transaction is large (`streamed`).

        Raises ConsensusError 57P03 and TransactionError 40001: the transaction is to be rolled back then.
        """
        if self.writes.large:
            await stream(self._coordinator, self)

    def written(self) -> Iterator[tuple[bytes, object]]:
        """Every key that it writes, with None where it deletes."""
        values = self.writes.values
        yield from values.items()
        if self.streamed is not None:
            for key, there in self.streamed.keys.items():
                if key not in values:
                    yield key, there or None

    def keys_written(self) -> Collection[bytes]:
        """The keys of `written`."""
        if self.streamed is None:
            return self.writes.values
        return [key for key, _ in self.written()] if self._coordinator.feeds else ()

    def _is_intent(self, key: bytes) -> bool:
        return self.streamed is not None and key in self.streamed.keys

    async def _streamed_value(self, key: bytes) -> bytes | None:
        assert self.streamed is not None, "it is one of its keys"
        if not self.streamed.keys[key]:
            return None
        found = await intent_on(self._coordinator.router, key)
        if found is None or found.txn != self.id:
            raise serialization_failure()  # a leader that was lost meanwhile had them
        return found.value

    # ---- savepoints ------------------------------------------------------------------------------

    def savepoint(self) -> int:
        """Mark a point to roll back to."""
        self._savepoints.append((self.writes.position(), len(self._lock_log)))
        return len(self._savepoints) - 1

    def rollback_to(self, savepoint: int) -> None:
        """Undo writes and locks made since; the savepoint itself remains."""
        del self._savepoints[savepoint + 1 :]
        writes, locks = self._savepoints[savepoint]
        self.writes.undo_to(writes)
        while len(self._lock_log) > locks:
            key, before = self._lock_log.pop()
            now = self.locks[key]
            if before is None:
                now.participant.locks.release(key, self.id)
                del self.locks[key]
            else:
                now.participant.locks.downgrade(key, self.id, before.strength)
                self.locks[key] = now._replace(strength=before.strength)

    def release(self, savepoint: int) -> None:
        """Forget the savepoint and later ones; their writes and locks stay."""
        del self._savepoints[savepoint:]
        if not self._savepoints:
            self._lock_log.clear()
            self.writes.forget_undo()

    # ---- the end ---------------------------------------------------------------------------------

    async def commit(self) -> None:
        """Make the writes durable and visible, all or none.

        Raises 40001 (nothing was written; retry the transaction) or 40003 (the outcome is unknown).
        """
        assert self._open, "the transaction has ended"
        self._open = False
        if self.has_written:
            self.undecided = True
            await self._coordinator.commit(self)
        else:
            self._coordinator.finish(self)

    async def rollback(self) -> None:
        """Drop writes and locks. No effect on a transaction that has ended."""
        if self._open:
            self._open = False
            self._coordinator.abandon(self)
