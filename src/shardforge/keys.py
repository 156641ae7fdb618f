"""The key space: how values become ordered bytes, and where each kind of key lives.

    s...                                             system rows (meta shard)
    g <hash:2> <shard key> <table:4> <index:4> ...   tables with an explicit shard key
    h <bucket:2> <table:4> <index:4> ...             hash-sharded tables without one
    r <table:4> <index:4> ...                        range-sharded tables
    h <bucket:2> ffffffff 00000000 <digest:32>       records of commit keys, spread by their digest

A column is a marker byte (null or not; markers alone place NULLs) and a payload whose byte order is
PostgreSQL's value order; a descending payload is complemented. Keys are never decoded: rows hold all
their columns, and an index entry's value is the row's key.

Invariants, held by property tests: key order is value order for each type, ascending and descending;
equal values have equal keys (numeric 1.0 = 1.00, char(n) without trailing blanks, -0.0 = 0.0); no
column encoding is a proper prefix of another of its type, hence no full key is one of another's.
The bucket hash is FROZEN: data on disk is placed by it. It is canonical across the integer types and
numeric. Source: PostgreSQL 15 comparison functions (array_cmp, interval_cmp, timetz_cmp, ...).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from shardforge.errors import unsupported

Encode = Callable[[Any], bytes]
KeyEncoder = Callable[[Sequence[Any]], bytes]
KeyColumn = tuple[int, bool, bool]
"""(type oid, descending, nulls first)."""

BUCKETS: Final = 64
_COMMIT_KEY_TABLE: Final = 0xFFFF_FFFF
"""No table has this id."""

KIND_OF: Final[dict[int, str]] = {
    16: "bool", 17: "bytea", 18: "text", 19: "text", 20: "int8", 21: "int2", 23: "int4",
    24: "oid", 25: "text", 26: "oid", 28: "oid", 29: "oid", 114: "json", 700: "float4",
    701: "float8", 705: "text", 1042: "bpchar", 1043: "text", 1082: "date", 1083: "time",
    1114: "timestamp", 1184: "timestamp", 1186: "interval", 1266: "timetz", 1700: "numeric",
    2202: "oid", 2203: "oid", 2204: "oid", 2205: "oid", 2206: "oid", 2950: "uuid", 3734: "oid",
    3769: "oid", 3802: "jsonb", 4089: "oid", 4096: "oid", 4191: "oid", 5069: "xid8",
}  # fmt: skip
"""Type oid -> how its values are stored; arrays are in ELEMENT_OF."""

ELEMENT_OF: Final[dict[int, int]] = {
    22: 21, 30: 26, 199: 114, 271: 5069, 1000: 16, 1001: 17, 1002: 18, 1003: 19, 1005: 21,
    1007: 23, 1008: 24, 1009: 25, 1011: 28, 1012: 29, 1014: 1042, 1015: 1043, 1016: 20, 1021: 700,
    1022: 701, 1028: 26, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700,
    1270: 1266, 2207: 2202, 2208: 2203, 2209: 2204, 2210: 2205, 2211: 2206, 2951: 2950,
    3735: 3734, 3770: 3769, 3807: 3802, 4090: 4089, 4097: 4096, 4192: 4191,
}  # fmt: skip
"""Array type oid -> its element type's oid."""

ENUM_OIDS: Final = range(1 << 30, 1 << 31)
"""Types with these oids are enums (even) and the arrays over them (odd, one more than their element): what a type is
follows from its oid, and only its name and labels from a catalog. No other type has such an oid."""


def kind_of(oid: int) -> str:
    """How values of the type are stored, "" for a type that is not. An enum's value is its place in its order."""
    return KIND_OF.get(oid) or ("enum" if oid in ENUM_OIDS and oid % 2 == 0 else "")


def element_of(oid: int) -> int:
    """The element type of an array type that can be stored, else 0."""
    return ELEMENT_OF.get(oid) or (oid - 1 if oid in ENUM_OIDS and oid % 2 else 0)


# Markers. The terminator of an array is below every marker, so a shorter array comes first.
_END: Final = b"\x00"
_NULL_FIRST: Final = b"\x01"
_VALUE: Final = b"\x02"
_NULL_LAST: Final = b"\x03"

