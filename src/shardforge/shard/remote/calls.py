"""What the serving node asks of a node that holds a replica, and the answers.

Each call names the shard, the tenure, and the epoch by which the asker knows the shard's span. An answer is a union, so
that what is expected to happen (another node leads, the span is another, a younger tenure began) is no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from shardforge.errors import NetworkError
from shardforge.ids import NodeId, ShardId, Timestamp
from shardforge.shard.command import Numbered
from shardforge.shard.descriptor import ShardDescriptor

METHOD = "shard"

Rows = list[tuple[bytes, int, bytes]]
"""(key, timestamp, value)"""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What every call begins with."""

    shard: ShardId
    tenure: int
    epoch: int = 0
    index: int = 0
    """The entry that a replica must have applied to answer a read."""


class BeginTenure(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Let the tenure begin in the shard; to its leader."""

    head: Head


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Order numbered commands; to the leader. Answered when they are applied."""

    head: Head
    first: int
    commands: Sequence[Numbered]


class Where(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """How far the tenure's commands have come; to the leader."""

    head: Head


class ReadKeys(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The newest version of each key at or before a timestamp."""

    head: Head
    keys: Sequence[bytes]
    timestamp: Timestamp


class ScanSpans(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Rows of spans, one span after the other, each in key order or against it.

    Rows that do not pass `sieve` need not be sent, and do not count; empty: all rows pass.
    """

    head: Head
    spans: Sequence[tuple[bytes, bytes]]
    timestamp: Timestamp
    reverse: bool
    rows_max: int
    sieve: bytes = b""


class VersionsIn(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Which versions of a span's keys have timestamps in (since, until]; from a key on, so many at the most."""

    head: Head
    start: bytes
    end: bytes
    since: Timestamp
    until: Timestamp
    count_max: int


class PairsIn(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Pairs of the engine's own span: intents, records."""

    head: Head
    start: bytes
    end: bytes
    count_max: int


class Sweep(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Collect the garbage among the shard's first versions from a key on; to the leader."""

    head: Head
    start: bytes
    horizon: Timestamp
    pairs_max: int


Call = BeginTenure | Submit | Where | ReadKeys | ScanSpans | VersionsIn | PairsIn | Sweep


class Elsewhere(msgspec.Struct, frozen=True, array_like=True, tag=100):
    """Not here: another node leads, or nobody is known to (0); or the replica has not come so far."""

    lead: NodeId


class Otherwise(msgspec.Struct, frozen=True, array_like=True, tag=101):
    """The shard was split or merged since: what it is now."""

    descriptor: ShardDescriptor


class Deposed(msgspec.Struct, frozen=True, array_like=True, tag=102):
    """A younger tenure has begun."""

    tenure: int


class Reached(msgspec.Struct, frozen=True, array_like=True, tag=103):
    """How far a tenure's commands are applied, as of an entry, and which of them were refused."""

    index: int
    number: int
    refused: Sequence[int]
    descriptor: ShardDescriptor
    sealed: bool = False


class Found(msgspec.Struct, frozen=True, array_like=True, tag=104):
    """(timestamp, value) of each key; timestamp 0: it has no version."""

    versions: Sequence[tuple[int, bytes | None]]


class Scanned(msgspec.Struct, frozen=True, array_like=True, tag=105):
    """Rows, and where the scan goes on: the position of a span in the list, -1 at the end, and its new bound."""

    rows: Rows
    position: int
    bound: bytes


class Versions(msgspec.Struct, frozen=True, array_like=True, tag=106):
    """(key, timestamp) of each, and from which key on there may be more; empty: nowhere."""

    found: Sequence[tuple[bytes, int]]
    resume: bytes


class Pairs(msgspec.Struct, frozen=True, array_like=True, tag=107):
    """Pairs of the engine."""

    pairs: Sequence[tuple[bytes, bytes]]
    index: int
    """The entry as of which they are."""


class Swept(msgspec.Struct, frozen=True, array_like=True, tag=108):
    """How much was garbage, and where to go on; empty: nowhere."""

    collected: int
    resume: bytes


Answer = Elsewhere | Otherwise | Deposed | Reached | Found | Scanned | Versions | Pairs | Swept

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_call_decoder = msgspec.msgpack.Decoder(Call)
_answer_decoder = msgspec.msgpack.Decoder(Answer)


def encode(message: Call | Answer) -> bytes:
    """A call's body, or its answer."""
    return _encoder.encode(message)


def decode_call(data: bytes) -> Call:
    """A call from its body. Raises NetworkError 08P01."""
    try:
        found: Call = _call_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise NetworkError(f"a call for a shard cannot be read: {error}") from error
    return found


def decode_answer(data: bytes) -> Answer:
    """An answer from its bytes. Raises NetworkError 08P01."""
    try:
        found: Answer = _answer_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise NetworkError(f"an answer for a shard cannot be read: {error}") from error
    return found
