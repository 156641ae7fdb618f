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
from shardforge.txn.participant import Participant

OFFERS_MAX = 64


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """Every commit at or below `timestamp` is in the shards' states at these applied entries."""

    timestamp: Timestamp
    """0: nothing is closed."""
    applied: dict[ShardId, int]
    last: Timestamp = Timestamp(0)
    """The newest that was given at that moment: what was committed before it is at or below this one."""


def closed_now(last: Timestamp, participants: Iterable[Participant]) -> Closed:
    """What the serving node can close: `last` is the newest timestamp that was given.

    A mark without a timestamp will get one above `last`; one that has it is not applied yet. Of a shard that is not
    served at this moment the marks are not known, though what they stand for may be applied: then nothing is closed.
    """
    bound = int(last)
    applied = {}
    for participant in participants:
        if not participant.term:
            return Closed(Timestamp(0), {})
        for mark in participant.pending.marks.values():
            if mark.timestamp:
                bound = min(bound, mark.timestamp - 1)
        applied[participant.replica.id] = participant.replica.index
    return Closed(Timestamp(bound), applied, last)


class ClosedTimestamps:
    """The offers that a node has heard, and the newest that its replicas can serve."""

    def __init__(self) -> None:
        self._offers: deque[tuple[Closed, int]] = deque(maxlen=OFFERS_MAX)
        self._heard: deque[tuple[Timestamp, int]] = deque(maxlen=OFFERS_MAX)
        self._usable = Timestamp(0)
        self.closed_us = 0
        """A moment of this node's monotonic clock: what was committed before it is in the newest usable state.

        It is late by what an offer was under way.
        """

    def offer(self, closed: Closed, now_us: int) -> None:
        """The serving node closed a timestamp."""
        if closed.timestamp:
            self._offers.append((closed, now_us))

    def usable(self, applied: Mapping[ShardId, int]) -> Timestamp:
        """The newest closed timestamp whose state is here; 0 when there is none."""
        while self._offers and _holds(applied, self._offers[0][0]):
            closed, heard_us = self._offers.popleft()
            self._usable = max(self._usable, closed.timestamp)
            self._heard.append((closed.last, heard_us))
        while self._heard and self._heard[0][0] <= self._usable:
            self.closed_us = self._heard.popleft()[1]
        return self._usable


def _holds(applied: Mapping[ShardId, int], closed: Closed) -> bool:
    return all(applied.get(shard, -1) >= index for shard, index in closed.applied.items())
