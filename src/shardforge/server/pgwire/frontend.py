"""What a client sends: cutting the byte stream into messages, and reading their bodies. PURE.

A body that is not what its type says raises NetworkError 08P01; nothing is read past its end.
Source: PostgreSQL 15, chapter 55.7.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from shardforge.errors import NetworkError

SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102
PROTOCOL_3 = 196608

MESSAGE_BYTES_MAX = 1 << 30
"""The largest message PostgreSQL accepts."""
STARTUP_BYTES_MAX = 10_000

NAMES_BYTES_KEPT = 256
"""Names longer than this together are not remembered."""

_LENGTH = struct.Struct("!I")
_HEAD = struct.Struct("!BI")
_NEW = tuple.__new__
_INT16 = struct.Struct("!h")
_INT32 = struct.Struct("!i")


def malformed(what: str) -> NetworkError:
    """The error for bytes that do not follow the protocol."""
    return NetworkError(f"invalid message format: {what}", "08P01")


class Message(NamedTuple):
    """One message: `kind` is its type byte (0 for start-up packets)."""

    kind: int
    body: bytes


class MessageReader:
    """Cuts a byte stream into messages. Holds at most one incomplete message, and bytes that wait for `resume`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = 0
        """Do not look at the rest before it has so many bytes."""
        self.starting = True
        """Until authentication begins, packets carry no type byte, must be small, and come one at a time."""
        self.body_bytes_max = STARTUP_BYTES_MAX

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises NetworkError 08P01 for an impossible length."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        return self._first(data) if self.starting else self._cut(data)

    def resume(self) -> list[Message]:
        """What waited behind a start-up packet, cut as typed messages."""
        self.starting = False
        self._needed = 0
        return self.feed(b"")

    def _first(self, data: bytes) -> list[Message]:
        end = self._end(data, 0) if len(data) >= 4 else 4
        if len(data) < end:
            self._keep(data, end)
            return []
        self._keep(data[end:], 4)
        return [Message(0, data[4:end])]

    def _end(self, data: bytes, start: int) -> int:
        (length,) = _LENGTH.unpack_from(data, start)
        if length < 4 or length > self.body_bytes_max:
            raise NetworkError(f"invalid message length {length}", "08P01")
        return start + int(length)

    def _keep(self, data: bytes, needed: int) -> None:
        self._rest += data
        self._needed = needed

    def _cut(self, data: bytes) -> list[Message]:
        messages: list[Message] = []
        unpack, limit, total, start, make = (
            _HEAD.unpack_from,
            self.body_bytes_max,
            len(data),
            0,
            _NEW,
        )
        while total - start >= 5:
            kind, length = unpack(data, start)
            if length < 4 or length > limit:
                raise NetworkError(f"invalid message length {length}", "08P01")
            end = start + 1 + length
            if end > total:
                self._keep(data[start:], end - start)
                return messages
            messages.append(make(Message, (kind, data[start + 5 : end])))
            start = end
        if start < total:
            self._keep(data[start:], 5)
        return messages

    def take_rest(self) -> bytes:
        """What was received and not cut into messages; somebody else goes on with the stream."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest

    @property
    def pending_bytes(self) -> int:
        """Bytes received and not yet cut into messages."""
        return len(self._rest)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise NetworkError(
            f'invalid byte sequence for encoding "UTF8": 0x{byte:02x}', "22021"
        ) from None


def _string(body: bytes, offset: int) -> tuple[str, int]:
    end = body.find(b"\0", offset)
    if end < 0:
        raise malformed("a string without its terminator")
    return _text(body[offset:end]), end + 1


class Startup(NamedTuple):
    """A start-up packet: a protocol or request code, and what follows it."""

    code: int
    parameters: dict[str, str]
    process_id: int = 0
    secret: bytes = b""


def read_startup(body: bytes) -> Startup:
    """A start-up, SSL, GSS encryption or cancel request."""
    if len(body) < 4:
        raise malformed("a start-up packet without a version")
    (code,) = _LENGTH.unpack_from(body)
    if code == CANCEL_REQUEST:
        if len(body) != 12:
            raise malformed("a cancel request of the wrong size")
        return Startup(code, {}, _LENGTH.unpack_from(body, 4)[0], body[8:])
    parameters: dict[str, str] = {}
    if code >> 16 == 3:
        offset = 4
        while offset < len(body) and body[offset]:
            name, offset = _string(body, offset)
            value, offset = _string(body, offset)
            parameters[name] = value
        if offset != len(body) - 1:
            raise malformed("a start-up packet without its terminator")
    return Startup(code, parameters)


def read_query(body: bytes) -> str:
    """The text of a Query message."""
    text, end = _string(body, 0)
    if end != len(body):
        raise malformed("bytes after a query's text")
    return text


class Parse(NamedTuple):
    """Parse: a statement to prepare; a parameter type of 0 is to be inferred."""

    name: str
    query: str
    parameter_types: tuple[int, ...]


def read_parse(body: bytes) -> Parse:
    """The fields of a Parse message."""
    name, offset = _string(body, 0)
    query, offset = _string(body, offset)
    try:
        (count,) = _INT16.unpack_from(body, offset)
        types = struct.unpack_from(f"!{count}I", body, offset + 2) if count > 0 else ()
    except struct.error:
        raise malformed("a Parse message that ends early") from None
    return Parse(name, query, types)


class Bind(NamedTuple):
    """Bind: a portal's statement, raw parameter values, and formats (0 text, 1 binary)."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: list[bytes | None]
    result_formats: tuple[int, ...]


