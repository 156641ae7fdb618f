"""Splitting a shard where it is led: commits stand still for a moment, the shard is cut, and all goes on in two.

What one leader knows of its shard in memory is bound to the keys. Row locks are one table for all shards, and stay.
Commits under way, with their marks, parts and records half written, are the one thing that would have to be torn in
two: so none is under way when the Split is proposed. New ones wait at a fence, those that began before are waited
for. When the entry is applied, the new map is in force in the same moment (`Store`), and the fence goes.

Invariant: from the moment at which a Split is proposed until it is applied, refused or lost, no mark is set in the
shard, and no command of a commit is on its way to it. What would break it is refused by the shard (`Application`).
"""

from __future__ import annotations

import asyncio

from shardforge.errors import ConsensusError, QueryError
from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.ports import Clock
from shardforge.shard.command import Outcome, Split
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.participant import Participant

DRAIN_SECONDS = 0.25
"""How long commits under way are waited for; a larger one may take more, and then the split is for later."""
POLL_SECONDS = 0.001


def participant_of(coordinator: Coordinator, shard: ShardId) -> Participant:
    """The shard as it is led here. Raises QueryError 42704 when there is none, 0A000 for the meta shard."""
    for participant in coordinator.router.shards:
        if participant.replica.id == shard:
            if shard == META_SHARD:
                raise QueryError("the meta shard is never split", "0A000")
            return participant
    raise QueryError(f"there is no shard {shard}", "42704")


async def split(
    coordinator: Coordinator, clock: Clock, shard: ShardId, at: bytes, child: ShardId, node: NodeId
) -> None:
    """Split a shard at a key; the upper part becomes `child`, an id never used before.

    Raises: QueryError 22023 when the key is not inside; ConsensusError 57P03 when it could not be done now, or is
    done without anybody here knowing it.
    """
    participant = participant_of(coordinator, shard)
    span = participant.descriptor.span
    if not span.start < at < span.end:
        raise QueryError(f"the key is not inside shard {shard}", "22023")
    with coordinator.fences.around(span):
        await _drained(coordinator, clock, participant)
        descriptor = participant.descriptor
        if at not in descriptor.span:
            raise ConsensusError(f"shard {shard} was split meanwhile", hint="Try again.")
        term = participant.term
        command = Split(child, at, descriptor.epoch + 1, node, term)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        participant.propose(command, lambda o: None if outcome.done() else outcome.set_result(o))
        found = await asyncio.shield(outcome)
    if found is not Outcome.APPLIED:
        raise ConsensusError(f"shard {shard} could not be split: {found.value}", hint="Try again.")


async def _drained(coordinator: Coordinator, clock: Clock, participant: Participant) -> None:
    """Return when no commit is under way that began before the fence, and no mark is left in the shard."""
    before = set(coordinator.committing)
    until = clock.monotonic_ns() + int(DRAIN_SECONDS * 1e9)
    while participant.pending.marks or not before.isdisjoint(coordinator.committing):
        if clock.monotonic_ns() > until:
            raise ConsensusError(
                f"shard {participant.replica.id} has a commit under way that takes long",
                hint="Try again in a moment.",
            )
        await clock.sleep(POLL_SECONDS)
