"""record and void. A record is written, sent and ordered by its fields' types, which a `Record` value carries.

Reading an anonymous record is impossible, in PostgreSQL too.
Source: PostgreSQL 15, src/backend/utils/adt/rowtypes.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Output, Send, TypeSettings, plain
from shardforge.sql.types.registry import codec
from shardforge.sql.types.values import Record

_QUOTED = re.compile(r'["\\(),\s]')
FIELD_LENGTH_MAX = 1 << 27
"""Each level of nesting doubles the quotes, so a deep record's text grows without bound."""


def field_types(value: Sequence[Any]) -> tuple[int, ...]:
    """The types of a record's fields."""
    if isinstance(value, Record):
        return value.types
    raise unsupported("a record whose field types are not known")


def _quoted(text: str) -> str:
    if text and _QUOTED.search(text) is None:
        return text
    if len(text) > FIELD_LENGTH_MAX:
        raise QueryError("out of memory", "54000", detail="The text of a record would be too long.")
    return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'


def format_record(value: Sequence[Any], outputs: Sequence[Output]) -> str:
    """record_out: (a,"b c",) with nothing for NULL."""
    fields = (
        "" if item is None else _quoted(output(item))
        for item, output in zip(value, outputs, strict=True)
    )
    return f"({','.join(fields)})"


def _writer(settings: TypeSettings) -> Output:
    outputs: dict[tuple[int, ...], list[Output]] = {}

    def write(value: Sequence[Any]) -> str:
        types = field_types(value)
        if types not in outputs:
            outputs[types] = [codec(oid).output(settings) for oid in types]
        return format_record(value, outputs[types])

    return write


def _refuse_input(text: str) -> Any:
    raise QueryError("input of anonymous composite types is not implemented", "0A000")


def _refuse_receive(data: bytes) -> Any:
    raise QueryError("input of anonymous composite types is not implemented", "0A000")


def _sender(settings: TypeSettings) -> Send:
    def send(value: Sequence[Any]) -> bytes:
        parts = [struct.pack("!i", len(value))]
        for item, oid in zip(value, field_types(value), strict=True):
            if item is None:
                parts.append(struct.pack("!Ii", oid, -1))
            else:
                data = codec(oid).send(settings)(item)
                parts += (struct.pack("!Ii", oid, len(data)), data)
        return b"".join(parts)

    return send


def _identity(value: Any) -> Any:
    return value


def record_sort_key(value: Sequence[Any]) -> tuple[Any, ...]:
    """Field by field; NULLs are equal to each other and follow every value."""
    keys: list[Callable[[Any], Any]] = [
        codec(oid).sort_key or _identity for oid in field_types(value)
    ]
    return tuple(
        (1,) if item is None else (0, key(item)) for item, key in zip(value, keys, strict=True)
    )


def _void_text(value: Any) -> str:
    del value
    return ""


CODECS = (
    Codec(
        oids.RECORD, plain(_refuse_input), _writer, plain(_refuse_receive), _sender,
        sort_key=record_sort_key,
    ),
    Codec(
        oids.VOID, plain(lambda text: ""), plain(_void_text), plain(lambda data: ""),
        plain(lambda value: b""),
    ),
)  # fmt: skip
