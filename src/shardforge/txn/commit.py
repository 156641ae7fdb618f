"""COMMIT: one entry for one shard, two phases for several. Rules R1, R3, R4 and R5 of the package.

    marks on every written key -> commit timestamp -> validation ->
        one shard:    Commit
        several:      Prepare in all but the anchor, in parallel; then CommitRecord at the anchor, which
                      carries the anchor's own versions; answer; then Resolve, and Forget when all resolved

Writes too many for one command go in several Prepares, the anchor's too, also when there is one shard only. What was
streamed is intents already (`streamed`): it is marked, validated and resolved with the rest.

With asynchronous replication COMMIT is answered when the entry that decides is durable in its leader's own log; marks
and locks stay until it is applied, as ever. What touches the catalog waits for that too.

The steps are callbacks of the shards' logs, not a task: once a commit may have been proposed, nothing that
happens to the session stops it, and locks and marks go exactly when the outcome is known. The anchor is
the shard with the most writes: those need no intents.

Invariant: from the moment the timestamp is drawn until the outcome is applied, every written key carries
this transaction's mark, in the term that the entry names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from shardforge.errors import ConsensusError, TransactionError, serialization_failure
from shardforge.ids import META_SHARD, Timestamp
from shardforge.shard.command import (
    Commit,
    CommitRecord,
    Forget,
    KeyValue,
    Outcome,
    Prepare,
    Resolve,
)
from shardforge.shard.pending import Mark
from shardforge.shard.weights import chunks, fits_one_command
from shardforge.txn.participant import Participant
from shardforge.txn.reads import ReadSet
from shardforge.txn.streamed import Streamed, pieces_of
from shardforge.txn.transaction import Transaction

if TYPE_CHECKING:
    from shardforge.txn.coordinator import Coordinator

_log = logging.getLogger("shardforge.txn")


class _Part:
    """What one shard has to do with the commit."""

    __slots__ = (
        "mark", "participant", "pieces", "prepared", "streamed", "term", "unresolved", "values", "writes",
    )  # fmt: skip

    def __init__(self, participant: Participant) -> None:
        self.participant = participant
        self.writes: list[KeyValue] = []
        self.pieces: list[Sequence[KeyValue]] = []
        """The writes as commands take them, where they become intents."""
        self.streamed: list[bytes] = []
        """The keys of what is intents already."""
        self.values: dict[bytes, bytes | None] = {}
        """The same by key."""
        self.term = participant.term
        self.prepared = False
        self.unresolved = 0
        self.mark: Mark | None = None

    def current_mark(self) -> Mark:
        """The transaction's mark: another object if the leader changed and found the intents again."""
        assert self.mark is not None, "marks are set before anything is proposed"
        return self.participant.pending.marks.get(self.mark.txn, self.mark)

    def cut(self, writes: Sequence[KeyValue]) -> None:
        """Take these of the writes to be intents."""
        self.pieces += chunks(writes)
        self.values.update(writes)


def unknown_outcome() -> TransactionError:
    """The error of a commit that may or may not have happened."""
    return TransactionError(
        "the outcome of the commit is unknown",
        "40003",
        hint="Check whether the transaction's effects are there before retrying it.",
    )


LARGE = 10_000
"""Writes of a transaction whose commit lets others run between its steps."""


