"""Which shard a key or span belongs to: a bisection over the sorted starts of the shards.

The map is replaced as a whole when a shard is split; readers hold no part of it across a wait, but ask again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from shardforge.shard.descriptor import ShardDescriptor, check_tiling


class Routed(Protocol):
    """What a map can point to: anything that stands for one shard."""

    @property
    def descriptor(self) -> ShardDescriptor: ...


R = TypeVar("R", bound=Routed)


class Router(Generic[R]):
    """The shard map of this node, pointing at the shards' leaders."""

    __slots__ = ("_ends", "_shards", "_starts", "generation")

    def __init__(self, shards: Iterable[R]) -> None:
        self.generation = 0
        """Grows with every new map."""
        self.replace(shards)

    def replace(self, shards: Iterable[R]) -> None:
        """Install a new map."""
        ordered = sorted(shards, key=lambda shard: shard.descriptor.span)
        check_tiling(shard.descriptor for shard in ordered)
        self.generation += 1
        self._shards = ordered
        self._starts = [shard.descriptor.span.start for shard in ordered]
        self._ends = [shard.descriptor.span.end for shard in ordered]

    @property
    def shards(self) -> list[R]:
        """All shards, in key order."""
        return self._shards

    def shard_of(self, key: bytes) -> R:
        """The shard that holds `key`."""
        return self._shards[bisect_right(self._starts, key) - 1]

    def part(self, start: bytes, end: bytes, *, reverse: bool = False) -> tuple[R, bytes, bytes]:
        """The first shard that [start, end) touches, with its part of it; the last one in reverse."""
        starts = self._starts
        position = (bisect_left(starts, end) if reverse else bisect_right(starts, start)) - 1
        return (
            self._shards[position],
            max(start, starts[position]),
            min(end, self._ends[position]),
        )

    def walk(self, start: bytes, end: bytes) -> Iterator[tuple[R, bytes, bytes]]:
        """As `shards_of`, each part by the map of the moment at which it is asked for."""
        while start < end:
            found = self.part(start, end)
            start = found[2]
            yield found

    def shards_of(self, start: bytes, end: bytes) -> list[tuple[R, bytes, bytes]]:
        """The shards that [start, end) touches, in key order, each with its part of the span."""
        if start >= end:
            return []
        parts = []
        for position in range(bisect_right(self._starts, start) - 1, len(self._shards)):
            if self._starts[position] >= end:
                break
            parts.append(
                (
                    self._shards[position],
                    max(start, self._starts[position]),
                    min(end, self._ends[position]),
                )
            )
        return parts
