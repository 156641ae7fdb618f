"""The serving node's watch over shards: one that passes `sharding.max_shard_size` is split, and one elsewhere that is
asked more than `sharding.max_shard_load` for a while, so that its halves can be led by different nodes.

Runs for one tenure, and may end at any step: an id that was given and not used is never given again, and a shard that
is in the log as split will be. The child is written down with its parent's name before the cut (`txn.shardmap`).
What the watch knows it learns anew: sizes from the leaders, the place to cut from the keys or from what is asked.
A shard that is led here is not split for its load: both halves would be led here, and commits in both would cost more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from shardforge.cluster.splitpoint import halving
from shardforge.errors import ConsensusError, DatabaseError, QueryError
from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.keys import meta_key
from shardforge.node.cutting import Cutting
from shardforge.ports import Clock
from shardforge.shard.descriptor import Span
from shardforge.shard.host import Host
from shardforge.txn import splitting
from shardforge.txn.coordinator import Isolation, LockStrength, WaitPolicy
from shardforge.txn.participant import Participant
from shardforge.txn.shardmap import ShardRow, row_of
from shardforge.txn.store import Store

ROUND_SECONDS = 2.0
REST_SECONDS = 10.0
"""How long a shard is left alone that was split, or that is smaller than its files."""
AGAIN_SECONDS = 3.0
"""How long one is that could not be split now."""
BUSY_LOOKS = 3
"""So many rounds in a row a shard is asked too much before it is split."""
NEXT_ID = meta_key("shard", "next")

log = logging.getLogger("shardforge.cluster")


class Splitting:
    """One tenure's splits."""

    def __init__(
        self, host: Host, store: Store, clock: Clock, cutting: Cutting, size_max: int, load_max: float,
        event: Callable[[str], None], rest: Callable[[ShardId, ShardId], None],
    ) -> None:  # fmt: skip
        """`load_max` is requests a second, 0 any; `rest` is told both halves of what was split."""
        self._host = host
        self._store = store
        self._clock = clock
        self._cutting = cutting
        self._size_max = size_max
        self._load_max = load_max
        self._busy: dict[ShardId, int] = {}
        """For how many rounds shards have been asked too much."""
        self._event = event
        self._rest = rest
        self._rests: dict[ShardId, float] = {}

    @property
    def shards(self) -> list[ShardId]:
        """Every shard, in key order."""
        return [participant.replica.id for participant in self._store.participants]

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._clock.sleep(ROUND_SECONDS)
        while True:
            large = self._too_large()
            if large is not None:
                await self._try(large, self._relieve(large))
                continue
            busy = self._too_busy()
            if busy is not None:
                why = f" for its load, {busy[0].load:.0f} requests a second"
                await self._try(busy[0], self._split(*busy, why=why))
            await self._clock.sleep(ROUND_SECONDS)

    async def _try(self, participant: Participant, work: Awaitable[object]) -> None:
        shard = participant.replica.id
        self._rests[shard] = self._now() + REST_SECONDS
        try:
            await work
        except DatabaseError as error:
            self._rests[shard] = self._now() + AGAIN_SECONDS
            log.warning("shard %d is not split now: %s", shard, error)

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _too_large(self) -> Participant | None:
        """A shard that is to be split now. Nothing is kept of the map from before: a replica may be gone since."""
        now = self._now()
        for participant in self._store.participants:
            replica = participant.replica
            if replica.id == META_SHARD or self._rests.get(replica.id, 0.0) > now:
                continue
            if participant.streams:
                continue  # when its large transactions have ended
            here = self._host.find(replica.id)
            if replica.size_bytes > self._size_max and not (here is not None and here.tidying):
                return participant
        return None

    def _too_busy(self) -> tuple[Participant, bytes] | None:
        """A shard elsewhere that is asked too much for a while, and where its requests halve."""
        now, found = self._now(), None
        busy: dict[ShardId, int] = {}
        for participant in self._store.participants:
            if participant.remote is None or participant.streams:
                continue
            shard, sample = participant.replica.id, participant.remote.load.look(now)
            if not self._load_max or participant.load <= self._load_max:
                continue
            busy[shard] = self._busy.get(shard, 0) + 1
            if found is None and busy[shard] >= BUSY_LOOKS and self._rests.get(shard, 0.0) <= now:
                span = participant.descriptor.span
                at = halving(sample, span.start, span.end)
                if at is not None:
                    found = participant, at
        self._busy = busy
        return found

    async def _relieve(self, participant: Participant) -> None:
        leader, shard = self._leader(participant), participant.replica.id
        balance = await self._cutting.survey(leader, shard)
        if balance.total <= self._size_max / 2:
            here = self._host.find(shard)
            if here is not None:
                here.tidy([(b"v", b"w")])  # its files hold what was removed, and little else
        elif balance.at:
            await self._split(participant, balance.at)

    async def split(self, shard: ShardId, at: bytes | None) -> ShardId:
        """Split a shard by hand, at a key or where it balances; the new shard. Raises QueryError, ConsensusError.

        The boundary is sticky.
        """
        participant = splitting.participant_of(self._store.coordinator, shard)
        if at is None:
            at = (await self._cutting.survey(self._leader(participant), shard)).at
            if not at:
                raise QueryError(f"shard {shard} has no two keys to be split between", "22023")
        return await self._split(participant, at, sticky=True)

    def _leader(self, participant: Participant) -> NodeId:
        leader = self._host.node if participant.local else participant.replica.lead
        if leader is None:
            raise ConsensusError(f"shard {participant.replica.id} has no leader", hint="Try again.")
        return leader

    async def _split(
        self, participant: Participant, at: bytes, *, sticky: bool = False, why: str = ""
    ) -> ShardId:
        shard = participant.replica.id
        async with self._store.reshaping:
            self._store.check_settled(shard)
            await self._cutting.ready(self._leader(participant), shard)
            before = participant.descriptor
            if not before.span.start < at < before.span.end:
                raise QueryError(f"the key is not inside shard {shard}", "22023")
            child = await self._new_child(
                shard, Span(at, before.span.end), before.epoch + 1, sticky=sticky
            )
            began = self._clock.monotonic_ns()
            work = self._store.carry_out(
                splitting.split(
                    self._store, self._clock, shard, at, child,
                    lambda epoch: self._cutting.cut(
                        self._leader(participant), shard, self._store.tenure, at, child, epoch
                    ),
                )
            )  # fmt: skip
            try:
                await asyncio.shield(work)  # the fence stands until the outcome is known
            except DatabaseError:
                if self._store.stands:
                    await self._store.forget_row(child)
                raise
            took = (self._clock.monotonic_ns() - began) / 1e6
            self._event(f"shard {shard} is split{why}: shard {child} begins at {at.hex()}")
            self._rest(shard, child)
            log.info("shard %d: writes stood still for %.1f ms at most", shard, took)
            await self._store.write_rows([
                row_of(one.descriptor)
                for one in self._store.participants
                if one.replica.id in (shard, child)
            ])  # fmt: skip
            return child

    async def _new_child(self, parent: ShardId, span: Span, epoch: int, *, sticky: bool) -> ShardId:
        """An id that no shard had or will have: it is written down, with the child's row, before it is used."""
        store = self._store
        transaction = store.coordinator.begin(Isolation.READ_COMMITTED)
        try:
            (row,) = await transaction.lock([NEXT_ID], LockStrength.UPDATE, WaitPolicy.BLOCK)
            known = 0 if row.value is None else int.from_bytes(row.value)
            had = {*store.rows, *(one.replica.id for one in store.participants)}
            given = max(known, 1 + max(had))  # also of shards that were merged
            transaction.put(NEXT_ID, (given + 1).to_bytes(8))
            await transaction.commit()
        except BaseException:
            await transaction.rollback()
            raise
        child = ShardId(given)
        await store.write_rows([ShardRow(child, span, epoch, parent, sticky=sticky)])
        return child
