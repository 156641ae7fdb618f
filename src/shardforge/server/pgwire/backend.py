"""What the server sends: each function returns the bytes of one message. PURE.

Source: PostgreSQL 15, chapter 55.7 (formats) and 55.8 (error fields).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from shardforge.errors import DatabaseError

_INT16 = struct.Struct("!h").pack
_INT32 = struct.Struct("!i").pack
_UINT32 = struct.Struct("!I").pack
_HEADER = struct.Struct("!cI").pack
_ROW = struct.Struct("!cIh").pack
_FIELD = struct.Struct("!IhIhih").pack
_NULL = b"\xff\xff\xff\xff"

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
BIND_COMPLETE = b"2\0\0\0\x04"
CLOSE_COMPLETE = b"3\0\0\0\x04"
EMPTY_QUERY = b"I\0\0\0\x04"
NO_DATA = b"n\0\0\0\x04"
PARSE_COMPLETE = b"1\0\0\0\x04"
PORTAL_SUSPENDED = b"s\0\0\0\x04"
COPY_DONE = b"c\0\0\0\x04"
READY: dict[str, bytes] = {status: b"Z\0\0\0\x05" + status.encode() for status in "ITE"}
"""ReadyForQuery by transaction status: idle, in a transaction, in a failed one."""


def message(kind: bytes, body: bytes) -> bytes:
    """A message of `kind` with its length."""
    return _HEADER(kind, len(body) + 4) + body


def authentication(code: int, data: bytes = b"") -> bytes:
    """An authentication request: 10 SASL, 11 SASL continue, 12 SASL final."""
    return message(b"R", _INT32(code) + data)


def parameter_status(name: str, value: str) -> bytes:
    """The value of a reported parameter."""
    return message(b"S", name.encode() + b"\0" + value.encode() + b"\0")


def backend_key_data(process_id: int, secret: bytes) -> bytes:
    """What a client must present to cancel this session's statement."""
    return message(b"K", struct.pack("!I", process_id) + secret)


@lru_cache(maxsize=256)
def command_complete(tag: str) -> bytes:
    """A statement is done; the transaction may not be."""
    return message(b"C", tag.encode() + b"\0")


def parameter_description(types: Sequence[int]) -> bytes:
    """The parameter types of a prepared statement."""
    return message(b"t", struct.pack(f"!h{len(types)}I", len(types), *types))


def row_description(columns: Iterable[tuple[str, int, int, int, int, int, int]]) -> bytes:
    """Columns as (name, table oid, attnum, type oid, type length, typmod, format)."""
    fields = [
        name.encode() + b"\0" + _FIELD(table, attnum, type_oid, length, typmod, form)
        for name, table, attnum, type_oid, length, typmod, form in columns
    ]
    return message(b"T", _INT16(len(fields)) + b"".join(fields))


def data_rows(
    rows: Iterable[Sequence[Any]], encoders: Sequence[Callable[[Any], bytes]]
) -> list[bytes]:
    """DataRow messages, as pieces to be joined; `encoders` turn a column's value into its bytes."""
    pieces: list[bytes] = []
    add = pieces.append
    count = len(encoders)
    for row in rows:
        position = len(pieces)
        add(b"")
        size = 6 + 4 * count
        for value, encode in zip(row, encoders, strict=True):
            if value is None:
                add(_NULL)
            else:
                data = encode(value)
                length = len(data)
                size += length
                add(_INT32(length) + data)
        pieces[position] = _ROW(b"D", size, count)
    return pieces


def copy_response(kind: bytes, columns: int, *, binary: bool) -> bytes:
    """CopyInResponse (`G`) or CopyOutResponse (`H`)."""
    form = 1 if binary else 0
    return message(kind, struct.pack(f"!bh{columns}h", form, columns, *([form] * columns)))


def copy_data(data: bytes) -> bytes:
    """A piece of a COPY stream."""
    return message(b"d", data)


def error_response(error: DatabaseError, *, severity: str = "ERROR") -> bytes:
    """ErrorResponse with all the fields that the error has."""
    return message(b"E", _fields(error, severity))


def notice_response(notice: DatabaseError, *, severity: str) -> bytes:
    """NoticeResponse."""
    return message(b"N", _fields(notice, severity))


def notification_response(process_id: int, channel: str, payload: str) -> bytes:
    """NotificationResponse: what another session, or this one, has sent."""
    return message(b"A", _UINT32(process_id) + channel.encode() + b"\0" + payload.encode() + b"\0")


def only_notifications(data: bytes) -> bool:
    """Whether the bytes are nothing but whole NotificationResponses: an idle client stays idle."""
    start = 0
    while data[start : start + 1] == b"A" and len(data) >= start + 5:
        start += 1 + int.from_bytes(data[start + 1 : start + 5], "big")
    return start == len(data)


def _fields(error: DatabaseError, severity: str) -> bytes:
    fields = [
        ("S", severity), ("V", severity), ("C", error.sqlstate), ("M", error.message), ("D", error.detail),
        ("H", error.hint), ("P", str(error.position) if error.position else ""), ("s", error.schema),
        ("t", error.table), ("c", error.column), ("d", error.datatype), ("n", error.constraint),
    ]  # fmt: skip
    present = (
        code.encode() + text.replace("\0", "").encode(errors="replace") + b"\0"
        for code, text in fields
        if text
    )
    return b"".join(present) + b"\0"
