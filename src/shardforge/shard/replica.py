"""One copy of a shard on this node: Raft node, log, engine, and the leader's state in memory.

Proposals queue up while the log's fdatasync is under way on a thread; when it returns, everything queued
becomes one entry, one append, one fdatasync (group commit). Committed entries are applied in order, each
as one engine batch with the applied index in it; only then is a proposer told.

    propose -> [queue] -> entry -> log append -> fdatasync -> apply -> done(outcome)

Invariants: nothing is applied or acknowledged before it is durable in the log; a proposal's `done` is
called exactly once; nothing is served before an entry of the leader's own term is applied (rule R6). After
a failed write nothing is retried: the replica stops, and what was under way has an unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from shardforge.errors import ConsensusError, DatabaseError, StorageError
from shardforge.ids import NodeId, ShardId, TxnId
from shardforge.ports import Blocking, Clock
from shardforge.raft.messages import Entry, Message
from shardforge.raft.rawnode import Ready
from shardforge.shard.command import (
    COMMAND_BYTES_MAX,
    Application,
    Collect,
    Command,
    Outcome,
    applied_of,
    decode,
    decode_intent,
    encode,
    weight,
)
from shardforge.shard.consensus import LogReader, make_node
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.log import ShardLog
from shardforge.shard.pending import Mark, Pending
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine
from shardforge.storage.newest_cache import NewestCache

Done = Callable[[Outcome], None]

DEFER_SECONDS = 0.01
"""How long background commands wait for company."""
FLUSH_BYTES = 64 * 1024 * 1024
"""The engine is flushed after so many logged bytes, however few the entries."""
ENTRY_BYTES_MAX = 2 * COMMAND_BYTES_MAX
LOG_BYTES_MAX = 4 * FLUSH_BYTES


class _Proposal(NamedTuple):
    command: Command
    done: Done


class _Proposed(NamedTuple):
    term: int
    proposals: list[_Proposal]


class ReplicaOptions(NamedTuple):
    """What the configuration says about every replica."""

    flush_entries: int = 10_000
    log_entries_max: int = 100_000
    cache_bytes: int = 16 * 1024 * 1024


class LogCounters:
    """What the node's logs did so far."""

    __slots__ = ("appends", "bytes", "entries", "sync_ns", "syncs")

    def __init__(self) -> None:
        self.appends = 0
        self.entries = 0
        self.bytes = 0
        self.syncs = 0
        self.sync_ns = 0


