"""Collecting versions that no reader can need.

A write that is applied makes its predecessor garbage from its own timestamp on, so what to collect is
known without looking: a queue a shard, in commit order, emptied up to the *horizon*, which is the oldest
snapshot in use and, while the queue is short, the retention time. A `sweep` finds what the queue does not
know: versions from before a restart.

Collecting is a replicated command that names engine keys, deferred so that it rides with other commands.
Invariant: of each key, the newest version at or before the horizon stays, unless it is a tombstone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import merge
from itertools import islice
from typing import NamedTuple

from shardforge.errors import ConsensusError, StorageError
from shardforge.ids import ShardId, Timestamp
from shardforge.keys import prefix_end
from shardforge.ports import Blocking, Clock
from shardforge.shard.command import Collect, Outcome
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.router import Router
from shardforge.storage import mvcc
from shardforge.txn.participant import Participant
from shardforge.txn.snapshots import Snapshots
from shardforge.txn.transaction import HeldLock, Transaction

INTERVAL_SECONDS = 0.5
KEYS_PER_COMMAND = 1000
COMMANDS_PER_TURN = 8
QUEUE_MAX = 20_000
"""Beyond so many entries a shard's retention gives way; snapshots in use never do."""
FOLLOWERS_US = 5_000_000
"""Nor do the last few seconds, which other nodes read at closed timestamps."""
WRITES_A_TURN = 5_000
SWEEP_PAIRS = 2000
SWEEP_PAUSE_SECONDS = 0.1
SWEEP_DELAY_SECONDS = 60.0


logger = logging.getLogger("shardforge.garbage")


class _Superseded(NamedTuple):
    since: Timestamp
    key: bytes
    version: Timestamp | None
    """The version that is garbage; None: look at the key."""


