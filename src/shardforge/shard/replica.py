"""One copy of a shard on this node: Raft node, log, engine, and the leader's state in memory.

Proposals queue up while the log's fdatasync is under way on a thread; when it returns, everything queued
becomes one entry, one append, one fdatasync (group commit), which the followers' run beside. Committed entries
are applied in order, each as one engine batch with the applied index in it; only then is a proposer told.

    propose -> [queue] -> entry -> log append + send -> fdatasync -> quorum -> apply -> done(outcome)

Invariants: `done` of a proposal is called exactly once, with APPLIED never before a quorum has it durable in its logs
(`stored` says only that this leader has); nothing is served before an entry of the leader's own term is applied (rule
R6). After a failed write nothing is retried: the replica stops, and what was under way has an unknown outcome, as it
has when leadership is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence

from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import NodeId, ShardId, TxnId
from shardforge.raft.confchange import ConfChange
from shardforge.raft.messages import ConfState, Entry, EntryKind, Message, MessageKind, Snapshot
from shardforge.raft.rawnode import Ready
from shardforge.shard.command import (
    Application,
    Applied,
    Collect,
    Command,
    Outcome,
    decode,
    decode_intent,
    encode,
)
from shardforge.shard.consensus import (
    LogReader,
    encode_membership,
    found,
    make_node,
    membership_of,
)
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.files import ShardFiles
from shardforge.shard.pending import Mark, Pending
from shardforge.shard.proposals import Done, Proposal, Proposals, Proposed
from shardforge.shard.snapshot import Pins
from shardforge.shard.staging import Staging
from shardforge.shard.surroundings import Surroundings
from shardforge.storage import mvcc
from shardforge.storage.newest_cache import NewestCache

_log = logging.getLogger("shardforge.shard")

DEFER_SECONDS = 0.01
"""How long background commands wait for company."""
FLUSH_BYTES = 64 * 1024 * 1024
"""The engine is flushed after so many logged bytes, however few the entries."""
LARGE_ENTRY_BYTES = 32 * 1024
"""After applying such an entry the loop runs on: heartbeats must not wait for many of them."""
INTENTS_A_TURN = 5_000
LOG_BYTES_MAX = 4 * FLUSH_BYTES
FOREVER_US = 1 << 62
_VOTES = frozenset((MessageKind.VOTE, MessageKind.PRE_VOTE))


class Replica:
    """One voter, or learner, of a shard's group. It opens its files; see `start`."""

    def __init__(
        self, descriptor: ShardDescriptor, files: ShardFiles, surroundings: Surroundings
    ) -> None:
        self.descriptor = descriptor
        self.pending = Pending()
        self.cache = NewestCache(surroundings.options.cache_bytes)
        self.serving_term = 0
        """The term in which this replica serves as leader; 0 while it must not."""
        self.failure: Exception | None = None
        self._files = files
        self._with = surroundings
        self._clock = surroundings.clock
        self._blocking = surroundings.blocking
        self._proposals = Proposals()
        self._defer_timer: asyncio.TimerHandle | None = None
        self._wake: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._flush: asyncio.Task[None] | None = None
        self._staging = Staging(descriptor.id, files, surroundings.blocking, surroundings.fetch)
        self._closing = False
        self._cut_to = 0
        self._record_due = False
        self._installing = False
        self._serving_waiters: list[asyncio.Future[None]] = []
        self._pins = Pins(surroundings.blocking)
        self._moments: dict[int, Callable[[], None]] = {}
        self.engine, self._log = files.open()
        state = found(self.engine, self._log, descriptor.voters)
        self.applied = state.index
        self._flushed = state.index
        self._bytes_since_flush = 0
        members = membership_of(self.engine)
        self._reader = LogReader(self._log, members, state, self._pin)
        self._node = make_node(
            surroundings.node, self._reader, state.index, surroundings.options.timing,
            random.Random(surroundings.randomness.getrandbits(64)), self._now_us(),
        )  # fmt: skip

    @property
    def id(self) -> ShardId:
        """The shard's id."""
        return self.descriptor.id

    # ---- what the group is doing -----------------------------------------------------------------

    @property
    def lead(self) -> NodeId | None:
        """Who leads, as far as this replica knows."""
        return NodeId(self._node.lead) if self._node.lead else None

    @property
    def is_leader(self) -> bool:
        """Whether this replica leads; it serves once an entry of its term is applied."""
        return self._node.is_leader

    @property
    def term(self) -> int:
        """The group's term, as far as this replica knows."""
        return self._node.term

    @property
    def members(self) -> ConfState:
        """The membership as of the last applied entry."""
        return self._reader.members

    @property
    def changing_members(self) -> bool:
        """Whether a membership change may be under way, so that none can be proposed."""
        raft = self._node.raft
        return raft.pending_conf_index > self.applied or bool(self.members.voters_outgoing)

    @property
    def commit_index(self) -> int:
        """The newest entry known to be committed."""
        return self._node.commit_index

    @property
    def last_index(self) -> int:
        """The newest entry in the log."""
        return self._node.raft.log.last_index

    @property
    def alone(self) -> bool:
        """Whether this node is the only voter."""
        return self._node.raft.is_alone

    @property
    def size_bytes(self) -> int:
        """About how much the engine holds; 0 while it is being replaced."""
        return 0 if self._installing else self.engine.approximate_size()

    def followers(self) -> dict[NodeId, int]:
        """The newest entry that each other member has acknowledged, by the leader's knowledge."""
        progress = self._node.raft.tracker.progress
        return {NodeId(node): known.match for node, known in progress.items()}

    def lease_until_us(self, now_us: int) -> int:
        """Until when, by the monotonic clock, this leader may answer reads alone; 0: not now."""
        if not self.serving_term:
            return 0
        if self.alone:
            return FOREVER_US
        return self._node.at(now_us).lease_until_us

    def _now_us(self) -> int:
        return self._clock.monotonic_ns() // 1000

    # ---- proposing -------------------------------------------------------------------------------

    def propose(
        self, command: Command, done: Done, stored: Callable[[], None] | None = None
    ) -> None:
        """Order `command` in the log; `done` is called when it is applied, refused or lost; see `Proposal`."""
        if self.failure is not None:
            done(Outcome.UNKNOWN)
            return
        self._proposals.add(Proposal(command, done, stored))
        self._wake_pump()

    def defer(self, command: Command, done: Done) -> None:
        """Propose before whatever is proposed next, or in a moment: work that nobody waits for."""
        if self.failure is not None:
            done(Outcome.UNKNOWN)
            return
        self._proposals.defer(Proposal(command, done))
        if self._defer_timer is None:
            loop = asyncio.get_running_loop()
            self._defer_timer = loop.call_later(DEFER_SECONDS, self._defer_is_over)

    def _defer_is_over(self) -> None:
        self._defer_timer = None
        if self._proposals.undefer():
            self._wake_pump()

    def change_members(self, change: ConfChange) -> bool:
        """Propose a membership change; whether it was proposed: `members` tells when it is in force."""
        accepted = self.failure is None and bool(self._node.propose_conf_change(change))
        self._wake_pump()
        return accepted

    def hand_over(self, to: NodeId) -> None:
        """Let `to` lead: this leader, or the one that it knows, hands over when `to` has caught up."""
        self._node.at(self._now_us()).transfer_leader(to)
        self._wake_pump()

    def _wake_pump(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    # ---- what comes from outside -----------------------------------------------------------------

    def tick(self) -> None:
        """A tick of the group's clockwork has passed."""
        node = self._node.at(self._now_us())
        node.tick()
        self._send_now()
        if node.has_ready():
            self._wake_pump()

    def step(self, message: Message) -> None:
        """Take a message of another member. A snapshot's is kept back until its state is here."""
        if self.failure is not None:
            return
        if message.kind is MessageKind.SNAPSHOT:
            self._begin_fetch(message)
            return
        if message.kind in _VOTES and not self.members.voters:
            # It has no state yet. It may have been a voter, removed and made anew: a member of old that missed the
            # removal must not win by its vote. Who is to vote was brought up to date before.
            return
        self._node.at(self._now_us()).step(message)
        self._send_now()
        self._wake_pump()

    def _send_now(self) -> None:
        """Heartbeats and answers to them do not wait for the write that the pump may be waiting for."""
        messages = self._node.take_messages()
        if messages:
            self._send(messages)

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work: replay, and lead at once where nobody else can."""
        self._node.at(self._now_us())
        if self.alone:
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
        """Return when everything proposed so far, deferred commands included, is applied, refused or lost."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.propose(Collect(()), lambda _: None if settled.done() else settled.set_result(None))
        await settled

    async def close(self) -> None:
        """Finish what is under way here, and release log and engine."""
        self._closing = True
        self._wake_pump()
        await self._staging.close()
        for task in (self._pump, self._flush):
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)
        self._stop(ConsensusError(f"shard {self.id} is closed"))
        self._pins.close()
        self._log.close()
        self.engine.close()

    def kill(self) -> None:
        """Stop at once, as a crash would; nothing is closed. For tests and simulation."""
        self._staging.kill()
        for task in (self._pump, self._flush):
            if task is not None:
                task.cancel()
        self._stop(ConsensusError(f"shard {self.id} was killed"))

    # ---- the pump --------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self._closing or self._proposals.queued:
                await self._turn()
                if self._proposals.queued or self._closing or self._node.has_ready():
                    continue
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                self._wake = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the replica must not go on
            self._stop(error)
            self._with.on_failure(self, error)

    async def _turn(self) -> None:
        """One group commit: what is queued becomes durable, then what is committed is applied."""
        if self._proposals.queued:
            self._propose_queued()
        node = self._node
        while node.has_ready():
            ready = node.ready()
            if ready.messages:
                self._send(ready.messages)
            if ready.soft_state is not None:
                self._role_changed()
            append = ready.storage_append
            if append is not None:
                await self._store(ready, append)
                if node.is_leader:
                    for entry in append.entries:
                        self._proposals.stored(entry.index, node.term)
                responses = node.at(self._now_us()).stored(append)
                if responses:
                    self._send(responses)
            apply = ready.storage_apply
            if apply is not None:
                for entry in apply.entries:
                    self._apply(entry)
                    if entry.term != self.serving_term and node.is_leader:
                        await self._begin_serving()
                    if len(entry.data) > LARGE_ENTRY_BYTES:
                        await asyncio.sleep(0)
                node.applied(apply)
        self._flush_if_due()
        if self._cut_to:
            cut_to, self._cut_to = self._cut_to, 0
            await self._blocking.run(lambda: self._log.truncate_prefix(cut_to))
        if self._record_due:
            self._record_due = False
            await self._blocking.run(self._record_members)

    def _send(self, messages: Sequence[Message]) -> None:
        if any(message.kind is MessageKind.TIMEOUT_NOW for message in messages):
            self._with.on_change(self)  # the lease is given up with it
        self._with.outbox.add(self.id, messages)

    def _propose_queued(self) -> None:
        node = self._node.at(self._now_us())
        proposals = self._proposals.take()
        data = encode([proposal.command for proposal in proposals])
        index = node.propose(data)
        if index:
            self._proposals.logged(index, Proposed(node.term, proposals))
            return
        for proposal in proposals:  # not the leader, or handing over: nothing was appended
            proposal.done(Outcome.REFUSED)

    def _prepared_values(self, txn: TxnId) -> Mapping[bytes, bytes | None] | None:
        mark = self.pending.marks.get(txn)
        return None if mark is None else mark.values

    async def _store(self, ready: Ready, append: Message) -> None:
        """Make entries, term and vote durable. A commit index alone need not be written at all.

        Without them, what the answers rest on is durable already: this is never begun before the last one ended.
        """
        if append.snapshot is not None:
            await self._install(append.snapshot)
        elif not ready.must_sync:
            return
        if ready.hard_state is not None:
            hard = ready.hard_state
            self._log.set_hard_state(hard.term, hard.vote, hard.commit)
        size = self._reader.append(append.entries)
        counters = self._with.counters
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
        proposed = self._proposals.applied(index)
        ours = proposed is not None and proposed.term == term
        application = Application(self.engine, term, self._prepared_values)
        commands: Sequence[Command] = ()
        if proposed is not None and ours:
            commands = [proposal.command for proposal in proposed.proposals]
        elif entry.kind is EntryKind.CONF_CHANGE:
            self._change_members(application, entry)
        elif data:
            commands = decode(data)
        outcomes = [application.apply(command) for command in commands]
        for start, end in application.cleared:
            self.engine.delete_span(start, end)
        self.engine.write(application.finish(index))
        self.applied = index
        if self._moments and (seen := self._moments.pop(index, None)) is not None:
            seen()
        self._reader.applied(Applied(index, term))
        wrote = self.cache.wrote
        for version in application.versions:
            wrote(*version)
        if proposed is not None:
            for position, proposal in enumerate(proposed.proposals):
                # Another term's entry took the index: ours is absent, and will stay so.
                proposal.done(outcomes[position] if ours else Outcome.REFUSED)

    def _change_members(self, application: Application, entry: Entry) -> None:
        members = self._node.apply_conf_change(entry)
        self._reader.members = members
        application.batch.append(mvcc.put_membership(encode_membership(members)))
        self._record_due = True
        self._with.on_change(self)

    def _record_members(self) -> None:
        """Note the members for people. The engine's own note comes first: a start without one trusts the file."""
        self.engine.flush()
        members = self.members
        replicas = {*members.voters, *members.voters_outgoing, *members.learners}
        self._files.record(tuple(sorted(replicas)), self.descriptor.epoch)

    # ---- leading ---------------------------------------------------------------------------------

    def _role_changed(self) -> None:
        term = self.serving_term
        role = self._node.raft.role.name.lower().replace("_", "-")
        _log.info(
            "shard %d: %s in term %d, leader %s", self.id, role, self.term, self.lead or "unknown"
        )
        if term and not (self._node.is_leader and self._node.term == term):
            self._end_serving()
        self._with.on_change(self)

    async def _begin_serving(self) -> None:
        """If an entry of the leader's own term is applied, everything before it is too: serve (rule R6)."""
        term = self._node.term
        if self._log.term(self.applied) != term:
            return
        self.pending.clear()
        by_txn: dict[int, Mark] = {}
        span = self.descriptor.span
        intents = mvcc.intents(self.engine, span.start, span.end)
        for seen, (key, data) in enumerate(intents, start=1):
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
            if seen % INTENTS_A_TURN == 0:
                await asyncio.sleep(
                    0
                )  # the engine does not change meanwhile: only this task writes it
        for mark in by_txn.values():
            added = self.pending.add(mark)
            assert added, "a key has one intent"
        if not (self._node.is_leader and self._node.term == term):
            self.pending.clear()
            return
        self.serving_term = term
        self._call_serving_waiters()
        self._with.on_change(self)

    def _end_serving(self) -> None:
        """Leadership is lost: what is in the log may or may not be committed by the next leader."""
        self.serving_term = 0
        self._proposals.lose(queued=False)
        self.pending.clear()
        self._pins.close()

    def _call_serving_waiters(self) -> None:
        waiters, self._serving_waiters = self._serving_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ---- snapshots -------------------------------------------------------------------------------

    def _pin(self) -> bytes:
        now = self._clock.monotonic_ns() / 1e9
        return str(self._pins.pin(self.engine, now)).encode()

    async def snapshot_piece(self, pin: int, after: bytes) -> bytes:
        """A piece of a pinned state, for the node that pulls it."""
        return await self._pins.piece(pin, after, self._clock.monotonic_ns() / 1e9)

    def when_applied(self, index: int, seen: Callable[[], None]) -> bool:
        """Call `seen` between entry `index` and the next one. False: it is applied already.

        Never called when a snapshot skips the entry. The latest caller for an index is the one that is called.
        """
        if index <= self.applied:
            return False
        self._moments[index] = seen
        return True

    def expire_pins(self) -> None:
        """Let go of states that nobody pulled: whoever was to have them is asked anew where it stands."""
        if self._pins.expire(self._clock.monotonic_ns() / 1e9) and self._node.is_leader:
            for node in self._node.raft.tracker.progress:
                self._node.report_snapshot(node, failed=True)

    def _begin_fetch(self, message: Message) -> None:
        assert message.snapshot is not None, "a snapshot's message names it"
        node = self._node
        if message.term < node.term or message.snapshot.index <= node.commit_index:
            node.at(self._now_us()).step(message)  # stale: the core says so to the sender
            self._wake_pump()
            return
        self._staging.begin(message, message.snapshot, self._fetched)

    def _fetched(self, message: Message) -> bool:
        """The message's state is here: let the core take it. Whether it did."""
        self._node.at(self._now_us()).step(message)
        self._wake_pump()
        return self._node.raft.log.has_snapshot

    async def _install(self, snapshot: Snapshot) -> None:
        """Put the fetched state in the engine's place."""
        staged = self._staging.take(snapshot.index)
        if self._flush is not None:
            await asyncio.gather(self._flush, return_exceptions=True)
        self._pins.close()
        old, log = self.engine, self._log
        self._installing = True
        self.engine = await self._blocking.run(lambda: self._files.install(staged, old, log))
        self._installing = False
        self.cache.clear()
        self._reader.restored(snapshot)
        self.applied = self._flushed = snapshot.index
        self._moments = {at: seen for at, seen in self._moments.items() if at > self.applied}
        self._record_due = True
        self._with.on_change(self)

    # ---- flushing the engine, cutting the log ----------------------------------------------------

    def _flush_if_due(self) -> None:
        due = (
            self.applied - self._flushed >= self._with.options.flush_entries
            or self._bytes_since_flush >= FLUSH_BYTES
        )
        if due and (self._flush is None or self._flush.done()):
            self._flush = asyncio.create_task(self.flush(), name=f"flush-{self.id}")

    async def flush(self) -> None:
        """Make the engine durable up to what is applied now, and cut the log behind that if it is long."""
        applied = self.applied
        self._bytes_since_flush = 0
        options = self._with.options
        try:
            await self._blocking.run(self.engine.flush)
            self._flushed = applied
            kept = applied - self._log.base_index
            if kept > options.log_entries_max or self._log.size > LOG_BYTES_MAX:
                # Members that lag a little are sent entries, not the whole state.
                spare = 0 if self.alone else min(options.flush_entries, kept // 2)
                self._cut_to = applied - spare  # by the pump: the log has one user at a time
                self._wake_pump()
        except (OSError, DatabaseError) as error:
            self._stop(error)
            self._with.on_failure(self, error)

    def _stop(self, error: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = error
        self.serving_term = 0
        if self._defer_timer is not None:
            self._defer_timer.cancel()
        self._proposals.lose(queued=True)
        self._call_serving_waiters()
        self._with.on_change(self)
