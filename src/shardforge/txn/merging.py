"""Merging two neighbours: the right one's pairs go through the left one's log, and then its keys are the left one's.

    map: "right is to be a part of left"  ->  fence around the right one, drained  ->  right: Seal
        ->  left: Absorb, Absorb, ...  ->  left: Merge, and at once the keys are routed there  ->  map: right has ended

What is sealed does not change, so the copy is whole whoever reads it, and from wherever. Nobody sees the copy before
the Merge, which is one command of one log: so the left one's state tells whether the right one is a part of it. Its
replicas are of no use from then on, wherever they are.

A tenure may end at each step. A younger one begins in the left shard first, after which no older Merge is taken there,
and then knows (`Store._know_fate`): the right one has ended, or it is unsealed.

Invariant: what is acknowledged for a key of the right one is applied before its Seal, or after the Merge.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from itertools import islice

from msgspec.structs import replace

from shardforge.errors import ConsensusError, DatabaseError, QueryError
from shardforge.ids import META_SHARD, ShardId, Timestamp
from shardforge.ports import Blocking, Clock
from shardforge.shard.application import merged
from shardforge.shard.command import Absorb, Command, Merge, Outcome, Seal
from shardforge.shard.weights import chunks, size_of
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine, Pair
from shardforge.txn.attach import unseal
from shardforge.txn.participant import Participant
from shardforge.txn.shardmap import NOBODY, ShardRow, row_of
from shardforge.txn.splitting import drained
from shardforge.txn.store import Store

MERGED_BYTES_MAX = 8 << 20
"""Of a right one: what is written there waits for as long as copying it takes."""
PAGE_PAIRS = 1_000
UNDER_WAY_MAX = 4
COPY_SECONDS = 5.0
RETRY_SECONDS = 0.1


def neighbours_of(store: Store, left: ShardId) -> tuple[Participant, Participant]:
    """A shard and the next one. Raises QueryError 42704 when there is none, 0A000 for the meta shard."""
    shards = store.participants
    for position, participant in enumerate(shards):
        if participant.replica.id == left:
            following = shards[position + 1 : position + 2]
            if left == META_SHARD or (following and following[0].replica.id == META_SHARD):
                raise QueryError(
                    f"the shard after shard {left} is the meta shard, which is never merged"
                    if left != META_SHARD
                    else "the meta shard is never merged",
                    "0A000",
                )
            return participant, following[0]
    raise QueryError(f"there is no shard {left}", "42704")


async def merge(store: Store, clock: Clock, blocking: Blocking, left: ShardId) -> ShardId:
    """Make the shard after `left` a part of it; which one that was.

    Raises: QueryError 55000 when it holds too much; ConsensusError 57P03 when it could not be done now, or is done
    without anybody here knowing it.
    """
    async with store.reshaping:
        merging = _Merging(store, clock, blocking, *neighbours_of(store, left))
        await merging.run()
        return merging.right.replica.id


class _Merging:
    """One merge."""

    def __init__(
        self, store: Store, clock: Clock, blocking: Blocking, left: Participant, right: Participant
    ) -> None:
        self.left, self.right = left, right
        self._store = store
        self._clock = clock
        self._blocking = blocking

    async def run(self) -> None:
        """Merge, or leave both as they were."""
        store, left, right = self._store, self.left, self.right
        for participant in (left, right):
            participant.check_serving()
            store.check_settled(participant.replica.id, splits=True)
        before = right.descriptor
        row = ShardRow(before.id, before.span, before.epoch, NOBODY, left.replica.id)
        await store.write_rows([row])
        spared = store.garbage.spared
        outcome = Outcome.REFUSED
        with store.coordinator.fences.around(before.span):
            spared.add(before.id)
            try:
                async with asyncio.timeout(COPY_SECONDS):
                    await self._copy()
                outcome = await self._merge()
                self._check(left, outcome)
            except (DatabaseError, TimeoutError) as error:
                if outcome is not Outcome.UNKNOWN:
                    await self._undo()
                if isinstance(error, TimeoutError):
                    raise self._refusal(left) from error
                raise
            finally:
                spared.discard(before.id)
            await self._surely(
                lambda: store.write_rows([row_of(left.descriptor), replace(row, ended=True)])
            )

    async def _copy(self) -> None:
        """Seal the right one, and have the left one absorb all of it."""
        store, right = self._store, self.right
        await drained(store.coordinator, self._clock, right)
        await self._order(right, Seal(store.tenure, sealed=True))
        span = right.descriptor.span
        if await self._pairs_of(b"i" + span.start, b"i" + span.end):
            raise ConsensusError(f"shard {right.replica.id} has commits that are not resolved yet")
        under_way: deque[asyncio.Future[Outcome]] = deque()
        under_way.append(self.left.ordered(Absorb(store.tenure, span, True, ())))
        size = 0
        async for pairs in self._pages():
            size += size_of(pairs)
            if size > MERGED_BYTES_MAX:
                raise too_large(right.replica.id)
            for piece in chunks(pairs):
                under_way.append(self.left.ordered(Absorb(store.tenure, span, False, piece)))  # type: ignore[arg-type]
            while len(under_way) > UNDER_WAY_MAX:
                self._check(self.left, await under_way.popleft())
        while under_way:
            self._check(self.left, await under_way.popleft())

    async def _merge(self) -> Outcome:
        """The Merge, after which the right one is no more, for all that is known here.

        Unknown, it is not to be undone: the fence falls then, but the right one stays sealed in this tenure.
        """
        store, left, right = self._store, self.left, self.right
        before, was = right.descriptor, left.descriptor
        kept = await self._pairs_of(*mvcc.KEPT_SPAN)
        kept_from = mvcc.as_kept_from(kept[0][1]) if kept else Timestamp(0)
        command = Merge(
            store.tenure, before.id, before.span, was.epoch + 1, kept_from, before.absorbed
        )
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(found: Outcome) -> None:
            if not outcome.done():
                if found is Outcome.APPLIED:
                    if left.remote is not None:
                        left.remote.descriptor = merged(was, command)
                    store.merged(was.id, before.id)
                outcome.set_result(found)

        left.propose(command, done)
        found = await outcome
        return await self._find_out() if found is Outcome.UNKNOWN else found

    async def _find_out(self) -> Outcome:
        """The left one's leadership was lost here. Whoever leads next knows: this node, or a younger tenure."""
        replica = self.left.replica
        while not self.left.closed:
            if replica.serving_term:
                if self.right.replica.id not in replica.descriptor.absorbed:
                    return Outcome.REFUSED
                self._store.merged(replica.id, self.right.replica.id)
                return Outcome.APPLIED
            await self._clock.sleep(RETRY_SECONDS)
        return Outcome.UNKNOWN

    async def _undo(self) -> None:
        """It was not merged, and will not be: the right one is as before."""
        right = self.right
        await self._surely(lambda: unseal(right, self._store.tenure))
        await self._surely(lambda: self._store.write_rows([row_of(right.descriptor)]))
        rest = Absorb(self._store.tenure, right.descriptor.span, True, ())
        self.left.defer(rest, lambda _: None)

    # ---- steps -----------------------------------------------------------------------------------

    async def _surely(self, work: Callable[[], Awaitable[None]]) -> None:
        """Try until it is done, or the tenure has ended."""
        while True:
            try:
                await work()
            except DatabaseError:
                if self.left.closed:
                    raise
                await self._clock.sleep(RETRY_SECONDS)
            else:
                return

    async def _order(self, participant: Participant, command: Command) -> None:
        self._check(participant, await participant.ordered(command))

    def _check(self, participant: Participant, outcome: Outcome) -> None:
        if outcome is not Outcome.APPLIED:
            raise self._refusal(participant)

    @staticmethod
    def _refusal(participant: Participant) -> ConsensusError:
        return ConsensusError(
            f"shard {participant.replica.id} could not be merged now", hint="Try again in a moment."
        )

    async def _pairs_of(self, start: bytes, end: bytes) -> Sequence[Pair]:
        if self.right.remote is not None:
            return await self.right.remote.pairs(start, end)
        return list(self.right.replica.engine.scan(start, end))

    async def _pages(self) -> AsyncIterator[Sequence[Pair]]:
        """What the right one holds: it is sealed, so it does not matter when each page is read."""
        right, span = self.right, self.right.descriptor.span
        for start, end in mvcc.everything_of(span.start, span.end):
            if right.remote is not None:
                async for page in right.remote.pages(start, end, PAGE_PAIRS):
                    yield page
                continue
            at, found = start, PAGE_PAIRS
            while found == PAGE_PAIRS:
                pairs = await self._blocking.run(partial(_page, right.replica.engine, at, end))
                found = len(pairs)
                if pairs:
                    at = pairs[-1][0] + b"\x00"
                    yield pairs


def too_large(shard: ShardId) -> QueryError:
    """55000: copying a shard would hold up its writers."""
    return QueryError(
        f"shard {shard} is too large to be merged with the one before it",
        "55000",
        detail=f"A merge copies it, at most {MERGED_BYTES_MAX >> 20} MB with old row versions.",
    )


def _page(engine: Engine, start: bytes, end: bytes) -> list[Pair]:
    return list(islice(engine.scan(start, end), PAGE_PAIRS))
