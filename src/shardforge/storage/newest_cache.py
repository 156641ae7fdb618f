"""The newest version of hot keys, in memory.

A bounded map beside each replica's engine. `wrote` is called for every version that the replica applies, so
an entry is always the newest applied version of its key; what is not there is simply read from the
engine. Two generations stand in for least-recently-used: a hit in the old one moves the entry to the
young one; when the young ones of all caches that share a `CacheMemory` have filled half of it, they become the
old ones. What was in those is freed little by little: all at once would hold up the event loop.

Invariant: for every entry, its version equals `mvcc.newest` of the engine, unless that version was
collected (then it is a tombstone here and absent there: both read as "no row").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Entry = tuple[int, bytes | None]
"""(version timestamp, value). Timestamp 0 with None: the key has no version."""

_BURIED_AT_ONCE: Final = 4
ABSENT: Final[Entry] = (0, None)
_ENTRY_OVERHEAD: Final = 200
"""Bytes of two dictionary slots, a tuple and two bytes objects."""


def _size(key: bytes, entry: Entry) -> int:
    return _ENTRY_OVERHEAD + len(key) + (0 if entry[1] is None else len(entry[1]))


class CacheMemory:
    """What some caches may hold together: the busy ones of them take what the others leave."""

    __slots__ = ("_caches", "_doomed", "budget", "filled")

    def __init__(self, capacity_bytes: int) -> None:
        self.budget = capacity_bytes // 2
        """Of one generation."""
        self.filled = 0
        """Bytes of the young generations."""
        self._caches: list[NewestCache] = []
        self._doomed: list[dict[bytes, Entry]] = []

    def share(self, cache: NewestCache) -> None:
        """Count a cache in."""
        self._caches.append(cache)

    def turn(self) -> None:
        """The young generations are full."""
        self.filled = 0
        self._doomed = [cache.old for cache in self._caches if cache.old]
        for cache in self._caches:
            cache.old, cache.young = cache.young, {}

    def bury(self) -> None:
        """Free some of what is doomed, faster than entries are added."""
        doomed = self._doomed
        if doomed:
            last = doomed[-1]
            for _ in range(_BURIED_AT_ONCE):
                if not last:
                    doomed.pop()
                    break
                last.popitem()

    def leave(self, cache: NewestCache) -> None:
        """The cache is used no more."""
        cache.clear()
        self._caches.remove(cache)


class NewestCache:
    """Newest versions by user key. Not for use by several threads."""

    __slots__ = ("_memory", "old", "writes", "young")

    def __init__(self, memory: CacheMemory) -> None:
        self.young: dict[bytes, Entry] = {}
        self.old: dict[bytes, Entry] = {}
        self._memory = memory
        self.writes = 0
        """Versions applied so far; names the state that a `fill` was read from."""
        memory.share(self)

    def get(self, key: bytes) -> Entry | None:
        """The newest version of `key`; None if it must be read from the engine."""
        entry = self.young.get(key)
        if entry is None:
            entry = self.old.pop(key, None)
            if entry is not None:
                self._add(key, entry)
        return entry

    def wrote(self, key: bytes, timestamp: int, value: bytes | None) -> None:
        """A version was applied: it is the newest, unless a newer one is known."""
        self.writes += 1
        known = self.young.get(key) or self.old.pop(key, None)
        if known is None or timestamp >= known[0]:
            self._add(key, (timestamp, value))
        else:
            self._add(key, known)

    def fill(self, key: bytes, entry: Entry, as_of: int) -> None:
        """Remember what the engine had when `writes` was `as_of`; ignored if versions came since."""
        if as_of == self.writes and key not in self.young:
            self.old.pop(key, None)
            self._add(key, entry)

    def forget(self, keys: Iterable[bytes]) -> None:
        """These keys have newer versions than are known here."""
        self.writes += 1
        for key in keys:
            entry = self.young.pop(key, None)
            if entry is not None:
                self._memory.filled -= _size(key, entry)
            self.old.pop(key, None)

    def move(self, start: bytes, other: NewestCache) -> None:
        """Hand the keys from `start` on to another replica's cache: the shard was split there."""
        assert other._memory is self._memory, "caches of one node"
        for mine, theirs in ((self.old, other.old), (self.young, other.young)):
            for key in [key for key in mine if key >= start]:
                theirs[key] = mine.pop(key)
        self.writes += 1

    def clear(self) -> None:
        """Forget everything: the engine was replaced, or its span cut."""
        self._memory.filled -= sum([_size(key, entry) for key, entry in self.young.items()])
        self.young = {}
        self.old = {}
        self.writes += 1

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def _add(self, key: bytes, entry: Entry) -> None:
        memory, young = self._memory, self.young
        replaced = young.get(key)
        filled = memory.filled
        if replaced is None:
            filled += _ENTRY_OVERHEAD + len(key)
        elif replaced[1] is not None:
            filled -= len(replaced[1])
        if entry[1] is not None:
            filled += len(entry[1])
        memory.filled = filled
        young[key] = entry
        if replaced is None:
            memory.bury()
        if filled > memory.budget:
            memory.turn()
