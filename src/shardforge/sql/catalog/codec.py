"""How descriptors are kept in the meta shard: their keys and their bytes.

    s catalog <kind> <database> <id>                     a descriptor: tag, database, then msgpack
    s catalogname <class> <database> <schema> <name>     the oid that holds a name (uniqueness among writers)
    s counter <name>                                     the oid allocator
    s sequence <storage id>                              a sequence's position
    s dropped <storage id>                               stored rows that nothing names any more

Fields are msgpack maps by name, so a field added later, with a default, reads from older rows.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from shardforge.errors import StorageError
from shardforge.keys import meta_key
from shardforge.sql.catalog.descriptors import (
    Database,
    Enum,
    Role,
    Schema,
    Sequence,
    Table,
    View,
)
from shardforge.sql.catalog.snapshot import Descriptor

_TAGS: Final[dict[type, bytes]] = {
    Table: b"t",
    View: b"v",
    Sequence: b"s",
    Schema: b"n",
    Database: b"d",
    Role: b"r",
    Enum: b"e",
}
_encoder = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[bytes, msgspec.msgpack.Decoder[Any]]] = {
    tag: msgspec.msgpack.Decoder(kind) for kind, tag in _TAGS.items()
}

CATALOG_PREFIX: Final = meta_key("catalog")
DROPPED_PREFIX: Final = meta_key("dropped")
SEQUENCE_PREFIX: Final = meta_key("sequence")
OID_COUNTER: Final = meta_key("counter", "oid")


def descriptor_key(kind: str, database_id: int, oid: int) -> bytes:
    """Where an object's descriptor lives."""
    return meta_key("catalog", kind, database_id, oid)


def name_key(name_class: str, database_id: int, schema_id: int, name: str) -> bytes:
    """The row that makes a name unique: its value is the oid that holds it."""
    return meta_key("catalogname", name_class, database_id, schema_id, name)


def sequence_key(storage_id: int) -> bytes:
    """Where a sequence's position lives."""
    return meta_key("sequence", storage_id)


def dropped_key(storage_id: int) -> bytes:
    """The marker of stored rows to be removed."""
    return meta_key("dropped", storage_id)


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a sequence is reserved: `last` was handed out (or may have been) when `called`."""

    last: int
    called: bool


class Dropped(msgspec.Struct, frozen=True, array_like=True):
    """Stored rows of a table that was dropped, truncated or rewritten, or entries of its dropped indexes."""

    table: Table
    """The table as it was: where its keys are follows from it."""
    indexes: tuple[int, ...] = ()
    """Key numbers of the indexes to remove; empty: all, rows included."""


_position = msgspec.msgpack.Decoder(Position)
_dropped = msgspec.msgpack.Decoder(Dropped)


def encode(value: Position | Dropped | int) -> bytes:
    """The stored form of a position, a marker or a counter."""
    return _encoder.encode(value)


def decode_position(data: bytes) -> Position:
    """A sequence's stored position."""
    return _position.decode(data)


def decode_dropped(data: bytes) -> Dropped:
    """A stored marker."""
    return _dropped.decode(data)


def decode_int(data: bytes) -> int:
    """A stored counter or oid."""
    value = msgspec.msgpack.decode(data)
    assert isinstance(value, int), "a counter holds an integer"
    return value


def encode_row(database_id: int, descriptor: Descriptor) -> bytes:
    """The stored form of a descriptor; `database_id` is 0 for databases and roles."""
    return _TAGS[type(descriptor)] + database_id.to_bytes(4, "big") + _encoder.encode(descriptor)


def decode_row(data: bytes) -> tuple[int, Descriptor]:
    """(database id, descriptor) of a stored row; StorageError for bytes that are not one."""
    try:
        found: Descriptor = _DECODERS[data[:1]].decode(data[5:])
    except (KeyError, msgspec.DecodeError) as failure:
        raise StorageError(f"a catalog row cannot be read: {failure}", "XX001") from failure
    return int.from_bytes(data[1:5], "big"), found
