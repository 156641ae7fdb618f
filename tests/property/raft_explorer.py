"""A group of voters under a hostile, seeded schedule, with Raft's invariants checked at every step.

Messages are lost, repeated and reordered; nodes crash and lose what they had not synced; members come and go,
leaders are asked to step aside, logs are compacted, clocks drift. Afterwards everything heals, and the group
must make progress. Checked: election safety, log matching, leader completeness, state machine safety (thesis
figure 3.2), linearizable ReadIndex, and that a leader with a lease knows of everything committed anywhere.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from shardforge.raft.confchange import Change, ChangeKind, ConfChange, Transition
from shardforge.raft.config import Config
from shardforge.raft.memory_log import MemoryLogStorage
from shardforge.raft.messages import ConfState, Entry, EntryKind, Message, MessageKind, Snapshot
from shardforge.raft.rawnode import RawNode

TICK_US = 1000
ELECTION_TICKS = 4
BASE = 5
Stored = tuple[int, bytes, EntryKind]


class ViolationError(AssertionError):
    """An invariant does not hold."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise ViolationError(what)


class Host:
    """A node with its disk: what is written, what is durable, and a state machine that may be flushed."""

    def __init__(self, node_id: int, world: World, voters: tuple[int, ...]) -> None:
        self.id = node_id
        self.world = world
        self.rate = world.random.uniform(0.98, 1.02)
        # Newcomers have nothing, not even a membership: the first members' log begins after a base.
        base = BASE if node_id in voters else 0
        state = ConfState(voters if base else ())
        self.durable = MemoryLogStorage(state, index=base, term=min(base, 1))
        self.flushed = Snapshot(base, min(base, 1), state)
        self.seen_commit = 0
        self.start()

    def start(self) -> None:
        self.alive = True
        self.storage = self.durable.copy()
        self.applied = self.flushed
        self.storage.conf_state = self.applied.conf_state
        self.storage.latest_snapshot = self.applied if self.applied.index else None
        self.appends: deque[Message] = deque()
        self.applies: deque[Message] = deque()
        self.inbox: deque[Message] = deque()
        self.seen_commit = self.applied.index
        self.next_tick_us = self.clock() + TICK_US
        options = self.world.options
        self.raw = RawNode(
            Config(
                self.id,
                self.storage,
                self.world.random,
                applied=self.applied.index,
                now_us=self.clock(),
                election_ticks=ELECTION_TICKS,
                heartbeat_ticks=1,
                inflight_messages_max=3,
                **options,
            )
        )
        self.was_leader_in = 0

    def clock(self) -> int:
        return int(self.world.now_us * self.rate)

    def crash(self) -> None:
        self.alive = False

    def write_next(self) -> None:
        """Do one storage-append; its responses wait until someone looks."""
        message = self.appends.popleft()
        for entry in message.entries:
            self.world.note_entry(entry, self._term_before(entry, message))
        self.storage.write(message)
        if message.snapshot is not None and message.snapshot.index > self.applied.index:
            self.applied = self.flushed = message.snapshot
        if message.responses or self.world.random.random() < 0.5:
            self.durable = self.storage.copy()
        self.respond(message)

    def _term_before(self, entry: Entry, message: Message) -> int | None:
        first = message.entries[0].index
        if entry.index > first:
            return message.entries[entry.index - first - 1].term
        return self.storage.term(entry.index - 1)

    def apply_next(self) -> None:
        """Do one storage-apply."""
        message = self.applies.popleft()
        for entry in message.entries:
            if entry.index > self.applied.index:
                check(entry.index == self.applied.index + 1, "an entry was left out")
                state = self.applied.conf_state
                stored = (entry.term, entry.data, entry.kind)
                self.world.note_chosen(entry.index, stored, self.raw.term)
                if entry.kind is EntryKind.CONF_CHANGE:
                    state = self.raw.apply_conf_change(entry)
                    self.world.note_membership(entry.index, state)
                self.applied = Snapshot(entry.index, entry.term, state)
        self.storage.latest_snapshot = self.applied
        self.respond(message)

    def respond(self, message: Message) -> None:
        for response in message.responses:
            if response.to == self.id:
                self.inbox.append(response)
            else:
                self.world.network.append(response)

    def take_ready(self) -> None:
        ready = self.raw.ready()
        self.world.network += ready.messages
        if ready.storage_append is not None:
            self.appends.append(ready.storage_append)
        if ready.storage_apply is not None:
            self.applies.append(ready.storage_apply)
        for state in ready.read_states:
            self.world.note_read(state.context, state.index)

    def flush_and_compact(self) -> None:
        """Make the state machine durable, and perhaps drop the log before it."""
        self.flushed = self.applied
        low = self.storage.first_index()
        high = min(self.flushed.index, self.raw.applied_index, self.durable.last_index())
        if low <= high and self.world.random.random() < 0.5:
            index = self.world.random.randint(low, high)
            self.storage.compact(index)
            if index >= self.durable.first_index():
                self.durable.compact(index)


