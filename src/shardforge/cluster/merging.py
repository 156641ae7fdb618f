"""Which neighbours become one shard: small ones that were left alone for a while.

Two neighbours are small when both together are below a quarter of what a shard may hold, so a merged shard is far from
being split again; nor are both together asked half of what splits one. A boundary that was made by hand is sticky: it
stays until it goes by hand. Where their replicas are does not matter: the right one's keys go through the left one's
log.
PURE.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from shardforge.cluster.placement import ShardState
from shardforge.ids import META_SHARD, ShardId

SMALL_SHARE = 0.25
"""Of `max_shard_size`: below this, two neighbours are small together."""
QUIET_SHARE = 0.5
"""Of `max_shard_load`: below this, they are quiet together."""


class Limits(NamedTuple):
    """What is too much."""

    size: int
    """Bytes of one shard: `max_shard_size`."""
    load: float = 0.0
    """Requests a second of one shard: `max_shard_load`; 0: any."""
    copied: int | None = None
    """Bytes of the right one."""


class Merge(NamedTuple):
    """The right one becomes a part of the left one."""

    left: ShardId
    right: ShardId


def mergeable(
    left: ShardState,
    right: ShardState,
    limits: Limits,
    busy: Collection[ShardId] = (),
    sticky: Collection[ShardId] = (),
) -> Merge | None:
    """How two neighbours become one; None: they stay two. `busy` shards are moving, or on their way to another leader.

    `sticky` shards begin where somebody wanted it.
    """
    if right.id in sticky:
        return None
    for shard in (left, right):
        if shard.id == META_SHARD or shard.id in busy or shard.members.voters_outgoing:
            return None
    if left.size_bytes + right.size_bytes >= SMALL_SHARE * limits.size:
        return None
    if limits.load and left.load + right.load >= QUIET_SHARE * limits.load:
        return None
    if limits.copied is not None and right.size_bytes > limits.copied:
        return None
    return Merge(left.id, right.id)


def merges_of(
    shards: Sequence[ShardState], limits: Limits, busy: Collection[ShardId], least: int,
    sticky: Collection[ShardId] = (),
) -> list[Merge]:  # fmt: skip
    """Merges to begin now among shards in the order of their keys, each shard in one at most.

    Never leaves fewer than `least` shards beside the meta shard: what was cut in advance stays cut.
    """
    room = sum(shard.id != META_SHARD for shard in shards) - least
    merges: list[Merge] = []
    place = 0
    while place + 1 < len(shards) and len(merges) < room:
        left, right = shards[place : place + 2]
        merge = mergeable(left, right, limits, busy, sticky)
        if merge is not None:
            merges.append(merge)
        place += 1 if merge is None else 2
    return merges