class GarbageCollector:
    """The collector of one node, over the shards that it leads."""

    def __init__(
        self,
        router: Router[Participant],
        snapshots: Snapshots,
        newest_timestamp: Callable[[], Timestamp],
        clock: Clock,
        blocking: Blocking,
        retention_us: int,
    ) -> None:
        self._router = router
        self._snapshots = snapshots
        self._newest_timestamp = newest_timestamp
        self._clock = clock
        self._blocking = blocking
        self._retention_us = retention_us
        self._queues: dict[ShardId, deque[_Superseded]] = {
            shard.replica.id: deque() for shard in router.shards
        }
        self._unswept: set[ShardId] = set()
        """Shards elsewhere with deleted rows, which only a look at all versions finds."""
        self.spared: set[ShardId] = set()
        """Shards of which nothing is collected now: they are about to be a part of others."""
        self.collected = 0
        self.kept_from = newest_timestamp()
        """Everything that a reader from here on needs is there; unknown before what was given last at the start."""

    def divided(self, parent: ShardId, child: ShardDescriptor) -> None:
        """A shard was split: what is known of keys that are the child's goes with them."""
        queue = self._queues[parent]
        self._queues[parent] = deque(one for one in queue if one.key not in child.span)
        self._queues[child.id] = deque(one for one in queue if one.key in child.span)

    def merged(self, left: ShardId, right: ShardId) -> None:
        """A shard became a part of another, and what is known of its keys with it."""
        queues = (self._queues[left], self._queues.pop(right))
        self._queues[left] = deque(merge(*queues, key=lambda one: one.since))
        if right in self._unswept:
            self._unswept.discard(right)
            self._unswept.add(left)

    def __len__(self) -> int:
        """How many versions are known to become garbage."""
        return sum(map(len, self._queues.values()))

    def superseded(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """Note what the transaction's writes, applied at `timestamp`, make garbage."""
        self._note(transaction.writes.values.items(), transaction.locks, timestamp)

    async def superseded_many(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """The same for a large transaction, letting others run."""
        writes = transaction.written()
        while part := list(islice(writes, WRITES_A_TURN)):
            self._note(part, transaction.locks, timestamp)
            await asyncio.sleep(0)

    def _note(
        self,
        writes: Iterable[tuple[bytes, object]],
        locks: Mapping[bytes, HeldLock],
        timestamp: Timestamp,
    ) -> None:
        shard_of = self._router.shard_of
        for key, value in writes:
            held = locks.get(key)
            if value is None:
                entry = _Superseded(timestamp, key, None)
            elif held is None or not held.version:
                # New, or an index entry: a blind put follows nothing, or a tombstone with its own entry.
                continue
            else:
                entry = _Superseded(timestamp, key, held.version)
            self._queues[shard_of(key).replica.id].append(entry)

    def horizon(self, *, retained: bool = True) -> Timestamp:
        """No reader, now or later, reads below it."""
        newest = self._newest_timestamp()
        kept_us = self._retention_us if retained else min(self._retention_us, FOLLOWERS_US)
        newest = Timestamp(max(0, newest - kept_us))
        return min(newest, self._snapshots.oldest(newest))

    def collect(self) -> int:
        """Propose the removal of what is garbage now; the number of engine keys."""
        total = 0
        horizon = self.horizon()
        for participant in self._router.shards:
            if participant.replica.id in self.spared:
                continue
            queue = self._queues[participant.replica.id]
            limit = self.horizon(retained=False) if len(queue) > QUEUE_MAX else horizon
            for _ in range(COMMANDS_PER_TURN):
                keys = self._take(participant, queue, limit)
                if not keys:
                    break
                self.kept_from = max(self.kept_from, limit)
                total += len(keys)
                participant.defer(Collect(keys, limit), _ignore)
        self.collected += total
        return total

    def _take(
        self, participant: Participant, queue: deque[_Superseded], horizon: Timestamp
    ) -> list[bytes]:
        keys: list[bytes] = []
        while queue and queue[0].since <= horizon and len(keys) < KEYS_PER_COMMAND:
            _, key, version = queue.popleft()
            if version is not None:
                keys.append(mvcc.put_version(key, version, b"")[0])
            elif participant.remote is not None:
                self._unswept.add(participant.replica.id)
            else:
                found = mvcc.garbage(participant.replica.engine, key, prefix_end(key), horizon)
                keys += [engine_key for engine_key, _ in found.batch]
        return keys

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL_SECONDS)
            self.collect()

    async def run_sweeps(self) -> None:
        """Sweep every shard once, some time after the start; slowly, beside other work; then those that need it."""
        await self._clock.sleep(SWEEP_DELAY_SECONDS)
        for participant in list(self._router.shards):
            await self.sweep(participant)
        while True:
            await self._clock.sleep(SWEEP_DELAY_SECONDS)
            unswept, self._unswept = self._unswept, set()
            for participant in list(self._router.shards):
                if participant.replica.id in unswept:
                    await self.sweep(participant)

    async def sweep(self, participant: Participant) -> None:
        """Look at every version of a shard once, and collect what is garbage."""
        if participant.remote is None:
            await self._sweep_here(participant)
            return
        at = participant.descriptor.span.start
        while participant.term:
            horizon = self.horizon()
            self.kept_from = max(self.kept_from, horizon)
            try:
                swept = await participant.remote.sweep(at, horizon, SWEEP_PAIRS)
            except ConsensusError as error:
                logger.debug("shard %d is not swept now: %s", participant.replica.id, error)
                return
            self.collected += swept.collected
            if not swept.resume:
                return
            at = swept.resume
            await self._clock.sleep(SWEEP_PAUSE_SECONDS)

    async def _sweep_here(self, participant: Participant) -> None:
        replica = participant.replica
        span = replica.descriptor.span
        at: bytes | None = span.start
        while at is not None and replica.serving_term:
            start, horizon = at, self.horizon()
            self.kept_from = max(self.kept_from, horizon)
            try:
                found = await self._blocking.run(
                    lambda start=start, horizon=horizon: mvcc.garbage(  # type: ignore[misc]
                        replica.engine, start, span.end, horizon, SWEEP_PAIRS
                    )
                )
            except StorageError:
                if replica.serving_term:
                    raise
                return  # it was closed on the way: the shard is not this node's any more
            if found.batch:
                self.collected += len(found.batch)
                participant.defer(Collect([key for key, _ in found.batch], horizon), _ignore)
            at = found.resume
            if at is not None:
                await self._clock.sleep(SWEEP_PAUSE_SECONDS)


def _ignore(_: Outcome) -> None:
    """What a lost Collect names is found again by the next sweep."""
