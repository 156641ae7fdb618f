"""Closed timestamps: states of the past that no commit can change any more, for nodes that do not lead.

The serving node says of a timestamp that every commit at or below it is applied in each shard up to some entry. Whoever
holds all shards and has applied these entries can answer reads at that timestamp alone, without asking anybody. It
stays below every commit under way, so such a reader never meets one. Kept in memory only.
Source: design section 6; CockroachDB's closed timestamps.
PURE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple, TypeVar

import msgspec

from shardforge.ids import INFINITY, ShardId, Timestamp
from shardforge.txn.participant import Participant

OFFERS_MAX = 64

T = TypeVar("T")


class Closed(msgspec.Struct, frozen=True, array_like=True):
    """Every commit at or below `timestamp` is in the shards' states at these applied entries."""

    timestamp: Timestamp
    """0: nothing is closed."""
    applied: dict[ShardId, int]
    last: Timestamp = Timestamp(0)
    """The newest that was given at that moment: what was committed before it is at or below this one.

    0: another node may have given more since.
    """


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
        bound = min(bound, _before_marks(participant))
        applied[participant.replica.id] = participant.replica.index
    return Closed(Timestamp(bound), applied, last)


def _before_marks(participant: Participant) -> int:
    """What is before every commit in a shard that has its timestamp and is not applied yet.

    An orphan may have been committed long ago, at a timestamp above its floor that is not known here.
    """
    marks = participant.pending.marks.values()
    known = (mark.timestamp - 1 for mark in marks if mark.timestamp)
    unknown = (mark.floor for mark in marks if mark.orphan and not mark.timestamp)
    return min(chain(known, unknown), default=INFINITY)


class _Heard(NamedTuple):
    last: Timestamp
    heard_us: int
    asked_us: int


class ClosedTimestamps:
    """The offers that a node has heard, and the newest that its replicas can serve."""

    def __init__(self) -> None:
        self._offers: list[Closed] = []
        self._heard: list[_Heard] = []
        self._usable = Timestamp(0)
        self.closed_us = 0
        """A moment of this node's monotonic clock: what was committed before it is in the newest usable state.

        It is late by what an offer was under way.
        """
        self.asked_us = 0
        """The same, and certain: when this node asked for an offer."""

    def offer(self, closed: Closed, now_us: int, asked_us: int = 0) -> None:
        """The serving node closed a timestamp; `asked_us`: as an answer to a question of that moment."""
        if closed.timestamp:
            self._offers = [*_thinned(self._offers), closed]
            if closed.last:
                self._heard = [*_thinned(self._heard), _Heard(closed.last, now_us, asked_us)]

    @property
    def waiting(self) -> bool:
        """Whether `usable` may have something new to say."""
        return bool(self._offers)

    def usable(self, applied: Mapping[ShardId, int]) -> Timestamp:
        """The newest closed timestamp whose state is here; 0 when there is none."""
        for position in range(len(self._offers) - 1, -1, -1):
            if _holds(applied, self._offers[position]):
                found = self._offers[: position + 1]
                self._usable = max(self._usable, *(closed.timestamp for closed in found))
                del self._offers[: position + 1]
                break
        for heard in [heard for heard in self._heard if heard.last <= self._usable]:
            self.closed_us = heard.heard_us
            self.asked_us = max(self.asked_us, heard.asked_us)
            self._heard.remove(heard)
        return self._usable


def _thinned(kept: list[T]) -> list[T]:
    """Every second one once there are many: a node that is far behind still finds what it can serve."""
    return kept[1::2] if len(kept) >= OFFERS_MAX else kept


def _holds(applied: Mapping[ShardId, int], closed: Closed) -> bool:
    return all(applied.get(shard, -1) >= index for shard, index in closed.applied.items())
