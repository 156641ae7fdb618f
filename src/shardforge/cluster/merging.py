"""Which neighbours become one shard: small ones that were left alone for a while, and have the same voters.

Two neighbours are small when both together are below a quarter of what a shard may hold, so a merged shard is far from
being split again. Where their voters differ, the smaller shard's replicas first move to where the other's are.
PURE.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from shardforge.cluster.placement import Move, ShardState
from shardforge.ids import META_SHARD, NodeId, ShardId

SMALL_SHARE = 0.25
"""Of `max_shard_size`: below this, two neighbours are small together."""


class Merge(NamedTuple):
    """The right one becomes a part of the left one, once the moves are made; they can be made one after another."""

    left: ShardId
    right: ShardId
    moves: tuple[Move, ...] = ()


def mergeable(
    left: ShardState, right: ShardState, max_shard_size: int, resting: Collection[ShardId] = ()
) -> Merge | None:
    """How two neighbours become one; None: they stay two. `resting` shards were split or moved lately."""
    for shard in (left, right):
        members = shard.members
        if shard.id == META_SHARD or shard.id in resting or members.voters_outgoing:
            return None
    if left.size_bytes + right.size_bytes >= SMALL_SHARE * max_shard_size:
        return None
    if len(left.members.voters) != len(right.members.voters):
        return None
    if set(left.members.learners) != set(right.members.learners):
        return None  # one of them is about to get or to lose a replica
    smaller, larger = sorted((left, right), key=lambda shard: (shard.size_bytes, shard.id))
    return Merge(left.id, right.id, _moves(smaller, larger))


def _moves(shard: ShardState, other: ShardState) -> tuple[Move, ...]:
    """What brings a shard's voters to where the other's are; its leader's last."""
    here, there = set(shard.members.voters), set(other.members.voters)
    sources = sorted(here - there, key=lambda node: (node == shard.leader, node))
    return tuple(
        Move(shard.id, NodeId(source), NodeId(target))
        for source, target in zip(sources, sorted(there - here), strict=True)
    )


def merges_of(
    shards: Sequence[ShardState], max_shard_size: int, resting: Collection[ShardId], least: int
) -> list[Merge]:
    """Merges to begin now among shards in the order of their keys, each shard in one at most.

    Never leaves fewer than `least` shards beside the meta shard: what was cut in advance stays cut.
    """
    room = sum(shard.id != META_SHARD for shard in shards) - least
    merges: list[Merge] = []
    place = 0
    while place + 1 < len(shards) and len(merges) < room:
        merge = mergeable(shards[place], shards[place + 1], max_shard_size, resting)
        if merge is not None:
            merges.append(merge)
        place += 1 if merge is None else 2
    return merges
