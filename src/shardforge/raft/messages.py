"""What consensus groups say to each other, to their storage, and to themselves.

Plain values: nothing here decides. Every message is immutable, and msgspec encodes it as an array.
Source: etcd-io/raft raftpb, with names spelt out.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

NO_NODE: Final = 0
"""No node: an unknown leader, a vote not cast."""
APPEND_THREAD: Final = 2**63 - 1
"""The host's log writer, as a recipient or sender of storage messages."""
APPLY_THREAD: Final = 2**63 - 2
"""The host's state machine, as a recipient or sender of storage messages."""


class EntryKind(enum.IntEnum):
    """What an entry's data means to the core."""

    NORMAL = 0
    CONF_CHANGE = 1


class MessageKind(enum.IntEnum):
    """Who says what. Storage messages never leave the process."""

    APPEND = 1
    APPEND_RESPONSE = 2
    HEARTBEAT = 3
    HEARTBEAT_RESPONSE = 4
    SNAPSHOT = 5
    VOTE = 6
    VOTE_RESPONSE = 7
    PRE_VOTE = 8
    PRE_VOTE_RESPONSE = 9
    TIMEOUT_NOW = 10
    PROPOSE = 11
    READ_INDEX = 12
    READ_INDEX_RESPONSE = 13
    TRANSFER_LEADER = 14
    STORAGE_APPEND = 15
    STORAGE_APPEND_RESPONSE = 16
    STORAGE_APPLY = 17
    STORAGE_APPLY_RESPONSE = 18


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot of the replicated log."""

    index: int
    term: int
    data: bytes
    kind: EntryKind = EntryKind.NORMAL


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a voter must not forget. `commit` may lag behind what is known to be committed."""

    term: int = 0
    vote: int = NO_NODE
    commit: int = 0


class ConfState(msgspec.Struct, frozen=True, array_like=True):
    """A group's membership, as snapshots and state machines keep it. Sorted node ids."""

    voters: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """A state machine at an index. `data` is the host's: the state, or where to fetch it."""

    index: int
    term: int
    conf_state: ConfState
    data: bytes = b""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """One message; which fields count depends on its kind.

    `term` 0 marks a local message. `index`/`log_term` name the entry before `entries`, the last entry of a
    candidate, or the index acknowledged. `sent_at` is the leader's own clock, echoed for its lease.
    """

    kind: MessageKind
    to: int
    sender: int
    term: int = 0
    index: int = 0
    log_term: int = 0
    commit: int = 0
    entries: Sequence[Entry] = ()
    reject: bool = False
    reject_hint: int = 0
    context: bytes = b""
    snapshot: Snapshot | None = None
    vote: int = NO_NODE
    sent_at: int = 0
    responses: Sequence[Message] = ()


LEADER_MESSAGES: Final = frozenset(
    {MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT}
)
"""Only the leader of a term sends these in it."""
PEER_RESPONSES: Final = frozenset(
    {
        MessageKind.APPEND_RESPONSE,
        MessageKind.HEARTBEAT_RESPONSE,
        MessageKind.VOTE_RESPONSE,
        MessageKind.PRE_VOTE_RESPONSE,
    }
)
"""Answers of members; from anyone else they are dropped."""
