"""A shard as transactions see it: newest versions, marks, locks, validation.

Marks and locks are this node's, whoever leads the shard; `local` says whether its state is here too. Of a shard that is
led here everything is answered without waiting; where a reader has to wait it is told for whom (a `Mark`). Of one that
is led elsewhere (`shard.remote`) the methods that wait are to be used, which serve both.

Invariant: what `read_now`, `read` and the scans return is right for the reader's timestamp provided that no
visible mark was open when they were called, which is the caller's duty (rule R2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from shardforge.errors import ConsensusError
from shardforge.ids import NodeId, ShardId, Timestamp, TxnId
from shardforge.raft.messages import ConfState
from shardforge.shard.application import Prepared, nothing_prepared
from shardforge.shard.command import (
    WINDOW_RECORD,
    Command,
    Intent,
    Outcome,
    Record,
    decode_intent,
    decode_record,
    intent_at,
    record_of,
)
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.pending import Mark, Pending
from shardforge.shard.remote.replica import RemoteReplica
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine, Snapshot
from shardforge.storage.newest_cache import ABSENT, Entry, NewestCache
from shardforge.txn.locks import LockTable

_RUN_PREFIX: Final = 11
"""Keys of one bucket, table and index have these bytes in common (see `keys`)."""

DRAIN_SECONDS: Final = 0.25


class LedReplica(Protocol):
    """What transactions need of a shard's replica; see `shard.replica`, and `shard.remote.replica`."""

    cache: NewestCache
    descriptor: ShardDescriptor
    serving_term: int
    failure: Exception | None
    prepared: Prepared

    @property
    def index(self) -> int:
        """The newest entry that is known to be applied."""
        ...

    @property
    def engine(self) -> Engine:
        """The state, where it is here."""
        ...

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
    """One shard, for the transactions that touch it."""

    __slots__ = (
        "_cache", "_engine", "closed", "drain_seconds", "local", "locks", "pending", "remote", "replica", "streams",
    )  # fmt: skip

    def __init__(self, replica: LedReplica, locks: LockTable) -> None:
        """`locks` are those of all shards: a shard that is split leaves them where they are."""
        self.replica = replica
        self.pending = Pending()
        self.locks = locks
        self.remote = replica if isinstance(replica, RemoteReplica) else None
        self.local = self.remote is None
        self.closed = False
        """Whether the tenure has ended: nothing more is ordered."""
        self.drain_seconds = DRAIN_SECONDS
        """How long commits under way are waited for before the shard is split or led by another node (`splitting`)."""
        self.streams: set[TxnId] = set()
        """Transactions with intents here that do not commit yet (`streamed`)."""
        self._engine: Engine | None = replica.engine if self.local else None
        self._cache = replica.cache
        replica.prepared = self._prepared

    def _prepared(self, txn: TxnId) -> Mapping[bytes, bytes | None] | None:
        mark = self.pending.marks.get(txn)
        return None if mark is None else mark.values

    @property
    def descriptor(self) -> ShardDescriptor:
        """The shard's descriptor, as this leader knows it."""
        return self.replica.descriptor

    @property
    def load(self) -> float:
        """Requests a second that go to another node."""
        return 0.0 if self.remote is None else self.remote.load.rate

    @property
    def term(self) -> int:
        """The term in which locks and marks are held, elsewhere the tenure; 0 while nothing is served (rule R6)."""
        if self.closed:
            return 0
        return self.replica.serving_term if self.remote is None else self.remote.tenure

    def check_serving(self) -> None:
        """Raise ConsensusError 57P03 when the shard is not served at this moment."""
        if not self.term:
            failure = self.replica.failure
            why = "is not served at present" if failure is None else f"has stopped: {failure}"
            raise ConsensusError(f"shard {self.replica.id} {why}", hint="Try again in a moment.")

    def lose(self) -> None:
        """The tenure has ended, or the shard is led here no more: whoever waits for a mark asks again."""
        self.closed = True
        self.pending.clear()
        self.replica.prepared = nothing_prepared
        if self.remote is not None:
            self.remote.close()

    def newest(self, key: bytes) -> Entry:
        """Timestamp and value of the newest applied version; (0, None) if there is none."""
        cache = self._cache
        entry = cache.get(key)
        if entry is None:
            assert self._engine is not None, "asked of a shard that is led here"
            found = mvcc.newest(self._engine, key)
            entry = ABSENT if found is None else (found.timestamp, found.value)
            cache.fill(key, entry, cache.writes)
        return entry

    def fetch(self, keys: Iterable[bytes]) -> None:
        """Have the newest versions of many keys at hand for `newest`, where that is cheaper than one by one."""
        cache, engine = self._cache, self._engine
        if engine is None:
            return
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
        assert self._engine is not None, "asked of a shard that is led here"
        return mvcc.read(self._engine, key, timestamp)

    def visible(self, key: bytes, timestamp: Timestamp) -> Mark | None:
        """The mark that decides what a reader at `timestamp` sees."""
        return self.pending.visible(key, timestamp)

    def open_scan(
        self, start: bytes, end: bytes, timestamp: Timestamp, *, reverse: bool
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, timestamp, value) in key order, of the state at this call."""
        assert self._engine is not None, "asked of a shard that is led here"
        return mvcc.scan(self._engine, start, end, timestamp, reverse=reverse)

    def view(self) -> Snapshot:
        """The engine's state now, for `scan_view`."""
        assert self._engine is not None, "asked of a shard that is led here"
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
        if self.closed:
            done(Outcome.REFUSED)
        else:
            self.replica.propose(command, done, stored)

    def defer(self, command: Command, done: Callable[[Outcome], None]) -> None:
        """Order the command with the next one, or in a moment."""
        if self.closed:
            done(Outcome.REFUSED)
        else:
            self.replica.defer(command, done)

    def ordered(self, command: Command) -> asyncio.Future[Outcome]:
        """Order the command in the shard's log; what becomes of it."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.propose(command, lambda found: None if outcome.done() else outcome.set_result(found))
        return outcome

    # ---- wherever the shard is led ---------------------------------------------------------------

    async def newest_of(self, key: bytes) -> Entry:
        """As `newest`."""
        return self.newest(key) if self.remote is None else await self.remote.newest(key)

    async def read(self, key: bytes, timestamp: Timestamp) -> bytes | None:
        """As `read_now`."""
        if self.remote is None:
            return self.read_now(key, timestamp)
        known = self._cache.get(key)
        if known is not None and known[0] <= timestamp:
            return known[1]
        found = await self.remote.read((key,), timestamp)
        return found[0][1]

    async def intent(self, key: bytes) -> Intent | None:
        """The intent on a key."""
        if self.remote is None:
            assert self._engine is not None, "it is led here"
            return intent_at(self._engine, key)
        found = await self.remote.pairs(b"i" + key, b"i" + key + b"\x00")
        if found:
            return decode_intent(found[0][1])
        self._cache.forget((key,))  # the shard may have resolved it, which is not known here yet
        return None

    async def record(self, anchor: bytes, txn: TxnId) -> Record | None:
        """The record of a transaction."""
        if self.remote is None:
            assert self._engine is not None, "it is led here"
            return record_of(self._engine, anchor, txn)
        found = await self.remote.pairs(*mvcc.record_span(anchor, txn))
        return decode_record(found[0][1]) if found else None

    async def records(self) -> list[tuple[TxnId, bytes]]:
        """The transactions with records here, and their anchors; the oracle's window is none."""
        span = self.descriptor.span
        if self.remote is None:
            assert self._engine is not None, "it is led here"
            found = list(mvcc.records(self._engine, span.start, span.end))
        else:
            pairs = await self.remote.pairs(b"c" + span.start, b"c" + span.end)
            found = [mvcc.as_record(key, data) for key, data in pairs]
        return [
            (TxnId(record.txn_id), record.anchor)
            for record in found
            if record.txn_id != WINDOW_RECORD
        ]

    # ---- validation (rules R3 and R4) ------------------------------------------------------------

    def key_marked(self, key: bytes, txn: TxnId, since: Timestamp, until: Timestamp) -> bool:
        """Whether another's mark on `key` has, or may yet have, a timestamp in (since, until]."""
        mark = self.pending.by_key.get(key)
        while mark is not None:
            if mark.txn != txn and _may_fall_in(mark, since, until):
                return True
            mark = mark.below.get(key)
        return False

    def key_changed(self, key: bytes, txn: TxnId, since: Timestamp, until: Timestamp) -> bool:
        """Whether another's write of `key` has, or may yet have, a timestamp in (since, until]."""
        return self.key_marked(key, txn, since, until) or since < self.newest(key)[0]

    def span_marked(
        self, start: bytes, end: bytes, txn: TxnId, since: Timestamp, until: Timestamp
    ) -> bool:
        """As `key_marked` for every key of [start, end), absent ones included."""
        return any(
            mark.txn != txn and _may_fall_in(mark, since, until) and mark.touches(start, end)
            for mark in self.pending.marks.values()
        )

    def span_changed(
        self, start: bytes, end: bytes, txn: TxnId, since: Timestamp, until: Timestamp
    ) -> bool:
        """As `key_changed` for every key of [start, end), absent ones included."""
        if self.span_marked(start, end, txn, since, until):
            return True
        assert self._engine is not None, "asked of a shard that is led here"
        return any(True for _ in mvcc.versions_in(self._engine, start, end, since, until))

    async def key_changed_elsewhere(
        self, key: bytes, txn: TxnId, since: Timestamp, until: Timestamp
    ) -> bool:
        """As `key_changed`, wherever the shard is led: marks set while it waits have later timestamps."""
        if self.key_marked(key, txn, since, until):
            return True
        return since < (await self.newest_of(key))[0]

    async def span_changed_elsewhere(
        self, start: bytes, end: bytes, txn: TxnId, since: Timestamp, until: Timestamp
    ) -> bool:
        """As `span_changed`, wherever the shard is led."""
        if self.span_marked(start, end, txn, since, until):
            return True
        if self.remote is None:
            return self.span_changed(start, end, txn, since, until)
        return bool((await self.remote.versions_in(start, end, since, until, 1)).found)

    async def version_unchanged(self, key: bytes, version: Timestamp, txn: TxnId) -> bool:
        """Whether the key's newest version is still the one named (rule R4)."""
        mark = self.pending.by_key.get(key)
        if mark is not None and mark.txn == txn:
            mark = mark.below.get(key)
        if mark is not None:
            return mark.committed and mark.timestamp == version
        return (await self.newest_of(key))[0] == version


def _may_fall_in(mark: Mark, since: Timestamp, until: Timestamp) -> bool:
    if mark.timestamp:
        return since < mark.timestamp <= until
    return mark.floor < until
