"""Python's values and the API's: what a parameter is sent as, and what a row's value becomes.

A value that Python has no type for (intervals, infinite dates, ranges) stays PostgreSQL's text. A list is sent as an
array literal, and so takes the type that the statement gives it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from shardforge.errors import QueryError
from shardforge.v1 import database_pb2 as pb

Reader = Callable[[str], Any]

_INT64 = range(-(1 << 63), 1 << 63)


def value_of(given: object) -> pb.Value:
    """A parameter. Raises QueryError 42804 for what is none."""
    match given:
        case None:
            return pb.Value(null_value=pb.NULL_VALUE)
        case bool():
            return pb.Value(bool_value=given)
        case int() if given in _INT64:
            return pb.Value(int64_value=given)
        case float():
            return pb.Value(double_value=given)
        case str():
            return pb.Value(string_value=given)
        case bytes() | bytearray() | memoryview():
            return pb.Value(bytes_value=bytes(given))
        case list() | tuple():
            return pb.Value(string_value=_array_literal(given))
    name, text = _typed(given)
    return pb.Value(typed_value=pb.TypedValue(type=name, text=text))


def _typed(given: object) -> tuple[str, str]:
    """The type and text of a value that the API has no kind for."""
    match given:
        case int() | Decimal():
            return "numeric", str(given)
        case dt.datetime():
            return "timestamp" if given.tzinfo is None else "timestamptz", given.isoformat(" ")
        case dt.date():
            return "date", given.isoformat()
        case dt.time():
            return "time" if given.tzinfo is None else "timetz", given.isoformat()
        case dt.timedelta():
            return "interval", f"{given.days} days {given.seconds}.{given.microseconds:06} seconds"
        case UUID():
            return "uuid", str(given)
        case dict():
            return "jsonb", json.dumps(given)
    raise QueryError(
        f"a parameter cannot be of Python's type {type(given).__name__}", "42804",
        hint="Give it as text, with a cast in the statement: $1::type.",
    )  # fmt: skip


def _array_literal(items: Sequence[object]) -> str:
    return "{" + ",".join(map(_element, items)) + "}"


def _element(item: object) -> str:
    match item:
        case None:
            return "NULL"
        case bool():
            return "t" if item else "f"
        case int() | float():
            return str(item)
        case list() | tuple():
            return _array_literal(item)
        case str():
            text = item
        case bytes():
            text = "\\x" + item.hex()
        case _:
            text = _typed(item)[1]
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# ---- rows --------------------------------------------------------------------------------------------


def _or_text(read: Reader) -> Reader:
    """`read`, or the text itself where Python has no such value."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except ValueError:
            return text

    return reader


_SCALARS: dict[int, Reader] = {
    16: "t".__eq__,  # bool, in arrays only, as the next ones
    17: lambda text: bytes.fromhex(text.removeprefix("\\x")),
    20: int, 21: int, 23: int, 26: int, 700: float, 701: float,
    114: json.loads,
    3802: json.loads,
    1700: Decimal,
    1082: _or_text(dt.date.fromisoformat),
    1083: _or_text(dt.time.fromisoformat),
    1266: _or_text(dt.time.fromisoformat),
    1114: _or_text(dt.datetime.fromisoformat),
    1184: _or_text(dt.datetime.fromisoformat),
    2950: UUID,
}  # fmt: skip
"""By type oid: what reads the text form."""

_ARRAYS = {
    1000: 16, 1001: 17, 1005: 21, 1007: 23, 1016: 20, 1028: 26, 1021: 700, 1022: 701, 1009: 25, 1015: 1043, 1014: 1042,
    1003: 19, 199: 114, 3807: 3802, 1231: 1700, 1182: 1082, 1183: 1083, 1270: 1266, 1115: 1114, 1185: 1184, 2951: 2950,
    1187: 1186,
}  # fmt: skip
"""By the oid of an array type: its elements'."""


def reader_of(type_oid: int) -> Reader | None:
    """What reads the text of a column's values; None where the text is the value."""
    element = _ARRAYS.get(type_oid)
    if element is None:
        return _SCALARS.get(type_oid)
    read = _SCALARS.get(element, str)
    return lambda text: _read_array(text, read)


def rows_of(result: pb.QueryResult) -> list[tuple[Any, ...]]:
    """The rows of a result."""
    readers = [reader_of(column.type_oid) for column in result.columns]
    return [
        tuple(_plain(value, read) for value, read in zip(row.values, readers, strict=True))
        for row in result.rows
    ]


def _plain(value: pb.Value, read: Reader | None) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    plain = getattr(value, kind)
    return read(plain) if read is not None and kind == "string_value" else plain


def _read_array(text: str, read: Reader) -> Any:
    """The list that an array's text form stands for; one with bounds of its own stays text."""
    if not text.startswith("{"):
        return text
    items, end = _items(text, 1, read)
    assert end == len(text), "an array's text ends with its brace"
    return items


def _items(text: str, position: int, read: Reader) -> tuple[list[Any], int]:
    """The elements from a position behind a brace, and the position behind the closing one."""
    items: list[Any] = []
    while True:
        first = text[position]
        if first == "}":
            return items, position + 1
        if first == ",":
            position += 1
        elif first == "{":
            inner, position = _items(text, position + 1, read)
            items.append(inner)
        elif first == '"':
            word, position = _quoted(text, position + 1)
            items.append(read(word))
        else:
            end = min(i for i in (text.find(",", position), text.find("}", position)) if i >= 0)
            word, position = text[position:end], end
            items.append(None if word == "NULL" else read(word))


def _quoted(text: str, position: int) -> tuple[str, int]:
    letters = []
    while text[position] != '"':
        if text[position] == "\\":
            position += 1
        letters.append(text[position])
        position += 1
    return "".join(letters), position + 1
