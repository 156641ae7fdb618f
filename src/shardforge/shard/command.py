"""The replicated commands of a shard, and what each does to the engine.

One Raft entry carries the commands of one group commit, in order; applying it makes one engine batch, with
the applied index inside. `apply` is a pure function of (engine, entry): every replica, and every replay
after a crash, comes to the same batch and the same outcomes.

    Commit         versions of a transaction that touches this shard only
    Prepare        intents of a transaction that touches several
    CommitRecord   the decision, at the anchor, with the anchor shard's own versions: create-if-absent
    AbortRecord    the other decision: create-if-absent (rule R5)
    Resolve        intents become versions, or go
    Forget         a record that nobody can need any more
    Collect        versions that no reader can need any more
    Window         the bound of the timestamp oracle (meta shard)
    Split          the shard's upper part becomes a shard of its own (`split`); alone in its entry
    Begin          a tenure: what older ones still send is refused from here on
    Seal           nothing else changes the shard any more: it is about to become a part of another; or it is not
    Absorb         a copy of such a shard's pairs, which nobody sees yet
    Merge          what was absorbed is this shard's: its span grows
    Run            commands that a serving node elsewhere has numbered: each is applied once, however often it is sent

A command that names the term of its marks is refused in an entry of any other term (rule R1): the leader
that checked it is not the one that ordered it. In a shard that was split, one with a key outside the span is
refused as well: it was meant for what is another shard by then. Within a Run it is the tenure that a command names: the
serving node keeps its marks whoever leads the shard, and what is sent again is told by its number.
PURE.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from shardforge.ids import NodeId, ShardId, Timestamp, TxnId
from shardforge.shard.description import put_description
from shardforge.shard.descriptor import ShardDescriptor, Span
from shardforge.storage import mvcc
from shardforge.storage.engine import Reader, Write

KeyValue = tuple[bytes, bytes | None]


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=1):
    txn: TxnId
    timestamp: Timestamp
    term: int
    writes: Sequence[KeyValue]


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=2):
    txn: TxnId
    timestamp: Timestamp
    floor: Timestamp
    term: int
    anchor: bytes
    writes: Sequence[KeyValue]


class CommitRecord(msgspec.Struct, frozen=True, array_like=True, tag=3):
    txn: TxnId
    timestamp: Timestamp
    term: int
    anchor: bytes
    participants: tuple[ShardId, ...]
    writes: Sequence[KeyValue]


class AbortRecord(msgspec.Struct, frozen=True, array_like=True, tag=4):
    txn: TxnId
    anchor: bytes


class Resolve(msgspec.Struct, frozen=True, array_like=True, tag=5):
    txn: TxnId
    timestamp: Timestamp
    """The commit timestamp; 0: aborted."""
    keys: Sequence[bytes]


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=6):
    txn: TxnId
    anchor: bytes


class Collect(msgspec.Struct, frozen=True, array_like=True, tag=7):
    engine_keys: Sequence[bytes]
    horizon: Timestamp = Timestamp(0)
    """Readers below it may miss what is removed."""


class Window(msgspec.Struct, frozen=True, array_like=True, tag=8):
    anchor: bytes
    bound: Timestamp


class Clear(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Remove every version in spans of keys that nobody reads or writes any more."""

    spans: Sequence[tuple[bytes, bytes]]
    horizon: Timestamp = Timestamp(0)
    """Readers below it may miss what is removed."""


