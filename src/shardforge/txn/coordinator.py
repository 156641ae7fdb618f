"""The transaction coordinator of a node: begins, commits and ends transactions over all shards.

It holds no rule of its own: `transaction` reads and locks, `commit` decides, `resolver` finishes what a
crash left, `garbage` collects what nobody can read any more. The names that SQL needs are all here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from itertools import count
from typing import Any, Protocol

from shardforge.errors import ConsensusError, QueryError
from shardforge.ids import INFINITY, NodeId, Timestamp, TxnId
from shardforge.shard.command import Clear, Outcome
from shardforge.shard.router import Router
from shardforge.storage.newest_cache import Entry
from shardforge.txn.commit import CommitProcess
from shardforge.txn.fences import Fences
from shardforge.txn.locks import LockStrength
from shardforge.txn.participant import Participant
from shardforge.txn.reads import read_settled, wait_for
from shardforge.txn.sieve import Sieve
from shardforge.txn.snapshots import Snapshots
from shardforge.txn.streamed import Streamed
from shardforge.txn.transaction import LOCKS_A_TURN, Isolation, Locked, Transaction, WaitPolicy
from shardforge.txn.waits import LockWaits
from shardforge.txn.writes import WriteMemory

__all__ = [
    "Coordinator",
    "Isolation",
    "LockStrength",
    "Locked",
    "Sieve",
    "Transaction",
    "WaitPolicy",
]


class Oracle(Protocol):
    """Where timestamps come from; see `txn.oracle`."""

    @property
    def last(self) -> Timestamp:
        """No timestamp above it has been given."""
        ...

    def try_next(self) -> Timestamp | None:
        """A timestamp; None if `next` must be awaited."""
        ...

    async def next(self) -> Timestamp:
        """A timestamp."""
        ...


class ReadLease(Protocol):
    """Whether strong reads may be answered here; see `txn.lease`."""

    def held(self) -> bool:
        """Whether they may now."""
        ...

    async def wait(self) -> None:
        """Return when they may; raises when another node may lead."""
        ...


class CommitListener(Protocol):
    """Who is told of commits; see `txn.feed`."""

    def note(self, keys: Iterable[bytes], timestamp: Timestamp) -> None:
        """The keys are committed at the timestamp; told before their marks go."""
        ...

    def doubt(self, timestamp: Timestamp) -> None:
        """Whether a commit at the timestamp happened is not known."""
        ...


class Garbage(Protocol):
    """Who is told what a commit made garbage; see `txn.garbage`."""

    @property
    def kept_from(self) -> Timestamp:
        """No version that a reader from this timestamp on needs has been collected."""
        ...

    def superseded(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """The transaction's writes are applied at the timestamp."""
        ...

    async def superseded_many(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """The same for a large transaction."""
        ...


class Coordinator:
    """Transactions of one node."""

    def __init__(
        self,
        node: NodeId,
        router: Router[Participant],
        oracle: Oracle,
        snapshots: Snapshots,
        garbage: Garbage,
        lease: ReadLease,
        *,
        asynchronous: bool = False,
        memory: WriteMemory | None = None,
    ) -> None:
        """`asynchronous`: commits are answered when the leader has them, before a majority does.

        `memory`: of uncommitted writes; None where nothing is written.
        """
        self.memory = memory or WriteMemory(0)
        self.asynchronous = asynchronous
        self._lease_held = lease.held
        self._lease = lease
        self.router = router
        self.oracle = oracle
        self.snapshots = snapshots
        self.waits = LockWaits()
        self.committing: set[TxnId] = set()
        """Transactions whose commit is under way here: their intents are nobody else's business."""
        self.streaming: set[TxnId] = set()
        """Those with intents that do not commit yet (`streamed`)."""
        self.fences = Fences()
        self.active = 0
        self.feeds: list[CommitListener] = []
        self._garbage = garbage
        self._tasks: set[asyncio.Task[None]] = set()
        # The oracle's bound is durable and grows with every start, so no id is ever given twice.
        self._numbers = count(oracle.last + 1)
        self._node_bits = node << 48

    def begin_past(self, timestamp: Timestamp) -> Transaction:
        """A read-only transaction that sees what was committed at or before `timestamp`.

        Its first read raises 22023 for a time that has not come yet, and 72000 for one that is not kept any more.
        """
        transaction = self.begin(Isolation.REPEATABLE_READ, read_only=True)
        transaction.as_of = timestamp
        return transaction

    def past(self, timestamp: Timestamp, now: Timestamp) -> Timestamp:
        """`timestamp`, if reading there is possible; `now` is a timestamp that was just given."""
        if timestamp > now:
            raise QueryError("cannot read as of a time in the future", "22023")
        if timestamp < self._garbage.kept_from:
            raise QueryError(
                "snapshot too old",
                "72000",
                detail="Row versions of that time may have been removed.",
                hint="They are kept for storage.gc_retention_sec, and not beyond a restart.",
            )
        return timestamp

    def begin(self, isolation: Isolation, *, read_only: bool = False) -> Transaction:
        """A new transaction. Costs nothing until it reads, locks or writes."""
        self.active += 1
        number = TxnId(self._node_bits | (next(self._numbers) & 0xFFFF_FFFF_FFFF))
        return Transaction(self, number, isolation, read_only=read_only)

    def newest_now(self, key: bytes) -> Entry | None:
        """The newest committed version, if that is known without waiting; see `read_latest`."""
        participant = self.router.shard_of(key)
        if key in participant.pending.by_key or not participant.replica.serving_term:
            return None
        if not self._lease_held():
            return None
        return participant.newest(key)

    async def fetch(self, keys: Iterable[bytes]) -> None:
        """Have the newest versions of many keys at hand, for locking them; see `Participant.fetch`."""
        shards: dict[Participant, list[bytes]] = {}
        for key in keys:
            shards.setdefault(self.router.shard_of(key), []).append(key)
        for participant, wanted in shards.items():
            if participant.remote is None:
                participant.fetch(wanted)
            elif participant.term:
                await participant.remote.fetch(wanted)

    async def read_latest(self, key: bytes) -> bytes | None:
        """The newest committed value: a strong read of one key, which needs no timestamp."""
        found = self.newest_now(key)
        if found is None:
            await self._lease.wait()
            return await read_settled(self.router, key, INFINITY)
        return found[1]

    def serves(self) -> bool:
        """Whether no other node can have begun to serve, as is known now; see `wait_serving`."""
        return self._lease_held()

    async def wait_serving(self) -> None:
        """Return when this node is known to be the one that serves. Raises ConsensusError 57P03 when it may not be."""
        await self._lease.wait()

    async def commit(self, transaction: Transaction) -> None:
        """Commit what the transaction wrote; it is finished in any case."""
        if self.fences.up:
            try:
                await self.fences.passed(transaction.writes.values)
            except BaseException:
                transaction.undecided = False
                self.abandon(transaction)
                raise
        self.committing.add(transaction.id)
        await CommitProcess(self, transaction).run()

    def alive(self, txn: TxnId) -> bool:
        """Whether the transaction's intents are this coordinator's business."""
        return txn in self.committing or txn in self.streaming

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what ends a commit in the background."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def committed(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """The writes are applied: versions below them are garbage once nobody reads them."""
        self.tell(transaction.keys_written(), timestamp)
        self._garbage.superseded(transaction, timestamp)

    def tell(self, keys: Iterable[bytes], timestamp: Timestamp) -> None:
        """The keys are committed: those who follow commits hear of it before their marks go."""
        for feed in self.feeds:
            feed.note(keys, timestamp)

    def doubt(self, timestamp: Timestamp) -> None:
        """A commit may have happened at the timestamp, or not."""
        for feed in self.feeds:
            feed.doubt(timestamp)

    async def clear(self, spans: Sequence[tuple[bytes, bytes]], horizon: Timestamp) -> None:
        """Remove the keys of spans that nobody reads or writes any more, once the last commit there is resolved.

        Other nodes may still read them below `horizon`, and then are told that they cannot.

        Raises: ConsensusError 57P03 when a shard is lost on the way; what was removed stays so.
        """
        generation = 0
        while (
            generation != self.router.generation
        ):  # a shard that was split meanwhile is asked again
            generation = self.router.generation
            parts: dict[Participant, list[tuple[bytes, bytes]]] = {}
            for start, end in spans:
                for participant, low, high in self.router.shards_of(start, end):
                    while marks := participant.pending.visible_in(low, high, INFINITY):
                        await wait_for(marks[0])
                    parts.setdefault(participant, []).append((low, high))
            for participant, cleared in parts.items():
                if await participant.ordered(Clear(cleared, horizon)) is not Outcome.APPLIED:
                    raise ConsensusError(f"shard {participant.replica.id} is not led here any more")

    def finish(self, transaction: Transaction) -> None:
        """Release the transaction's locks and its snapshot."""
        self.active -= 1
        transaction.writes.forget()
        if transaction.streamed is not None:
            self.streaming.discard(transaction.id)
            for participant in transaction.streamed.terms:
                participant.streams.discard(transaction.id)
        self.committing.discard(transaction.id)
        if transaction.snapshot:
            self.snapshots.unpin(transaction.snapshot)
            transaction.snapshot = Timestamp(0)
        locks = transaction.locks
        if locks:
            txn = transaction.id
            transaction.locks = {}
            for key, held in locks.items():
                held.participant.locks.release(key, txn)

    def abandon(self, transaction: Transaction) -> None:
        """The transaction is not committed, and cannot be any more: the same, and its intents are taken back."""
        if transaction.streamed is None:
            self.finish(transaction)
        else:
            self.spawn(self._take_back(transaction, transaction.streamed))

    async def _take_back(self, transaction: Transaction, streamed: Streamed) -> None:
        try:
            await streamed.take_back(self, transaction)
        finally:
            self.finish(transaction)

    async def end_large(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """What follows a large commit, letting others run: garbage noted, locks released."""
        await self._garbage.superseded_many(transaction, timestamp)
        locks, transaction.locks = transaction.locks, {}
        for number, (key, held) in enumerate(locks.items()):
            held.participant.locks.release(key, transaction.id)
            if number % LOCKS_A_TURN == 0:
                await asyncio.sleep(0)
        self.finish(transaction)
