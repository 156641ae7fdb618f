"""The port through which the core reads what the host has written. The core never writes.

Invariant the host keeps: once it steps the responses of a storage-append message, the message's entries, hard
state and snapshot are durable and these methods answer from them.
"""

from __future__ import annotations

from typing import Protocol

from shardforge.raft.messages import ConfState, Entry, HardState, Snapshot


class LogStorage(Protocol):
    """The durable log of one voter. Entry `first_index() - 1` is compacted away but keeps its term."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Read once, at start. The membership is the one at `Config.applied`."""
        ...

    def first_index(self) -> int:
        """The oldest entry that `entries` can return; last_index() + 1 when there is none."""
        ...

    def last_index(self) -> int:
        """The newest entry, or the index before the first when there is none."""
        ...

    def term(self, index: int) -> int | None:
        """The term at an index, from first_index() - 1 to last_index(); None outside of it."""
        ...

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Entries with low <= index < high, all of them kept: at least one, then up to `bytes_max` of data."""
        ...

    def snapshot(self) -> Snapshot | None:
        """A snapshot at or above first_index() - 1 for a follower that lags behind; None: not now, ask again."""
        ...
