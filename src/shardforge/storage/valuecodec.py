"""Single values as bytes: exact, typed by oid, for rows and other stored data. PURE.

A type is either fixed (a `struct` code, so that rows pack it in one call) or variable (bytes of its own
length). Numerics keep their display scale: their digits are stored as text. jsonb is UTF-8 JSON with
numbers digit by digit. An array is its shape, a null bitmap if needed, and its elements.

Storage does not know the classes of interval, timetz, jsonb and array values, which live with the types;
`use_classes` is told once, when that module is imported. Until then tuples come out.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import accumulate
from json.encoder import encode_basestring
from math import prod
from typing import Any, Final, NamedTuple

from shardforge.errors import unsupported
from shardforge.keys import element_of, kind_of

Convert = Callable[[Any], Any]


class Fixed(NamedTuple):
    """A type of constant width; None as a conversion means that struct does it."""

    code: str
    to_packed: Convert | None
    from_packed: Convert | None


class Variable(NamedTuple):
    """A type of any length."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class _Classes:
    """The classes that decoding returns; see `use_classes`."""

    interval: Callable[[int, int, int], Any] = staticmethod(lambda *parts: parts)
    timetz: Callable[[int, int], Any] = staticmethod(lambda *parts: parts)
    jsonb: Callable[[Any], Any] = staticmethod(lambda tree: (tree,))
    array: Callable[[tuple[Any, ...], tuple[int, ...], tuple[int, ...]], Any] = staticmethod(
        lambda *parts: parts
    )


def use_classes(
    *,
    interval: Callable[[int, int, int], Any],
    timetz: Callable[[int, int], Any],
    jsonb: Callable[[Any], Any],
    array: Callable[[tuple[Any, ...], tuple[int, ...], tuple[int, ...]], Any],
) -> None:
    """Make decoding return these: interval(months, days, micros), timetz(micros, zone), jsonb(tree)
    and array(elements, dims, lower)."""
    _Classes.interval, _Classes.timetz = interval, timetz
    _Classes.jsonb, _Classes.array = jsonb, array


# ---- fixed ---------------------------------------------------------------------------------------

_INTERVAL: Final = struct.Struct("<iiq")
_TIMETZ: Final = struct.Struct("<qi")

_FIXED: Final[dict[str, Fixed]] = {
    "bool": Fixed("?", None, None),
    "int2": Fixed("h", None, None),
    "int4": Fixed("i", None, None),
    "int8": Fixed("q", None, None),
    "oid": Fixed("I", None, None),
    "xid8": Fixed("Q", None, None),
    "float4": Fixed("f", None, None),
    "float8": Fixed("d", None, None),
    "enum": Fixed("d", None, None),
    "date": Fixed("i", None, None),
    "time": Fixed("q", None, None),
    "timestamp": Fixed("q", None, None),
    "uuid": Fixed("16s", None, None),
    "interval": Fixed(
        "16s",
        lambda value: _INTERVAL.pack(*value),
        lambda data: _Classes.interval(*_INTERVAL.unpack(data)),
    ),
    "timetz": Fixed(
        "12s",
        lambda value: _TIMETZ.pack(*value),
        lambda data: _Classes.timetz(*_TIMETZ.unpack(data)),
    ),
}


def fixed(oid: int) -> Fixed | None:
    """How a fixed-width type packs; None for a variable one."""
    return _FIXED.get(kind_of(oid))


# ---- variable ------------------------------------------------------------------------------------


def _decode_text(data: bytes) -> str:
    return data.decode()


def _decode_numeric(data: bytes) -> Decimal:
    return Decimal(data.decode())


def _json_text(tree: Any) -> str:
    """JSON text of a jsonb tree; numbers keep their digits."""
    match tree:
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case str():
            return encode_basestring(tree)
        case Decimal() | int():
            return str(tree)
        case dict():
            members = [f"{encode_basestring(key)}:{_json_text(item)}" for key, item in tree.items()]
            return "{" + ",".join(members) + "}"
        case list() | tuple():
            return "[" + ",".join([_json_text(item) for item in tree]) + "]"
    raise AssertionError(f"a jsonb tree holds no {type(tree).__name__}")


_parse_json: Final = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal, strict=False).decode


def _decode_jsonb(data: bytes) -> Any:
    return _Classes.jsonb(_parse_json(data.decode()))


_TEXT: Final = Variable(str.encode, _decode_text)
_VARIABLE: Final[dict[str, Variable]] = {
    "text": _TEXT,
    "bpchar": _TEXT,
    "json": _TEXT,
    "bytea": Variable(bytes, bytes),
    "numeric": Variable(lambda value: str(value).encode(), _decode_numeric),
    "jsonb": Variable(lambda value: _json_text(value.value).encode(), _decode_jsonb),
}


