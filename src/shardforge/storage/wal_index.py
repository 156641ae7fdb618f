"""Where each entry of a log is: terms and places by index, in flat arrays. PURE.

Also the replay rules of the log's records, so that a live log and a recovered one cannot differ.
Invariant: the log holds indexes base + 1 to last without a gap, and terms never decrease.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from shardforge.storage.wal_format import HardState


class Place(NamedTuple):
    """Where an entry's record is. Sequence 0: not written yet."""

    sequence: int
    offset: int
    size: int


class LogIndex:
    """Terms and places of the live entries; `base_term` is -1 while it is not known."""

    __slots__ = ("_offsets", "_sequences", "_sizes", "_terms", "base_index", "base_term", "hard")

    def __init__(self, base_index: int = 0, base_term: int = 0) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self.hard = HardState(0, 0, 0)
        self._terms = array("Q")
        self._sequences = array("Q")
        self._offsets = array("Q")
        self._sizes = array("Q")

    @property
    def last_index(self) -> int:
        """The newest entry's index; the base's if there is none."""
        return self.base_index + len(self._terms)

    def term(self, index: int) -> int | None:
        """The entry's term; the base's too; None outside."""
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index <= self.last_index:
            return None
        return self._terms[index - self.base_index - 1]

    def copy_of_terms(self) -> LogIndex:
        """The same indexes and terms as of now, without places."""
        copy = LogIndex(self.base_index, self.base_term)
        copy._terms = self._terms[:]
        return copy

    def place(self, index: int) -> Place:
        """Where the live entry `index` is."""
        at = index - self.base_index - 1
        return Place(self._sequences[at], self._offsets[at], self._sizes[at])

    def placed(self, index: int, place: Place) -> None:
        """The live entry `index` was written there."""
        at = index - self.base_index - 1
        self._sequences[at], self._offsets[at], self._sizes[at] = place

    def append(self, index: int, term: int, place: Place) -> None:
        """Add an entry; it replaces every entry from its index on."""
        assert self.base_index < index <= self.last_index + 1, "entries follow one another"
        if index <= self.last_index:
            self.cut(index)
        self._terms.append(term)
        self._sequences.append(place.sequence)
        self._offsets.append(place.offset)
        self._sizes.append(place.size)

    def cut(self, index: int) -> None:
        """Entries from `index` on are void."""
        keep = max(index - self.base_index - 1, 0)
        for column in (self._terms, self._sequences, self._offsets, self._sizes):
            del column[keep:]

    def rebase(self, index: int, term: int) -> None:
        """Drop entries up to `index`; all of them if that entry is not here with that term."""
        if index < self.base_index:
            return
        drop = index - self.base_index if self.term(index) in (term, -1) else len(self._terms)
        for column in (self._terms, self._sequences, self._offsets, self._sizes):
            del column[:drop]
        self.base_index, self.base_term = index, term

    def lower_base(self, index: int) -> None:
        """An entry at or below a first segment's start replaces it: the log ends before `index`.

        What is before it was in segments now removed, so a later record names the true base.
        """
        self.cut(self.base_index + 1)
        self.base_index, self.base_term = index - 1, -1
