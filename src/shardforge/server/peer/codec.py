"""What nodes say to each other, as bytes: the opening, frames, calls and their answers. PURE.

A connection begins with `MAGIC` and a byte that says whether TLS follows; after that everything is a frame:

    length of the payload (4) | kind (1) | CRC32C over length, kind and payload (4) | payload

All integers are big-endian. Bytes that are not this raise NetworkError 08P01, whatever they are: the connection they
came on is closed, and nothing else happens.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import google_crc32c
import msgspec

from shardforge.errors import (
    ConsensusError,
    DatabaseError,
    NetworkError,
    QueryError,
    StorageError,
    TransactionError,
)

MAGIC = b"SFPEER1\n"
TLS = b"T"
CLEAR = b"C"
REFUSED = b"R"
"""After the magic: the byte of whoever dials (`TLS` or `CLEAR`), answered with the same byte, or `REFUSED`."""
OPENING_BYTES = len(MAGIC) + 1

LOWEST_VERSION = 1
HIGHEST_VERSION = 1

HELLO = 1
REFUSAL = 2
FRAME = 3
CALL = 4
ANSWER = 5
ERROR = 6
_KINDS = frozenset((HELLO, REFUSAL, FRAME, CALL, ANSWER, ERROR))

HEADER_BYTES = 9
HELLO_BYTES_MAX = 64 * 1024
"""More than this is not read from a node that has not said who it is."""
PAYLOAD_BYTES_MAX = 1 << 30

_HEAD = struct.Struct("!IB")
_CRC = struct.Struct("!I")
_CALL = struct.Struct("!QB")
_ID = struct.Struct("!Q")


def malformed(what: str) -> NetworkError:
    """The error for bytes that no node sends."""
    return NetworkError(f"malformed message between nodes: {what}", "08P01")


class Frame(NamedTuple):
    """One frame."""

    kind: int
    payload: bytes


class Header(NamedTuple):
    """A frame's first bytes: what the payload will be."""

    length: int
    kind: int
    crc: int

    def frame(self, payload: bytes) -> Frame:
        """The frame with this payload. Raises NetworkError when it was damaged on its way."""
        if _checksum(_HEAD.pack(self.length, self.kind), payload) != self.crc:
            raise malformed("the checksum does not match")
        return Frame(self.kind, payload)


def _checksum(head: bytes, payload: bytes) -> int:
    crc: int = google_crc32c.extend(google_crc32c.value(head), payload)
    return crc


def read_header(data: bytes, offset: int, payload_bytes_max: int) -> Header:
    """The header at `offset`. Raises NetworkError for an unknown kind or too long a payload."""
    length, kind = _HEAD.unpack_from(data, offset)
    if kind not in _KINDS:
        raise malformed(f"a frame of kind {kind}")
    if length > payload_bytes_max:
        raise malformed(f"a frame of {length} bytes")
    return Header(length, kind, _CRC.unpack_from(data, offset + _HEAD.size)[0])


def header(kind: int, payload: bytes) -> bytes:
    """What goes before `payload`."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise NetworkError(
            f"a message of {len(payload)} bytes to another node is too large", "54000"
        )
    head = _HEAD.pack(len(payload), kind)
    return head + _CRC.pack(_checksum(head, payload))


def frame(kind: int, payload: bytes) -> bytes:
    """A whole frame."""
    return header(kind, payload) + payload


class FrameReader:
    """Cuts a stream into frames. Holds at most one that is incomplete."""

    def __init__(self, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self._rest = bytearray()
        self._needed = 0
        """Do not look at the rest before it has so many bytes."""
        self._payload_bytes_max = payload_bytes_max

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises NetworkError 08P01."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames: list[Frame] = []
        start, total = 0, len(data)
        while total - start >= HEADER_BYTES:
            head = read_header(data, start, self._payload_bytes_max)
            end = start + HEADER_BYTES + head.length
            if end > total:
                return self._keep(data[start:], end - start, frames)
            frames.append(head.frame(data[start + HEADER_BYTES : end]))
            start = end
        return self._keep(data[start:], HEADER_BYTES, frames)

    def _keep(self, rest: bytes, needed: int, frames: list[Frame]) -> list[Frame]:
        self._rest += rest
        self._needed = needed
        return frames


# ---- who is there ------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks. A node that does not belong to a cluster yet has no `cluster_id`.

    `splice` is set when this connection is to become a pipe of raw bytes: what the other side must know about it.
    """

    cluster_id: str
    node: int
    lowest: int = LOWEST_VERSION
    highest: int = HIGHEST_VERSION
    splice: bytes | None = None


