"""Versions of user keys inside one shard's engine, and what else a replica keeps beside them.

    v <user key> <suffix:8>       a version, newest first; the value is the row, empty for a tombstone
    i <user key>                  an intent: what a prepared transaction will write
    c <anchor key> <txn id:8>     a commit or abort record
    a                             the applied index (and whatever else the replica stores there)
    k                             the timestamp from which on readers find all that they need
    d                             the shard's span and epoch, once they are not those that it was made with
    m                             the membership of the shard's group

The suffix is the complement of `timestamp << 1 | is_tombstone`, so that a row's bytes need no flag of
their own. Values of intents, records and the applied state are the caller's bytes. Readers are functions
of an engine's (or snapshot's) bytes: they know nothing of locks, marks or who may see an intent.

Requires: no user key is a proper prefix of another (see `keys`), and none is empty. A span's start and
end may be a key, a prefix, `prefix_end` of one, or key + b"\\0" (just after that key).
Cost: the newest version is one seek, 4 us (memtable) to 6 us (SST) through RocksDB; a scan under 1 us a
row. `NewestCache` makes the newest version of a hot key a dictionary look-up.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from shardforge.ids import INFINITY, Timestamp
from shardforge.storage.engine import Pair, Reader, Write

APPLIED_KEY: Final = b"a"
_DESCRIPTION_KEY: Final = b"d"
_KEPT_KEY: Final = b"k"
_MEMBERSHIP_KEY: Final = b"m"
KEPT_SPAN: Final = (_KEPT_KEY, _KEPT_KEY + b"\x00")
"""The engine's span that holds the timestamp from which on readers find all that they need."""
_TOP: Final = (1 << 64) - 1
_AFTER_OLDEST: Final = b"\xff" * 9
_NEWEST: Final = bytes(8)
_PAIRS_PER_KEY: Final = 4
"""How much a walk over neighbouring keys may look at: more, and a seek for each key is cheaper."""

_pack_u64 = struct.Struct(">Q").pack
_unpack_u64 = struct.Struct(">Q").unpack


class Version(NamedTuple):
    """One version of one key; `value` is None for a tombstone."""

    key: bytes
    timestamp: int
    value: bytes | None


class Intent(NamedTuple):
    """A prepared write, in its writer's own encoding."""

    key: bytes
    data: bytes


class Record(NamedTuple):
    """A transaction's fate, in its writer's own encoding."""

    anchor: bytes
    txn_id: int
    data: bytes


# ---- writes: pairs for an engine batch -----------------------------------------------------------


def put_version(key: bytes, timestamp: int, value: bytes | None) -> Write:
    """The write of one version; None makes it a tombstone."""
    assert 0 < timestamp < INFINITY, "a version's timestamp is drawn from the oracle"
    if value is None:
        return b"v" + key + _pack_u64(_TOP - (timestamp << 1 | 1)), b""
    return b"v" + key + _pack_u64(_TOP - (timestamp << 1)), value


def put_intent(key: bytes, data: bytes | None) -> Write:
    """The write of a key's one intent; None removes it."""
    return b"i" + key, data


def put_record(anchor: bytes, txn_id: int, data: bytes | None) -> Write:
    """The write of a transaction's record; None removes it."""
    return b"c" + anchor + _pack_u64(txn_id), data


def put_applied(data: bytes) -> Write:
    """The write of the applied state; belongs in every batch."""
    return APPLIED_KEY, data


