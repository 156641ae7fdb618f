"""A shard as transactions see it at its leader: newest versions, marks, locks, validation.

Everything here runs at the leader without waiting; where a reader has to wait it is told for whom (a
`Mark`). Today every leader is in this process; a remote one will answer the same questions by message.

Invariant: what `read_now` and `open_scan` return is right for the reader's timestamp provided that no
visible mark was open when they were called, which is the caller's duty (rule R2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from shardforge.errors import ConsensusError
from shardforge.ids import NodeId, ShardId, Timestamp, TxnId
from shardforge.raft.messages import ConfState
from shardforge.shard.command import Command, Outcome
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.pending import Mark, Pending
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine, Snapshot
from shardforge.storage.newest_cache import ABSENT, Entry, NewestCache
from shardforge.txn.locks import LockTable

_RUN_PREFIX: Final = 11
"""Keys of one bucket, table and index have these bytes in common (see `keys`)."""


class LedReplica(Protocol):
    """What transactions need of a shard's replica; see `shard.replica`."""

    engine: Engine
    cache: NewestCache
    pending: Pending
    descriptor: ShardDescriptor
    serving_term: int
    failure: Exception | None

    @property
    def id(self) -> ShardId:
        """The shard's id."""
        ...

    @property
    def lead(self) -> NodeId | None:
        """Who leads, as far as this replica knows."""
        ...

    @property
    def members(self) -> ConfState:
        """The membership as of the last applied entry."""
        ...

    @property
    def size_bytes(self) -> int:
        """About how much the engine holds."""
        ...

    def propose(
        self,
        command: Command,
        done: Callable[[Outcome], None],
        stored: Callable[[], None] | None = None,
    ) -> None:
        """Order the command in the shard's log."""
        ...

    def defer(self, command: Command, done: Callable[[Outcome], None]) -> None:
        """Order it with the next one."""
        ...


class Participant:
    """One shard's leader, for the transactions that touch it."""

    __slots__ = ("_cache", "_engine", "locks", "pending", "replica")

    def __init__(self, replica: LedReplica, locks: LockTable) -> None:
        """`locks` are those of all shards that are led here: a shard that is split leaves them where they are."""
        self.replica = replica
        self.pending = replica.pending
        self.locks = locks
        self._engine = replica.engine
        self._cache = replica.cache

    @property
    def descriptor(self) -> ShardDescriptor:
        """The shard's descriptor, as this leader knows it."""
        return self.replica.descriptor

    @property
    def term(self) -> int:
        """The term in which this leader holds locks and marks; 0 while it must not serve (rule R6)."""
        return self.replica.serving_term

    def check_serving(self) -> None:
        """Raise ConsensusError 57P03 when the shard is not led here any more: it was when the store began."""
        if not self.replica.serving_term:
            failure = self.replica.failure
            why = "is not led here any more" if failure is None else f"has stopped: {failure}"
            raise ConsensusError(f"shard {self.replica.id} {why}")

    def newest(self, key: bytes) -> Entry:
        """Timestamp and value of the newest applied version; (0, None) if there is none."""
        cache = self._cache
        entry = cache.get(key)
        if entry is None:
            found = mvcc.newest(self._engine, key)
            entry = ABSENT if found is None else (found.timestamp, found.value)
            cache.fill(key, entry, cache.writes)
        return entry

    def fetch(self, keys: Iterable[bytes]) -> None:
        """Have the newest versions of many keys at hand for `newest`, where that is cheaper than one by one."""
        cache, engine = self._cache, self._engine
        runs: dict[bytes, list[bytes]] = {}
        for key in sorted(keys):
            if cache.get(key) is None:
                runs.setdefault(key[:_RUN_PREFIX], []).append(key)
        for run in runs.values():
            for key, found in mvcc.newest_of_run(engine, run).items():
                entry = ABSENT if found is None else (found.timestamp, found.value)
                cache.fill(key, entry, cache.writes)

    def read_now(self, key: bytes, timestamp: Timestamp) -> bytes | None:
        """The value in the engine as of `timestamp`."""
        written, value = self._cache.get(key) or self.newest(key)
        if written <= timestamp:
            return value
        return mvcc.read(self._engine, key, timestamp)

    def visible(self, key: bytes, timestamp: Timestamp) -> Mark | None:
        """The mark that decides what a reader at `timestamp` sees."""
        return self.pending.visible(key, timestamp)

    def open_scan(
        self, start: bytes, end: bytes, timestamp: Timestamp, *, reverse: bool
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, timestamp, value) in key order, of the state at this call."""
        return mvcc.scan(self._engine, start, end, timestamp, reverse=reverse)

    def view(self) -> Snapshot:
        """The engine's state now, for `scan_view`."""
        return self._engine.snapshot()

    def scan_view(
        self, view: Snapshot, start: bytes, end: bytes, timestamp: Timestamp, *, reverse: bool
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, timestamp, value) in key order, of the state when `view` was taken."""
        return mvcc.scan(view, start, end, timestamp, reverse=reverse)

    def propose(
        self,
        command: Command,
        done: Callable[[Outcome], None],
        stored: Callable[[], None] | None = None,
    ) -> None:
        """Order the command in the shard's log; `done` is called once its fate is known.

        `stored`, if ever, before that: when the leader's own log has it durable.
        """
        self.replica.propose(command, done, stored)

    # ---- validation (rules R3 and R4) ------------------------------------------------------------

    def key_changed(self, key: bytes, txn: TxnId, since: Timestamp, until: Timestamp) -> bool:
        """Whether another's write of `key` has, or may yet have, a timestamp in (since, until]."""
        mark = self.pending.by_key.get(key)
        while mark is not None:
            if mark.txn != txn and _may_fall_in(mark, since, until):
                return True
            mark = mark.below.get(key)
        return since < self.newest(key)[0]

    def span_changed(
        self, start: bytes, end: bytes, txn: TxnId, since: Timestamp, until: Timestamp
    ) -> bool:
        """The same for every key of [start, end), absent ones included."""
        for mark in self.pending.marks.values():
            if mark.txn != txn and _may_fall_in(mark, since, until) and mark.touches(start, end):
                return True
        return any(True for _ in mvcc.versions_in(self._engine, start, end, since, until))

    def versions_unchanged(self, rows: Iterable[tuple[bytes, Timestamp]], txn: TxnId) -> bool:
        """Whether each key's newest version is still the one named (rule R4)."""
        for key, version in rows:
            mark = self.pending.by_key.get(key)
            if mark is not None and mark.txn == txn:
                mark = mark.below.get(key)
            if mark is not None and not mark.committed:
                return False
            newest = mark.timestamp if mark is not None else self.newest(key)[0]
            if newest != version:
                return False
        return True


def _may_fall_in(mark: Mark, since: Timestamp, until: Timestamp) -> bool:
    if mark.timestamp:
        return since < mark.timestamp <= until
    return mark.floor < until
