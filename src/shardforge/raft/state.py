"""Everything one voter knows, and the few changes that all roles share.

The rules live beside it, by subject: `election`, `replication`, `follower`, `leader`, `membership`. They are
functions of this state; none keeps any of its own.

Invariants: `term` never falls; at most one vote is cast in a term. Messages in `after_append` rest on state that
is not durable yet and leave only once it is; those in `messages` may leave at once.
"""

from __future__ import annotations

import enum
from random import Random

from shardforge.raft import confchange
from shardforge.raft.config import Config
from shardforge.raft.log import RaftLog
from shardforge.raft.messages import NO_NODE, HardState, Message, MessageKind
from shardforge.raft.readindex import ReadIndexQueue, ReadState
from shardforge.raft.tracker import Tracker

_APPEND_RESPONSE = MessageKind.APPEND_RESPONSE


class Role(enum.IntEnum):
    """What a voter does at present."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


class Raft:
    """One voter's state."""

    __slots__ = (
        "after_append",
        "conf_index",
        "config",
        "election_elapsed",
        "heartbeat_elapsed",
        "id",
        "lead",
        "lease_given_up",
        "log",
        "messages",
        "now_us",
        "pending_conf_index",
        "pending_reads",
        "promised_until_us",
        "random",
        "randomized_election_ticks",
        "read_states",
        "reads",
        "role",
        "term",
        "tracker",
        "transferee",
        "uncommitted_bytes",
        "vote",
    )

    def __init__(self, config: Config) -> None:
        self.config = config
        self.id = config.node_id
        self.random: Random = config.random
        self.now_us = config.now_us
        hard_state, conf_state = config.storage.initial_state()
        self.log = RaftLog(config.storage, config.applying_bytes_max)
        self.tracker = Tracker(config.inflight_messages_max, config.inflight_bytes_max)
        self.tracker.switch_to(confchange.restore(conf_state), self.log.last_index)
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.log.commit_to(max(hard_state.commit, config.applied))
        if config.applied:
            self.log.applied_to(config.applied, 0)
        self.conf_index = self.log.applied
        """The index whose membership is in force; changes at or below it are in it."""
        self.role = Role.FOLLOWER
        self.lead = NO_NODE
        self.transferee = NO_NODE
        self.messages: list[Message] = []
        self.after_append: list[Message] = []
        self.read_states: list[ReadState] = []
        self.reads = ReadIndexQueue()
        self.pending_reads: list[Message] = []
        """Reads that wait for the leader to commit an entry of its own term."""
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomized_election_ticks = 0
        self.pending_conf_index = 0
        """At or above the newest membership change in the log; none is proposed until it is applied."""
        self.uncommitted_bytes = 0
        self.lease_given_up = False
        """A transfer began in this term: the target may be elected before any promise ends."""
        self.promised_until_us = 0
        if not self.is_alone:
            self.promise()
        self.become_follower(self.term, NO_NODE)

    @property
    def is_alone(self) -> bool:
        """Whether this node is the only voter."""
        return self.tracker.single == self.id

    @property
    def hard_state(self) -> HardState:
        """What must be durable before anything that rests on it leaves."""
        return HardState(self.term, self.vote, self.log.committed)

    @property
    def promotable(self) -> bool:
        """Whether this node may become leader: a voter, with no snapshot still to be stored."""
        progress = self.tracker.progress.get(self.id)
        return progress is not None and not progress.is_learner and not self.log.has_snapshot

    @property
    def is_learner(self) -> bool:
        """Whether this node is a member that does not vote."""
        progress = self.tracker.progress.get(self.id)
        return progress is not None and progress.is_learner

    @property
    def committed_in_term(self) -> bool:
        """Whether an entry of the present term is committed: only then does the leader know what is."""
        return self.log.term(self.log.committed) == self.term

    # Changes of role.

    def reset(self, term: int) -> None:
        """Begin anew, in this term or a later one."""
        if term != self.term:
            assert term > self.term, "the term fell"
            self.term = term
            self.vote = NO_NODE
        self.lead = NO_NODE
        self.transferee = NO_NODE
        self.lease_given_up = False
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        ticks = self.config.election_ticks
        self.randomized_election_ticks = ticks + self.random.randrange(ticks)
        self.tracker.reset(self.log.last_index, self.id)
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.reads = ReadIndexQueue()
        self.pending_reads = []

    def become_follower(self, term: int, lead: int) -> None:
        """Follow `lead`, or nobody yet."""
        self.reset(term)
        self.lead = lead
        self.role = Role.FOLLOWER

    def become_candidate(self) -> None:
        """Stand for the next term, with one's own vote."""
        assert self.role is not Role.LEADER
        self.reset(self.term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE

    def become_pre_candidate(self) -> None:
        """Ask who would vote, changing neither term nor vote."""
        assert self.role is not Role.LEADER
        self.tracker.votes = {}
        self.lead = NO_NODE
        self.role = Role.PRE_CANDIDATE

    # The lease, by the clock.

    def promise(self) -> None:
        """A leader was heard: help nobody else for one election timeout."""
        timeout = self.config.election_timeout_us
        if timeout:
            self.promised_until_us = self.now_us + timeout

    @property
    def promised(self) -> bool:
        """Whether a leader may still rely on this voter."""
        return self.now_us < self.promised_until_us

    @property
    def lease_until_us(self) -> int:
        """Until when this leader may read alone; 0 when it may not."""
        if self.role is not Role.LEADER or not self.config.election_timeout_us:
            return 0
        if self.lease_given_up or not self.committed_in_term:
            return 0
        if self.is_alone:
            return self.now_us + self.config.lease_us
        own = self.tracker.progress.get(self.id)
        if own is not None:
            own.lease_from = self.now_us
        answered = self.tracker.lease_from()
        return answered + self.config.lease_us if answered else 0

    # Sending.

    def respond_to_append(self, to: int, index: int, sent_at: int = 0) -> None:
        """Acknowledge the log up to `index`, once it is durable."""
        self.after_append.append(
            Message(_APPEND_RESPONSE, to, self.id, self.term, index, sent_at=sent_at)
        )

    def acknowledge_own(self, index: int) -> None:
        """The leader's own acknowledgement; a later one replaces one that has not left."""
        waiting = self.after_append
        message = Message(_APPEND_RESPONSE, self.id, self.id, self.term, index)
        if waiting and waiting[-1].to == self.id and waiting[-1].kind is _APPEND_RESPONSE:
            waiting[-1] = message
        else:
            waiting.append(message)