class Replica:
    """A replica that leads its shard, being the only voter."""

    def __init__(
        self,
        descriptor: ShardDescriptor,
        node: NodeId,
        engine: Engine,
        log: ShardLog,
        clock: Clock,
        blocking: Blocking,
        counters: LogCounters,
        options: ReplicaOptions,
        on_failure: Callable[[Replica, Exception], None],
    ) -> None:
        self.descriptor = descriptor
        self.engine = engine
        self.pending = Pending()
        self.cache = NewestCache(options.cache_bytes)
        self.serving_term = 0
        """The term in which this replica serves as leader; 0 while it must not."""
        self.failure: Exception | None = None
        self._log = log
        self._clock = clock
        self._blocking = blocking
        self._counters = counters
        self._options = options
        self._on_failure = on_failure
        self._queued: list[_Proposal] = []
        self._deferred: list[_Proposal] = []
        self._defer_timer: asyncio.TimerHandle | None = None
        self._proposed: dict[int, _Proposed] = {}
        self._wake: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._flush: asyncio.Task[None] | None = None
        self._closing = False
        self._cut_to = 0
        self._serving_waiters: list[asyncio.Future[None]] = []
        found = applied_of(engine)
        if not log.base_index <= found.index <= log.last_index:
            raise StorageError(
                f"the log of shard {descriptor.id} holds entries {log.base_index + 1} to"
                f" {log.last_index}, but its data was applied up to {found.index}",
                "XX001",
                detail="Entries between them are lost.",
            )
        self.applied = found.index
        self._flushed = found.index
        self._bytes_since_flush = 0
        self._reader = LogReader(log, descriptor.voters, found.index)
        self._node = make_node(node, self._reader, found.index, seed=descriptor.id)

    @property
    def id(self) -> ShardId:
        """The shard's id."""
        return self.descriptor.id

    # ---- proposing -------------------------------------------------------------------------------

    def propose(self, command: Command, done: Done) -> None:
        """Order `command` in the log; `done` is called when it is applied, refused or lost."""
        if self.failure is not None:
            done(Outcome.UNKNOWN)
            return
        if self._deferred:
            self._queue_deferred()
        self._queued.append(_Proposal(command, done))
        self._wake_pump()

    def defer(self, command: Command, done: Done) -> None:
        """Propose before whatever is proposed next, or in a moment: work that nobody waits for."""
        if self.failure is not None:
            done(Outcome.UNKNOWN)
            return
        self._deferred.append(_Proposal(command, done))
        if self._defer_timer is None:
            loop = asyncio.get_running_loop()
            self._defer_timer = loop.call_later(DEFER_SECONDS, self._defer_is_over)

    def _defer_is_over(self) -> None:
        self._defer_timer = None
        if self._deferred:
            self._queue_deferred()
            self._wake_pump()

    def _queue_deferred(self) -> None:
        self._queued += self._deferred
        self._deferred.clear()

    def _wake_pump(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work: replay, then lead."""
        self._node.campaign()
        self._pump = asyncio.create_task(self._run(), name=f"shard-{self.id}")

    async def serving(self) -> None:
        """Return when the replica serves; raises 57P03 if it has stopped."""
        while not self.serving_term:
            if self.failure is not None:
                raise ConsensusError(f"shard {self.id} has stopped: {self.failure}")
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._serving_waiters.append(waiter)
            await waiter

    async def drain(self) -> None:
        """Return when everything proposed so far, deferred commands included, is applied or lost."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.propose(Collect(()), lambda _: None if settled.done() else settled.set_result(None))
        await settled

    async def close(self) -> None:
        """Finish what is under way, and release log and engine."""
        self._closing = True
        self._wake_pump()
        if self._pump is not None:
            await self._pump
        if self._flush is not None:
            await self._flush
        self._stop(ConsensusError(f"shard {self.id} is closed"))
        self._log.close()
        self.engine.close()

    def kill(self) -> None:
        """Stop at once, as a crash would; nothing is closed. For tests and simulation."""
        for task in (self._pump, self._flush):
            if task is not None:
                task.cancel()
        self._stop(ConsensusError(f"shard {self.id} was killed"))

    # ---- the pump --------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self._closing or self._queued:
                await self._turn()
                if not self._queued and not self._closing and not self._node.has_ready():
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                    self._wake = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the replica must not go on
            self._stop(error)
            self._on_failure(self, error)

    async def _turn(self) -> None:
        """One group commit: what is queued becomes durable, then what is committed is applied."""
        if self._queued:
            self._propose_queued()
        node = self._node
        while node.has_ready():
            ready = node.ready()
            assert not ready.messages, "a group of one has nobody to talk to"
            append = ready.storage_append
            if append is not None:
                await self._store(ready, append)
                node.stored(append)
            apply = ready.storage_apply
            if apply is not None:
                for entry in apply.entries:
                    self._apply(entry)
                node.applied(apply)
        self._flush_if_due()
        if self._cut_to:
            cut_to, self._cut_to = self._cut_to, 0
            await self._blocking.run(lambda: self._log.truncate_prefix(cut_to))

    def _propose_queued(self) -> None:
        proposals = self._take_queued()
        data = encode([proposal.command for proposal in proposals])
        index = self._node.propose(data)
        if not index:  # not the leader: nothing was appended
            for proposal in proposals:
                proposal.done(Outcome.REFUSED)
            return
        self._proposed[index] = _Proposed(self._node.term, proposals)

    def _take_queued(self) -> list[_Proposal]:
        """What goes into the next entry: everything, up to a size."""
        queued = self._queued
        size = 0
        for count, proposal in enumerate(queued):
            size += weight(proposal.command)
            if size > ENTRY_BYTES_MAX and count:
                self._queued = queued[count:]
                return queued[:count]
        self._queued = []
        return queued

    def _prepared_values(self, txn: TxnId) -> Mapping[bytes, bytes | None] | None:
        mark = self.pending.marks.get(txn)
        return None if mark is None else mark.values

    async def _store(self, ready: Ready, append: Message) -> None:
        """Make entries, term and vote durable. A commit index alone need not be written at all."""
        if not ready.must_sync and not append.responses:
            return
        if ready.hard_state is not None:
            hard = ready.hard_state
            self._log.set_hard_state(hard.term, hard.vote, hard.commit)
        size = self._reader.append(append.entries)
        counters = self._counters
        counters.appends += 1
        counters.entries += len(append.entries)
        counters.bytes += size
        self._bytes_since_flush += size
        began = self._clock.monotonic_ns()
        await self._blocking.run(self._log.sync)
        counters.syncs += 1
        counters.sync_ns += self._clock.monotonic_ns() - began

    # ---- applying --------------------------------------------------------------------------------

    def _apply(self, entry: Entry) -> None:
        index, term, data = entry.index, entry.term, entry.data
        assert index == self.applied + 1, "entries are applied in order, each once"
        proposed = self._proposed.pop(index, None)
        ours = proposed is not None and proposed.term == term
        application = Application(self.engine, term, self._prepared_values)
        commands: Sequence[Command] = ()
        if proposed is not None and ours:
            commands = [proposal.command for proposal in proposed.proposals]
        elif data:
            commands = decode(data)
        outcomes = [application.apply(command) for command in commands]
        self.engine.write(application.finish(index))
        self.applied = index
        self._reader.applied(index)
        wrote = self.cache.wrote
        for version in application.versions:
            wrote(*version)
        if proposed is not None:
            for position, proposal in enumerate(proposed.proposals):
                # Another term's entry took the index: ours is absent, and will stay so.
                proposal.done(outcomes[position] if ours else Outcome.REFUSED)
        if term != self.serving_term and self._node.is_leader and self._node.term == term:
            self._begin_serving(term)

    def _begin_serving(self, term: int) -> None:
        """An entry of the leader's own term is applied: everything before it is too (rule R6)."""
        self.pending.clear()
        by_txn: dict[int, Mark] = {}
        span = self.descriptor.span
        for key, data in mvcc.intents(self.engine, span.start, span.end):
            intent = decode_intent(data)
            mark = by_txn.get(intent.txn)
            if mark is None:
                mark = by_txn[intent.txn] = Mark(intent.txn, intent.floor, [])
                mark.timestamp, mark.anchor = intent.timestamp, intent.anchor
                mark.orphan, mark.values = True, {}
            assert isinstance(mark.keys, list)
            assert isinstance(mark.values, dict)
            mark.keys.append(key)
            mark.values[key] = intent.value
        for mark in by_txn.values():
            added = self.pending.add(mark)
            assert added, "a key has one intent"
        self.serving_term = term
        self._call_serving_waiters()

    def _call_serving_waiters(self) -> None:
        waiters, self._serving_waiters = self._serving_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ---- flushing the engine, cutting the log ----------------------------------------------------

    def _flush_if_due(self) -> None:
        due = (
            self.applied - self._flushed >= self._options.flush_entries
            or self._bytes_since_flush >= FLUSH_BYTES
        )
        if due and (self._flush is None or self._flush.done()):
            self._flush = asyncio.create_task(self.flush(), name=f"flush-{self.id}")

    async def flush(self) -> None:
        """Make the engine durable up to what is applied now, and cut the log behind that if it is long."""
        applied = self.applied
        self._bytes_since_flush = 0
        try:
            await self._blocking.run(self.engine.flush)
            self._flushed = applied
            kept = applied - self._log.base_index
            if kept > self._options.log_entries_max or self._log.size > LOG_BYTES_MAX:
                self._cut_to = applied  # by the pump: the log has one user at a time
                self._wake_pump()
        except (OSError, DatabaseError) as error:
            self._stop(error)
            self._on_failure(self, error)

    def _stop(self, error: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = error
        self.serving_term = 0
        if self._defer_timer is not None:
            self._defer_timer.cancel()
        lost = [proposal for proposed in self._proposed.values() for proposal in proposed.proposals]
        lost += self._queued + self._deferred
        self._proposed.clear()
        self._queued.clear()
        self._deferred.clear()
        for proposal in lost:
            proposal.done(Outcome.UNKNOWN)
        self._call_serving_waiters()
