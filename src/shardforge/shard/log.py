"""A shard's Raft log as its replica uses it: the port, and the log in memory.

`storage.wal.RaftLog` is the log on disk. `MemoryLog` serves `storage.engine = "memory"` and the tests: it
can lose what was not synced, as a disk does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from shardforge.ports import Blocking
from shardforge.storage.wal_format import HardState

Entry = tuple[int, int, bytes]
"""(index, term, data)"""


class ShardLog(Protocol):
    """Changes cost no I/O until `make_durable`, or `sync` on a thread; the others may be called meanwhile."""

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index last set."""
        ...

    @property
    def base_index(self) -> int:
        """The index before the oldest entry kept."""
        ...

    @property
    def last_index(self) -> int:
        """The newest entry's index; the base's if there is none."""
        ...

    @property
    def size(self) -> int:
        """Bytes held."""
        ...

    def term(self, index: int) -> int | None:
        """The term of an entry or of the base."""
        ...

    def read(self, low: int, high: int, *, bytes_max: int = 1 << 62) -> list[Entry]:
        """The entries with low <= index < high, at least one, then up to `bytes_max` bytes."""
        ...

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries; one whose index is taken replaces everything from there on."""
        ...

    def reset(self, index: int, term: int) -> None:
        """A state up to this entry is in place: drop the entries that it covers or contradicts."""
        ...

    def set_hard_state(self, term: int, vote: int, commit: int) -> None:
        """Remember what the voter must not forget."""
        ...

    async def make_durable(self, blocking: Blocking) -> None:
        """Make every change made before the call durable. One call at a time, and none beside `truncate_prefix`."""
        ...

    def sync(self) -> int:
        """The same, for who may block."""
        ...

    def truncate_prefix(self, index: int) -> None:
        """Drop durable entries up to `index`."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class MemoryLog:
    """A log in memory. `crash` gives what a restart would find."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._base = (0, 0)
        self._hard = HardState(0, 0, 0)
        self._synced = (self._hard, list[Entry](), self._base)

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index last set."""
        return self._hard

    @property
    def base_index(self) -> int:
        """The index before the oldest entry kept."""
        return self._base[0]

    @property
    def last_index(self) -> int:
        """The newest entry's index."""
        return self._base[0] + len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(len(data) for _, _, data in self._entries)

    def term(self, index: int) -> int | None:
        """The term of an entry or of the base."""
        base, term = self._base
        if index == base:
            return term
        return self._entries[index - base - 1][1] if base < index <= self.last_index else None

    def read(self, low: int, high: int, *, bytes_max: int = 1 << 62) -> list[Entry]:
        """The entries with low <= index < high, at least one, then up to `bytes_max` bytes."""
        base = self._base[0] + 1
        found: list[Entry] = []
        size = 0
        for entry in self._entries[low - base : high - base]:
            size += len(entry[2])
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries; one whose index is taken replaces everything from there on."""
        for entry in entries:
            del self._entries[entry[0] - self._base[0] - 1 :]
            self._entries.append(entry)

    def reset(self, index: int, term: int) -> None:
        """A state up to this entry is in place: drop the entries that it covers or contradicts."""
        if self.term(index) == term:
            self.truncate_prefix(index)
        else:
            self._entries.clear()
            self._base = (index, term)

    def set_hard_state(self, term: int, vote: int, commit: int) -> None:
        """Remember what the voter must not forget."""
        self._hard = HardState(term, vote, commit)

    async def make_durable(self, blocking: Blocking) -> None:
        """Make everything so far survive a crash, when the disk has had its time."""
        await blocking.run(self.sync)

    def sync(self) -> int:
        """Make everything so far survive a crash."""
        self._synced = (self._hard, list(self._entries), self._base)
        return self.last_index

    def truncate_prefix(self, index: int) -> None:
        """Drop entries up to `index`."""
        if index > self._base[0]:
            term = self.term(index) or 0
            del self._entries[: index - self._base[0]]
            self._base = (index, term)

    def crash(self) -> MemoryLog:
        """The log that a restart would find."""
        log = MemoryLog()
        log._hard, entries, log._base = self._synced
        log._entries = list(entries)
        log._synced = (log._hard, list(entries), log._base)
        return log

    def close(self) -> None:
        """Nothing to release."""
