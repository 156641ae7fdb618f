"""Which node leads each shard: one that goes on voting, a preferred one, or the one among its voters with room for it.

A leader that is to lose its vote hands over first, to a voter that stays and answers. With a preferred node, every
shard that has a voter there is led there: sessions run on that node, and read and write much cheaper what it leads
itself. Other leaders are spread by load. Each counts for a little even at rest, and moves only between nodes that
differ by more than the band, if that brings them nearer to each other by more than the load that moves.
The meta shard's leader is the serving node; it is changed only when it must not vote any more.
PURE.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from shardforge.cluster.goal import Goal
from shardforge.cluster.placement import ShardState, View
from shardforge.ids import META_SHARD, NodeId, ShardId

IDLE_LOAD = 1.0
"""What a shard at rest counts for, in requests a second: so leaders are spread where nothing happens too."""


class Transfer(NamedTuple):
    """A shard's leadership goes from one node to another."""

    shard: ShardId
    source: NodeId
    target: NodeId


def transfers_of(
    view: View,
    shards: Sequence[ShardState],
    goals: Mapping[ShardId, Goal],
    *,
    prefer: NodeId | None,
    threshold: float,
    resting: Collection[ShardId],
    room: int,
) -> list[Transfer]:
    """Leaderships to hand over now: those that must be, and at most `room` of those that would better be.

    A shard without a goal has its voters where they belong. `resting` shards are handed over only when they must be.
    """
    forced, preferred, free = [], [], []
    for shard in shards:
        goal = goals.get(shard.id)
        if shard.leader is None:
            continue
        if not _may_lead(view, shard, shard.leader, goal):
            forced.append(shard)
        elif shard.id == META_SHARD or shard.id in resting:
            continue
        elif prefer is not None and _may_lead(view, shard, prefer, goal):
            if shard.leader != prefer:
                preferred.append(Transfer(shard.id, shard.leader, prefer))
        elif not shard.members.voters_outgoing:
            free.append(shard)
    led = _led(view, shards)
    must = [_handed_over(view, shard, goals.get(shard.id), prefer, led) for shard in forced]
    may = preferred[:room]
    spread = _spread(view, free, goals, led, threshold, prefer, room - len(may))
    return [transfer for transfer in must if transfer is not None] + may + spread


def weight(shard: ShardState) -> float:
    """What leading a shard counts for."""
    return shard.load + IDLE_LOAD


def _may_lead(view: View, shard: ShardState, node: NodeId, goal: Goal | None) -> bool:
    """Whether a node votes, goes on voting, and answers."""
    return (
        node in shard.members.voters
        and node in view.ready
        and (goal is None or node in goal.voters)
    )


def _heir(
    view: View,
    shard: ShardState,
    goal: Goal | None,
    prefer: NodeId | None,
    led: Mapping[NodeId, float],
) -> NodeId | None:
    """Who had best lead a shard; None: nobody may."""
    voters = (NodeId(node) for node in shard.members.voters)
    able = [node for node in voters if _may_lead(view, shard, node, goal)]
    return min(able, key=lambda node: (node != prefer, led[node], node), default=None)


def _led(view: View, shards: Iterable[ShardState]) -> dict[NodeId, float]:
    led = dict.fromkeys(sorted(view.ready), 0.0)
    for shard in shards:
        if shard.leader in led:
            led[shard.leader] += weight(shard)
    return led


def _handed_over(
    view: View,
    shard: ShardState,
    goal: Goal | None,
    prefer: NodeId | None,
    led: dict[NodeId, float],
) -> Transfer | None:
    heir = _heir(view, shard, goal, prefer, led)
    if heir is None or shard.leader is None:
        return None
    _count(shard, shard.leader, heir, led)
    return Transfer(shard.id, shard.leader, heir)


def _count(shard: ShardState, source: NodeId, target: NodeId, led: dict[NodeId, float]) -> None:
    if source in led:
        led[source] -= weight(shard)
    led[target] += weight(shard)


def _spread(
    view: View,
    shards: Sequence[ShardState],
    goals: Mapping[ShardId, Goal],
    led: dict[NodeId, float],
    threshold: float,
    prefer: NodeId | None,
    room: int,
) -> list[Transfer]:
    """Hand over from the busiest nodes, the heaviest shards first that help."""
    others = {node: load for node, load in led.items() if node != prefer}
    if not others or room <= 0:
        return []
    band = threshold * sum(others.values()) / len(others)
    least = min(led.values())
    busy = [s for s in shards if s.leader is not None and led[s.leader] - least > band]
    transfers: list[Transfer] = []
    for shard in sorted(busy, key=lambda shard: (-weight(shard), shard.id)):
        heir = _heir(view, shard, goals.get(shard.id), None, led)
        if heir is None or shard.leader is None:
            continue
        gap, size = led[shard.leader] - led[heir], weight(shard)
        if gap > band and gap - abs(gap - 2 * size) > size:
            _count(shard, shard.leader, heir, led)
            transfers.append(Transfer(shard.id, shard.leader, heir))
            if len(transfers) >= room:
                break
    return transfers