class Split(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Cut the span at a key: what is from there on goes to a new shard."""

    child: ShardId
    at: bytes
    epoch: int
    """What the shard's epoch becomes, and the child's first: one more than it was."""
    leader: NodeId
    """Who proposed it, and leads the child from its beginning if it still leads the shard then."""
    term: int
    tenure: int
    """Whose serving node asked for it; one that has ended splits nothing."""


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """A serving node takes over: its tenure, or a younger one, is in force from here on."""

    tenure: int


class Seal(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """From here on nothing but a Seal changes what the shard holds; or everything does again."""

    tenure: int
    sealed: bool


class Absorb(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Pairs of the engine of the next shard, which is sealed: kept beside this one's, not seen before a Merge."""

    tenure: int
    span: Span
    """That shard's."""
    first: bool
    """What there is in the span, left by an earlier attempt, goes first."""
    pairs: Sequence[tuple[bytes, bytes]]


class Merge(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """The next shard, all of which was absorbed, becomes a part of this one."""

    tenure: int
    right: ShardId
    span: Span
    """The right one's."""
    epoch: int
    """What the shard's epoch becomes: one more than it was."""
    kept_from: Timestamp
    """The right one's."""
    absorbed: tuple[ShardId, ...]
    """What had become a part of the right one."""


Numbered: TypeAlias = (
    Commit | Prepare | CommitRecord | AbortRecord | Resolve | Forget | Collect | Window | Clear | Seal
    | Absorb | Merge
)  # fmt: skip


class Run(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Commands of a tenure, numbered without gaps from `first` on; the first of all is 1."""

    tenure: int
    first: int
    commands: Sequence[Numbered]


Command: TypeAlias = Numbered | Split | Begin | Run


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """The engine's value of an intent."""

    txn: TxnId
    timestamp: Timestamp
    floor: Timestamp
    anchor: bytes
    value: bytes | None


class Record(msgspec.Struct, frozen=True, array_like=True):
    """The engine's value of a transaction's record; timestamp 0 means aborted."""

    timestamp: Timestamp
    participants: tuple[ShardId, ...] = ()

    @property
    def committed(self) -> bool:
        return self.timestamp > 0


class Applied(msgspec.Struct, frozen=True, array_like=True):
    """The engine's applied state: the last entry applied, and how far a tenure's Runs have come."""

    index: int
    term: int
    tenure: int = 0
    """The youngest that has begun here."""
    number: int = 0
    """The newest command of its Runs."""
    refused: tuple[int, ...] = ()
    """Those of the last `REFUSED_KEPT` numbers that were refused."""


NOTHING_APPLIED: Final = Applied(0, 0)
ABSORBED_KEPT = 100
"""So many shards that became a part of one are remembered in it; older ones are long removed everywhere."""
REFUSED_KEPT = 100_000
"""A serving node has fewer commands of one shard under way: so it can learn of each what became of it."""


class Outcome(enum.Enum):
    """What became of a proposed command."""

    APPLIED = "applied"
    REFUSED = "refused: it had no effect and never will"
    UNKNOWN = "the replica stopped: it may or may not take effect"


_encoder = msgspec.msgpack.Encoder()
_commands_decoder = msgspec.msgpack.Decoder(list[Command])
_intent_decoder = msgspec.msgpack.Decoder(Intent)
_record_decoder = msgspec.msgpack.Decoder(Record)
_applied_decoder = msgspec.msgpack.Decoder(Applied)

WINDOW_RECORD = TxnId(0)
"""The id under which the oracle's bound is kept; no transaction has it."""


_SPLIT_HEAD: Final = bytes((0x91, 0x97, 10))
"""An entry with one command, of seven fields, the first of which is Split's tag."""


def is_split(data: bytes) -> bool:
    """Whether an entry's data is a Split: told without decoding it."""
    return data.startswith(_SPLIT_HEAD)


def encode(commands: Sequence[Command]) -> bytes:
    """The commands of one entry as its data."""
    return _encoder.encode(commands)


def decode(data: bytes) -> list[Command]:
    """The commands of an entry's data."""
    return _commands_decoder.decode(data)


def intent_at(reader: Reader, key: bytes) -> Intent | None:
    """The intent on `key`."""
    data = mvcc.intent(reader, key)
    return None if data is None else _intent_decoder.decode(data)


def decode_intent(data: bytes) -> Intent:
    """An intent from the engine's bytes."""
    return _intent_decoder.decode(data)


def record_of(reader: Reader, anchor: bytes, txn: TxnId) -> Record | None:
    """The record of a transaction."""
    data = mvcc.record(reader, anchor, txn)
    return None if data is None else _record_decoder.decode(data)


def decode_record(data: bytes) -> Record:
    """A record from the engine's bytes."""
    return _record_decoder.decode(data)


def encode_applied(state: Applied) -> bytes:
    """The applied state as the engine keeps it."""
    return _encoder.encode(state)


def applied_of(reader: Reader) -> Applied:
    """The last entry that the engine's state includes; index 0 for a new engine."""
    data = mvcc.applied(reader)
    return NOTHING_APPLIED if data is None else _applied_decoder.decode(data)


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
        self.batch.append(mvcc.put_applied(_encoder.encode(self.state(index))))
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
            found = _intent_decoder.decode(data)
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
        if data is None or _record_decoder.decode(data).timestamp < command.bound:
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
