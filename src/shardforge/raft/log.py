"""The log as the core sees it: a durable part behind `LogStorage`, and a tail in memory.

    first_index ..   | offset ..         stable ..        handed ..     last_index
    LogStorage alone | durable, kept     being written    not handed out yet
                     | until handed on

Entries stay in the tail until they are durable and handed to the state machine, so that in the ordinary course
nothing is ever read back. Invariants: applied <= applying <= committed <= last_index; offset <= stable <= handed;
committed entries are never replaced; the tail shadows what the storage holds at and above `offset`, which may
be about to be overwritten. Source: etcd-io/raft log and log_unstable.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.raft.log_storage import LogStorage
from shardforge.raft.messages import Entry, EntryKind, Snapshot

_PAGE_BYTES = 1 << 20
_KEPT_MAX = 4096
"""How many durable entries may wait in memory for the state machine."""


def data_size(entries: Sequence[Entry]) -> int:
    """Bytes of data in some entries: the unit of every size limit."""
    return (
        len(entries[0].data) if len(entries) == 1 else sum([len(entry.data) for entry in entries])
    )


class RaftLog:
    """Entries by index, and how far they are committed, handed out and applied."""

    __slots__ = (
        "_applying_bytes",
        "_applying_bytes_max",
        "_applying_paused",
        "_entries",
        "_handed",
        "_offset",
        "_snapshot",
        "_snapshot_handed",
        "_stable",
        "_storage",
        "applied",
        "applying",
        "committed",
    )

    def __init__(self, storage: LogStorage, applying_bytes_max: int) -> None:
        self._storage = storage
        self._entries: list[Entry] = []
        self._offset = storage.last_index() + 1
        self._handed = self._stable = self._offset
        self._snapshot: Snapshot | None = None
        self._snapshot_handed = False
        self.committed = self.applying = self.applied = storage.first_index() - 1
        self._applying_bytes_max = applying_bytes_max
        self._applying_bytes = 0
        self._applying_paused = False

    # What is there.

    @property
    def first_index(self) -> int:
        """The oldest entry that can be read."""
        return (
            self._snapshot.index + 1 if self._snapshot is not None else self._storage.first_index()
        )

    @property
    def last_index(self) -> int:
        """The newest entry."""
        return self._offset + len(self._entries) - 1

    @property
    def last_term(self) -> int:
        """The newest entry's term."""
        entries = self._entries
        return entries[-1].term if entries else self._known_term(self._offset - 1)

    def term(self, index: int) -> int | None:
        """The term at an index; None when it is compacted away or not there yet."""
        position = index - self._offset
        if position >= 0:
            return self._entries[position].term if position < len(self._entries) else None
        if self._snapshot is not None:
            return self._snapshot.term if index == self._snapshot.index else None
        return self._storage.term(index)

    def _known_term(self, index: int) -> int:
        term = self.term(index)
        assert term is not None, f"no term at {index}"
        return term

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at an index has this term, and with it the whole log up to it is the same."""
        return self.term(index) == term

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends so has at least everything that this one could have committed."""
        return (term, index) >= (self.last_term, self.last_index)

    def slice(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Entries with low <= index < high, at least one, then up to `bytes_max` of data."""
        if low >= high:
            return []
        offset = self._offset
        if low >= offset:
            return _limit(self._entries[low - offset : high - offset], bytes_max)
        entries = self._storage.entries(low, min(high, offset), bytes_max)
        if high > offset and len(entries) == offset - low:
            entries = _limit([*entries, *self._entries[: high - offset]], bytes_max)
        return entries

    def entries_from(self, index: int, bytes_max: int) -> list[Entry]:
        """Entries from an index on."""
        return self.slice(index, self.last_index + 1, bytes_max)

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """The largest (index, term) here, at or below the given one, that the other log could share.

        Terms never fall along a log, so an entry with a larger term cannot be in it. Term 0: unknown.
        """
        while index > 0:
            own = self.term(index)
            if own is None:
                return index, 0
            if own <= term:
                return index, own
            index -= 1
        return 0, 0

    def has_unapplied_conf_change(self) -> bool:
        """Whether a membership change is committed and not yet in force here."""
        low = self.applied + 1
        while low <= self.committed:
            page = self.slice(low, self.committed + 1, _PAGE_BYTES)
            if any(entry.kind is EntryKind.CONF_CHANGE for entry in page):
                return True
            low = page[-1].index + 1
        return False

    # Appending and committing.

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries; what is at or after the first one's index is replaced."""
        first = entries[0].index
        assert first > self.committed, (
            f"entry {first} would replace a committed one ({self.committed})"
        )
        offset = self._offset
        if first == offset + len(self._entries):
            self._entries.extend(entries)
        elif first <= offset:
            self._entries = list(entries)
            self._offset = self._stable = self._handed = first
        else:
            self._entries = [*self._entries[: first - offset], *entries]
            self._handed = min(self._handed, first)
            self._stable = min(self._stable, first)

    def append_after(
        self, index: int, term: int, entries: Sequence[Entry], commit: int
    ) -> int | None:
        """Append a leader's entries if the log agrees at `index`. The last index now shared, or None."""
        if not self.matches(index, term):
            return None
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                self.append(entries[position:])
                break
        shared = index + len(entries)
        self.commit_to(min(commit, shared))
        return shared

    def commit_to(self, index: int) -> None:
        """Entries up to `index` are committed; never goes back."""
        if index > self.committed:
            assert index <= self.last_index, (
                f"commit {index} is beyond the log's end {self.last_index}"
            )
            self.committed = index

    # The tail: handing it out and hearing that it is durable.

    @property
    def has_unstable(self) -> bool:
        """Whether any entry is not known to be durable."""
        return self._stable < self._offset + len(self._entries)

    def next_unstable(self) -> list[Entry]:
        """Entries not yet handed out."""
        handed = self._handed - self._offset
        return self._entries[handed:] if handed else self._entries[:]

    def next_snapshot(self) -> Snapshot | None:
        """A snapshot not yet handed out."""
        return None if self._snapshot_handed else self._snapshot

    def accept_unstable(self) -> None:
        """The tail was handed to the storage."""
        self._handed = self._offset + len(self._entries)
        self._snapshot_handed = self._snapshot is not None

    def stable_to(self, index: int, term: int) -> None:
        """The storage has the tail up to `index`, unless that part was replaced meanwhile."""
        position = index - self._offset
        entries = self._entries
        if index >= self._stable and position < len(entries) and entries[position].term == term:
            self._stable = index + 1
            if self._handed < self._stable:
                self._handed = self._stable
            if position > _KEPT_MAX:
                self._let_go(index)

    def _let_go(self, index: int) -> None:
        """Leave durable entries up to `index` to the storage alone."""
        count = min(index + 1, self._stable) - self._offset
        if count > 0:
            del self._entries[:count]
            self._offset += count

    # Snapshots.

    @property
    def has_snapshot(self) -> bool:
        """Whether a received snapshot is not known to be durable yet."""
        return self._snapshot is not None

    def snapshot(self) -> Snapshot | None:
        """A snapshot to send."""
        return self._snapshot if self._snapshot is not None else self._storage.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """The log is what a received snapshot says; entries after it are dropped."""
        self._snapshot = snapshot
        self._snapshot_handed = False
        self._entries = []
        self._offset = self._stable = self._handed = snapshot.index + 1
        self.committed = snapshot.index

    def snapshot_stable(self, index: int) -> None:
        """The storage has the snapshot at `index`."""
        if self._snapshot is not None and self._snapshot.index == index:
            self._snapshot = None
            self._snapshot_handed = False

    # Applying.

    def _appliable(self, *, allow_unstable: bool) -> int:
        stable = self._stable - 1
        return self.committed if allow_unstable or self.committed <= stable else stable

    def has_work(self, *, allow_unstable: bool) -> bool:
        """Whether anything waits to be handed to the storage or to the state machine."""
        if self._handed < self._offset + len(self._entries):
            return True
        if self._snapshot is not None:
            return not self._snapshot_handed
        if self.applying >= self.committed or self._applying_paused:
            return False
        return allow_unstable or self.applying < self._stable - 1

    def next_committed(self, *, allow_unstable: bool) -> list[Entry]:
        """Committed entries not yet handed out, within the limit of bytes being applied."""
        if self.applying >= self.committed or self._applying_paused or self._snapshot is not None:
            return []
        high = self._appliable(allow_unstable=allow_unstable) + 1
        return self.slice(self.applying + 1, high, self._applying_bytes_max - self._applying_bytes)

    def accept_applying(self, entries: Sequence[Entry], *, allow_unstable: bool) -> None:
        """Committed entries were handed to the state machine."""
        self.applying = entries[-1].index
        self._applying_bytes += data_size(entries)
        self._applying_paused = (
            self._applying_bytes >= self._applying_bytes_max
            or self.applying < self._appliable(allow_unstable=allow_unstable)
        )
        self._let_go(self.applying)

    def applied_to(self, index: int, size: int) -> None:
        """The state machine has applied everything up to `index`."""
        assert self.applied <= index <= self.committed, (
            f"applied {index} outside of what is committed"
        )
        self.applied = index
        if self.applying < index:
            self.applying = index
        self._applying_bytes = self._applying_bytes - size if self._applying_bytes > size else 0
        self._applying_paused = self._applying_bytes >= self._applying_bytes_max


def _limit(entries: list[Entry], bytes_max: int) -> list[Entry]:
    if len(entries) <= 1:
        return entries
    size = 0
    for position, entry in enumerate(entries):
        size += len(entry.data)
        if size > bytes_max and position:
            return entries[:position]
    return entries
