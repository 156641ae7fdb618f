"""A log in memory: the storage of tests and of the simulator.

`copy` is what a crash leaves behind when it is taken at each sync. Invariant: entries are contiguous after the
compacted base.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.raft.messages import ConfState, Entry, HardState, Message, Snapshot


class MemoryLogStorage:
    """A `LogStorage` with the writing half that a host needs."""

    __slots__ = ("_base", "_entries", "conf_state", "hard_state", "latest_snapshot")

    def __init__(
        self, conf_state: ConfState | None = None, *, index: int = 0, term: int = 0
    ) -> None:
        self.hard_state = HardState(term, 0, index)
        self.conf_state = conf_state if conf_state is not None else ConfState()
        self.latest_snapshot: Snapshot | None = None
        self._base = (index, term)
        self._entries: list[Entry] = []

    def copy(self) -> MemoryLogStorage:
        """An independent storage with the same contents."""
        other = MemoryLogStorage(self.conf_state)
        other.hard_state = self.hard_state
        other.latest_snapshot = self.latest_snapshot
        other._base = self._base
        other._entries = self._entries[:]
        return other

    def initial_state(self) -> tuple[HardState, ConfState]:
        """See `LogStorage`."""
        return self.hard_state, self.conf_state

    def first_index(self) -> int:
        """See `LogStorage`."""
        return self._base[0] + 1

    def last_index(self) -> int:
        """See `LogStorage`."""
        return self._base[0] + len(self._entries)

    def term(self, index: int) -> int | None:
        """See `LogStorage`."""
        position = index - self._base[0]
        if position == 0:
            return self._base[1]
        return self._entries[position - 1].term if 0 < position <= len(self._entries) else None

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """See `LogStorage`."""
        assert self.first_index() <= low < high <= self.last_index() + 1, (
            f"no entries [{low}, {high})"
        )
        start = self.first_index()
        chosen: list[Entry] = []
        size = 0
        for entry in self._entries[low - start : high - start]:
            size += len(entry.data)
            if chosen and size > bytes_max:
                break
            chosen.append(entry)
        return chosen

    def snapshot(self) -> Snapshot | None:
        """See `LogStorage`."""
        return self.latest_snapshot

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries over what is there from the first one's index on."""
        if entries:
            kept = entries[0].index - self.first_index()
            assert 0 <= kept <= len(self._entries), "a gap in the log"
            self._entries[kept:] = entries

    def restore(self, snapshot: Snapshot) -> None:
        """Become what a received snapshot says."""
        self._base = (snapshot.index, snapshot.term)
        self._entries = []
        self.conf_state = snapshot.conf_state
        self.latest_snapshot = snapshot

    def compact(self, index: int) -> None:
        """Drop entries up to `index`."""
        term = self.term(index)
        assert term is not None, f"cannot compact to {index}"
        self._entries = self._entries[index - self._base[0] :]
        self._base = (index, term)

    def write(self, message: Message) -> None:
        """Do what a storage-append message asks for."""
        if message.snapshot is not None:
            self.restore(message.snapshot)
        self.append(message.entries)
        if message.term:
            self.hard_state = HardState(message.term, message.vote, message.commit)