def versions_of(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """The engine's span that holds every version of the keys of [start, end)."""
    return b"v" + start, b"v" + end


def everything_of(start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
    """The engine's spans that hold versions, intents and records of the keys of [start, end)."""
    return [(kind + start, kind + end) for kind in (b"v", b"i", b"c")]


def put_description(data: bytes) -> Write:
    """The write of the shard's span and epoch."""
    return _DESCRIPTION_KEY, data


def put_kept_from(timestamp: int) -> Write:
    """The write of the timestamp below which readers may miss what was removed."""
    return _KEPT_KEY, _pack_u64(timestamp)


def put_membership(data: bytes) -> Write:
    """The write of the group's membership."""
    return _MEMBERSHIP_KEY, data


# ---- reads of one key ----------------------------------------------------------------------------


def version_at(reader: Reader, key: bytes, timestamp: int) -> Version | None:
    """The newest version at or before `timestamp`, a tombstone included."""
    prefix = b"v" + key
    found = reader.first(prefix + _pack_u64(_TOP - (timestamp << 1 | 1)), prefix + _AFTER_OLDEST)
    if found is None:
        return None
    packed = _TOP - _unpack_u64(found[0][-8:])[0]
    return Version(key, packed >> 1, None if packed & 1 else found[1])


def newest(reader: Reader, key: bytes) -> Version | None:
    """The newest version, a tombstone included; None if the key never was (or is collected)."""
    return version_at(reader, key, INFINITY)


def read(reader: Reader, key: bytes, timestamp: int) -> bytes | None:
    """The value that a reader at `timestamp` sees; None if there is none."""
    prefix = b"v" + key
    found = reader.first(prefix + _pack_u64(_TOP - (timestamp << 1 | 1)), prefix + _AFTER_OLDEST)
    if found is None or not found[0][-1] & 1:  # complemented: an even byte is a tombstone's
        return None
    return found[1]


def intent(reader: Reader, key: bytes) -> bytes | None:
    """The intent on `key`, if there is one."""
    return reader.get(b"i" + key)


def record(reader: Reader, anchor: bytes, txn_id: int) -> bytes | None:
    """The record of a transaction, if there is one."""
    return reader.get(b"c" + anchor + _pack_u64(txn_id))


def record_span(anchor: bytes, txn_id: int) -> tuple[bytes, bytes]:
    """The engine's span that holds a transaction's record, and nothing else."""
    key = b"c" + anchor + _pack_u64(txn_id)
    return key, key + b"\x00"


def as_record(engine_key: bytes, data: bytes) -> Record:
    """A record from its pair in the engine."""
    return Record(engine_key[1:-8], _unpack_u64(engine_key[-8:])[0], data)


def applied(reader: Reader) -> bytes | None:
    """The applied state last written."""
    return reader.get(APPLIED_KEY)


def description(reader: Reader) -> bytes | None:
    """The shard's span and epoch last written."""
    return reader.get(_DESCRIPTION_KEY)


def kept_from(reader: Reader) -> Timestamp:
    """Readers below it may miss what was removed; 0: nothing was."""
    data = reader.get(_KEPT_KEY)
    return Timestamp(0) if data is None else as_kept_from(data)


def as_kept_from(data: bytes) -> Timestamp:
    """That timestamp, from its value in the engine."""
    return Timestamp(_unpack_u64(data)[0])


def membership(reader: Reader) -> bytes | None:
    """The membership last written."""
    return reader.get(_MEMBERSHIP_KEY)


def newest_of_run(reader: Reader, run: Sequence[bytes]) -> dict[bytes, Version | None]:
    """The newest version of neighbouring keys, in ascending order, for one walk over what lies between them.

    Where much else lies there the walk ends early, and the keys behind it are left out of the result.
    """
    found: dict[bytes, Version | None] = {}
    waiting = iter(run)
    key = next(waiting, None)
    left = _PAIRS_PER_KEY * len(run)
    for engine_key, value in reader.scan(b"v" + run[0], b"v" + run[-1] + _AFTER_OLDEST):
        at = engine_key[1:-8]
        while key is not None and key < at:
            found[key] = None
            key = next(waiting, None)
        if key == at:
            packed = _TOP - _unpack_u64(engine_key[-8:])[0]
            found[at] = Version(at, packed >> 1, None if packed & 1 else value)
            key = next(waiting, None)
        left -= 1
        if left == 0:
            return found
    while key is not None:
        found[key] = None
        key = next(waiting, None)
    return found


# ---- reads of spans ------------------------------------------------------------------------------


def _suffixed_pairs(
    reader: Reader, kind: bytes, start: bytes, end: bytes, *, reverse: bool
) -> Iterator[Pair]:
    """Engine pairs of the span's keys that carry a suffix; edges may hold a neighbour's pairs.

    A key that is a proper prefix of `start` or `end` lies on the other side of it once its suffix is
    added. `end` = key + b"\\0" is such a case: the engine's span is widened. Callers compare keys.
    """
    engine_end = kind + end[:-1] + _AFTER_OLDEST if end.endswith(b"\x00") else kind + end
    return reader.scan(kind + start, engine_end, reverse=reverse)


def scan(
    reader: Reader, start: bytes, end: bytes, timestamp: int, *, reverse: bool = False
) -> Iterator[tuple[bytes, int, bytes]]:
    """(key, version timestamp, value) of each key that a reader at `timestamp` sees, in key order."""
    if reverse:
        return _scan_backwards(reader, start, end, timestamp)
    return _scan_forwards(reader, start, end, timestamp)


def _scan_forwards(
    reader: Reader, start: bytes, end: bytes, timestamp: int
) -> Iterator[tuple[bytes, int, bytes]]:
    seen = _pack_u64(_TOP - (timestamp << 1 | 1))
    unpack = _unpack_u64
    done = b""
    for engine_key, value in _suffixed_pairs(reader, b"v", start, end, reverse=False):
        key = engine_key[1:-8]
        if key == done:
            continue
        suffix = engine_key[-8:]
        if suffix < seen:
            continue
        if not start <= key < end:
            continue
        done = key
        packed = _TOP - unpack(suffix)[0]
        if not packed & 1:
            yield key, packed >> 1, value


def _scan_backwards(
    reader: Reader, start: bytes, end: bytes, timestamp: int
) -> Iterator[tuple[bytes, int, bytes]]:
    seen = _pack_u64(_TOP - (timestamp << 1 | 1))
    current, suffix, row = b"", b"", b""  # the newest visible version of the key at hand
    for engine_key, value in _suffixed_pairs(reader, b"v", start, end, reverse=True):
        key = engine_key[1:-8]
        if key != current:
            if suffix and suffix[-1] & 1:
                yield current, (_TOP - _unpack_u64(suffix)[0]) >> 1, row
            current, suffix = key, b""
        if engine_key[-8:] >= seen and start <= key < end:
            suffix, row = engine_key[-8:], value
    if suffix and suffix[-1] & 1:
        yield current, (_TOP - _unpack_u64(suffix)[0]) >> 1, row


def versions_in(
    reader: Reader, start: bytes, end: bytes, after: int, until: int
) -> Iterator[Version]:
    """Versions of the span with after < timestamp <= until, tombstones included (rule R3)."""
    for engine_key, value in _suffixed_pairs(reader, b"v", start, end, reverse=False):
        packed = _TOP - _unpack_u64(engine_key[-8:])[0]
        if after < packed >> 1 <= until and start <= engine_key[1:-8] < end:
            yield Version(engine_key[1:-8], packed >> 1, None if packed & 1 else value)


def intents(reader: Reader, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[Intent]:
    """The intents on keys of the span, in key order, or against it."""
    for engine_key, data in reader.scan(b"i" + start, b"i" + end, reverse=reverse):
        yield Intent(engine_key[1:], data)


def records(reader: Reader, start: bytes, end: bytes) -> Iterator[Record]:
    """The records anchored at keys of the span."""
    for engine_key, data in _suffixed_pairs(reader, b"c", start, end, reverse=False):
        if start <= engine_key[1:-8] < end:
            yield as_record(engine_key, data)


# ---- garbage -------------------------------------------------------------------------------------


class Garbage(NamedTuple):
    """Engine writes that collect, the user keys they touch, and where to go on (None at the end)."""

    batch: list[Write]
    keys: list[bytes]
    resume: bytes | None


def garbage(
    reader: Reader, start: bytes, end: bytes, horizon: int, pairs_max: int = 10_000
) -> Garbage:
    """Find versions that no reader at or after `horizon` sees, looking at up to `pairs_max` pairs.

    Of each key's versions at or before the horizon only the newest stays, and not even that if it is
    a tombstone. The caller writes the batch and goes on from `resume`.
    """
    visible = _pack_u64(_TOP - (horizon << 1 | 1))
    batch: list[Write] = []
    keys: list[bytes] = []
    current, settled = b"", False
    looked = 0
    for engine_key, _ in _suffixed_pairs(reader, b"v", start, end, reverse=False):
        key = engine_key[1:-8]
        if key != current:
            if looked >= pairs_max and current:
                return Garbage(batch, keys, key)
            current, settled = key, False
        looked += 1
        if engine_key[-8:] < visible or not start <= key < end:
            continue
        if settled or not engine_key[-1] & 1:
            batch.append((engine_key, None))
            if not keys or keys[-1] != key:
                keys.append(key)
        settled = True
    return Garbage(batch, keys, None)
