"""Which shard a key or span belongs to: a bisection over the sorted starts of the shards.

The map is replaced as a whole when a descriptor changes; readers hold no part of it across a wait.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from shardforge.shard.descriptor import ShardDescriptor, check_tiling


class Routed(Protocol):
    """What a map can point to: anything that stands for one shard."""

    @property
    def descriptor(self) -> ShardDescriptor: ...


R = TypeVar("R", bound=Routed)


class Router(Generic[R]):
    """The shard map of this node, pointing at the shards' leaders."""

    __slots__ = ("_ends", "_shards", "_starts")

    def __init__(self, shards: Iterable[R]) -> None:
        self.replace(shards)

    def replace(self, shards: Iterable[R]) -> None:
        """Install a new map."""
        ordered = sorted(shards, key=lambda shard: shard.descriptor.span)
        check_tiling(shard.descriptor for shard in ordered)
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
