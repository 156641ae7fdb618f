"""What a shard is: its span of keys, its epoch, its replicas.

Spans are half-open and never empty. The shards of a store tile the key space, so every key that `keys`
can make belongs to exactly one of them. The epoch grows whenever the span or the replicas change; a
request that names an older one was routed by a stale map.
PURE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.keys import BUCKETS, bucket_boundary

KEY_SPACE_START = b""
KEY_SPACE_END = b"t"
"""Every key begins with a letter below it (see `keys`); the meta shard is the last one."""

META_START = b"s"


class Span(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The keys from `start` up to, but not including, `end`."""

    start: bytes
    end: bytes

    def __contains__(self, key: bytes) -> bool:
        return self.start <= key < self.end

    def divide(self, at: bytes) -> tuple[Span, Span]:
        """The keys below `at`, and the others."""
        assert self.start < at < self.end, "both parts must be able to hold keys"
        return Span(self.start, at), Span(at, self.end)

    def joined(self, right: Span) -> Span:
        """The keys of both, `right` being the next one."""
        assert self.end == right.start, "they are neighbours"
        return Span(self.start, right.end)

    def overlaps(self, start: bytes, end: bytes) -> bool:
        """Whether a key of [start, end) is in the span."""
        return start < self.end and self.start < end


class ShardDescriptor(msgspec.Struct, frozen=True):
    """One shard, as of one epoch."""

    id: ShardId
    span: Span
    epoch: int = 1
    voters: tuple[NodeId, ...] = ()
    absorbed: tuple[ShardId, ...] = ()
    """The shards that became a part of this one, the last of them."""


def initial_shards(count: int, voters: Sequence[NodeId]) -> list[ShardDescriptor]:
    """The meta shard, and `count` shards with boundaries at equal runs of the hash buckets.

    Colocated (`g`) keys begin in the first data shard and range (`r`) keys in the last: both sort outside
    the hash buckets, and the initial boundaries are all inside them.
    """
    assert 1 <= count <= BUCKETS, "a shard needs at least one bucket"
    starts = [KEY_SPACE_START]
    starts += [bucket_boundary(number * BUCKETS // count) for number in range(1, count)]
    ends = [*starts[1:], META_START]
    members = tuple(voters)
    meta = ShardDescriptor(META_SHARD, Span(META_START, KEY_SPACE_END), voters=members)
    return [meta] + [
        ShardDescriptor(ShardId(number), Span(start, end), voters=members)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True), start=1)
    ]


def tiles(shards: Iterable[ShardDescriptor]) -> bool:
    """Whether the shards cover the key space, each key once."""
    at = KEY_SPACE_START
    for span in sorted(shard.span for shard in shards):
        if span.start != at:
            return False
        at = span.end
    return at == KEY_SPACE_END


def check_tiling(shards: Iterable[ShardDescriptor]) -> None:
    """Assert that the shards cover the key space, each key once."""
    at = KEY_SPACE_START
    for shard in sorted(shards, key=lambda shard: shard.span):
        assert shard.span.start == at, f"gap or overlap before shard {shard.id}"
        assert shard.span.end > at, f"shard {shard.id} is empty"
        at = shard.span.end
    assert at == KEY_SPACE_END, "the key space is not covered"
