"""What an entry's commands do to the engine.

Applying an entry makes one engine batch, with the applied index inside. `apply` is a pure function of (engine, entry):
every replica, and every replay after a crash, comes to the same batch and the same outcomes.

A command that names the term of its marks is refused in an entry of any other term (rule R1): the leader
that checked it is not the one that ordered it. In a shard that was split, one with a key outside the span is
refused as well: it was meant for what is another shard by then. Within a Run it is the tenure that a command names: the
serving node keeps its marks whoever leads the shard, and what is sent again is told by its number.
PURE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from shardforge.ids import Timestamp, TxnId
from shardforge.shard.command import (
    NOTHING_APPLIED,
    WINDOW_RECORD,
    AbortRecord,
    Absorb,
    Applied,
    Begin,
    Clear,
    Collect,
    Command,
    Commit,
    CommitRecord,
    Forget,
    Intent,
    KeyValue,
    Merge,
    Outcome,
    Prepare,
    Record,
    Resolve,
    Run,
    Seal,
    Split,
    Window,
    decode_intent,
    decode_record,
    encode_applied,
)
from shardforge.shard.description import put_description
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.storage import mvcc
from shardforge.storage.engine import Reader, Write

_encoder = msgspec.msgpack.Encoder()

ABSORBED_KEPT = 100
"""So many shards that became a part of one are remembered in it; older ones are long removed everywhere."""
REFUSED_KEPT = 100_000
"""A serving node has fewer commands of one shard under way: so it can learn of each what became of it."""

Prepared: TypeAlias = Callable[[TxnId], Mapping[bytes, bytes | None] | None]
"""Knows a transaction's intents in a shard without reading them, or nothing of it."""


def nothing_prepared(_: TxnId) -> None:
    """Know of no transaction's intents."""


def merged(shard: ShardDescriptor, command: Merge) -> ShardDescriptor:
    """What a Merge makes of a shard."""
    absorbed = (*shard.absorbed, *command.absorbed, command.right)[-ABSORBED_KEPT:]
    span = shard.span.joined(command.span)
    return replace(shard, span=span, epoch=command.epoch, absorbed=absorbed)


