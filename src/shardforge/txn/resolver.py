"""Finishing what a crash left half done: intents without a coordinator, records without a use. Rule R5.

When a shard begins to serve, its intents become marks with nobody to settle them (orphans). For each such
transaction the resolver first makes the decision final at the anchor, writing ABORTED unless a commit
record is there, and then resolves the intents of every shard the same way. The record goes when all of
them are durably resolved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container

from shardforge.ids import TxnId
from shardforge.shard.command import (
    WINDOW_RECORD,
    AbortRecord,
    Command,
    Forget,
    Outcome,
    Record,
    Resolve,
    record_of,
)
from shardforge.shard.router import Router
from shardforge.storage import mvcc
from shardforge.txn.participant import Participant


class Resolver:
    """Settles orphans over all shards of this node."""

    def __init__(self, router: Router[Participant], committing: Container[TxnId]) -> None:
        self._router = router
        self._committing = committing
        self.resolved = 0

    def orphans(self) -> dict[TxnId, bytes]:
        """The transactions with intents and no coordinator, and their anchors."""
        return {
            mark.txn: mark.anchor
            for participant in self._router.shards
            for mark in participant.pending.marks.values()
            if mark.orphan and mark.txn not in self._committing
        }

    async def settle_all(self) -> None:
        """Settle every orphan, and forget records that nothing refers to."""
        orphans = self.orphans()
        for txn, anchor in orphans.items():
            await self.settle(txn, anchor)
        await self._forget_spent_records()

    async def settle(self, txn: TxnId, anchor: bytes) -> None:
        """Make the transaction's fate final, and carry it out everywhere."""
        while True:
            home = self._router.shard_of(anchor)
            record = record_of(home.replica.engine, anchor, txn)
            if record is not None:
                break
            if await _propose(home, AbortRecord(txn, anchor)) is Outcome.UNKNOWN:
                return  # the anchor's replica stopped: nothing is decided
        await self._carry_out(txn, record)
        await _propose(self._router.shard_of(anchor), Forget(txn, anchor))
        self.resolved += 1

    async def _carry_out(self, txn: TxnId, record: Record) -> None:
        resolving = []
        for participant in self._router.shards:
            mark = participant.pending.marks.get(txn)
            if mark is None:
                continue
            if record.committed:
                mark.committed = True
                mark.settle()
            command = Resolve(txn, record.timestamp, list(mark.keys))
            resolving.append((participant, mark, _begin(participant, command)))
        for participant, mark, resolution in resolving:
            if await resolution is Outcome.APPLIED:
                participant.pending.remove(mark)

    async def _forget_spent_records(self) -> None:
        for participant in self._router.shards:
            span = participant.descriptor.span
            spent = [
                (TxnId(found.txn_id), found.anchor)
                for found in mvcc.records(participant.replica.engine, span.start, span.end)
                if found.txn_id != WINDOW_RECORD and self._is_spent(TxnId(found.txn_id))
            ]
            for txn, anchor in spent:
                await _propose(participant, Forget(txn, anchor))

    def _is_spent(self, txn: TxnId) -> bool:
        return txn not in self._committing and not any(
            txn in participant.pending.marks for participant in self._router.shards
        )


def _begin(participant: Participant, command: Command) -> asyncio.Future[Outcome]:
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    participant.propose(command, _setter(future))
    return future


def _setter(future: asyncio.Future[Outcome]) -> Callable[[Outcome], None]:
    return lambda outcome: None if future.done() else future.set_result(outcome)


async def _propose(participant: Participant, command: Command) -> Outcome:
    return await _begin(participant, command)
