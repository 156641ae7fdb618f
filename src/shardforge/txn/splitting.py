"""Splitting a shard: commits stand still for a moment, the shard is cut where it is led, and all goes on in two.

What the serving node knows of a shard in memory is bound to the keys. Row locks are one table for all shards, and stay.
Commits under way, with their marks, parts and records half written, are the one thing that would have to be torn in
two: so none is under way when the shard is cut. New ones wait at a fence, those that began before are waited
for. The fence goes when the new map is in force.

Of a shard elsewhere the answer may be lost, and the message late. Then the cut is asked for until it is done: as long
as one may yet be carried out, the fence stands.

Invariant: from the moment at which a cut is asked for until it is done, or can be done no more, no mark is set in the
shard, and no command of a commit is on its way to it. What would break it is refused by the shard (`Application`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from shardforge.errors import ConsensusError, DatabaseError, QueryError
from shardforge.ids import META_SHARD, ShardId
from shardforge.ports import Clock
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.participant import DRAIN_SECONDS, Participant
from shardforge.txn.store import Store

DRAIN_SECONDS_MAX = 4.0
"""How long commits under way are waited for at most: at first a moment, and twice as long after each time in vain.

So writes hardly wait where commits are small, and where one large commit follows the other a shard is split as well.
"""
POLL_SECONDS = 0.001
RETRY_SECONDS = 0.1
BEGIN_SECONDS = 2.0
"""How long commits wait for the tenure to begin in a new shard elsewhere; later they are refused, with 57P03."""

Cut = Callable[[int], Awaitable[ShardDescriptor]]
"""Asks the leader to cut, the epoch being given: what the shard is then. Raises DatabaseError: that is not known."""


def participant_of(coordinator: Coordinator, shard: ShardId) -> Participant:
    """The shard as it is served here. Raises QueryError 42704 when there is none, 0A000 for the meta shard."""
    for participant in coordinator.router.shards:
        if participant.replica.id == shard:
            if shard == META_SHARD:
                raise QueryError("the meta shard is never split", "0A000")
            return participant
    raise QueryError(f"there is no shard {shard}", "42704")


async def split(
    store: Store, clock: Clock, shard: ShardId, at: bytes, child: ShardId, cut: Cut
) -> None:
    """Split a shard at a key; the upper part becomes `child`, an id never used before.

    Raises: QueryError 22023 when the key is not inside; ConsensusError 57P03 when it could not be done now, or is
    done without anybody here knowing it.
    """
    coordinator = store.coordinator
    participant = participant_of(coordinator, shard)
    span = participant.descriptor.span
    if not span.start < at < span.end:
        raise QueryError(f"the key is not inside shard {shard}", "22023")
    with coordinator.fences.around(span):
        await drained(coordinator, clock, participant)
        before = participant.descriptor
        if not before.span.start < at < before.span.end:
            raise ConsensusError(f"shard {shard} was split meanwhile", hint="Try again.")
        after = await _cut_for_sure(store, clock, shard, cut, before.epoch + 1)
        if participant.remote is not None:
            _, high = before.span.divide(at)
            participant.remote.descriptor = after
            store.admit(shard, ShardDescriptor(child, high, after.epoch))
            await _begun(clock, participant_of(coordinator, child))


async def _cut_for_sure(
    store: Store, clock: Clock, shard: ShardId, cut: Cut, epoch: int
) -> ShardDescriptor:
    """Cut, or know that it will not be done."""
    doubtful = False
    while True:
        try:
            after = await cut(epoch)
        except DatabaseError:
            doubtful = True
        else:
            if after.epoch == epoch:
                return after
            if not doubtful:
                _refuse(f"shard {shard} could not be split: its members are changing")
        if not store.stands:
            _refuse(f"shard {shard} may be split, by the time that another node serves")
        await clock.sleep(RETRY_SECONDS)


async def _begun(clock: Clock, child: Participant) -> None:
    """Return when commits may be in the new shard; after a while in any case, for it is there."""
    until = clock.monotonic_ns() + int(BEGIN_SECONDS * 1e9)
    while not (child.term or child.closed) and clock.monotonic_ns() < until:
        await clock.sleep(POLL_SECONDS)


def _refuse(message: str) -> NoReturn:
    raise ConsensusError(message, hint="Try again.")


async def drained(coordinator: Coordinator, clock: Clock, participant: Participant) -> None:
    """Return when no commit is under way that began before the fence, and no mark is left in the shard.

    Raises: ConsensusError when that takes long, or a large transaction has intents in the shard.
    """
    if participant.streams:
        raise ConsensusError(
            f"shard {participant.replica.id} holds what a large transaction has written",
            hint="Try again when it has ended.",
        )
    before = set(coordinator.committing)
    until = clock.monotonic_ns() + int(participant.drain_seconds * 1e9)
    while participant.pending.marks or not before.isdisjoint(coordinator.committing):
        if clock.monotonic_ns() > until:
            participant.drain_seconds = min(2 * participant.drain_seconds, DRAIN_SECONDS_MAX)
            raise ConsensusError(
                f"shard {participant.replica.id} has a commit under way that takes long",
                hint="Try again in a moment.",
            )
        await clock.sleep(POLL_SECONDS)
    participant.drain_seconds = DRAIN_SECONDS
    if participant.remote is not None:
        await participant.remote.idle()
