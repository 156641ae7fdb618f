"""Closed timestamps: states of the past that no commit can change any more, for nodes that do not lead.

The serving node says of a timestamp that every commit at or below it is applied in each shard up to some entry. Whoever
holds all shards and has applied these entries can answer reads at that timestamp alone, without asking anybody. It
stays below every commit under way, so such a reader never meets one. Kept in memory only.
Source: design section 6; CockroachDB's closed timestamps.
PURE.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from shardforge.ids import ShardId, Timestamp
from shardforge.shard.replica import Replica

OFFERS_MAX = 64


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """Every commit at or below `timestamp` is in the shards' states at these applied entries."""

    timestamp: Timestamp
    applied: dict[ShardId, int]


def closed_now(last: Timestamp, replicas: Iterable[Replica]) -> Closed:
    """What the serving node can close: `last` is the newest timestamp that was given.

    A mark without a timestamp will get one above `last`; one that has it is not applied yet.
    """
    bound = int(last)
    applied = {}
    for replica in replicas:
        for mark in replica.pending.marks.values():
            if mark.timestamp:
                bound = min(bound, mark.timestamp - 1)
        applied[replica.id] = replica.applied
    return Closed(Timestamp(bound), applied)


class ClosedTimestamps:
    """The offers that a node has heard, and the newest that its replicas can serve."""

    def __init__(self) -> None:
        self._offers: deque[tuple[Closed, int]] = deque(maxlen=OFFERS_MAX)
        self._usable = Timestamp(0)
        self.closed_us = 0
        """When, by this node's wall clock, the newest usable one was heard of."""

    def offer(self, closed: Closed, now_us: int) -> None:
        """The serving node closed a timestamp."""
        self._offers.append((closed, now_us))

    def usable(self, applied: Mapping[ShardId, int]) -> Timestamp:
        """The newest closed timestamp whose state is here; 0 when there is none."""
        while self._offers and _holds(applied, self._offers[0][0]):
            closed, self.closed_us = self._offers.popleft()
            self._usable = max(self._usable, closed.timestamp)
        return self._usable


def _holds(applied: Mapping[ShardId, int], closed: Closed) -> bool:
    return all(applied.get(shard, -1) >= index for shard, index in closed.applied.items())
