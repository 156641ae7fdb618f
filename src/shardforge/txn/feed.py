"""What committed in some spans, in commit order, with resolved timestamps.

Commits leave only hints here, timestamp and key; the values are read from the versions in the store, which the feed
pins from where it stands. Beyond `HINTS_MAX` hints they are dropped and the spans are scanned for versions instead,
so a slow reader costs writers nothing and has no queue. A feed that begins in the past begins with such a scan.

A timestamp R is *resolved* when every commit at or below it is applied: it was given before some moment at which no
mark without a timestamp was left, and all marks with one were above it.

Invariant: changes come in the order of (commit timestamp, key), each once, and none at or below a resolved timestamp
that was told before. Holds for the tenure in which the feed was made.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from shardforge.ids import Timestamp
from shardforge.storage import mvcc
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.participant import Participant
from shardforge.txn.reads import read_settled

HINTS_MAX = 50_000
BATCH = 500
VERSIONS_A_TURN = 2000
COALESCE_SECONDS = 0.005
"""Commits of so short a time are read together."""

Place = tuple[Timestamp, bytes]


class Change(NamedTuple):
    """One key's change by one commit."""

    timestamp: Timestamp
    key: bytes
    before: bytes | None
    after: bytes | None


class Feed:
    """The changes of the spans after `since`. Close it: until then, versions since where it stands are kept."""

    def __init__(
        self,
        coordinator: Coordinator,
        spans: Iterable[tuple[bytes, bytes]],
        owns: Callable[[bytes], bool] | None,
        since: Timestamp,
    ) -> None:
        """`owns` tells which keys of the spans count; the caller knows that nothing since `since` is collected."""
        self._coordinator = coordinator
        self._spans = sorted(spans)
        self._starts = [start for start, _ in self._spans]
        self._owns = owns
        self._hints_max = HINTS_MAX
        self._hints: list[Place] = []
        self._scan_due = since < coordinator.oracle.last
        self._unsure = coordinator.oracle.last
        """Commits up to here may have left no hint, also such as are not resolved yet."""
        self._waiter: asyncio.Future[bool] | None = None
        self.position = since
        """Everything up to here has been handed out."""
        self.scans = 0
        coordinator.snapshots.pin(since)
        coordinator.feeds.append(self)

    def close(self) -> None:
        """Let go of old versions."""
        self._coordinator.feeds.remove(self)
        self._coordinator.snapshots.unpin(self.position)

    # ---- what commits tell -----------------------------------------------------------------------

    def note(self, keys: Iterable[bytes], timestamp: Timestamp) -> None:
        """The keys are committed at the timestamp; told before their marks go."""
        if self._scan_due:
            self._unsure = max(self._unsure, timestamp)
        else:
            self._hints += [(timestamp, key) for key in keys if self._is_mine(key)]
            if len(self._hints) > self._hints_max:
                self._forget_hints()
        if self._waiter is not None:
            _set(self._waiter, True)

    def doubt(self, timestamp: Timestamp) -> None:
        """A commit at the timestamp has an unknown outcome: when nothing hides it any more, a scan tells."""
        self._forget_hints()
        self._unsure = max(self._unsure, timestamp)

    def _forget_hints(self) -> None:
        """What they say, scans find out: until all of them are resolved."""
        self._unsure = max([self._unsure, *(timestamp for timestamp, _ in self._hints)])
        self._hints.clear()
        self._scan_due = True

    def _is_mine(self, key: bytes) -> bool:
        at = bisect_right(self._starts, key) - 1
        if at < 0 or key >= self._spans[at][1]:
            return False
        return self._owns is None or self._owns(key)

    async def wait(self, seconds: float) -> None:
        """Return when something was committed, a moment later, or after so many seconds."""
        if self._hints:  # above what is resolved: their commits end soon
            seconds = min(seconds, COALESCE_SECONDS)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _set, waiter, False)
        self._waiter = waiter
        try:
            if await waiter:
                await asyncio.sleep(COALESCE_SECONDS)
        finally:
            timer.cancel()
            self._waiter = None

    # ---- what the reader gets --------------------------------------------------------------------

    async def resolve(self) -> Timestamp:
        """The newest resolved timestamp."""
        now = await self._coordinator.oracle.next()
        bound = int(now)
        for participant in self._coordinator.router.shards:
            participant.check_serving()
            for mark in participant.pending.marks.values():
                if not mark.timestamp:
                    return self.position  # it may have been given one already
                bound = min(bound, mark.timestamp - 1)
        return max(self.position, Timestamp(bound))

    async def _places(self, until: Timestamp) -> tuple[list[Place], Timestamp]:
        """Where changes are, in order, up to a timestamp that is no later than `until`."""
        if not self._scan_due:
            due = sorted(place for place in self._hints if place[0] <= until)
            self._hints = [place for place in self._hints if place[0] > until]
            return [place for place in due if place[0] > self.position], until
        self._scan_due = False
        try:
            found, reached = await self._scan(until)
        except BaseException:
            self._forget_hints()
            raise
        if reached < max(until, self._unsure):
            self._forget_hints()
        self._hints = [place for place in self._hints if place[0] > reached]
        return found, reached

    async def _scan(self, until: Timestamp) -> tuple[list[Place], Timestamp]:
        """The first places after where the feed stands, by looking at all versions of the spans."""
        self.scans += 1
        found: list[Place] = []
        looked = 0
        for start, end in self._spans:
            for participant, low, high in self._coordinator.router.walk(start, end):
                async for key, timestamp in versions(participant, low, high, self.position, until):
                    looked += 1
                    if looked % VERSIONS_A_TURN == 0:
                        await asyncio.sleep(0)
                    if timestamp > until or not (self._owns is None or self._owns(key)):
                        continue
                    found.append((timestamp, key))
                    if len(found) > 2 * self._hints_max:
                        found, until = _first(found, self._hints_max)
        return sorted(place for place in found if place[0] <= until), until

    async def _read(self, place: Place) -> Change:
        timestamp, key = place
        router = self._coordinator.router
        after = await read_settled(router, key, timestamp)
        before = await read_settled(router, key, Timestamp(timestamp - 1))
        return Change(timestamp, key, before, after)

    def _advance(self, position: Timestamp) -> None:
        if position > self.position:
            snapshots = self._coordinator.snapshots
            snapshots.pin(position)
            snapshots.unpin(self.position)
            self.position = position


