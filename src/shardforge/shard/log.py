"""A shard's Raft log as its replica uses it: the port, and the log in memory.

`storage.wal` is the log on disk. `MemoryLog` serves `storage.engine = "memory"` and the tests: it can
lose what was not synced, as a disk does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class LogEntry(NamedTuple):
    """One entry of the log."""

    index: int
    term: int
    data: bytes


class HardState(NamedTuple):
    """What a voter must not forget."""

    term: int
    vote: int
    commit: int


class ShardLog(Protocol):
    """Entries after `first_index - 1`, and the hard state. One user at a time."""

    @property
    def first_index(self) -> int:
        """The index of the oldest entry kept; one above the last if there is none."""
        ...

    @property
    def last_index(self) -> int:
        """The index of the newest entry; 0 if there never was one."""
        ...

    def append(self, entries: Sequence[LogEntry], hard_state: HardState | None) -> int:
        """Write entries, replacing any from the first one's index on; the bytes written."""
        ...

    def sync(self) -> None:
        """Return once everything appended is durable. May run on a thread."""
        ...

    def cut(self, index: int) -> None:
        """Let go of the entries up to and including `index`."""
        ...

    def recovered(self) -> tuple[HardState, list[LogEntry]]:
        """The hard state and all entries, as found when the log was opened."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class MemoryLog:
    """A log in memory. `crash` gives what a restart would find."""

    def __init__(self) -> None:
        self._entries: list[LogEntry] = []
        self._base = 0
        self._hard = HardState(0, 0, 0)
        self._synced: tuple[HardState, list[LogEntry], int] = (self._hard, [], 0)

    @property
    def first_index(self) -> int:
        """The index of the oldest entry kept."""
        return self._base + 1

    @property
    def last_index(self) -> int:
        """The index of the newest entry."""
        return self._base + len(self._entries)

    def append(self, entries: Sequence[LogEntry], hard_state: HardState | None) -> int:
        """Write entries, replacing any from the first one's index on."""
        if entries:
            del self._entries[entries[0].index - self._base - 1 :]
            self._entries += entries
        if hard_state is not None:
            self._hard = hard_state
        return sum(len(entry.data) for entry in entries)

    def sync(self) -> None:
        """Make everything appended survive a crash."""
        self._synced = (self._hard, list(self._entries), self._base)

    def cut(self, index: int) -> None:
        """Let go of the entries up to and including `index`."""
        del self._entries[: index - self._base]
        self._base = max(self._base, index)

    def recovered(self) -> tuple[HardState, list[LogEntry]]:
        """The hard state and all entries."""
        return self._hard, list(self._entries)

    def crash(self) -> MemoryLog:
        """The log that a restart would find."""
        log = MemoryLog()
        hard, entries, base = self._synced
        log._hard, log._base, log._entries = hard, base, list(entries)
        log._synced = (hard, list(entries), base)
        return log

    def close(self) -> None:
        """Nothing to release."""
