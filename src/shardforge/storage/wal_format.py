"""The bytes of a shard's log files. PURE.

    segment  = header record*
    header   = magic:6 sequence:8 previous:8 previous_end:8 crc32c:4                       (34 bytes)
    record   = magic:3 kind:1 length:4 crc32c:4 payload                                    (12 bytes + payload)
    mark     = sequence:8 offset:8 crc32c:4                                                (20 bytes)

    kind  payload
    E     index:8 term:8 data       an entry; replaces every entry from its index on
    H     term:8 vote:8 commit:8    the hard state
    C     index:8                   entries from the index on are void
    B     index:8 term:8            entries up to this one are dropped; all of them if it is not in the log
    S     index:8 term:8            first in each segment: the log ends at this entry here

Little-endian. A header names the segment before it and where that one ends, so every byte that counts in
any segment but the last is known. A record's CRC covers its place (sequence, offset), kind and payload:
neither an old record nor one inside user data passes for one. The mark is the durable end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from google_crc32c import value as crc32c

HEADER_MAGIC: Final = b"SFWAL\x01"
RECORD_MAGIC: Final = b"\xf5SF"
_HEADER: Final = struct.Struct("<6sQQQI")
_FRAME: Final = struct.Struct("<3scII")
_PLACE: Final = struct.Struct("<QQc")
_MARK: Final = struct.Struct("<QQI")
_PAIR: Final = struct.Struct("<QQ")
_HARD: Final = struct.Struct("<QQQ")
_CHECKSUM: Final = struct.Struct("<I")
_ONE: Final = struct.Struct("<Q")

HEADER_SIZE: Final = _HEADER.size
FRAME_SIZE: Final = _FRAME.size
MARK_SIZE: Final = _MARK.size

ENTRY: Final = b"E"
HARD: Final = b"H"
CUT: Final = b"C"
BASE: Final = b"B"
START: Final = b"S"
_KINDS: Final = frozenset((ENTRY, HARD, CUT, BASE, START))


class HardState(NamedTuple):
    """What a Raft voter must not forget; vote 0 is none."""

    term: int
    vote: int
    commit: int


class Header(NamedTuple):
    """Which segment this is, and where the one before it ends (both 0 for the first)."""

    sequence: int
    previous: int
    previous_end: int


class Mark(NamedTuple):
    """Everything before `offset` in segment `sequence`, and in those before it, was durable."""

    sequence: int
    offset: int


class LogRecord(NamedTuple):
    """One intact record; it takes up [offset, end) of its segment."""

    offset: int
    end: int
    kind: bytes
    payload: bytes


def pack_header(header: Header) -> bytes:
    """A segment's first bytes."""
    body = _HEADER.pack(HEADER_MAGIC, *header, 0)[:-4]
    return body + _CHECKSUM.pack(crc32c(body))


def unpack_header(data: bytes) -> Header | None:
    """The header that `data` begins with, if it is intact."""
    if len(data) < HEADER_SIZE:
        return None
    magic, sequence, previous, previous_end, checksum = _HEADER.unpack_from(data)
    if magic != HEADER_MAGIC or checksum != crc32c(data[: HEADER_SIZE - 4]):
        return None
    return Header(sequence, previous, previous_end)


def pack_mark(mark: Mark) -> bytes:
    """The whole content of the mark file."""
    body = _PAIR.pack(*mark)
    return body + _CHECKSUM.pack(crc32c(body))


def unpack_mark(data: bytes) -> Mark | None:
    """The mark, if it is intact."""
    if len(data) != MARK_SIZE:
        return None
    sequence, offset, checksum = _MARK.unpack(data)
    return Mark(sequence, offset) if checksum == crc32c(data[:16]) else None


def pack_record(sequence: int, offset: int, kind: bytes, payload: bytes) -> bytes:
    """A record for exactly this place."""
    checksum = crc32c(_PLACE.pack(sequence, offset, kind) + payload)
    return _FRAME.pack(RECORD_MAGIC, kind, len(payload), checksum) + payload


def unpack_record(data: bytes, sequence: int, offset: int, at: int) -> LogRecord | None:
    """The record at data[at:], which is at `offset` in its segment, if it is intact."""
    if len(data) - at < FRAME_SIZE:
        return None
    magic, kind, length, checksum = _FRAME.unpack_from(data, at)
    end = at + FRAME_SIZE + length
    if magic != RECORD_MAGIC or end > len(data) or kind not in _KINDS:
        return None
    payload = data[at + FRAME_SIZE : end]
    if checksum != crc32c(_PLACE.pack(sequence, offset, kind) + payload):
        return None
    return LogRecord(offset, offset + FRAME_SIZE + length, kind, payload)


def records(data: bytes, sequence: int) -> Iterator[LogRecord]:
    """The intact records of a whole segment, up to the first that is not."""
    at = HEADER_SIZE
    while (found := unpack_record(data, sequence, at, at)) is not None:
        yield found
        at = found.end


def next_intact(data: bytes, sequence: int, after: int) -> LogRecord | None:
    """The first intact record of a segment that begins after offset `after`."""
    at = data.find(RECORD_MAGIC, after + 1)
    while at >= 0:
        found = unpack_record(data, sequence, at, at)
        if found is not None:
            return found
        at = data.find(RECORD_MAGIC, at + 1)
    return None


def pack_entry(index: int, term: int, data: bytes) -> bytes:
    """The payload of an ENTRY."""
    return _PAIR.pack(index, term) + data


def unpack_entry(payload: bytes) -> tuple[int, int, bytes]:
    """(index, term, data) of an ENTRY."""
    index, term = _PAIR.unpack_from(payload)
    return index, term, payload[16:]


pack_hard = _HARD.pack
pack_position = _PAIR.pack
unpack_position = _PAIR.unpack_from
pack_index = _ONE.pack


def unpack_hard(payload: bytes) -> HardState:
    """The hard state of a HARD record."""
    return HardState(*_HARD.unpack(payload))


def unpack_index(payload: bytes) -> int:
    """The index of a CUT."""
    index: int = _ONE.unpack(payload)[0]
    return index