class Application:
    """One entry being applied: the engine batch it makes, and what readers must learn from it.

    `intents` and `records` hold what earlier commands of the same entry wrote, which the engine does not
    show yet.
    """

    __slots__ = (
        "_intents",
        "_named",
        "_prepared",
        "_reader",
        "_records",
        "_term",
        "_within",
        "batch",
        "cleared",
        "divided",
        "kept_from",
        "merged",
        "number",
        "refused",
        "sealed",
        "shard",
        "tenure",
        "versions",
    )

    def __init__(
        self,
        reader: Reader,
        term: int,
        prepared: Prepared = nothing_prepared,
        shard: ShardDescriptor | None = None,
        before: Applied = NOTHING_APPLIED,
        *,
        sealed: bool = False,
    ) -> None:
        """`prepared` may know a transaction's intents without reading them: they must be the same."""
        self.shard = shard
        """What the shard is with this entry; None: whatever keys there are."""
        # Where the shard never had another span, no key is of another.
        self._within = None if shard is None or shard.epoch == 1 else shard.span
        self.sealed = sealed
        """Whether it is sealed, with this entry."""
        self.merged = False
        """Whether this entry made another one a part of it."""
        self.divided: list[Write] | None = None
        """What a Split of this entry adds to the batch; None: it is refused."""
        self._reader = reader
        self._prepared = prepared
        self._term = self._named = term
        self.tenure, self.number, self.refused = before.tenure, before.number, before.refused
        self._intents: dict[bytes, bytes | None] = {}
        self._records: dict[tuple[bytes, TxnId], bytes | None] = {}
        self.batch: list[Write] = []
        self.cleared: list[tuple[bytes, bytes]] = []
        """Spans of the engine to be emptied before the batch is written; to do so again changes nothing."""
        self.versions: list[tuple[bytes, Timestamp, bytes | None]] = []
        self.kept_from = Timestamp(0)
        """What `mvcc.kept_from` becomes, if this entry changes it."""

    def apply(self, command: Command) -> Outcome:
        """Add the command's effect to the batch."""
        if self.sealed and not isinstance(command, Seal | Begin | Run):
            return Outcome.REFUSED
        return _APPLY[type(command)](self, command)

    def finish(self, index: int) -> list[Write]:
        """The batch, with the applied state in it."""
        self.batch.append(mvcc.put_applied(encode_applied(self.state(index))))
        return self.batch

    def state(self, index: int) -> Applied:
        """What is applied with the entry at `index`."""
        return Applied(index, self._term, self.tenure, self.number, self.refused)

    def _holds(self, writes: Sequence[KeyValue]) -> bool:
        if self._within is None:
            return True
        start, end = self._within.start, self._within.end
        return all(start <= key < end for key, _ in writes)

    def _commit(self, command: Commit) -> Outcome:
        if command.term != self._named or not self._holds(command.writes):
            return Outcome.REFUSED
        self._put_versions(command.writes, command.timestamp)
        return Outcome.APPLIED

    def _prepare(self, command: Prepare) -> Outcome:
        if command.term != self._named or not self._holds(command.writes):
            return Outcome.REFUSED
        txn, timestamp, floor = command.txn, command.timestamp, command.floor
        for key, value in command.writes:
            data = _encoder.encode(Intent(txn, timestamp, floor, command.anchor, value))
            self._intents[key] = data
            self.batch.append(mvcc.put_intent(key, data))
        return Outcome.APPLIED

    def _commit_record(self, command: CommitRecord) -> Outcome:
        if command.term != self._named or not self._holds(command.writes):
            return Outcome.REFUSED
        if not self._holds(((command.anchor, None),)):
            return Outcome.REFUSED
        if self._record(command.anchor, command.txn) is not None:
            return Outcome.REFUSED
        self._put_record(
            command.anchor, command.txn, Record(command.timestamp, command.participants)
        )
        self._put_versions(command.writes, command.timestamp)
        return Outcome.APPLIED

    def _abort_record(self, command: AbortRecord) -> Outcome:
        if not self._holds(((command.anchor, None),)):
            return Outcome.REFUSED
        if self._record(command.anchor, command.txn) is not None:
            return Outcome.REFUSED
        self._put_record(command.anchor, command.txn, Record(Timestamp(0)))
        return Outcome.APPLIED

    def _resolve(self, command: Resolve) -> Outcome:
        values = self._prepared(command.txn)
        if values is not None:
            self.batch += [mvcc.put_intent(key, None) for key in command.keys]
            if command.timestamp:
                self._put_versions([(key, values[key]) for key in command.keys], command.timestamp)
            return Outcome.APPLIED
        for key in command.keys:
            data = (
                self._intents.get(key) if key in self._intents else mvcc.intent(self._reader, key)
            )
            if data is None:
                continue
            found = decode_intent(data)
            if found.txn != command.txn:
                continue
            self._intents[key] = None
            self.batch.append(mvcc.put_intent(key, None))
            if command.timestamp:
                self._put_versions(((key, found.value),), command.timestamp)
        return Outcome.APPLIED

    def _forget(self, command: Forget) -> Outcome:
        self._records[command.anchor, command.txn] = None
        self.batch.append(mvcc.put_record(command.anchor, command.txn, None))
        return Outcome.APPLIED

    def _collect(self, command: Collect) -> Outcome:
        self.batch += [(key, None) for key in command.engine_keys]
        self._keep_from(command.horizon)
        return Outcome.APPLIED

    def _window(self, command: Window) -> Outcome:
        data = self._record(command.anchor, WINDOW_RECORD)
        if data is None or decode_record(data).timestamp < command.bound:
            self._put_record(command.anchor, WINDOW_RECORD, Record(command.bound))
        return Outcome.APPLIED

    def _clear(self, command: Clear) -> Outcome:
        self.cleared += [mvcc.versions_of(start, end) for start, end in command.spans]
        self._keep_from(command.horizon)
        return Outcome.APPLIED

    def _keep_from(self, horizon: Timestamp) -> None:
        if horizon > self.kept_from and horizon > mvcc.kept_from(self._reader):
            self.kept_from = horizon
            self.batch.append(mvcc.put_kept_from(horizon))

    def _split(self, command: Split) -> Outcome:
        if self.divided is None or command.term != self._term:
            return Outcome.REFUSED
        self.batch += self.divided
        return Outcome.APPLIED

    def _seal(self, command: Seal) -> Outcome:
        if command.tenure != self.tenure or self.shard is None:
            return Outcome.REFUSED
        self.sealed = command.sealed
        self.batch.append(put_description(self.shard, sealed=self.sealed))
        return Outcome.APPLIED

    def _absorb(self, command: Absorb) -> Outcome:
        span = command.span
        if command.tenure != self.tenure or self.shard is None or span.start < self.shard.span.end:
            return Outcome.REFUSED
        if command.first:
            spans = mvcc.everything_of(span.start, span.end)
            self.batch = [
                write for write in self.batch if not any(low <= write[0] < high for low, high in spans)
            ]  # fmt: skip
            self.cleared += spans
        self.batch += command.pairs
        return Outcome.APPLIED

    def _merge(self, command: Merge) -> Outcome:
        shard = self.shard
        if command.tenure != self.tenure or shard is None or command.epoch != shard.epoch + 1:
            return Outcome.REFUSED
        if shard.span.end != command.span.start:
            return Outcome.REFUSED
        self.shard = merged(shard, command)
        self._within = self.shard.span
        self.merged = True
        self._keep_from(command.kept_from)
        self.batch.append(put_description(self.shard))
        return Outcome.APPLIED

    def _begin(self, command: Begin) -> Outcome:
        if command.tenure < self.tenure:
            return Outcome.REFUSED
        if command.tenure > self.tenure:
            self.tenure, self.number, self.refused = command.tenure, 0, ()
        return Outcome.APPLIED

    def _run(self, command: Run) -> Outcome:
        """Each of the commands that was not applied before; refused as a whole when one before them is missing."""
        if command.tenure != self.tenure or command.first > self.number + 1:
            return Outcome.REFUSED
        self._named = self.tenure
        for one in command.commands[self.number + 1 - command.first :]:
            self.number += 1
            if self.apply(one) is not Outcome.APPLIED:
                kept = (n for n in self.refused if n > self.number - REFUSED_KEPT)
                self.refused = (*kept, self.number)
        self._named = self._term
        return Outcome.APPLIED

    def _put_versions(self, writes: Sequence[KeyValue], timestamp: Timestamp) -> None:
        put_version = mvcc.put_version
        self.batch += [put_version(key, timestamp, value) for key, value in writes]
        self.versions += [(key, timestamp, value) for key, value in writes]

    def _record(self, anchor: bytes, txn: TxnId) -> bytes | None:
        place = (anchor, txn)
        if place in self._records:
            return self._records[place]
        return mvcc.record(self._reader, anchor, txn)

    def _put_record(self, anchor: bytes, txn: TxnId, record: Record) -> None:
        data = _encoder.encode(record)
        self._records[anchor, txn] = data
        self.batch.append(mvcc.put_record(anchor, txn, data))


_APPLY: dict[type[Any], Callable[[Application, Any], Outcome]] = {
    Commit: Application._commit,
    Prepare: Application._prepare,
    CommitRecord: Application._commit_record,
    AbortRecord: Application._abort_record,
    Resolve: Application._resolve,
    Forget: Application._forget,
    Collect: Application._collect,
    Window: Application._window,
    Clear: Application._clear,
    Split: Application._split,
    Begin: Application._begin,
    Seal: Application._seal,
    Absorb: Application._absorb,
    Merge: Application._merge,
    Run: Application._run,
}
