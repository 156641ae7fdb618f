"""Finishing what a crash left half done: intents without a coordinator, records without a use. Rule R5.

When a shard begins to serve, its intents become marks with nobody to settle them (orphans). For each such
transaction the resolver first makes the decision final at the anchor, writing ABORTED unless a commit
record is there, and then resolves the intents of every shard the same way. The record goes when all of
them are durably resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shardforge.ids import Timestamp, TxnId
from shardforge.shard.command import (
    AbortRecord,
    Forget,
    Outcome,
    Record,
    Resolve,
)
from shardforge.shard.router import Router
from shardforge.txn.participant import Participant
from shardforge.txn.streamed import pieces_of


class Resolver:
    """Settles orphans over all shards of this node."""

    def __init__(
        self,
        router: Router[Participant],
        alive: Callable[[TxnId], bool],
        tell: Callable[[Iterable[bytes], Timestamp], None],
    ) -> None:
        """`alive`: whether a transaction has its coordinator still, so that its intents are nobody else's business.

        `tell` those who follow commits of keys that turn out to be committed.
        """
        self._router = router
        self._alive = alive
        self._tell = tell
        self.resolved = 0

    def orphans(self) -> dict[TxnId, bytes]:
        """The transactions with intents and no coordinator, and their anchors."""
        return {
            mark.txn: mark.anchor
            for participant in self._router.shards
            for mark in participant.pending.marks.values()
            if mark.orphan and not self._alive(mark.txn)
        }

    async def settle_all(self) -> None:
        """Settle every orphan, and forget records that nothing refers to."""
        orphans = self.orphans()
        for txn, anchor in orphans.items():
            await self.settle(txn, anchor)
        await self._forget_spent_records()

    async def settle(self, txn: TxnId, anchor: bytes) -> None:
        """Make the transaction's fate final, and carry it out everywhere."""
        record = await self._decided(txn, anchor)
        if record is None:
            return  # the anchor's replica stopped, or leads no more: nothing is decided
        if await self._carry_out(txn, record):
            await self._router.shard_of(anchor).ordered(Forget(txn, anchor))
            self.resolved += 1

    async def _decided(self, txn: TxnId, anchor: bytes) -> Record | None:
        home = None
        while home is not self._router.shard_of(anchor):  # it may be split meanwhile
            home = self._router.shard_of(anchor)
            if await home.record(anchor, txn) is None:
                await home.ordered(AbortRecord(txn, anchor))
            record = await home.record(anchor, txn)
            if record is not None:
                return record
        return None

    async def _carry_out(self, txn: TxnId, record: Record) -> bool:
        """Resolve the intents that are left; whether all of them are (rule R5: until then the record stays)."""
        resolving = []
        done = True
        for participant in self._router.shards:
            if not participant.term:
                done = False
                continue
            mark = participant.pending.marks.get(txn)
            if mark is None:
                continue
            if record.committed:
                self._tell(mark.keys, record.timestamp)
                mark.committed, mark.timestamp = True, record.timestamp
                mark.settle()
            outcomes = [
                participant.ordered(Resolve(txn, record.timestamp, piece))
                for piece in pieces_of(mark.keys)
            ]
            resolving.append((participant, mark, outcomes))
        for participant, mark, outcomes in resolving:
            if all([await outcome is Outcome.APPLIED for outcome in outcomes]):
                participant.pending.remove(mark)
            else:
                done = False  # lost on the way: the shard's next leader finds what is left
        return done

    async def _forget_spent_records(self) -> None:
        for participant in self._router.shards:
            if not participant.term:
                continue
            for txn, anchor in await participant.records():
                if self._is_spent(txn):
                    await participant.ordered(Forget(txn, anchor))

    def _is_spent(self, txn: TxnId) -> bool:
        """Whether nobody needs the record. A shard that is not led here has no marks, whatever intents it has."""
        return not self._alive(txn) and not any(
            not participant.term or txn in participant.pending.marks
            for participant in self._router.shards
        )
