"""A replica as a member of its shard's Raft group: what it knows of the group, says and hears, and is sent as a whole.

It takes what comes from outside (ticks, messages of others, announced snapshots) to the Raft core; what the core then
wants done, the pump does (`replica`).
Invariant: the core is told of a snapshot only when its state is here.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from shardforge.ids import NodeId
from shardforge.raft.confchange import ConfChange
from shardforge.raft.messages import ConfState, Entry, Message, MessageKind, Snapshot
from shardforge.raft.state import Role
from shardforge.shard.application import Application
from shardforge.shard.consensus import (
    LogReader,
    encode_membership,
    found,
    make_node,
    membership_of,
)
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.files import ShardFiles
from shardforge.shard.machine import Opened, StateMachine
from shardforge.shard.staging import Staging
from shardforge.shard.surroundings import Surroundings
from shardforge.storage import mvcc

_VOTES = frozenset((MessageKind.VOTE, MessageKind.PRE_VOTE))


class GroupMember(StateMachine, ABC):
    """One voter, or learner, of a shard's group."""

    def __init__(
        self, descriptor: ShardDescriptor, files: ShardFiles, surroundings: Surroundings,
        opened: Opened | None = None,
    ) -> None:  # fmt: skip
        super().__init__(descriptor, files, surroundings, opened)
        self.failure: Exception | None = None
        self._record_due = False
        self._staging = Staging(descriptor.id, files, surroundings.blocking, surroundings.fetch)
        state = found(self.engine, self._log, descriptor.voters)
        self.state = state
        members = membership_of(self.engine)
        self._reader = LogReader(self._log, members, state, self._pin)
        self._node = make_node(
            surroundings.node, self._reader, state.index, surroundings.options.timing,
            random.Random(surroundings.randomness.getrandbits(64)), self._now_us(),
        )  # fmt: skip

    @abstractmethod
    def _wake_pump(self) -> None:
        """See to it that what the core wants done is done soon."""

    @abstractmethod
    def _changed(self) -> None:
        """Tell the node that role, leader, members or the state of service are others now."""

    # ---- what the group is doing -----------------------------------------------------------------

    @property
    def lead(self) -> NodeId | None:
        """Who leads, as far as this replica knows."""
        return NodeId(self._node.lead) if self._node.lead else None

    @property
    def role(self) -> Role:
        """Whether this replica follows, leads, or stands for election."""
        return self._node.raft.role

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
    def first_index(self) -> int:
        """The oldest entry in the log: who lacks an older one needs a snapshot."""
        return self._node.raft.log.first_index

    @property
    def last_index(self) -> int:
        """The newest entry in the log."""
        return self._node.raft.log.last_index

    @property
    def alone(self) -> bool:
        """Whether this node is the only voter."""
        return self._node.raft.is_alone

    def followers(self) -> dict[NodeId, int]:
        """The newest entry that each other member has acknowledged, by the leader's knowledge."""
        progress = self._node.raft.tracker.progress
        return {NodeId(node): known.match for node, known in progress.items()}

    # ---- what comes from outside -----------------------------------------------------------------

    def tick(self) -> None:
        """A tick of the group's clockwork has passed."""
        if self.failure is not None:
            return
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

    def _send(self, messages: Sequence[Message]) -> None:
        if any(message.kind is MessageKind.TIMEOUT_NOW for message in messages):
            self._changed()  # the lease is given up with it
        self._with.outbox.add(self.id, messages)

    # ---- who belongs, and who leads --------------------------------------------------------------

    def change_members(self, change: ConfChange) -> bool:
        """Propose a membership change; whether it was proposed: `members` tells when it is in force."""
        accepted = self.failure is None and bool(self._node.propose_conf_change(change))
        self._wake_pump()
        return accepted

    def hand_over(self, to: NodeId) -> None:
        """Let `to` lead: this leader, or the one that it knows, hands over when `to` has caught up."""
        self._node.at(self._now_us()).transfer_leader(to)
        self._wake_pump()

    def _apply_members(self, application: Application, entry: Entry) -> None:
        members = self._node.apply_conf_change(entry)
        self._reader.members = members
        application.batch.append(mvcc.put_membership(encode_membership(members)))
        self._record_due = True
        self._changed()

    @property
    def recorded(self) -> bool:
        """Whether span and members are written down as they are, and the engine is durable so far."""
        return not self._record_due

    def _record_members(self) -> None:
        members = self.members
        self._record({*members.voters, *members.voters_outgoing, *members.learners})

    # ---- snapshots -------------------------------------------------------------------------------

    def expire_pins(self) -> None:
        """Let go of states that nobody pulls: who was to have them, and pulls no other, is asked where it stands."""
        if self._pins.expire(self._clock.monotonic_ns() / 1e9) and self._node.is_leader:
            for node in sorted(self._node.raft.tracker.progress.keys() - self._pins.pullers()):
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
        await self._replace(self._staging.take(snapshot.index), snapshot.index)
        self._reader.restored(snapshot)
        self._record_due = True
        self._changed()
