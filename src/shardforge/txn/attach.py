"""The beginning of a tenure in a shard: what older ones still send is refused, and what they prepared is known.

A mark of an older tenure is gone with its serving node; its intents are in the shard. They become marks with nobody to
settle them (orphans), which the resolver does. Until then readers wait for them (rules R2 and R5).
"""

from __future__ import annotations

import asyncio

from shardforge.errors import ConsensusError
from shardforge.shard.command import Begin, Collect, Outcome, Seal
from shardforge.shard.pending import Mark
from shardforge.shard.replica import Replica
from shardforge.txn.participant import Participant
from shardforge.txn.reads import intents_in

INTENTS_A_TURN = 5_000


async def new_tenure(meta: Replica) -> int:
    """The number of a tenure that begins now: the index of an entry of the meta shard's log, so each has its own.

    Raises: ConsensusError when the meta shard is not led here any more.
    """
    number: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if not number.done():
            number.set_result(meta.applied if outcome is Outcome.APPLIED else 0)

    meta.propose(Collect(()), done)
    if not await number:
        raise ConsensusError("the meta shard is not led here any more")
    return number.result()


async def begin_here(replica: Replica, tenure: int) -> None:
    """Let a tenure begin in a shard that is led here. Raises ConsensusError when that is not so any more."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    replica.propose(
        Begin(tenure), lambda found: None if outcome.done() else outcome.set_result(found)
    )
    if await outcome is not Outcome.APPLIED:
        raise ConsensusError(f"shard {replica.id} is not led here any more")


async def unseal(participant: Participant, tenure: int) -> None:
    """Let a shard be changed again that is not to become a part of another. Raises ConsensusError."""
    if await participant.ordered(Seal(tenure, sealed=False)) is not Outcome.APPLIED:
        raise ConsensusError(f"shard {participant.replica.id} is not led as it was any more")


async def recover_marks(participant: Participant) -> None:
    """Remember the transactions whose intents the shard holds. Nobody else writes any meanwhile.

    Of intents that were streamed the timestamp is not known here: it is above their floor.
    """
    participant.pending.clear()
    by_txn: dict[int, Mark] = {}
    span = participant.descriptor.span
    seen = 0
    async for key, intent in intents_in(participant, span.start, span.end):
        mark = by_txn.get(intent.txn)
        if mark is None:
            mark = by_txn[intent.txn] = Mark(intent.txn, intent.floor, [])
            mark.anchor, mark.orphan = intent.anchor, True
        assert isinstance(mark.keys, list)
        mark.keys.append(key)
        mark.timestamp = max(mark.timestamp, intent.timestamp)
        seen += 1
        if seen % INTENTS_A_TURN == 0:
            await asyncio.sleep(0)
    for mark in by_txn.values():
        added = participant.pending.add(mark)
        assert added, "a key has one intent"
