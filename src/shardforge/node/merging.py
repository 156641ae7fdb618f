"""The serving node's watch over small neighbours: those that stay small together for a while become one shard.

Runs for one tenure. Which they are `cluster.merging` says, how it is done `txn.merging`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from shardforge.cluster.merging import Limits, Merge, merges_of
from shardforge.config import ShardingConfig
from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import ShardId
from shardforge.node.cutting import Cutting
from shardforge.node.overview import ShardSight
from shardforge.ports import Blocking, Clock
from shardforge.shard.host import Host
from shardforge.txn import merging
from shardforge.txn.store import Store

log = logging.getLogger("shardforge.cluster")

_Pair = tuple[Merge, int, int]
"""A merge to be, and the epochs of both shards: what was split or merged since is another pair."""


class Merging:
    """One tenure's merges."""

    def __init__(
        self, host: Host, store: Store, clock: Clock, blocking: Blocking, cutting: Cutting,
        config: ShardingConfig, event: Callable[[str], None], rest: Callable[[ShardId], None],
    ) -> None:  # fmt: skip
        """`rest` is told which shard grew."""
        self._host = host
        self._store = store
        self._clock = clock
        self._blocking = blocking
        self._cutting = cutting
        self._config = config
        self._limits = Limits(
            config.max_shard_size, config.max_shard_load, merging.MERGED_BYTES_MAX
        )
        self._event = event
        self._rest = rest
        self._small_since: dict[_Pair, float] = {}
        self._under_way: asyncio.Task[None] | None = None

    async def merge(self, left: ShardId) -> ShardId:
        """Make the shard after `left` a part of it now; which that was. Raises QueryError, ConsensusError."""
        store = self._store
        _, right = merging.neighbours_of(store, left)
        leader = self._host.node if right.local else right.replica.lead
        if leader is None:
            raise ConsensusError(f"shard {right.replica.id} has no leader", hint="Try again.")
        balance = await self._cutting.survey(leader, right.replica.id)
        if balance.total > merging.MERGED_BYTES_MAX:
            raise merging.too_large(right.replica.id)
        began = self._clock.monotonic_ns()
        work = store.carry_out(merging.merge(store, self._clock, self._blocking, left))
        ended = await asyncio.shield(work)
        took = (self._clock.monotonic_ns() - began) / 1e6
        self._event(f"shard {ended} is merged: it is a part of shard {left}")
        self._rest(left)
        log.info("shard %d: writes stood still for %.1f ms at most", ended, took)
        return ended

    def look(self, shards: Sequence[ShardSight], busy: Collection[ShardId], now: float) -> None:
        """Begin a merge of two neighbours, if they are small for long enough: one at a time."""
        if not self._config.merge_after_sec:
            return
        epochs = {shard.descriptor.id: shard.descriptor.epoch for shard in shards}
        found = merges_of(
            [shard.state for shard in shards], self._limits, busy, self._config.initial_shard_count,
            self._store.sticky,
        )  # fmt: skip
        pairs = [(merge, epochs[merge.left], epochs[merge.right]) for merge in found]
        self._small_since = {pair: self._small_since.get(pair, now) for pair in pairs}
        if self._under_way is not None and not self._under_way.done():
            return
        for pair, since in self._small_since.items():
            if now - since >= self._config.merge_after_sec:
                del self._small_since[
                    pair
                ]  # where it does not come to that, they rest as long again
                self._under_way = self._store.carry_out(self._try(pair[0].left))
                return

    async def _try(self, left: ShardId) -> None:
        try:
            await self.merge(left)
        except DatabaseError as error:
            log.info("shard %d is not merged now: %s", left, error)
