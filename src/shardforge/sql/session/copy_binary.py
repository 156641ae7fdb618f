"""The binary format of COPY: a signature, tuples of length-prefixed fields, a trailer. PURE.

Source: PostgreSQL 15, COPY, "Binary Format", and src/backend/commands/copyfromparse.c for what is refused and how.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.types.base import bad_binary

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + bytes(8)
TRAILER = b"\xff\xff"

_WORDS = struct.Struct("!ii")
_COUNT = struct.Struct("!h")
_LENGTH = struct.Struct("!i")
_NULL = b"\xff\xff\xff\xff"
_FLAG_OIDS = 1 << 16
_CRITICAL_FLAGS = 0xFFFF << 16

BinaryField = bytes | None


def _bad(message: str) -> QueryError:
    return QueryError(message, "22P04")


class BinaryReader:
    """Cuts a binary COPY FROM stream into records of `width` fields; each call returns the records completed."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._rest = b""
        self._started = False
        self._ended = False

    def feed(self, data: bytes) -> list[list[BinaryField]]:
        """The records that `data` completes."""
        self._rest += data
        if not self._started and not self._start():
            return []
        if self._ended:
            if self._rest:
                raise _bad("received copy data after EOF marker")
            return []
        return self._records()

    def finish(self) -> list[list[BinaryField]]:
        """Nothing more comes: a stream that stops at a record's boundary needs no trailer."""
        if not self._started:
            raise self._cut_header()
        if len(self._rest) >= _COUNT.size:
            raise _bad("unexpected EOF in COPY data")
        return []

    def _start(self) -> bool:
        held = self._rest
        if not SIGNATURE.startswith(held[: len(SIGNATURE)]):
            raise _bad("COPY file signature not recognized")
        if len(held) < len(HEADER):
            return False
        flags, extension = _WORDS.unpack_from(held, len(SIGNATURE))
        if flags & _FLAG_OIDS:
            raise _bad("invalid COPY file header (WITH OIDS)")
        if flags & _CRITICAL_FLAGS:
            raise _bad("unrecognized critical flags in COPY file header")
        if extension < 0:
            raise _bad("invalid COPY file header (missing length)")
        if len(held) < len(HEADER) + extension:
            return False
        self._rest = held[len(HEADER) + extension :]
        self._started = True
        return True

    def _cut_header(self) -> QueryError:
        length = len(self._rest) - len(SIGNATURE)
        if length < 0:
            return _bad("COPY file signature not recognized")
        if length < _LENGTH.size:
            return _bad("invalid COPY file header (missing flags)")
        if length < _WORDS.size:
            return _bad("invalid COPY file header (missing length)")
        return _bad("invalid COPY file header (wrong length)")

    def _records(self) -> list[list[BinaryField]]:
        data, position, width = self._rest, 0, self._width
        records: list[list[BinaryField]] = []
        while position + _COUNT.size <= len(data):
            (count,) = _COUNT.unpack_from(data, position)
            if count == -1:
                self._ended = True
                position += _COUNT.size
                if position < len(data):
                    raise _bad("received copy data after EOF marker")
                break
            if count != width:
                raise _bad(f"row field count is {count}, expected {width}")
            read = self._record(data, position + _COUNT.size)
            if read is None:
                break
            fields, position = read
            records.append(fields)
        self._rest = data[position:]
        return records

    def _record(self, data: bytes, position: int) -> tuple[list[BinaryField], int] | None:
        fields: list[BinaryField] = []
        end = len(data)
        for _ in range(self._width):
            if position + _LENGTH.size > end:
                return None
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            if length < 0:
                if length != -1:
                    raise _bad("invalid field size")
                fields.append(None)
                continue
            if position + length > end:
                return None
            fields.append(data[position : position + length])
            position += length
        return fields, position


def checked(receive: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """`receive`, with 22P03 for whatever bytes are no such value."""

    def read(data: bytes) -> Any:
        try:
            return receive(data)
        except QueryError:
            raise
        except (ValueError, IndexError, ArithmeticError, struct.error) as error:
            raise bad_binary() from error

    return read


def tuple_writer(senders: Sequence[Callable[[Any], bytes]]) -> Callable[[Sequence[Any]], bytes]:
    """Values of one row to its tuple."""
    count = _COUNT.pack(len(senders))
    pack = _LENGTH.pack

    def write(row: Sequence[Any]) -> bytes:
        pieces = [count]
        for value, send in zip(row, senders, strict=True):
            if value is None:
                pieces.append(_NULL)
            else:
                raw = send(value)
                pieces += (pack(len(raw)), raw)
        return b"".join(pieces)

    return write
