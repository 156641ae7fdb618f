"""The serving node's watch over the sizes of shards: one that passes `sharding.max_shard_size` is split.

Runs for one tenure, and may end at any step: an id that was given and not used is never given again, and a shard that
is in the log as split will be. What it knows it learns anew: sizes from the engines, the place to cut from the keys.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from itertools import islice

from shardforge.cluster.splitpoint import Survey, choose
from shardforge.errors import ConsensusError, DatabaseError, QueryError
from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.keys import meta_key
from shardforge.ports import Blocking, Clock
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.storage.engine import Pair, Snapshot
from shardforge.txn import splitting
from shardforge.txn.coordinator import Coordinator, Isolation, LockStrength, WaitPolicy

ROUND_SECONDS = 2.0
REST_SECONDS = 10.0
"""How long a shard is left alone that could not be split, or that is smaller than its files."""
SURVEY_PAIRS = 20_000
"""What is looked at on a thread at a time."""
BEHIND_MAX = 1_000
"""By how many entries a follower may lag when a shard is split: it makes the child by itself only from the log."""
SUFFIX = 8
NEXT_ID = meta_key("shard", "next")

log = logging.getLogger("shardforge.cluster")


class Splitting:
    """One tenure's splits."""

    def __init__(
        self, host: Host, coordinator: Coordinator, clock: Clock, blocking: Blocking, size_max: int,
        event: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._host = host
        self._coordinator = coordinator
        self._clock = clock
        self._blocking = blocking
        self._size_max = size_max
        self._event = event
        self._one = asyncio.Lock()
        self._rests: dict[ShardId, float] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.sleep(ROUND_SECONDS)
            now = self._clock.monotonic_ns() / 1e9
            for replica in self._host.replicas:
                if replica.id == META_SHARD or self._rests.get(replica.id, 0.0) > now:
                    continue
                if replica.tidying or replica.size_bytes <= self._size_max:
                    continue
                self._rests[replica.id] = now + REST_SECONDS
                try:
                    await self._relieve(replica)
                except DatabaseError as error:
                    log.warning("shard %d is not split now: %s", replica.id, error)

    async def _relieve(self, replica: Replica) -> None:
        survey = await self._survey(replica)
        if survey.total <= self._size_max / 2:
            replica.tidy([(b"v", b"w")])  # its files hold what was removed, and little else
            return
        span = replica.descriptor.span
        at = choose(survey.candidates, survey.total, span.start, span.end)
        if at is not None:
            await self._split(replica, at)

    async def split(self, shard: ShardId, at: bytes | None) -> ShardId:
        """Split a shard now, at a key or where it balances; the new shard. Raises QueryError, ConsensusError."""
        participant = splitting.participant_of(self._coordinator, shard)
        replica = self._host.find(shard)
        assert replica is not None, "it is led here"
        if at is None:
            survey = await self._survey(replica)
            span = participant.descriptor.span
            at = choose(survey.candidates, survey.total, span.start, span.end)
            if at is None:
                raise QueryError(f"shard {shard} has no two keys to be split between", "22023")
        return await self._split(replica, at)

    async def _split(self, replica: Replica, at: bytes) -> ShardId:
        async with self._one:
            self._check_followers(replica)
            child = await self._new_id()
            await replica.flush()
            began = self._clock.monotonic_ns()
            work = asyncio.ensure_future(
                splitting.split(
                    self._coordinator, self._clock, replica.id, at, child, self._host.node
                )
            )
            await asyncio.shield(work)  # the fence stands until the outcome is known
            took = (self._clock.monotonic_ns() - began) / 1e6
            self._event(f"shard {replica.id} is split: shard {child} begins at {at.hex()}")
            log.info("shard %d: writes stood still for %.1f ms at most", replica.id, took)
            return child

    def _check_followers(self, replica: Replica) -> None:
        """Raise unless a majority of the voters has about all of the log, and will make the child by itself."""
        if replica.changing_members:
            raise ConsensusError(
                f"the members of shard {replica.id} are changing", hint="Try again."
            )
        voters, match = replica.members.voters, replica.followers()
        fit = sum(match.get(NodeId(node), 0) >= replica.last_index - BEHIND_MAX for node in voters)
        if 2 * fit <= len(voters):
            raise ConsensusError(
                f"too few replicas of shard {replica.id} have caught up", hint="Try again."
            )

    async def _new_id(self) -> ShardId:
        """An id that no shard had or will have: it is written down before it is used."""
        coordinator = self._coordinator
        transaction = coordinator.begin(Isolation.READ_COMMITTED)
        try:
            (row,) = await transaction.lock([NEXT_ID], LockStrength.UPDATE, WaitPolicy.BLOCK)
            known = 0 if row.value is None else int.from_bytes(row.value)
            given = max(known, 1 + max(replica.id for replica in self._host.replicas))
            transaction.put(NEXT_ID, (given + 1).to_bytes(8))
            await transaction.commit()
        except BaseException:
            await transaction.rollback()
            raise
        return ShardId(given)

    async def _survey(self, replica: Replica) -> Survey:
        """Where the bytes of a shard are, by looking at all of its versions."""
        survey = Survey(replica.size_bytes)
        span = replica.descriptor.span
        state = replica.engine.snapshot()
        try:
            place, end = b"v" + span.start, b"v" + span.end
            while pairs := await self._blocking.run(partial(_pairs, state, place, end)):
                for key, value in pairs:
                    survey.add(key[1:-SUFFIX], len(key) + len(value))
                place = pairs[-1][0] + b"\x00"
                await asyncio.sleep(0)
        finally:
            state.close()
        return survey


def _pairs(state: Snapshot, start: bytes, end: bytes) -> list[Pair]:
    return list(islice(state.scan(start, end), SURVEY_PAIRS))
