"""What a shard's engine says of the shard: its span and epoch, what became a part of it, and whether it is sealed.

It is written by the entries that change it (Split, Merge, Seal), so it goes with snapshots and checkpoints.
PURE.
"""

from __future__ import annotations

import msgspec

from shardforge.ids import ShardId
from shardforge.shard.descriptor import ShardDescriptor, Span
from shardforge.storage import mvcc
from shardforge.storage.engine import Reader, Write


class _Description(msgspec.Struct, frozen=True, array_like=True):
    span: Span
    epoch: int
    sealed: bool = False
    absorbed: tuple[ShardId, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Description)


def put_description(shard: ShardDescriptor, *, sealed: bool = False) -> Write:
    """The engine's note of a shard's span and epoch."""
    description = _Description(shard.span, shard.epoch, sealed, shard.absorbed)
    return mvcc.put_description(_encoder.encode(description))


def described(reader: Reader, made: ShardDescriptor) -> ShardDescriptor:
    """The shard as its engine has it: as it was made, unless it was split or merged since, or came out of a split."""
    data = mvcc.description(reader)
    if data is None:
        return made
    found = _decoder.decode(data)
    return msgspec.structs.replace(
        made, span=found.span, epoch=found.epoch, absorbed=found.absorbed
    )


def is_sealed(reader: Reader) -> bool:
    """Whether nothing may change what the shard holds."""
    data = mvcc.description(reader)
    return data is not None and _decoder.decode(data).sealed
