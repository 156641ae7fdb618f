"""The newest version of hot keys, in memory.

A bounded map beside one replica's engine. `wrote` is called for every version that the replica applies, so
an entry is always the newest applied version of its key; what is not there is simply read from the
engine. Two generations stand in for least-recently-used: a hit in the old one moves the entry to the
young one; when the young one has filled half the budget it becomes the old one.

Invariant: for every entry, its version equals `mvcc.newest` of the engine, unless that version was
collected (then it is a tombstone here and absent there: both read as "no row").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Entry = tuple[int, bytes | None]
"""(version timestamp, value). Timestamp 0 with None: the key has no version."""

ABSENT: Final[Entry] = (0, None)
_ENTRY_OVERHEAD: Final = 200
"""Bytes of two dictionary slots, a tuple and two bytes objects."""


def _size(key: bytes, entry: Entry) -> int:
    return _ENTRY_OVERHEAD + len(key) + (0 if entry[1] is None else len(entry[1]))


class NewestCache:
    """Newest versions by user key. Not for use by several threads."""

    __slots__ = ("_budget", "_filled", "_old", "_young", "writes")

    def __init__(self, capacity_bytes: int) -> None:
        self._young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}
        self._budget = capacity_bytes // 2
        self._filled = 0
        self.writes = 0
        """Versions applied so far; names the state that a `fill` was read from."""

    def get(self, key: bytes) -> Entry | None:
        """The newest version of `key`; None if it must be read from the engine."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.pop(key, None)
            if entry is not None:
                self._add(key, entry)
        return entry

    def wrote(self, key: bytes, timestamp: int, value: bytes | None) -> None:
        """A version was applied: it is the newest, unless a newer one is known."""
        self.writes += 1
        known = self._young.get(key) or self._old.pop(key, None)
        if known is None or timestamp >= known[0]:
            self._add(key, (timestamp, value))
        else:
            self._add(key, known)

    def fill(self, key: bytes, entry: Entry, as_of: int) -> None:
        """Remember what the engine had when `writes` was `as_of`; ignored if versions came since."""
        if as_of == self.writes and key not in self._young:
            self._old.pop(key, None)
            self._add(key, entry)

    def forget(self, keys: Iterable[bytes]) -> None:
        """These keys have newer versions than are known here."""
        self.writes += 1
        for key in keys:
            entry = self._young.pop(key, None)
            if entry is not None:
                self._filled -= _size(key, entry)
            self._old.pop(key, None)

    def resize(self, capacity_bytes: int) -> None:
        """Take no more than so much from now on."""
        self._budget = capacity_bytes // 2

    def move(self, start: bytes, other: NewestCache) -> None:
        """Hand the keys from `start` on to another replica's cache: the shard was split there."""
        for generation in (self._old, self._young):
            for key in [key for key in generation if key >= start]:
                other._add(key, generation.pop(key))
        self._filled = sum(_size(key, entry) for key, entry in self._young.items())
        self.writes += 1

    def clear(self) -> None:
        """Forget everything: the engine was replaced, or its span cut."""
        self._young.clear()
        self._old.clear()
        self._filled = 0
        self.writes += 1

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _add(self, key: bytes, entry: Entry) -> None:
        replaced = self._young.get(key)
        if replaced is None:
            self._filled += _ENTRY_OVERHEAD + len(key)
        elif replaced[1] is not None:
            self._filled -= len(replaced[1])
        if entry[1] is not None:
            self._filled += len(entry[1])
        self._young[key] = entry
        if self._filled > self._budget:
            self._old = self._young
            self._young = {}
            self._filled = 0
