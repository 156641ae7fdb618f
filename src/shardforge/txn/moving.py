"""Another node leads a shard of the tenure: from elsewhere to here, or from here to elsewhere.

As for a split, commits stand still for a moment at a fence, so that nothing of one is on its way to the shard: what is
kept of a shard that is led here is bound to its replica, of one elsewhere to messages. Locks are one table, and stay.
What is undone half way is no harm: whoever leads in the end is found.
"""

from __future__ import annotations

from collections.abc import Callable

from shardforge.errors import ConsensusError
from shardforge.ids import NodeId, ShardId
from shardforge.ports import Clock
from shardforge.txn.splitting import drained, participant_of
from shardforge.txn.store import Store

TRANSFER_SECONDS = 2.0
POLL_SECONDS = 0.005


async def take_over(store: Store, clock: Clock, shard: ShardId) -> None:
    """Lead here a shard that this node votes in. Raises ConsensusError when it does not come to that."""
    async with store.reshaping:
        before = participant_of(store.coordinator, shard)
        replica = store.host.find(shard)
        if before.remote is None or replica is None:
            return
        row = store.rows.get(shard)
        if row is not None and row.merging:
            raise ConsensusError(f"whether shard {shard} is one still is not known yet")
        with store.coordinator.fences.around(before.descriptor.span):
            await drained(store.coordinator, clock, before)
            await before.remote.hold()  # the next one to count commands begins where this one ended
            try:
                replica.hand_over(store.host.node)
                await _until(
                    clock, lambda: bool(replica.serving_term), f"shard {shard} is led elsewhere"
                )
                await store.lead_here(before, replica)
            finally:
                before.remote.release()


async def hand_off(store: Store, clock: Clock, shard: ShardId, to: NodeId) -> None:
    """Let another voter lead a shard that is led here. Raises ConsensusError when it cannot be begun now."""
    async with store.reshaping:
        before = participant_of(store.coordinator, shard)
        replica = store.host.find(shard)
        if not before.local or replica is None:
            return
        with store.coordinator.fences.around(before.descriptor.span):
            await drained(store.coordinator, clock, before)
            await replica.drain()
            after = store.lead_elsewhere(before)
            replica.hand_over(to)
            await _until(clock, lambda: bool(after.term), f"shard {shard} has no leader yet")


async def _until(clock: Clock, so: Callable[[], bool], otherwise: str) -> None:
    end = clock.monotonic_ns() + int(TRANSFER_SECONDS * 1e9)
    while not so():
        if clock.monotonic_ns() > end:
            raise ConsensusError(otherwise, hint="Try again in a moment.")
        await clock.sleep(POLL_SECONDS)
