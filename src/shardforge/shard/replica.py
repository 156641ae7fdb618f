"""One copy of a shard on this node: its pump, and what it does as the leader.

Beneath it are its place in the group (`member`) and what it holds (`machine`). Proposals queue up while the log's
fdatasync is under way and for a few turns of the loop; then everything queued becomes one entry, one append, one
fdatasync (group commit), which the followers' run beside. Committed entries are applied in order, each as one engine
batch with the applied index in it; only then is a proposer told.

    propose -> [queue] -> entry -> log append + send -> fdatasync -> quorum -> apply -> done(outcome)

Invariants: `done` of a proposal is called exactly once, with APPLIED never before a quorum has it durable in its logs
(`stored` says only that this leader has); nothing is served before an entry of the leader's own term is applied (rule
R6). After a failed write nothing is retried: the replica stops, and what was under way has an unknown outcome, as it
has when leadership is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from shardforge.errors import ConsensusError
from shardforge.raft.messages import Entry, EntryKind, Message
from shardforge.raft.ready import Ready
from shardforge.shard.command import (
    Collect,
    Command,
    Outcome,
    decode,
    encode,
    is_split,
)
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.files import ShardFiles, fork
from shardforge.shard.flushing import Flushing
from shardforge.shard.machine import Opened
from shardforge.shard.member import GroupMember
from shardforge.shard.proposals import Done, Proposal, Proposals, Proposed
from shardforge.shard.split import Division, division
from shardforge.shard.surroundings import Surroundings
from shardforge.storage import mvcc

_log = logging.getLogger("shardforge.shard")

DEFER_SECONDS = 0.01
"""How long background commands wait for company."""
GATHER_TURNS = 4
GATHER_NS = 2_000_000
"""How long the first command of an entry waits for others: so many turns of the loop, and no longer than this."""
LARGE_ENTRY_BYTES = 32 * 1024
"""After applying such an entry the loop runs on: heartbeats must not wait for many of them."""
FOREVER_US = 1 << 62


class Replica(GroupMember):
    """One voter, or learner, of a shard's group. It opens its files; see `start`."""

    def __init__(
        self, descriptor: ShardDescriptor, files: ShardFiles, surroundings: Surroundings,
        opened: Opened | None = None,
    ) -> None:  # fmt: skip
        super().__init__(descriptor, files, surroundings, opened)
        self.serving_term = 0
        """The term in which this replica serves as leader; 0 while it must not."""
        self._proposals = Proposals()
        self._defer_timer: asyncio.TimerHandle | None = None
        self._wake: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closing = False
        self._end: asyncio.Task[None] | None = None
        self._serving_waiters: list[asyncio.Future[None]] = []
        self._flushing = Flushing(
            self, self._log, surroundings, lambda: not self.alone, self._wake_pump, self.fail
        )

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

    def _wake_pump(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def _changed(self) -> None:
        self._with.on_change(self)

    # ---- life ------------------------------------------------------------------------------------

    def start(self, inherits_us: int | None = None) -> None:
        """Begin to work: replay, and lead at once where nobody else can.

        `inherits_us`: it leads its first term, of a shard that came out of a split committed no sooner than then.
        """
        self._node.at(self._now_us())
        if inherits_us is not None:
            self._node.inherit(inherits_us)
            self.serving_term = self.term  # what it has is all that there is (rule R6)
        elif self.alone:
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
        """Finish what is under way here, and release log and engine: once, whoever asks and whoever is cancelled."""
        if self._end is None:
            self._end = asyncio.create_task(self._close(), name=f"end of shard-{self.id}")
        await asyncio.shield(self._end)

    async def _close(self) -> None:
        self._closing = True
        self._wake_pump()
        await self._staging.close()
        if self._pump is not None:
            await asyncio.gather(self._pump, return_exceptions=True)
        await self._flushing.settled()
        self._stop(ConsensusError(f"shard {self.id} is closed"))
        self._release()

    def kill(self) -> None:
        """Stop at once, as a crash would; nothing is closed. For tests and simulation."""
        self._staging.kill()
        for task in (self._pump, self._end):
            if task is not None:
                task.cancel()
        self._flushing.kill()
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
            self.fail(error)

    async def _turn(self) -> None:
        """One group commit: what is queued becomes durable, then what is committed is applied."""
        if self._proposals.queued:
            await self._gather()
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
                    await self._divide(entry) if is_split(entry.data) else self._apply(entry)
                    if entry.term != self.serving_term and node.is_leader:
                        await self._begin_serving()
                    if len(entry.data) > LARGE_ENTRY_BYTES:
                        await asyncio.sleep(0)
                node.applied(apply)
        self._flushing.begin_if_due()
        if cut_to := self._flushing.take_cut():
            await self._blocking.run(lambda: self._log.truncate_prefix(cut_to))
        if self._record_due:
            await self._blocking.run(self._record_members)
            self._record_due = False

    async def _gather(self) -> None:
        """Let the loop turn a little: what it brings meanwhile shares the entry, its sync and its messages.

        Turns of a loop that has nothing else to do take microseconds, and those of a busy one bring company.
        """
        until_ns = self._clock.monotonic_ns() + GATHER_NS
        for _ in range(GATHER_TURNS):
            await asyncio.sleep(0)
            if self._clock.monotonic_ns() >= until_ns:
                return

    def _propose_queued(self) -> None:
        proposals = self._proposals.take()
        if not proposals:
            return  # lost, meanwhile
        node = self._node.at(self._now_us())
        data = encode([proposal.command for proposal in proposals])
        index = node.propose(data)
        if index:
            self._proposals.logged(index, Proposed(node.term, proposals))
            return
        for proposal in proposals:  # not the leader, or handing over: nothing was appended
            proposal.done(Outcome.REFUSED)

    async def _store(self, ready: Ready, append: Message) -> None:
        """Make entries, term and vote durable. A commit index alone need not be written at all.

        Without them, what the answers rest on is durable already: this is never begun before the last one ended.
        """
        if append.snapshot is not None:
            await self._flushing.settled()
            await self._install(append.snapshot)
            self._flushing.installed()
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
        self._flushing.logged(size)
        began = self._clock.monotonic_ns()
        await self._log.make_durable(self._blocking)
        counters.syncs += 1
        counters.sync_ns += self._clock.monotonic_ns() - began

    # ---- applying --------------------------------------------------------------------------------

    async def _divide(self, entry: Entry) -> None:
        """Apply a Split: the child's files are whole before the parent lets go of anything."""
        found = division(self.descriptor, self.members, entry.data, entry.term, self.state.tenure)
        if found is None or self.sealed:
            self._apply(entry)
            return
        since_us = self._now_us()
        opened = await self._blocking.run(lambda: fork(self._files, found, self.engine))
        begins = self.serving_term == entry.term and found.leader == self._with.node
        span = found.child.span
        leads = begins and next(mvcc.intents(self.engine, span.start, span.end), None) is None
        self._apply(entry, found)
        self.descriptor = found.parent
        self._record_due = True
        self._with.on_split(self, found.child, opened, since_us if leads else None)

    def _apply(self, entry: Entry, found: Division | None = None) -> None:
        index, term, data = entry.index, entry.term, entry.data
        proposed = self._proposals.applied(index)
        ours = proposed is not None and proposed.term == term
        application = self._application(term)
        if found is not None:
            application.divided, application.cleared = found.batch, found.cleared
        commands: Sequence[Command] = ()
        if proposed is not None and ours:
            commands = [proposal.command for proposal in proposed.proposals]
        elif entry.kind is EntryKind.CONF_CHANGE:
            self._apply_members(application, entry)
        elif data:
            commands = decode(data)
        outcomes = self._carry_out(application, index, commands)
        self._reader.applied(self.state)
        if application.cleared and found is None:
            self.tidy(application.cleared)  # a shard that is small by now is to be known as small
        if application.merged:
            self._record_due = True
            self._with.on_merge(self)
        if proposed is not None:
            for position, proposal in enumerate(proposed.proposals):
                # Another term's entry took the index: ours is absent, and will stay so.
                proposal.done(outcomes[position] if ours else Outcome.REFUSED)

    # ---- leading ---------------------------------------------------------------------------------

    def lease_until_us(self, now_us: int) -> int:
        """Until when, by the monotonic clock, this leader may answer reads alone; 0: not now."""
        if not self.serving_term:
            return 0
        if self.alone:
            return FOREVER_US
        return self._node.at(now_us).lease_until_us

    def _role_changed(self) -> None:
        term = self.serving_term
        role = self._node.raft.role.name.lower().replace("_", "-")
        _log.info(
            "shard %d: %s in term %d, leader %s", self.id, role, self.term, self.lead or "unknown"
        )
        if term and not (self._node.is_leader and self._node.term == term):
            self._end_serving()
        self._changed()

    async def _begin_serving(self) -> None:
        """If an entry of the leader's own term is applied, everything before it is too: serve (rule R6)."""
        term = self._node.term
        if self._log.term(self.applied) != term:
            return
        await self.recover()
        if not (self._node.is_leader and self._node.term == term):
            return
        self.serving_term = term
        self._call_serving_waiters()
        self._changed()

    def _end_serving(self) -> None:
        """Leadership is lost: what is in the log may or may not be committed by the next leader."""
        self.serving_term = 0
        self._proposals.lose(queued=False)
        self._pins.close()

    def _call_serving_waiters(self) -> None:
        waiters, self._serving_waiters = self._serving_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ---- the end of its service ------------------------------------------------------------------

    async def flush(self) -> None:
        """Make the engine durable up to what is applied now, and cut the log behind that if it is long."""
        await self._flushing.flush()

    def tidy(self, spans: Sequence[tuple[bytes, bytes]]) -> None:
        """Give back the space of what was removed from spans of the engine, in the background."""
        self._flushing.tidy(spans)

    @property
    def tidying(self) -> bool:
        """Whether the engine is being tidied: it holds more than it will soon."""
        return self._flushing.tidying

    def fail(self, error: Exception) -> None:
        """Stop after an error: nothing is served, answered or sent any more; the node is told."""
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
        self._changed()
