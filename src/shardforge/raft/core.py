"""The step function: terms first, then the handler of the message's kind in the present role.

Every message carries its sender's term. A higher one makes this node a follower of that term, except that
pre-votes, and requests that come while a leader is heard, change nothing. Lower ones are stale.
Source: thesis section 3.3; etcd-io/raft Step.
"""

from __future__ import annotations

from collections.abc import Callable

from shardforge.raft import election, follower, leader, membership, replication
from shardforge.raft.log import data_size
from shardforge.raft.messages import LEADER_MESSAGES, NO_NODE, Message, MessageKind
from shardforge.raft.state import Raft, Role

_Handler = Callable[[Raft, Message], object]


def tick(raft: Raft) -> None:
    """Let one tick pass."""
    if raft.role is Role.LEADER:
        leader.tick(raft)
    else:
        election.tick(raft)


def step(raft: Raft, message: Message) -> None:
    """Take one message."""
    term = message.term
    if (term == raft.term or not term or _settle_term(raft, message)) and (
        handler := _HANDLERS[raft.role].get(message.kind)
    ):
        handler(raft, message)


def _settle_term(raft: Raft, message: Message) -> bool:
    """Whether a message of another term is to be handled, after entering its term where that is due."""
    kind = message.kind
    if message.term < raft.term:
        _answer_stale(raft, message)
        return False
    if kind in _VOTE_REQUESTS and election.withholds_vote(raft, message):
        return False
    if kind is MessageKind.PRE_VOTE or (
        kind is MessageKind.PRE_VOTE_RESPONSE and not message.reject
    ):
        return True
    raft.become_follower(message.term, message.sender if kind in LEADER_MESSAGES else NO_NODE)
    return True


def _answer_stale(raft: Raft, message: Message) -> None:
    kind = message.kind
    config = raft.config
    if kind in (MessageKind.HEARTBEAT, MessageKind.APPEND):
        # A node that raised its term while cut off could neither win nor rejoin: tell the leader of it.
        if config.check_quorum or config.pre_vote:
            raft.respond_to_append(message.sender, 0)
    elif kind is MessageKind.PRE_VOTE:
        # Silence could leave a group without a leader when a node with a higher term cannot win.
        raft.after_append.append(
            Message(MessageKind.PRE_VOTE_RESPONSE, message.sender, raft.id, raft.term, reject=True)
        )
    elif kind is MessageKind.STORAGE_APPEND_RESPONSE and message.snapshot is not None:
        # Entries written in an older term may have been replaced since; a snapshot stays true.
        _on_snapshot_stored(raft, message.snapshot.index)


def _on_vote_request(raft: Raft, message: Message) -> None:
    if not election.withholds_vote(raft, message):
        election.on_vote_request(raft, message)


def _on_stored(raft: Raft, message: Message) -> None:
    if message.index:
        raft.log.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        _on_snapshot_stored(raft, message.snapshot.index)


def _on_snapshot_stored(raft: Raft, index: int) -> None:
    raft.log.snapshot_stable(index)
    membership.applied_to(raft, index, 0)


def _on_applied(raft: Raft, message: Message) -> None:
    entries = message.entries
    size = data_size(entries)
    if raft.uncommitted_bytes:
        raft.uncommitted_bytes = max(0, raft.uncommitted_bytes - size)
    membership.applied_to(raft, entries[-1].index, size)


_VOTE_REQUESTS = frozenset({MessageKind.VOTE, MessageKind.PRE_VOTE})

_COMMON: dict[MessageKind, _Handler] = {
    MessageKind.VOTE: _on_vote_request,
    MessageKind.PRE_VOTE: _on_vote_request,
    MessageKind.STORAGE_APPEND_RESPONSE: _on_stored,
    MessageKind.STORAGE_APPLY_RESPONSE: _on_applied,
}
_LEADER: dict[MessageKind, _Handler] = {
    **_COMMON,
    MessageKind.APPEND_RESPONSE: replication.on_append_response,
    MessageKind.HEARTBEAT_RESPONSE: replication.on_heartbeat_response,
    MessageKind.PROPOSE: leader.on_proposal,
    MessageKind.READ_INDEX: leader.on_read_index,
    MessageKind.TRANSFER_LEADER: leader.on_transfer_leader,
}
_NOT_LEADER: dict[MessageKind, _Handler] = {
    **_COMMON,
    MessageKind.APPEND: follower.on_append,
    MessageKind.HEARTBEAT: follower.on_heartbeat,
    MessageKind.SNAPSHOT: follower.on_snapshot,
}
_FOLLOWER: dict[MessageKind, _Handler] = {
    **_NOT_LEADER,
    MessageKind.PROPOSE: follower.on_proposal,
    MessageKind.READ_INDEX: follower.on_read_index,
    MessageKind.READ_INDEX_RESPONSE: follower.on_read_index_response,
    MessageKind.TRANSFER_LEADER: follower.on_transfer_leader,
    MessageKind.TIMEOUT_NOW: election.on_timeout_now,
}
_CANDIDATE: dict[MessageKind, _Handler] = {
    **_NOT_LEADER,
    MessageKind.VOTE_RESPONSE: election.on_vote_response,
    MessageKind.PRE_VOTE_RESPONSE: election.on_vote_response,
}
_HANDLERS: list[dict[MessageKind, _Handler]] = [_FOLLOWER, _CANDIDATE, _LEADER, _CANDIDATE]
"""By role."""
