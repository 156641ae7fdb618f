"""What a large transaction has written: intents in its shards, long before its COMMIT.

    written in memory -> more than `sql.transaction_stream_size` -> Prepare in each shard, without a timestamp ->
        COMMIT: marks on all keys, timestamp, validation, CommitRecord, Resolve          (`commit`)
        or not: Resolve them away                                                        (`take_back`)

Nobody sees them before COMMIT sets marks: readers heed marks, writers the row locks, which are held all along. The
transaction itself reads them back from the engine. What a lost coordinator leaves is an orphan as any other: the
resolver writes ABORTED at the anchor first (rule R5), so it cannot be committed any more.

They are named with the term in which they were ordered, and are good for nothing in another (rule R1): COMMIT refuses,
40001. So that this happens for failures only, a shard that holds such intents is not split, merged or handed over while
their transaction lives. With a savepoint set nothing is streamed, as it may be wanted back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from shardforge.errors import serialization_failure
from shardforge.ids import META_SHARD, Timestamp
from shardforge.shard.command import Command, KeyValue, Outcome, Prepare, Resolve
from shardforge.shard.weights import chunks
from shardforge.txn.participant import Participant

if TYPE_CHECKING:
    from shardforge.txn.coordinator import Coordinator
    from shardforge.txn.transaction import Transaction

KEYS_A_COMMAND = 1000
"""Resolving reads and writes so many rows at once."""
KEYS_UNDER_WAY: Final = 20_000
"""Taking back goes on when so many are done."""


class Streamed:
    """The intents of one transaction that is not committing yet."""

    __slots__ = ("_under_way", "anchor", "keys", "terms")

    def __init__(self, anchor: bytes) -> None:
        self.anchor = anchor
        """Where the transaction's record will be."""
        self.keys: dict[bytes, bool] = {}
        """Whether the row is there after the transaction; false: deleted."""
        self.terms: dict[Participant, int] = {}
        """The shards that hold intents, and the term in which each is led."""
        self._under_way: set[asyncio.Future[Outcome]] = set()

    async def add(
        self, coordinator: Coordinator, transaction: Transaction, writes: Sequence[KeyValue]
    ) -> None:
        """Make the writes intents. Raises: ConsensusError 57P03; TransactionError 40001 where that is refused."""
        if coordinator.fences.up:
            await coordinator.fences.passed([key for key, _ in writes])
        for participant, found in by_shard(coordinator, writes).items():
            participant.check_serving()
            if self.terms.setdefault(participant, participant.term) != participant.term:
                raise serialization_failure()
            participant.streams.add(transaction.id)
            for piece in chunks(found):
                command = Prepare(
                    transaction.id, Timestamp(0), transaction.floor, participant.term, self.anchor, piece
                )  # fmt: skip
                self._propose(participant, command)
        if not await self._ordered():
            raise serialization_failure()

    def _propose(self, participant: Participant, command: Command) -> None:
        self._under_way.add(participant.ordered(command))

    async def _ordered(self) -> bool:
        """Whether all that is under way is applied, once that is known; who gives up waiting leaves it under way."""
        if not self._under_way:
            return True
        done, _ = await asyncio.wait(self._under_way)
        self._under_way -= done
        return all(outcome.result() is Outcome.APPLIED for outcome in done)

    async def take_back(self, coordinator: Coordinator, transaction: Transaction) -> None:
        """Remove the intents: no record that commits them can be written any more.

        A shard that refuses has another leader, or will have: its intents are found when it is served again.
        """
        await self._ordered()
        txn = transaction.id
        left = iter(self.keys)
        while portion := list(islice(left, KEYS_UNDER_WAY)):
            writes: list[KeyValue] = [(key, None) for key in portion]
            for participant, found in by_shard(coordinator, writes).items():
                for piece in pieces_of([key for key, _ in found]):
                    self._propose(participant, Resolve(txn, Timestamp(0), piece))
            await self._ordered()
        for participant in coordinator.router.shards:
            mark = participant.pending.marks.get(txn)
            if mark is not None:  # found again by a leader since
                for piece in pieces_of(mark.keys):
                    self._propose(participant, Resolve(txn, Timestamp(0), piece))
                if await self._ordered():
                    participant.pending.remove(mark)


def by_shard(
    coordinator: Coordinator, writes: Iterable[KeyValue]
) -> dict[Participant, list[KeyValue]]:
    """Each write to its shard."""
    shard_of = coordinator.router.shard_of
    found: dict[Participant, list[KeyValue]] = {}
    for write in writes:
        found.setdefault(shard_of(write[0]), []).append(write)
    return found


def pieces_of(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The keys as Resolve takes them."""
    for start in range(0, len(keys), KEYS_A_COMMAND):
        yield keys[start : start + KEYS_A_COMMAND]


async def stream(coordinator: Coordinator, transaction: Transaction) -> None:
    """Let what the transaction has written so far be intents.

    Raises as `Streamed.add`: the transaction is to be rolled back then.
    """
    router = coordinator.router
    writes = [
        write
        for write in transaction.writes.values.items()
        if router.shard_of(write[0]).replica.id != META_SHARD
    ]
    if not writes:
        return
    streamed = transaction.streamed
    if streamed is None:
        streamed = transaction.streamed = Streamed(writes[0][0])
        coordinator.streaming.add(transaction.id)
    known = streamed.keys
    new = [key for key, _ in writes if key not in known]
    known.update((key, value is not None) for key, value in writes)
    await streamed.add(coordinator, transaction, writes)
    transaction.writes.became_intents([key for key, _ in writes], new)
