"""Where a shard is cut: at a key that leaves about as many bytes, or as many requests, on either side.

A boundary is the shortest prefix of the first key above it that no key below it has, so it is no row's own key. Rows
with one shard key stay together where that is possible: `g/` keys are cut between two hashes of shard keys, unless
there is none near enough to the middle, because one value has outgrown the shard.
PURE. Source: the suffix truncation of B-trees (Bayer and Unterauer, Prefix B-trees, 1977), for the boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_HASHED = 3
"""Bytes of a `g/` key up to the end of the hash (see `keys`)."""
NEAR = 0.25
"""How far from the middle, as a share of all bytes, a boundary between shard keys may be."""
CANDIDATES = 512


class Candidate(NamedTuple):
    """A boundary, and how many bytes lie below it."""

    at: bytes
    below: int

    @property
    def keeps_together(self) -> bool:
        """Whether no shard key's rows are on both sides."""
        return not self.at.startswith(b"g") or len(self.at) <= _HASHED


def boundary(below: bytes, above: bytes) -> bytes:
    """The shortest key that is above `below` and not above `above`, which is the greater one and no longer version."""
    assert below < above, "keys in order"
    shared = next(
        (place for place, (a, b) in enumerate(zip(below, above, strict=False)) if a != b),
        len(below),
    )
    return above[: shared + 1]


class Survey:
    """The keys of a shard, seen in order, with the bytes that each takes."""

    def __init__(self, expected: int) -> None:
        """`expected`: about how many bytes there are."""
        self.total = 0
        self.candidates: list[Candidate] = []
        self._step = max(1, expected // CANDIDATES)
        self._due = 1
        self._together_due = 1
        self._last = b""

    def add(self, key: bytes, size: int) -> None:
        """A key, or another version of the last one."""
        last = self._last
        if key != last:
            if last:
                self._consider(last, key)
            self._last = key
        self.total += size

    def _consider(self, below: bytes, above: bytes) -> None:
        together = above[:_HASHED] != below[:_HASHED]
        if self.total >= self._due or (together and self.total >= self._together_due):
            self.candidates.append(Candidate(boundary(below, above), self.total))
            self._due = self.total + self._step
            if together:
                self._together_due = self._due


def choose(candidates: Sequence[Candidate], total: int, start: bytes, end: bytes) -> bytes | None:
    """The boundary inside (start, end) that balances best; None: there is none, as of a single key."""
    inside = [candidate for candidate in candidates if start < candidate.at < end]

    def off(candidate: Candidate) -> tuple[float, bytes]:
        return abs(candidate.below - total / 2), candidate.at

    together = [
        candidate
        for candidate in inside
        if candidate.keeps_together and abs(candidate.below - total / 2) <= NEAR * total
    ]
    best = min(together or inside, key=off, default=None)
    return None if best is None else best.at


def halving(sample: Sequence[bytes], start: bytes, end: bytes) -> bytes | None:
    """The boundary inside (start, end) around which requests halve, of which `sample` is one, in order.

    None where most are for one shard key's rows: no cut helps these, and each would tear them apart.
    """
    total = len(sample)
    candidates = (
        Candidate(boundary(below, above), place)
        for place, (below, above) in enumerate(pairwise(sample), start=1)
        if below != above and abs(place - total / 2) <= NEAR * total
    )
    return choose([one for one in candidates if one.keeps_together], total, start, end)
