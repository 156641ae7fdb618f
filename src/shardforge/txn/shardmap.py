"""The shard map: which shards there are, as rows of the meta shard, for a serving node that does not hold them all.

A shard's own state tells its span; the rows tell that it exists. A split writes the child's row before it is proposed,
with the parent's id in it, and both rows after it is applied. So whoever begins to serve finds every shard: of a child
whose row still names its parent, the parent's epoch tells whether it came to be. A merge writes down first of which
shard the right one is to be a part; that one's state tells whether it is. The row of a shard that has ended stays, and
says so: its replicas may be found for as long as a node comes back that had one. A shard begins at one key for as long
as it is one, so a row that is sticky stays so, whatever is written of the shard.
PURE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from shardforge.ids import INFINITY, ShardId
from shardforge.keys import meta_key, prefix_end
from shardforge.shard.descriptor import ShardDescriptor, Span
from shardforge.storage import mvcc
from shardforge.storage.engine import Reader

SHARDS_START: Final = meta_key("shards")
NOBODY: Final = ShardId(-1)


class ShardRow(msgspec.Struct, frozen=True, array_like=True):
    """One shard, as of the last time that its span was written down."""

    id: ShardId
    span: Span
    epoch: int
    parent: ShardId = NOBODY
    """The shard that it is being split from; whether it was is not known."""
    heir: ShardId = NOBODY
    """The shard that it is to become a part of."""
    ended: bool = False
    """Whether it has."""
    sticky: bool = False
    """Whether somebody chose where it begins: automatic merges leave it apart from the shard before it."""

    @property
    def settled(self) -> bool:
        """Whether it says what became of the shard."""
        return self.parent == NOBODY and not self.merging

    @property
    def merging(self) -> bool:
        """Whether it is not known if it is a part of its heir."""
        return self.heir != NOBODY and not self.ended


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ShardRow)


def shard_key(shard: ShardId) -> bytes:
    """Where a shard's row is kept."""
    return meta_key("shards", shard)


def encode_row(row: ShardRow) -> bytes:
    """A row as it is kept."""
    return _encoder.encode(row)


def row_of(descriptor: ShardDescriptor) -> ShardRow:
    """The row of a shard that is known to be."""
    return ShardRow(descriptor.id, descriptor.span, descriptor.epoch)


def kept_sticky(row: ShardRow, before: ShardRow | None) -> ShardRow:
    """A row as it is written in the place of another one."""
    return msgspec.structs.replace(row, sticky=True) if before and before.sticky else row


def sticky_of(rows: Iterable[ShardRow]) -> set[ShardId]:
    """The shards that begin where somebody wanted it."""
    return {row.id for row in rows if row.sticky and not row.ended}


def descriptor_of(row: ShardRow) -> ShardDescriptor:
    """The shard that a row tells of."""
    return ShardDescriptor(row.id, row.span, row.epoch)


def load_rows(meta: Reader) -> dict[ShardId, ShardRow]:
    """All rows, from the meta shard's engine."""
    found = mvcc.scan(meta, SHARDS_START, prefix_end(SHARDS_START), INFINITY)
    rows = [_decoder.decode(value) for _, _, value in found]
    return {row.id: row for row in rows}


def existing(
    rows: Mapping[ShardId, ShardRow], known: Iterable[ShardDescriptor]
) -> list[ShardDescriptor]:
    """The shards that there are, by the rows and by what is known of some of them from themselves.

    A parent elsewhere that was split counts as it was before, with the child's keys, until it tells; and so do two
    shards that are merged.
    """
    told = {descriptor.id: descriptor for descriptor in known}
    found = {shard: told[shard] for shard in told.keys() - rows.keys()}
    for row in rows.values():
        if row.ended or ended(row, told.get(row.heir)):
            continue
        if row.parent == NOBODY:
            found[row.id] = told.get(row.id) or descriptor_of(row)
    for row in rows.values():
        if row.parent != NOBODY and born(row, found.get(row.parent)):
            found[row.id] = told.get(row.id) or descriptor_of(row)
    return list(found.values())


def ended(row: ShardRow, heir: ShardDescriptor | None) -> bool:
    """Whether the shard of a row that names its heir is a part of it, by what that is now."""
    return heir is not None and row.id in heir.absorbed


def born(row: ShardRow, parent: ShardDescriptor | None) -> bool:
    """Whether the shard of a row that names its parent came out of it, by what the parent is now."""
    return parent is not None and parent.epoch >= row.epoch and parent.span.end == row.span.start