async def versions(
    participant: Participant, start: bytes, end: bytes, since: Timestamp, until: Timestamp
) -> AsyncIterator[tuple[bytes, Timestamp]]:
    """(key, timestamp) of versions of a shard's keys, wherever it is led."""
    if participant.remote is None:
        for version in mvcc.versions_in(participant.replica.engine, start, end, since, until):
            yield version.key, Timestamp(version.timestamp)
        return
    while start:
        page = await participant.remote.versions_in(start, end, since, until)
        for key, timestamp in page.found:
            yield key, Timestamp(timestamp)
        start = page.resume


def _set(waiter: asyncio.Future[bool], committed: bool) -> None:
    if not waiter.done():
        waiter.set_result(committed)


def _first(found: Sequence[Place], count: int) -> tuple[list[Place], Timestamp]:
    """About the first `count` places, whole transactions, and up to which timestamp these are all."""
    ordered = sorted(found)
    until = Timestamp(ordered[count][0] - 1)
    if until < ordered[0][0]:
        until = ordered[0][0]
    return [place for place in ordered if place[0] <= until], until


async def changes(feed: Feed) -> AsyncIterator[list[Change]]:
    """Batches of what was committed up to now; afterwards `feed.position` is resolved."""
    until = await feed.resolve()
    while feed.position < until:
        places, reached = await feed._places(until)
        for at in range(0, len(places), BATCH):
            read = [await feed._read(place) for place in places[at : at + BATCH]]
            batch = [c for c in read if c.before is not None or c.after is not None]
            if batch:
                yield batch
        feed._advance(reached)