_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))
_BIAS: Final = 1 << 63
_pack_tagged = struct.Struct(">BQ").pack
_pack_u64 = struct.Struct(">Q").pack
_pack_u32 = struct.Struct(">I").pack
_pack_double = struct.Struct(">d").pack
_unpack_u64 = struct.Struct(">Q").unpack
_pack_place = struct.Struct(">II").pack


# ---- payloads: one function per kind, ascending --------------------------------------------------


def _bool(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _int(value: int) -> bytes:
    return _pack_u64(value + _BIAS)


def _float(value: float) -> bytes:
    if value != value:  # NaN, any sign or payload: above infinity
        return b"\xff" * 8
    bits: int = _unpack_u64(_pack_double(value + 0.0))[0]  # -0.0 + 0.0 is 0.0
    return _pack_u64(bits ^ (_BIAS if bits < _BIAS else 0xFFFF_FFFF_FFFF_FFFF))


_DIGIT_PLUS_ONE: Final = bytes(min(byte + 1, 255) for byte in range(256))
_NUMERIC_ZERO: Final = b"\x03"


def _numeric(value: Decimal) -> bytes:
    """Class byte, exponent of the leading digit, digits as nibbles 1..10 ended by a zero byte."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return b"\x06" if exponent == "n" else b"\x01" if sign else b"\x05"
    significant = bytes(digits).rstrip(b"\x00")
    if not significant:
        return _NUMERIC_ZERO
    nibbles = significant.translate(_DIGIT_PLUS_ONE).hex()[1::2]
    packed = bytes.fromhex(nibbles if len(nibbles) % 2 == 0 else nibbles + "0") + b"\x00"
    magnitude = _pack_u32(len(digits) + exponent + 0x8000_0000) + packed
    return b"\x02" + magnitude.translate(_COMPLEMENT) if sign else b"\x04" + magnitude


def _bytes(value: bytes) -> bytes:
    """Zero bytes escaped, so that the terminator is below every continuation."""
    return value.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def _text(value: str) -> bytes:
    return value.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def _bpchar(value: str) -> bytes:
    return _text(value.rstrip(" "))


def _timetz(value: tuple[int, int]) -> bytes:
    micros, zone = value
    return _pack_u64(micros + zone * 1_000_000 + _BIAS) + _pack_u32(zone + 0x8000_0000)


def _interval(value: tuple[int, int, int]) -> bytes:
    months, days, micros = value
    total = (months * 30 + days) * 86_400_000_000 + micros
    return (total + (1 << 95)).to_bytes(12, "big")


def _uuid(value: bytes) -> bytes:
    assert len(value) == 16, "a uuid is 16 bytes"
    return value


_PAYLOADS: Final[dict[str, Encode]] = {
    "bool": _bool, "int2": _int, "int4": _int, "int8": _int, "oid": _int, "xid8": _int,
    "float4": _float, "float8": _float, "numeric": _numeric, "text": _text, "bpchar": _bpchar,
    "bytea": _bytes, "date": _int, "time": _int, "timetz": _timetz, "timestamp": _int,
    "interval": _interval, "uuid": _uuid, "enum": _float,
}  # fmt: skip


def _array_payload(element: Encode) -> Encode:
    """Elements, then their number (by the terminator), dimensions and bounds: array_cmp's order."""

    def encode(value: Any) -> bytes:
        parts = [_NULL_LAST if item is None else _VALUE + element(item) for item in value.elements]
        parts.append(_END)
        parts.append(bytes((len(value.dims),)))
        parts.extend(_pack_u32(size) for size in value.dims)
        parts.extend(_pack_u32(bound + 0x8000_0000) for bound in value.lower)
        return b"".join(parts)

    return encode


def _payload(oid: int) -> Encode:
    element = element_of(oid)
    if element:
        return _array_payload(_payload(element))
    payload = _PAYLOADS.get(kind_of(oid))
    if payload is None:
        kind = kind_of(oid) or f"with oid {oid}"
        raise unsupported(f"a key column of type {kind}")
    return payload


def can_be_key(oid: int) -> bool:
    """Whether values of the type have an order that keys can carry."""
    return kind_of(element_of(oid) or oid) in _PAYLOADS


# ---- columns and whole keys ----------------------------------------------------------------------

_WORDS: Final = frozenset(("int2", "int4", "int8", "oid", "xid8", "date", "time", "timestamp"))


def _column(oid: int, *, descending: bool, nulls_first: bool) -> Encode:
    null = _NULL_FIRST if nulls_first else _NULL_LAST
    if KIND_OF.get(oid) in _WORDS:
        if descending:
            return lambda value: null if value is None else _pack_tagged(2, _BIAS - 1 - value)
        return lambda value: null if value is None else _pack_tagged(2, value + _BIAS)
    payload = _payload(oid)
    if descending:
        return lambda value: (
            null if value is None else _VALUE + payload(value).translate(_COMPLEMENT)
        )
    return lambda value: null if value is None else _VALUE + payload(value)


def encode_column(
    kind: int, value: object, out: bytearray, *, descending: bool = False, nulls_first: bool = False
) -> None:
    """Append one key column of type oid `kind` to `out`; for loops, compile a `key_encoder`."""
    out += _column(kind, descending=descending, nulls_first=nulls_first)(value)


def key_encoder(columns: Sequence[KeyColumn], prefix: bytes = b"") -> KeyEncoder:
    """A function from the columns' values, in order, to `prefix` and their key bytes.

    Cost:   0.3 us for one integer, 0.2 us more per further column.
    Raises: QueryError 0A000 for a type without a key order (json, jsonb, record).
    """
    encoders = [
        _column(oid, descending=descending, nulls_first=nulls_first)
        for oid, descending, nulls_first in columns
    ]
    if len(encoders) == 1:
        first = encoders[0]
        return lambda values: prefix + first(values[0])
    if len(encoders) == 2:
        first, second = encoders
        return lambda values: prefix + first(values[0]) + second(values[1])
    return lambda values: (
        prefix + b"".join([encode(value) for encode, value in zip(encoders, values, strict=True)])
    )


# ---- hashing (frozen) ----------------------------------------------------------------------------

_SPREAD: Final = 0x9E37_79B1  # the golden ratio in 32 bits: makes the linear CRC's top bits mix
_INT64_MIN: Final = Decimal(-(1 << 63))
_INT64_MAX: Final = Decimal((1 << 63) - 1)


def _hash16_of(encoded: bytes) -> int:
    return ((zlib.crc32(encoded) * _SPREAD) & 0xFFFF_FFFF) >> 16


def _canonical_numeric(value: Decimal) -> bytes:
    """An integral numeric hashes as the integer that it equals."""
    if value.is_finite() and _INT64_MIN <= value <= _INT64_MAX:
        whole = int(value)
        if whole == value:
            return _pack_u64(whole + _BIAS)
    return _numeric(value)


def _hash_input(oids: Sequence[int]) -> KeyEncoder:
    """The canonical bytes of values: their ascending key, numerics as integers where equal."""

    def column(oid: int) -> Encode:
        if KIND_OF.get(oid) != "numeric":
            return _column(oid, descending=False, nulls_first=True)
        return lambda value: _NULL_FIRST if value is None else _VALUE + _canonical_numeric(value)

    encoders = [column(oid) for oid in oids]
    if len(encoders) == 1:
        first = encoders[0]
        return lambda values: first(values[0])
    return lambda values: b"".join([encode(v) for encode, v in zip(encoders, values, strict=True)])


def hasher(oids: Sequence[int]) -> Callable[[Sequence[Any]], int]:
    """A function from values to their 16-bit hash; its top six bits are the bucket."""
    encode = _hash_input(oids)
    return lambda values: _hash16_of(encode(values))


def hash16_of(values: Sequence[Any], oids: Sequence[int]) -> int:
    """The frozen 16-bit hash of values, as in the keys of tables with a shard key."""
    return _hash16_of(_hash_input(oids)(values))


def bucket_of(values: Sequence[Any], oids: Sequence[int]) -> int:
    """The frozen hash bucket of values, 0 to BUCKETS - 1."""
    return hash16_of(values, oids) >> 10


# ---- prefixes ------------------------------------------------------------------------------------


def meta_key(*parts: str | int) -> bytes:
    """The system key, or the prefix of system keys, made of `parts`.

    Keys that begin with the same part must agree in the number and kinds of their parts; then no
    full key is a prefix of another. Integers sort as such, and before strings.
    """
    return b"s" + b"".join(
        [
            _pack_tagged(1, part + _BIAS) if isinstance(part, int) else b"\x02" + _text(part)
            for part in parts
        ]
    )


def hash_prefix(bucket: int, table_id: int, index_id: int) -> bytes:
    """Prefix of one bucket of a hash-sharded table's index."""
    assert 0 <= bucket < BUCKETS, "bucket out of range"
    return b"h" + bucket.to_bytes(2, "big") + _pack_place(table_id, index_id)


def colocated_prefix(
    shard_key: Sequence[Any], oids: Sequence[int], table_id: int, index_id: int
) -> bytes:
    """Prefix of the keys of one shard-key value in a table (or an index that holds the shard key)."""
    return shard_key_prefix(shard_key, oids) + _pack_place(table_id, index_id)


def shard_key_prefix(shard_key: Sequence[Any], oids: Sequence[int]) -> bytes:
    """Prefix of everything, of all tables, that lives with one shard-key value.

    Equal values of different integer types (and numeric) give the same prefix, so that tables meet.
    """
    canonical = _hash_input(oids)(shard_key)
    return b"g" + _hash16_of(canonical).to_bytes(2, "big") + canonical


def commit_key_prefix(bucket: int) -> bytes:
    """Prefix of one bucket of the records of commit keys."""
    return hash_prefix(bucket, _COMMIT_KEY_TABLE, 0)


def commit_key_record(*parts: str) -> bytes:
    """Where the record of a commit key lives: a function of the key and of whose it is, and nothing else."""
    digest = hashlib.sha256(b"".join([_text(part) for part in parts])).digest()
    return commit_key_prefix(digest[0] >> 2) + digest


def range_prefix(table_id: int, index_id: int) -> bytes:
    """Prefix of a range-sharded table's index."""
    return b"r" + _pack_place(table_id, index_id)


@lru_cache(maxsize=1024)
def bucket_prefixes(table_id: int, index_id: int) -> tuple[bytes, ...]:
    """`hash_prefix` of every bucket of one index."""
    return tuple([hash_prefix(bucket, table_id, index_id) for bucket in range(BUCKETS)])


def hashed_key_encoder(
    columns: Sequence[KeyColumn], table_id: int, index_id: int, hashed: int | None = None
) -> KeyEncoder:
    """Full keys of a hash-sharded table's index: bucket of the first `hashed` columns, then all.

    `hashed` is the number of columns that place the entry (default all); further columns, such as
    the primary key behind a non-unique index's columns, order entries inside the bucket.
    """
    count = len(columns) if hashed is None else hashed
    prefixes = bucket_prefixes(table_id, index_id)
    encode = key_encoder(columns)
    ascending = all(
        KIND_OF.get(oid) != "numeric" and not descending for oid, descending, _ in columns[:count]
    )
    if count == len(columns) == 1 and ascending:
        # One ascending column: the key bytes are the hash input, except for where NULL sorts.
        column = _column(columns[0][0], descending=False, nulls_first=columns[0][2])
        null_bucket = bucket_of((None,), (columns[0][0],))

        def encode_single(values: Sequence[Any]) -> bytes:
            value = values[0]
            encoded = column(value)
            if value is None:
                return prefixes[null_bucket] + encoded
            return prefixes[(zlib.crc32(encoded) * _SPREAD & 0xFFFF_FFFF) >> 26] + encoded

        return encode_single
    hash_of = hasher([oid for oid, _, _ in columns[:count]])
    return lambda values: prefixes[hash_of(values[:count]) >> 10] + encode(values)


def bucket_boundary(bucket: int) -> bytes:
    """The smallest key of a hash bucket; where initial shards meet."""
    return b"h" + bucket.to_bytes(2, "big")


def colocated_boundary(hash16: int) -> bytes:
    """The smallest key of a shard-key hash; where shards of shard-key tables meet."""
    return b"g" + hash16.to_bytes(2, "big")


def prefix_end(key: bytes) -> bytes:
    """The smallest key greater than every key that begins with `key`."""
    trimmed = key.rstrip(b"\xff")
    assert trimmed, "a prefix of 0xff bytes has no end"
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))
