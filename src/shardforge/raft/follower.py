"""A follower's side: taking over the leader's log, or its snapshot.

Source: thesis sections 3.5 and 5; etcd-io/raft.
"""

from __future__ import annotations

from shardforge.raft import confchange
from shardforge.raft.messages import NO_NODE, Message, MessageKind, Snapshot
from shardforge.raft.readindex import ReadState
from shardforge.raft.state import Raft, Role


def on_append(raft: Raft, message: Message) -> None:
    """Append what the leader sent, or say where the logs may agree."""
    _follow(raft, message)
    log = raft.log
    if message.index < log.committed:
        raft.respond_to_append(message.sender, log.committed, message.sent_at)
        return
    shared = log.append_after(message.index, message.log_term, message.entries, message.commit)
    if shared is not None:
        raft.respond_to_append(message.sender, shared, message.sent_at)
        return
    hint, hint_term = log.conflict_hint(min(message.index, log.last_index), message.log_term)
    raft.after_append.append(
        Message(
            MessageKind.APPEND_RESPONSE,
            message.sender,
            raft.id,
            raft.term,
            message.index,
            hint_term,
            reject=True,
            reject_hint=hint,
            sent_at=message.sent_at,
        )
    )


def on_heartbeat(raft: Raft, message: Message) -> None:
    """The leader is alive, and what it calls committed is in this log."""
    _follow(raft, message)
    raft.log.commit_to(message.commit)
    raft.messages.append(
        Message(
            MessageKind.HEARTBEAT_RESPONSE,
            message.sender,
            raft.id,
            raft.term,
            context=message.context,
            sent_at=message.sent_at,
        )
    )


def on_snapshot(raft: Raft, message: Message) -> None:
    """Take the leader's state when this log cannot be carried on from the leader's."""
    _follow(raft, message)
    snapshot = message.snapshot
    restored = snapshot is not None and _restore(raft, snapshot)
    index = raft.log.last_index if restored else raft.log.committed
    raft.respond_to_append(message.sender, index, message.sent_at)


def _follow(raft: Raft, message: Message) -> None:
    if raft.role is not Role.FOLLOWER:
        raft.become_follower(message.term, message.sender)
    raft.election_elapsed = 0
    raft.lead = message.sender
    raft.promise()


def _restore(raft: Raft, snapshot: Snapshot) -> bool:
    log = raft.log
    state = snapshot.conf_state
    if snapshot.index <= log.committed:
        return False
    members = (*state.voters, *state.voters_outgoing, *state.learners)
    if raft.id not in members:
        return False
    if log.matches(snapshot.index, snapshot.term):
        log.commit_to(snapshot.index)
        return False
    log.restore(snapshot)
    raft.conf_index = snapshot.index
    raft.tracker.progress.clear()
    raft.tracker.switch_to(confchange.restore(state), log.last_index)
    return True


def on_proposal(raft: Raft, message: Message) -> bool:
    """Pass a proposal on to the leader, if that is wanted and there is one."""
    if raft.lead == NO_NODE or not raft.config.forward_proposals:
        return False
    _forward(raft, message)
    return True


def on_read_index(raft: Raft, message: Message) -> None:
    """Ask the leader; without one the read is dropped and must be asked again."""
    if raft.lead != NO_NODE:
        _forward(raft, message)


def on_read_index_response(raft: Raft, message: Message) -> None:
    """The leader confirmed a read of this node."""
    raft.read_states.append(ReadState(message.index, message.context))


def on_transfer_leader(raft: Raft, message: Message) -> None:
    """Ask the leader to hand over; without one the wish is dropped."""
    if raft.lead != NO_NODE:
        _forward(raft, message)


def _forward(raft: Raft, message: Message) -> None:
    sender = message.sender if message.kind is MessageKind.TRANSFER_LEADER else raft.id
    raft.messages.append(
        Message(message.kind, raft.lead, sender, entries=message.entries, context=message.context)
    )
