"""What a node asks of its host: see `rawnode`. PURE."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shardforge.raft.messages import Entry, HardState, Message, Snapshot
from shardforge.raft.readindex import ReadState
from shardforge.raft.state import Role


class SoftState(msgspec.Struct, frozen=True):
    """Who leads as far as this node knows, and what it does itself. Need not be kept."""

    lead: int
    role: Role


class Ready(msgspec.Struct):
    """Work for the host. None and empty fields: nothing of the kind."""

    messages: Sequence[Message]
    """To other nodes. They may leave at once, or after the writes when those are synchronous."""
    entries: Sequence[Entry]
    committed_entries: Sequence[Entry]
    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    soft_state: SoftState | None = None
    read_states: Sequence[ReadState] = ()
    must_sync: bool = False
    """Whether entries, term or vote must be durable before anything that rests on them."""
    storage_append: Message | None = None
    """Entries, snapshot and, when its term is not 0, term/vote/commit to write; `responses` to deliver then."""
    storage_apply: Message | None = None
    """Committed entries to apply, all of them in the log storage already."""
