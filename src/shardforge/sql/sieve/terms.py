"""A sieve as bytes: a table's layouts, values, and a condition as a list of terms. PURE.

A term names those that it is made of by their places in the list, which come before its own; the last one is the
condition. So nothing here is nested, and a reader can bound what it will do before it does it.
Values of all types travel as a row of the codec that stores them, which keeps each exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from shardforge.errors import NetworkError

SIEVE_BYTES_MAX = 64 << 10
DEPTH_MAX = 64
WEIGHT_MAX = 16_384
"""Terms in all, each counted as often as it is evaluated for a row."""

Place: TypeAlias = int
"""Of another term."""


class Value(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """One of the values."""

    number: int


class Column(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One of the columns that are read."""

    number: int


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A function or operator by its pg_proc oid."""

    proc: int
    args: Sequence[Place]
    oid: int


class Relabel(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The same value under another type."""

    arg: Place
    oid: int


class Logic(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """ "and", "or", "not"."""

    op: str
    args: Sequence[Place]


class IsNull(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """IS [NOT] NULL."""

    arg: Place
    negated: bool


class IsTruth(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """IS [NOT] TRUE, FALSE or UNKNOWN."""

    arg: Place
    test: str
    negated: bool


class Distinct(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """IS [NOT] DISTINCT FROM."""

    proc: int
    left: Place
    right: Place
    negated: bool


class AnyOf(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """left op ANY or ALL (array)."""

    proc: int
    left: Place
    array: Place
    use_or: bool


class Items(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """An array of these elements."""

    elements: Sequence[Place]
    oid: int


class Coalesce(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The first that is not NULL."""

    args: Sequence[Place]
    oid: int


class Rows(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """(a, b) < (c, d); each pair with the functions of less and of equal."""

    op: str
    left: Sequence[Place]
    right: Sequence[Place]
    procs: Sequence[tuple[int, int]]


Term = (
    Value | Column | Call | Relabel | Logic | IsNull | IsTruth | Distinct | AnyOf | Items | Coalesce | Rows
)  # fmt: skip


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """Whose keys are meant where tables share a span: the number of table and index, and the shard key's types."""

    number: int
    index: int
    shard_oids: Sequence[int]


class Sieve(msgspec.Struct, frozen=True, array_like=True):
    """Which rows pass: those that are the owner's, if one is named, and for which the last term, if any, is true.

    `layouts` are the table's, (column id, type) each; `missing` holds, as a row of `missing_columns`, what columns that
    were added later are in older rows; `picks` are the positions in the newest layout of the columns that are read;
    `values` is a row of `value_types`.
    """

    layouts: Sequence[Sequence[tuple[int, int]]]
    missing_columns: Sequence[tuple[int, int]]
    missing: bytes
    picks: Sequence[int]
    value_types: Sequence[int]
    values: bytes
    terms: Sequence[Term]
    owner: Owner | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Sieve)


def encode(sieve: Sieve) -> bytes:
    """The bytes."""
    return _encoder.encode(sieve)


def decode(data: bytes) -> Sieve:
    """The sieve of some bytes; what it says is not looked at. Raises NetworkError 08P01."""
    if len(data) > SIEVE_BYTES_MAX:
        raise NetworkError(f"a sieve of {len(data)} bytes is too large")
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise NetworkError(f"a sieve cannot be read: {error}") from error