def variable(oid: int) -> Variable:
    """How a variable type is encoded.

    Raises: QueryError 0A000 for a type that cannot be stored.
    """
    element = element_of(oid)
    if element:
        return _array(element)
    codec = _VARIABLE.get(kind_of(oid))
    if codec is None:
        raise unsupported(f"storing values of the type with oid {oid}")
    return codec


# ---- arrays: dims:1 has_nulls:1 (size:4 lower:4)* [bitmap] elements -------------------------------

_ARRAY_HEAD: Final = struct.Struct("<B?")


def _array(element: int) -> Variable:
    width = fixed(element)
    encode_all, decode_all = _fixed_items(width) if width else _variable_items(variable(element))

    def encode(value: Any) -> bytes:
        elements, dims, lower = value.elements, value.dims, value.lower
        has_nulls = None in elements
        head = _ARRAY_HEAD.pack(len(dims), has_nulls)
        head += struct.pack(f"<{2 * len(dims)}i", *dims, *lower)
        if has_nulls:
            head += null_bitmap(elements).to_bytes((len(elements) + 7) // 8, "little")
        return head + encode_all(elements)

    def decode(data: bytes) -> Any:
        count, has_nulls = _ARRAY_HEAD.unpack_from(data)
        shape = struct.unpack_from(f"<{2 * count}i", data, _ARRAY_HEAD.size)
        at = _ARRAY_HEAD.size + 8 * count
        dims, lower = shape[:count], shape[count:]
        total = prod(dims) if count else 0
        if not 0 <= total <= 8 * len(data):  # a null takes a bit at least
            raise ValueError("array is larger than its bytes")
        if not has_nulls:
            return _Classes.array(decode_all(data, at, total, 0), dims, lower)
        bitmap_size = (total + 7) // 8
        nulls = int.from_bytes(data[at : at + bitmap_size], "little")
        return _Classes.array(decode_all(data, at + bitmap_size, total, nulls), dims, lower)

    return Variable(encode, decode)


def null_bitmap(values: Sequence[Any]) -> int:
    """Bit i is set when value i is None."""
    bitmap = 0
    for i, value in enumerate(values):
        if value is None:
            bitmap |= 1 << i
    return bitmap


def filler(width: Fixed) -> Any:
    """What stands in a fixed-width place whose value is null."""
    return bytes(int(width.code[:-1])) if width.code.endswith("s") else 0


ItemsEncode = Callable[[Sequence[Any]], bytes]
ItemsDecode = Callable[[bytes, int, int, int], tuple[Any, ...]]
"""(data, offset, count, null bitmap) -> elements."""


def _fixed_items(width: Fixed) -> tuple[ItemsEncode, ItemsDecode]:
    code, to_packed, from_packed = width
    size = struct.calcsize("<" + code)
    null = filler(width)

    def encode(elements: Sequence[Any]) -> bytes:
        packed = [
            null if item is None else to_packed(item) if to_packed else item for item in elements
        ]
        if code.endswith("s"):
            return b"".join(packed)
        return struct.pack(f"<{len(packed)}{code}", *packed)

    def decode(data: bytes, at: int, count: int, nulls: int) -> tuple[Any, ...]:
        items: tuple[Any, ...]
        if code.endswith("s"):
            items = tuple(
                [data[start : start + size] for start in range(at, at + count * size, size)]
            )
        else:
            items = struct.unpack_from(f"<{count}{code}", data, at)
        if from_packed is not None:
            items = tuple(map(from_packed, items))
        if nulls:
            return tuple([None if nulls >> i & 1 else item for i, item in enumerate(items)])
        return items

    return encode, decode


def _variable_items(codec: Variable) -> tuple[ItemsEncode, ItemsDecode]:
    encode_item, decode_item = codec

    def encode(elements: Sequence[Any]) -> bytes:
        parts = [b"" if item is None else encode_item(item) for item in elements]
        ends = accumulate(map(len, parts))
        return struct.pack(f"<{len(parts)}I", *ends) + b"".join(parts)

    def decode(data: bytes, at: int, count: int, nulls: int) -> tuple[Any, ...]:
        ends = struct.unpack_from(f"<{count}I", data, at)
        at += 4 * count
        items = []
        start = 0
        for i, end in enumerate(ends):
            items.append(None if nulls >> i & 1 else decode_item(data[at + start : at + end]))
            start = end
        return tuple(items)

    return encode, decode