class CommitProcess:
    """One transaction's way from COMMIT to its outcome."""

    __slots__ = (
        "_anchor",
        "_coordinator",
        "_done",
        "_failed",
        "_fits_record",
        "_large",
        "_parts",
        "_timestamp",
        "_transaction",
        "_waiting",
    )

    def __init__(self, coordinator: Coordinator, transaction: Transaction) -> None:
        self._coordinator = coordinator
        self._transaction = transaction
        self._timestamp = Timestamp(0)
        self._waiting = 0
        self._large = transaction.streamed is not None or len(transaction.writes.values) > LARGE
        self._anchor = b""
        self._failed: Outcome | None = None
        self._parts: list[_Part] = []
        self._fits_record = True
        self._done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Commit, or raise 40001 or 40003."""
        large = self._large
        try:
            if large:  # each step takes a while: heartbeats must not wait for all of them
                await self._begin_large()
            else:
                self._split(self._transaction.writes.values.items())
                self._choose_anchor()
                for part in self._parts:
                    mark = self._open_mark(part)
                    self._extend_mark(part, mark.keys)
                for part in self._prepared_parts:
                    part.cut(part.writes)
            drawn = self._coordinator.oracle.try_next()
            self._timestamp = drawn or await self._coordinator.oracle.next()
            for part in self._parts:
                part.current_mark().timestamp = self._timestamp
            await self._validate()
            if large:
                await asyncio.sleep(0)
        except BaseException:
            self._end(Outcome.REFUSED)
            raise
        if self._prepared_parts:
            self._prepare()
        else:
            self._commit_one_shard()
        outcome = await self._done
        if outcome is Outcome.REFUSED:
            raise serialization_failure()
        if outcome is Outcome.UNKNOWN:
            raise unknown_outcome()

    # ---- marks, validation -----------------------------------------------------------------------

    async def _begin_large(self) -> None:
        """Set the marks, letting others run: who meets a mark that is not complete waits for it as for any other."""
        left = iter(self._transaction.writes.values.items())
        while portion := list(islice(left, LARGE)):
            self._split(portion)
            await asyncio.sleep(0)
        if self._transaction.streamed is not None:
            await self._split_streamed(self._transaction.streamed)
        self._choose_anchor()
        for part in self._parts:
            keys = self._open_mark(part).keys
            for start in range(0, len(keys), LARGE):
                self._extend_mark(part, keys[start : start + LARGE])
                await asyncio.sleep(0)
        for part in self._prepared_parts:
            for start in range(0, len(part.writes), LARGE):
                part.cut(part.writes[start : start + LARGE])
                await asyncio.sleep(0)

    def _split(self, writes: Iterable[KeyValue]) -> None:
        """Each write to the part of its shard."""
        shard_of = self._coordinator.router.shard_of
        parts = {part.participant.replica.id: part for part in self._parts}
        for write in writes:
            participant = shard_of(write[0])
            shard = participant.replica.id
            part = parts.get(shard)
            if part is None:
                part = parts[shard] = _Part(participant)
                self._parts.append(part)
            part.writes.append(write)

    async def _split_streamed(self, streamed: Streamed) -> None:
        """Each key of an intent to the part of its shard, which has to be led as it was then (rule R1)."""
        shard_of = self._coordinator.router.shard_of
        parts = {part.participant: part for part in self._parts}
        for participant, term in streamed.terms.items():
            if participant.term != term:
                raise serialization_failure()
            if participant not in parts:
                parts[participant] = _Part(participant)
                self._parts.append(parts[participant])
        values = self._transaction.writes.values
        left = iter(streamed.keys)
        while portion := list(islice(left, LARGE)):
            for key in portion:
                if key not in values:
                    part = parts.get(shard_of(key))
                    if part is None:
                        raise serialization_failure()
                    part.streamed.append(key)
            await asyncio.sleep(0)

    def _choose_anchor(self) -> None:
        """The shard with most writes: they need no intents where they fit one command."""
        streamed = self._transaction.streamed
        if streamed is not None:
            home = self._coordinator.router.shard_of(streamed.anchor)
            self._parts.sort(key=lambda part: part.participant is not home)
            self._anchor, self._fits_record = streamed.anchor, False
            return
        if len(self._parts) > 1:
            self._parts.sort(key=lambda part: -len(part.writes))
        first = self._parts[0].writes
        self._anchor, self._fits_record = first[0][0], fits_one_command(first)

    def _open_mark(self, part: _Part) -> Mark:
        if not part.term:
            raise ConsensusError(f"shard {part.participant.replica.id} has no leader")
        transaction = self._transaction
        keys = [key for key, _ in part.writes]
        if part.streamed:
            if transaction.id in part.participant.pending.marks:  # a leader was lost and came back
                raise serialization_failure()
            keys += part.streamed
        part.mark = Mark(transaction.id, transaction.floor, keys)
        part.participant.pending.open(part.mark)
        return part.mark

    def _extend_mark(self, part: _Part, keys: Sequence[bytes]) -> None:
        assert part.mark is not None, "it is open"
        if not part.participant.pending.extend(part.mark, keys):
            raise serialization_failure()

    async def _validate(self) -> None:
        """Waits only for shards that are led elsewhere, or where leadership changed."""
        transaction = self._transaction
        await self._validate_locks()
        if transaction.reads is not None and transaction.snapshot:
            far = self._validate_reads(transaction.reads)
            if any([await check() for check in far]):
                raise _dependency_failure()
        for part in self._parts:
            if part.participant.term != part.term:
                raise serialization_failure()

    def _validate_reads(self, reads: ReadSet) -> list[Callable[[], Awaitable[bool]]]:
        """Rule R3 for what is led here; what finds out, when awaited, whether the rest has changed."""
        transaction, router = self._transaction, self._coordinator.router
        far: list[Callable[[], Awaitable[bool]]] = []
        txn, since, until = transaction.id, transaction.snapshot, self._timestamp
        # A shard that is not led here has lost its marks, and may have entries that are not applied yet (rule R6).
        for key in reads.keys:
            participant = router.shard_of(key)
            if participant.remote is not None and participant.term:
                far.append(partial(participant.key_changed_elsewhere, key, txn, since, until))
            elif not participant.term or participant.key_changed(key, txn, since, until):
                raise _dependency_failure()
        for start, end in reads.spans:
            for participant, low, high in router.shards_of(start, end):
                if participant.remote is not None and participant.term:
                    far.append(
                        partial(participant.span_changed_elsewhere, low, high, txn, since, until)
                    )
                elif not participant.term or participant.span_changed(low, high, txn, since, until):
                    raise _dependency_failure()
        return far

    async def _validate_locks(self) -> None:
        """Rule R4, and R3 for rows locked but not written.

        A lock that was held without a break in the leader's memory vouches for its row; where the leader
        changed, the version that was seen has to be the newest still, and the row be locked again: otherwise whoever
        locked it there meanwhile would vouch for a version that is the newest no more.
        """
        transaction = self._transaction
        broken = [
            (key, held)
            for key, held in transaction.locks.items()
            if held.term != held.participant.term
        ]
        for key, held in broken:
            participant = self._coordinator.router.shard_of(key)
            if not participant.term:
                raise serialization_failure()
            if not await participant.version_unchanged(key, held.version, transaction.id):
                raise serialization_failure()
            if not participant.locks.acquire(key, transaction.id, held.strength):
                raise serialization_failure()

    # ---- one shard -------------------------------------------------------------------------------

    def _commit_one_shard(self) -> None:
        part = self._parts[0]
        command = Commit(self._transaction.id, self._timestamp, part.term, part.writes)
        part.participant.propose(command, self._end, self._on_stored())

    # ---- several shards --------------------------------------------------------------------------

    def _prepare(self) -> None:
        transaction, anchor = self._transaction, self._anchor
        pieces = [(part, piece) for part in self._prepared_parts for piece in part.pieces]
        self._waiting = len(pieces)  # before the first proposal: a stopped replica answers at once
        if not pieces:
            self._decide()
        for part, writes in pieces:
            command = Prepare(
                transaction.id, self._timestamp, transaction.floor, part.term, anchor, writes
            )
            part.participant.propose(command, self._on_prepared(part))

    @property
    def _prepared_parts(self) -> list[_Part]:
        """The shards that get intents: all but the anchor, unless its writes are too many for one command."""
        return self._parts[1:] if self._fits_record else self._parts

    def _on_prepared(self, part: _Part) -> Callable[[Outcome], None]:
        def prepared(outcome: Outcome) -> None:
            self._waiting -= 1
            if outcome is Outcome.APPLIED:
                part.prepared = True
            else:
                self._failed = outcome
            if self._waiting == 0:
                if self._failed is None:
                    self._decide()
                else:
                    self._abort()

        return prepared

    def _decide(self) -> None:
        prepared = self._prepared_parts
        for part in prepared:
            if not part.streamed:
                part.current_mark().values = part.values
        anchor = self._parts[0]
        command = CommitRecord(
            self._transaction.id,
            self._timestamp,
            anchor.term,
            self._anchor,
            tuple(part.participant.replica.id for part in prepared),
            anchor.writes if self._fits_record else (),
        )
        anchor.participant.propose(command, self._decided, self._on_stored())

    def _decided(self, outcome: Outcome) -> None:
        if outcome is Outcome.REFUSED:
            self._abort()
            return
        if outcome is Outcome.APPLIED:
            if self._large:
                for part in self._prepared_parts:
                    part.current_mark().committed = True
                self._coordinator.spawn(self._end_large())
                return
            self._resolve()
        self._end(outcome)

    async def _end_large(self) -> None:
        """Answer at once; the rest takes a while, and lets others run between its steps."""
        self._coordinator.tell(self._transaction.keys_written(), self._timestamp)
        if self._fits_record:  # the anchor's versions came with the record
            anchor = self._parts[0]
            anchor.participant.pending.remove(anchor.current_mark())
        for part in self._prepared_parts:
            part.current_mark().settle()
        self._decided_as(committed=True)
        if not self._done.done():
            self._done.set_result(Outcome.APPLIED)
        await asyncio.sleep(0)
        self._resolve()
        await self._coordinator.end_large(self._transaction, self._timestamp)

    def _resolve(self) -> None:
        """The decision is durable: show it, and let the intents become versions in the background."""
        for part in self._prepared_parts:
            part.current_mark().committed = True
        for part, command in self._resolutions(self._prepared_parts, self._timestamp):
            part.participant.defer(command, self._on_resolved(part, command.keys))

    def _resolutions(
        self, parts: Sequence[_Part], timestamp: Timestamp
    ) -> list[tuple[_Part, Resolve]]:
        found = []
        for part in parts:
            pieces: list[Sequence[bytes]] = [[key for key, _ in piece] for piece in part.pieces]
            pieces += pieces_of(part.streamed)
            part.unresolved = len(pieces)
            found += [(part, Resolve(self._transaction.id, timestamp, keys)) for keys in pieces]
        self._waiting = len(found)
        return found

    def _on_resolved(self, part: _Part, keys: Sequence[bytes]) -> Callable[[Outcome], None]:
        def resolved(outcome: Outcome) -> None:
            if outcome is not Outcome.APPLIED:
                return  # the replica stopped: its successor finds the intents and the record
            pending, mark = part.participant.pending, part.current_mark()
            pending.release(mark, keys)
            part.unresolved -= 1
            if part.unresolved == 0:
                pending.close(mark)
            self._waiting -= 1
            if self._waiting == 0:
                # The record is where the key is by now (rule R5).
                home = self._coordinator.router.shard_of(self._anchor)
                home.defer(Forget(self._transaction.id, self._anchor), _ignore)

        return resolved

    def _abort(self) -> None:
        """No commit record can be written any more: take the intents back, then answer."""
        prepared = [part for part in self._prepared_parts if part.prepared and part.pieces]
        if not prepared:
            self._end(Outcome.REFUSED)
        for part, command in self._resolutions(prepared, Timestamp(0)):
            part.participant.propose(command, self._taken_back)

    def _taken_back(self, _: Outcome) -> None:
        self._waiting -= 1
        if self._waiting == 0:
            self._end(Outcome.REFUSED)

    # ---- the end ---------------------------------------------------------------------------------

    def _on_stored(self) -> Callable[[], None] | None:
        """Who is told that the leader has the decision durable: with asynchronous replication, the client."""
        if not self._coordinator.asynchronous:
            return None
        if any(part.participant.replica.id == META_SHARD for part in self._parts):
            return None
        return self._answer_early

    def _answer_early(self) -> None:
        """Where another leadership has begun meanwhile, the entry may be refused: its outcome is waited for."""
        if self._done.done() or any(part.participant.term != part.term for part in self._parts):
            return
        self._done.set_result(Outcome.APPLIED)

    def _end(self, outcome: Outcome) -> None:
        """Take off marks and locks, and answer.

        A mark that is committed stays until its intents are resolved. With an unknown outcome nobody can
        settle the marks before a restart, so readers that need them are refused.
        """
        for part in self._parts:
            if part.mark is None:
                continue
            mark = part.current_mark()
            if mark.committed:
                mark.settle()
            elif outcome is Outcome.UNKNOWN:
                mark.strand()
            else:
                part.participant.pending.remove(mark)
        if outcome is Outcome.APPLIED:
            self._coordinator.committed(self._transaction, self._timestamp)
        if outcome is Outcome.UNKNOWN:
            self._coordinator.doubt(self._timestamp)
        if outcome is Outcome.REFUSED:
            self._coordinator.abandon(self._transaction)
        else:
            self._coordinator.finish(self._transaction)
        if outcome is not Outcome.UNKNOWN:
            self._decided_as(committed=outcome is Outcome.APPLIED)
        if not self._done.done():
            self._done.set_result(outcome)
        elif outcome is not Outcome.APPLIED and not self._done.cancelled():
            _log.warning("a commit that was answered before a majority had it may be lost")

    def _decided_as(self, *, committed: bool) -> None:
        transaction = self._transaction
        transaction.undecided, transaction.committed = False, committed
        if transaction.on_end is not None:
            transaction.on_end(committed)


def _ignore(_: Outcome) -> None:
    """A lost Forget is found again by the next leader's sweep."""


def _dependency_failure() -> TransactionError:
    return TransactionError(
        "could not serialize access due to read/write dependencies among transactions",
        "40001",
        hint="The transaction might succeed if retried.",
    )