def check_versions(mine: Hello, theirs: Hello) -> None:
    """Raise NetworkError 08P01 when the two have no version of the protocol in common."""
    if max(mine.lowest, theirs.lowest) > min(mine.highest, theirs.highest):
        raise NetworkError(
            f"node {theirs.node} speaks versions {theirs.lowest} to {theirs.highest} of the protocol between nodes, "
            f"node {mine.node} speaks {mine.lowest} to {mine.highest}",
            "08P01",
            hint="Upgrade one minor version at a time.",
        )


_encoder = msgspec.msgpack.Encoder()
_hello_decoder = msgspec.msgpack.Decoder(Hello)


def hello_frame(hello: Hello) -> bytes:
    """A HELLO."""
    return frame(HELLO, _encoder.encode(hello))


def read_hello(payload: bytes) -> Hello:
    """The HELLO in a payload. Raises NetworkError 08P01."""
    try:
        hello = _hello_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(f"a hello: {error}") from None
    if not 0 <= hello.node < 1 << 16 or not 0 <= hello.lowest <= hello.highest:
        raise malformed("a hello of an impossible node")
    return hello


# ---- calls -------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A call to be answered under its id."""

    id: int
    method: str
    body: bytes


def call_payload(call_id: int, method: str, body: bytes) -> bytes:
    """The payload of a CALL."""
    name = method.encode()
    return _CALL.pack(call_id, len(name)) + name + body


def read_call(payload: bytes) -> Call:
    """The call in a payload. Raises NetworkError 08P01."""
    if len(payload) < _CALL.size:
        raise malformed("a call that ends early")
    call_id, length = _CALL.unpack_from(payload)
    end = _CALL.size + length
    if len(payload) < end:
        raise malformed("a call that ends early")
    try:
        method = payload[_CALL.size : end].decode()
    except UnicodeDecodeError:
        raise malformed("a call of no method") from None
    return Call(call_id, method, payload[end:])


def answer_payload(call_id: int, body: bytes) -> bytes:
    """The payload of an ANSWER, or with an encoded error of an ERROR."""
    return _ID.pack(call_id) + body


def read_answer(payload: bytes) -> tuple[int, bytes]:
    """The id and the body of an ANSWER or ERROR. Raises NetworkError 08P01."""
    if len(payload) < _ID.size:
        raise malformed("an answer that ends early")
    return _ID.unpack_from(payload)[0], payload[_ID.size :]


# ---- errors ------------------------------------------------------------------------------------------

_FAMILIES: dict[str, type[DatabaseError]] = {
    "consensus": ConsensusError,
    "storage": StorageError,
    "query": QueryError,
    "network": NetworkError,
    "transaction": TransactionError,
}


class _Fields(msgspec.Struct, frozen=True, array_like=True):
    family: str
    sqlstate: str
    message: str
    detail: str
    hint: str


_fields_decoder = msgspec.msgpack.Decoder(_Fields)


def encode_error(error: DatabaseError) -> bytes:
    """An error's family and fields."""
    family = next((name for name, kind in _FAMILIES.items() if isinstance(error, kind)), "")
    fields = (family, error.sqlstate, error.message, error.detail, error.hint)
    return _encoder.encode(tuple(_text(field) for field in fields))


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()  # a lone surrogate has no bytes


def decode_error(data: bytes) -> DatabaseError:
    """The error of those fields; of no family when this version does not know it. Raises NetworkError 08P01."""
    try:
        fields = _fields_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(f"an error: {error}") from None
    family = _FAMILIES.get(fields.family, DatabaseError)
    return family(fields.message, fields.sqlstate, detail=fields.detail, hint=fields.hint)


def refusal_frame(error: DatabaseError) -> bytes:
    """A REFUSAL: why the other side may not come in."""
    return frame(REFUSAL, encode_error(error))


def read_refusal(received: Frame) -> DatabaseError:
    """The error in a REFUSAL. Raises NetworkError 08P01 for another frame."""
    if received.kind != REFUSAL:
        raise malformed(f"a frame of kind {received.kind} in place of a hello")
    return decode_error(received.payload)
