"""The core as its host drives it.

    node.propose(data) / node.step(message) / node.tick()
    while node.has_ready():
        ready = node.ready()
        send ready.messages                                   at once
        write ready.storage_append, durably if `must_sync` or it has responses;  then node.stored(it) -> send
        apply ready.storage_apply.entries, in order;                              then node.applied(it)

Storage messages are done in the order of their readies, appends among themselves and applies among themselves;
the next ready may be taken before they are done. A storage-append without responses need not be made durable.
Without `async_storage_writes` the host does entries, hard state, snapshot and committed entries of the ready
itself, durably before it sends the messages, and then calls `advance`.

A group begins with a membership and a log whose base is above 0 on its first voters: a newcomer, who has neither,
then gets both by a snapshot. The host says of every snapshot message what became of it (`report_snapshot`).
A conf-change entry is put in force by `apply_conf_change` while it is applied. Ticks may come late, never early.
Source: etcd-io/raft RawNode, and its asynchronous storage writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.raft import core, election, leader, membership
from shardforge.raft.confchange import ConfChange, encode_conf_change
from shardforge.raft.config import Config
from shardforge.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_NODE,
    PEER_RESPONSES,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
)
from shardforge.raft.ready import Ready, SoftState
from shardforge.raft.state import Raft, Role

_STORAGE_APPEND = MessageKind.STORAGE_APPEND
_STORAGE_APPEND_RESPONSE = MessageKind.STORAGE_APPEND_RESPONSE
_STORAGE_APPLY = MessageKind.STORAGE_APPLY
_STORAGE_APPLY_RESPONSE = MessageKind.STORAGE_APPLY_RESPONSE
_LEADER = Role.LEADER
_NORMAL = EntryKind.NORMAL
_NOTHING: tuple[Entry, ...] = ()
_NO_HARD_STATE = (0, NO_NODE, 0)


class RawNode:
    """One voter of one group."""

    __slots__ = ("_advance", "_hard", "_lead", "_role", "_sync", "raft")

    def __init__(self, config: Config) -> None:
        self.raft = raft = Raft(config)
        self._sync = not config.async_storage_writes
        self._hard = (raft.term, raft.vote, raft.log.committed)
        self._lead = raft.lead
        self._role = raft.role
        self._advance: list[Message] = []

    # What this node knows.

    @property
    def term(self) -> int:
        """The present term."""
        return self.raft.term

    @property
    def lead(self) -> int:
        """The leader's id, or NO_NODE."""
        return self.raft.lead

    @property
    def is_leader(self) -> bool:
        """Whether this node leads in the present term; another may lead in a later one."""
        return self.raft.role is Role.LEADER

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed."""
        return self.raft.log.committed

    @property
    def applied_index(self) -> int:
        """The highest index reported as applied."""
        return self.raft.log.applied

    @property
    def lease_until_us(self) -> int:
        """Until when, by the clock given to `at`, this leader may serve reads alone; 0: not at all."""
        return self.raft.lease_until_us

    # What happens to it.

    def at(self, now_us: int) -> RawNode:
        """Tell the time, by a monotonic clock that runs through suspension, before a tick, step or read."""
        self.raft.now_us = now_us
        return self

    def tick(self) -> None:
        """One tick has passed."""
        core.tick(self.raft)

    def step(self, message: Message) -> bool:
        """Take a message of a peer, or a response of the storage. False: a stranger's answer, dropped."""
        raft = self.raft
        if (
            message.kind in PEER_RESPONSES
            and message.sender not in raft.tracker.progress
            and message.sender != raft.id
        ):
            return False
        core.step(raft, message)
        return True

    def propose(self, data: bytes) -> int | None:
        """Propose an entry. Its index when this node leads, 0 when passed on to the leader, None when refused.

        An entry with this index and this term is the proposal; any other term there means that it is lost.
        """
        return self._propose(_NORMAL, (data,))

    def propose_many(self, payloads: Sequence[bytes]) -> int | None:
        """Propose several entries as one append to each member; see `propose`. The first one's index."""
        return self._propose(_NORMAL, payloads)

    def propose_conf_change(self, change: ConfChange) -> int | None:
        """Propose a membership change; see `propose`. One that comes at a wrong time becomes an empty entry."""
        return self._propose(EntryKind.CONF_CHANGE, (encode_conf_change(change),))

    def _propose(self, kind: EntryKind, payloads: Sequence[bytes]) -> int | None:
        raft = self.raft
        if raft.role is _LEADER:
            return leader.propose(raft, kind, payloads)
        if raft.lead == NO_NODE or not raft.config.forward_proposals:
            return None
        entries = [Entry(0, 0, data, kind) for data in payloads]
        core.step(raft, Message(MessageKind.PROPOSE, raft.lead, raft.id, entries=entries))
        return 0

    def apply_conf_change(self, entry: Entry) -> ConfState:
        """Put a committed membership change in force, as it is applied; what to keep with the applied index."""
        return membership.apply_conf_change(self.raft, entry)

    def campaign(self) -> bool:
        """Stand for election now. False: this node leads, may not lead, or has promised not to."""
        return election.stand(self.raft)

    def inherit(self, since_us: int) -> None:
        """Lead the first term of a group that came out of another one; see `election.inherit`."""
        election.inherit(self.raft, since_us)

    def transfer_leader(self, to: int) -> None:
        """Hand leadership over; given up after an election timeout."""
        core.step(self.raft, Message(MessageKind.TRANSFER_LEADER, NO_NODE, to))

    def read_index(self, context: bytes) -> None:
        """Ask for a linearizable read: a ReadState with this context, unique in the group, or nothing."""
        assert context, "a read needs a context"
        core.step(
            self.raft, Message(MessageKind.READ_INDEX, NO_NODE, self.raft.id, context=context)
        )

    def forget_leader(self) -> None:
        """Stop relying on the leader without campaigning: others may be voted for at once."""
        raft = self.raft
        # A lease rests on this node's promise, which does not depend on whom it believes to lead.
        if raft.role is Role.FOLLOWER and not raft.config.election_timeout_us:
            raft.lead = NO_NODE

    def report_unreachable(self, node: int) -> None:
        """Messages to a member were lost."""
        leader.report_unreachable(self.raft, node)

    def report_snapshot(self, node: int, *, failed: bool) -> None:
        """A snapshot sent to a member arrived, or did not."""
        leader.report_snapshot(self.raft, node, failed=failed)

    # What the host must do.

    def has_ready(self) -> bool:
        """Whether `ready` would hold anything."""
        raft = self.raft
        log = raft.log
        return bool(
            raft.messages
            or raft.after_append
            or log.has_work(allow_unstable=self._sync)
            or raft.read_states
            or log.committed != self._hard[2]
            or raft.term != self._hard[0]
            or raft.vote != self._hard[1]
            or raft.role is not self._role
            or raft.lead != self._lead
        )

    def take_messages(self) -> list[Message]:
        """The messages that may leave at once, ahead of `ready`: while the host still writes what came before."""
        raft = self.raft
        messages, raft.messages = raft.messages, []
        return messages

    def ready(self) -> Ready:
        """Take the outstanding work. It counts as handed out: do all of it."""
        raft = self.raft
        log = raft.log
        hard = (raft.term, raft.vote, log.committed)
        changed = hard != self._hard
        entries = log.next_unstable()
        committed: Sequence[Entry] = (
            log.next_committed(allow_unstable=self._sync) if log.applying < hard[2] else _NOTHING
        )
        ready = Ready(raft.messages, entries, committed)
        if entries:
            ready.must_sync = True
        if changed:
            ready.hard_state = HardState(*hard)
            if hard[0] != self._hard[0] or hard[1] != self._hard[1]:
                ready.must_sync = True
            self._hard = hard
        if raft.role is not self._role or raft.lead != self._lead:
            ready.soft_state = SoftState(raft.lead, raft.role)
            self._role, self._lead = raft.role, raft.lead
        if raft.read_states:
            ready.read_states, raft.read_states = raft.read_states, []
        if log.has_snapshot:
            ready.snapshot = log.next_snapshot()
        # What is handed out is the host's from here on: the lists begin anew even when they are empty.
        raft.messages = []
        if self._sync:
            self._add_own_responses(ready)
        else:
            self._add_storage_messages(ready, changed)
        raft.after_append = []
        log.accept_unstable()
        if committed:
            log.accept_applying(committed, allow_unstable=self._sync)
        return ready

    def _add_storage_messages(self, ready: Ready, hard_changed: bool) -> None:
        raft = self.raft
        responses = raft.after_append
        entries = ready.entries
        if entries or hard_changed or responses or ready.snapshot is not None:
            stored = self._stored_response(ready)
            if stored is not None:
                responses.append(stored)
            term, vote, commit = self._hard if hard_changed else _NO_HARD_STATE
            ready.storage_append = Message(
                _STORAGE_APPEND,
                APPEND_THREAD,
                raft.id,
                term,
                0,
                0,
                commit,
                entries,
                False,
                0,
                b"",
                ready.snapshot,
                vote,
                0,
                responses,
            )
        committed = ready.committed_entries
        if committed:
            ready.storage_apply = Message(
                _STORAGE_APPLY,
                APPLY_THREAD,
                raft.id,
                entries=committed,
                responses=(self._applied_response(committed),),
            )

    def _add_own_responses(self, ready: Ready) -> None:
        assert not self._advance, "the previous ready was not advanced"
        own = self.raft.id
        ready.messages = [*ready.messages, *(m for m in self.raft.after_append if m.to != own)]
        self._advance = [m for m in self.raft.after_append if m.to == own]
        stored = self._stored_response(ready)
        if stored is not None:
            self._advance.append(stored)
        if ready.committed_entries:
            self._advance.append(self._applied_response(ready.committed_entries))

    def _stored_response(self, ready: Ready) -> Message | None:
        """What tells the core that its tail is durable: the whole of it, as it is in the present term.

        Not just this ready's entries: an answer is ignored when the term has changed since, because a later
        write may be replacing what it reports, and then the next write must report for both.
        """
        raft = self.raft
        log = raft.log
        if log.has_unstable:
            index, log_term = log.last_index, log.last_term
        elif ready.snapshot is not None:
            index = log_term = 0
        else:
            return None
        return Message(
            _STORAGE_APPEND_RESPONSE,
            raft.id,
            APPEND_THREAD,
            raft.term,
            index,
            log_term,
            snapshot=ready.snapshot,
        )

    def _applied_response(self, entries: Sequence[Entry]) -> Message:
        return Message(_STORAGE_APPLY_RESPONSE, self.raft.id, APPLY_THREAD, entries=entries)

    def stored(self, message: Message) -> list[Message]:
        """A storage-append message is done, durably. The messages that may now be sent to other nodes."""
        raft = self.raft
        own = raft.id
        others = []
        for response in message.responses:
            if response.to == own:
                core.step(raft, response)
            else:
                others.append(response)
        return others

    def applied(self, message: Message) -> None:
        """A storage-apply message is done."""
        for response in message.responses:
            core.step(self.raft, response)

    def advance(self, _ready: Ready) -> None:
        """With synchronous writes: the ready is done."""
        steps, self._advance = self._advance, []
        for message in steps:
            core.step(self.raft, message)