def read_bind(body: bytes) -> Bind:
    """The fields of a Bind message."""
    names_end = body.find(b"\0", body.find(b"\0") + 1)
    if names_end <= 0:
        raise malformed("a string without its terminator")
    head = body[:names_end]
    portal, statement = _names(head) if names_end <= NAMES_BYTES_KEPT else _split(head)
    try:
        formats, offset = _formats(body, names_end + 1)
        (count,) = _INT16.unpack_from(body, offset)
        offset += 2
        values: list[bytes | None] = []
        for _ in range(count):
            (length,) = _INT32.unpack_from(body, offset)
            offset += 4
            if length == -1:
                values.append(None)
                continue
            end = offset + length
            if length < 0 or end > len(body):
                raise malformed("a parameter longer than its message")
            values.append(body[offset:end])
            offset = end
        result_formats, offset = _formats(body, offset)
    except struct.error:
        raise malformed("a Bind message that ends early") from None
    if offset != len(body):
        raise malformed("bytes after a Bind message")
    return Bind(portal, statement, formats, values, result_formats)


def _split(head: bytes) -> tuple[str, str]:
    portal, statement = _text(head).split("\0")
    return portal, statement


_names = lru_cache(maxsize=512)(_split)
"""A client binds the same few statements over and over."""


def _formats(body: bytes, offset: int) -> tuple[tuple[int, ...], int]:
    (count,) = _INT16.unpack_from(body, offset)
    if count <= 0:
        return (), offset + 2
    return struct.unpack_from(f"!{count}h", body, offset + 2), offset + 2 + 2 * count


@lru_cache(maxsize=512)
def read_target(body: bytes) -> tuple[str, str]:
    """The kind ('S' statement, 'P' portal) and name of a Describe or Close message."""
    if body[:1] not in (b"S", b"P"):
        raise malformed("neither a statement nor a portal")
    return body[:1].decode(), _string(body, 1)[0]


@lru_cache(maxsize=512)
def read_execute(body: bytes) -> tuple[str, int]:
    """The portal and the row limit (0: all) of an Execute message."""
    portal, offset = _string(body, 0)
    if len(body) != offset + 4:
        raise malformed("an Execute message of the wrong size")
    return portal, max(_INT32.unpack_from(body, offset)[0], 0)


def read_sasl_initial(body: bytes) -> tuple[str, bytes]:
    """The mechanism and first data of a SASLInitialResponse."""
    mechanism, offset = _string(body, 0)
    if len(body) < offset + 4:
        raise malformed("a SASL response that ends early")
    (length,) = _INT32.unpack_from(body, offset)
    data = body[offset + 4 :]
    if length not in (-1, len(data)):
        raise malformed("a SASL response of the wrong size")
    return mechanism, data


def read_copy_fail(body: bytes) -> str:
    """The client's reason in a CopyFail message."""
    return _string(body, 0)[0]
