"""Leaderships on their way from node to node, and what the serving node's own part in them is.

A shard that comes to be led here, or ceases to be, takes a moment in which commits stand still (`txn.moving`); one that
goes from one node elsewhere to another concerns nobody here. Each runs beside the rounds of the government.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from shardforge.cluster.leaders import Transfer
from shardforge.errors import DatabaseError
from shardforge.ids import ShardId
from shardforge.node.changing import Changing
from shardforge.node.overview import ShardSight
from shardforge.ports import Clock
from shardforge.txn import moving
from shardforge.txn.store import Store

log = logging.getLogger("shardforge.cluster")


class Relocation:
    """One tenure's transfers."""

    def __init__(
        self, store: Store, clock: Clock, changer: Changing, event: Callable[[str], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._changer = changer
        self._event = event
        self._under_way: dict[ShardId, asyncio.Task[None]] = {}

    def busy(self, shard: ShardId) -> bool:
        """Whether the shard's leadership is on its way."""
        return shard in self._under_way

    def hand_over(self, transfer: Transfer) -> None:
        """Begin a transfer, unless one of the shard is under way."""
        if transfer.shard not in self._under_way:
            work = self._carry_out(transfer)
            task = asyncio.create_task(work, name=f"hand-over-{transfer.shard}")
            self._under_way[transfer.shard] = task
            task.add_done_callback(lambda _: self._under_way.pop(transfer.shard, None))

    async def _carry_out(self, transfer: Transfer) -> None:
        here = self._store.host.node
        try:
            if transfer.target == here:
                await moving.take_over(self._store, self._clock, transfer.shard)
            elif transfer.source == here:
                await moving.hand_off(self._store, self._clock, transfer.shard, transfer.target)
            else:
                await self._changer.hand_over(transfer.source, transfer.shard, transfer.target)
        except DatabaseError as error:
            log.debug("shard %d is not handed over now: %s", transfer.shard, error)
        else:
            self._event(f"shard {transfer.shard}: node {transfer.target} is to lead")

    def keep_up(self, shards: Iterable[ShardSight]) -> None:
        """What is known of shards elsewhere, for those who ask for their members, sizes and leaders."""
        remotes = {
            participant.replica.id: participant.remote
            for participant in self._store.participants
            if participant.remote is not None
        }
        for shard in shards:
            remote = remotes.get(shard.descriptor.id)
            if remote is None:
                continue
            remote.members, remote.size_bytes = shard.members, shard.size_bytes
            if shard.here is not None and shard.here.serving_term:  # it came to be led here unasked
                node = self._store.host.node
                self.hand_over(Transfer(shard.descriptor.id, node, node))

    async def close(self) -> None:
        """The tenure has ended."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
