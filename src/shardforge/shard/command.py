"""The replicated commands of a shard, as its log holds them, and what it keeps of them. `application`: what each does.

One Raft entry carries the commands of one group commit, in order.

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

PURE.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from shardforge.ids import NodeId, ShardId, Timestamp, TxnId
from shardforge.shard.descriptor import Span
from shardforge.storage import mvcc
from shardforge.storage.engine import Reader

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