class World:
    """Hosts, the network between them, and what is known to have happened."""

    def __init__(self, seed: int, fixed: Mapping[str, Any] | None = None) -> None:
        self.random = random.Random(seed)

        def pick(name: str, choices: tuple[Any, ...]) -> Any:
            return (fixed or {}).get(name, self.random.choice(choices))

        self.now_us = 10_000_000
        lease = pick("lease", (False, False, True))
        self.cut_off: frozenset[int] = frozenset()
        self.options: dict[str, Any] = {
            "pre_vote": pick("pre_vote", (False, True)),
            "check_quorum": lease or pick("check_quorum", (False, True)),
            "election_timeout_us": ELECTION_TICKS * TICK_US if lease else 0,
            "message_bytes_max": pick("message_bytes_max", (1, 1 << 20)),
        }
        self.network: list[Message] = []
        self.entries: dict[tuple[int, int], tuple[bytes, EntryKind, int | None]] = {}
        self.chosen: dict[int, Stored] = {}
        self.chosen_by: dict[int, int] = {}
        """The term in which each entry was known to be committed, at the latest."""
        self.chosen_last = BASE
        self.leaders: dict[int, int] = {}
        self.reads: dict[bytes, int] = {}
        voters = pick("voters", ((1, 2, 3), (1, 2, 3, 4, 5)))
        self.membership = (0, ConfState(voters))
        self.proposed = 0
        self.hosts = {node_id: Host(node_id, self, voters) for node_id in (1, 2, 3, 4, 5)}
        churn = pick("churn", (0, 2, 6))
        self.faults = pick("faults", (0, 1, 2))
        self.actions: list[Callable[[Host], None]] = [
            *[self.deliver] * 80,
            *[self.work] * 60,
            *[self.advance_time] * pick("haste", (2, 10)),
            *[self.propose] * 6,
            *[self.lose] * self.faults,
            *[self.repeat] * self.faults,
            *[self.crash] * self.faults,
            *[self.campaign] * (2 * self.faults),
            *[self.partition] * self.faults,
            *[self.restart] * 10,
            *[self.change_members] * churn,
            self.transfer,
            self.read,
            self.read,
            self.flush,
        ]

    # What happened, and whether it may.

    def note_entry(self, entry: Entry, term_before: int | None) -> None:
        """Log matching: an index and a term name one entry, with one history."""
        known = self.entries.setdefault(
            (entry.index, entry.term), (entry.data, entry.kind, term_before)
        )
        check(
            known[:2] == (entry.data, entry.kind), f"two entries {entry.index} of term {entry.term}"
        )
        if known[2] is not None and term_before is not None:
            check(
                known[2] == term_before,
                f"two histories before entry {entry.index} of term {entry.term}",
            )

    def note_chosen(self, index: int, stored: Stored, term: int) -> None:
        """State machine safety, and leader completeness for entries seen committed after an election."""
        known = self.chosen.get(index)
        if known is not None:
            check(known == stored, f"two entries are committed at {index}: {known} and {stored}")
            return
        self.chosen[index] = stored
        self.chosen_by[index] = term
        self.chosen_last = max(self.chosen_last, index)
        for host in self.hosts.values():
            if host.alive and host.raw.is_leader:
                self._check_leader_has(host, index)

    def _check_leader_has(self, host: Host, index: int) -> None:
        log = host.raw.raft.log
        if host.raw.term >= self.chosen_by[index] and index >= log.first_index - 1:
            found = log.term(index) == self.chosen[index][0]
            check(found, f"leader {host.id} lacks committed entry {index}")

    def note_membership(self, index: int, state: ConfState) -> None:
        if index > self.membership[0]:
            self.membership = (index, state)

    def note_read(self, context: bytes, index: int) -> None:
        check(index >= self.reads[context], "a read missed what was committed before it was asked")

    def observe(self, host: Host) -> None:
        """Look at one host after it did something."""
        raw = host.raw
        log = raw.raft.log
        if raw.is_leader and host.was_leader_in != raw.term:
            host.was_leader_in = raw.term
            first = self.leaders.setdefault(raw.term, host.id)
            check(first == host.id, f"two leaders in term {raw.term}: {first} and {host.id}")
            for index in self.chosen:
                self._check_leader_has(host, index)
        commit = raw.commit_index
        if commit > host.seen_commit:
            low = max(host.seen_commit + 1, log.first_index)
            for entry in log.slice(low, commit + 1, 1 << 30):
                self.note_chosen(entry.index, (entry.term, entry.data, entry.kind), raw.term)
            host.seen_commit = commit
        if raw.lease_until_us > host.clock():
            check(commit >= self.chosen_last, f"leader {host.id} holds a lease and missed a commit")

    # What may happen.

    def step(self) -> None:
        """Let one thing happen to one host."""
        host = self.random.choice(list(self.hosts.values()))
        host.raw.at(host.clock())
        self.random.choice(self.actions)(host)
        if host.alive:
            self.observe(host)

    def deliver(self, _host: Host) -> None:
        if self.network:
            place = self.random.randrange(len(self.network)) if self.faults else 0
            self._hand_over(self.network.pop(place))

    def repeat(self, _host: Host) -> None:
        if self.network:
            self._hand_over(self.random.choice(self.network))

    def _hand_over(self, message: Message) -> None:
        host = self.hosts[message.to]
        arrives = host.alive and (host.id in self.cut_off) == (message.sender in self.cut_off)
        if arrives:
            host.raw.at(host.clock()).step(message)
            self.observe(host)
        self._report(message, lost=not arrives)

    def _report(self, message: Message, *, lost: bool) -> None:
        """Hosts tell the core what became of a snapshot."""
        sender = self.hosts.get(message.sender)
        if message.kind is MessageKind.SNAPSHOT and sender is not None and sender.alive:
            sender.raw.at(sender.clock()).report_snapshot(message.to, failed=lost)

    def partition(self, _host: Host) -> None:
        """Cut some hosts off from the others, or end that."""
        size = self.random.choice((0, 0, 1, 2))
        self.cut_off = frozenset(self.random.sample(list(self.hosts), size))

    def lose(self, host: Host) -> None:
        sent, self.network = self.network, []
        for message in sent:
            if message.to == host.id and self.random.random() < 0.7:
                self._report(message, lost=True)
            else:
                self.network.append(message)

    def work(self, host: Host) -> None:
        for action in (self.ready, self.write, self.respond, self.apply, self.respond):
            if self.random.random() < 0.7:
                action(host)

    def ready(self, host: Host) -> None:
        if host.alive and host.raw.has_ready():
            host.take_ready()

    def write(self, host: Host) -> None:
        if host.alive and host.appends:
            host.write_next()

    def apply(self, host: Host) -> None:
        if host.alive and host.applies:
            host.apply_next()

    def respond(self, host: Host) -> None:
        while host.alive and host.inbox:
            host.raw.step(host.inbox.popleft())

    def advance_time(self, _host: Host) -> None:
        self.now_us += int(TICK_US * self.random.uniform(0.1, 1.2))
        for host in self.hosts.values():
            if host.alive and host.clock() >= host.next_tick_us and self.random.random() < 0.8:
                host.next_tick_us = host.clock() + TICK_US
                host.raw.at(host.clock()).tick()
                self.observe(host)

    def _leaders(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.alive and host.raw.is_leader]

    def propose(self, _host: Host) -> None:
        leaders = self._leaders()
        if leaders:
            host = self.random.choice(leaders)
            self.proposed += 1
            host.raw.propose(b"%06d" % self.proposed)
            self.observe(host)

    def campaign(self, host: Host) -> None:
        if host.alive:
            host.raw.campaign()

    def crash(self, host: Host) -> None:
        host.crash()

    def restart(self, host: Host) -> None:
        if not host.alive:
            host.start()

    def change_members(self, _host: Host) -> None:
        leaders = self._leaders()
        if not leaders:
            return
        host = self.random.choice(leaders)
        if self.random.random() < 0.5:
            wanted = set(self.random.sample(list(self.hosts), self.random.randint(1, 3)))
            present = host.raw.raft.tracker.configuration.incoming
            changes = [Change(ChangeKind.ADD_VOTER, node) for node in sorted(wanted - present)]
            changes += [Change(ChangeKind.REMOVE, node) for node in sorted(present - wanted)]
        else:
            kinds = (ChangeKind.ADD_VOTER, ChangeKind.REMOVE, ChangeKind.ADD_LEARNER)
            count = self.random.randint(0, 2)
            changes = [
                Change(self.random.choice(kinds), self.random.randint(1, 5)) for _ in range(count)
            ]
        transition = self.random.choice(list(Transition)) if changes else Transition.AUTO
        host.raw.propose_conf_change(ConfChange(tuple(changes), transition))
        self.observe(host)

    def transfer(self, host: Host) -> None:
        if host.alive:
            host.raw.transfer_leader(self.random.randint(1, 5))

    def read(self, host: Host) -> None:
        if host.alive:
            context = b"%d" % len(self.reads)
            self.reads[context] = self.chosen_last
            host.raw.read_index(context)

    def flush(self, host: Host) -> None:
        if host.alive:
            host.flush_and_compact()

    # Afterwards.

    def heal(self) -> None:
        """Stop all faults; the members must elect a leader, commit something new, and agree."""
        self.cut_off = frozenset()
        for host in self.hosts.values():
            self.restart(host)
        marker = b"healed"
        for _ in range(400):
            self.now_us += int(TICK_US * 1.1)
            for host in self.hosts.values():
                host.raw.at(host.clock()).tick()
            self._settle()
            goal = self._proposed_marker(marker)
            if goal and all(host.applied.index >= goal for host in self._members()):
                return
        raise ViolationError("the group did not recover")

    def _members(self) -> list[Host]:
        state = self.membership[1]
        return [
            self.hosts[node] for node in {*state.voters, *state.voters_outgoing, *state.learners}
        ]

    def _proposed_marker(self, marker: bytes) -> int:
        for index, stored in self.chosen.items():
            if stored[1] == marker:
                return index
        for host in self._members():
            if host.raw.is_leader:
                host.raw.propose(marker)
        return 0

    def _settle(self) -> None:
        for _ in range(60):
            sent, self.network = self.network, []
            for message in sent:
                self._hand_over(message)
            busy = bool(sent)
            for host in self.hosts.values():
                host.raw.at(host.clock())
                busy |= host.raw.has_ready() or bool(host.appends or host.applies or host.inbox)
                self.ready(host)
                for work in (self.write, self.apply, self.respond):
                    work(host)
                self.observe(host)
            if not busy:
                return


def explore(
    seed: int, steps: int, *, heal: bool = True, fixed: Mapping[str, Any] | None = None
) -> World:
    """Run one schedule; raises ViolationError, or the core's own AssertionError, when something is wrong."""
    world = World(seed, fixed)
    for _ in range(steps):
        world.step()
    if heal:
        world.heal()
    return world
