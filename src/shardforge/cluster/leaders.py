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
        if shard.leader is None:
            continue
        heirs = _heirs(view, shard, goals.get(shard.id))
        if shard.leader not in heirs:
            if heirs:
                forced.append((shard, heirs))
        elif shard.id == META_SHARD:
            continue
        elif prefer is not None and prefer in heirs:
            if shard.leader != prefer and shard.id not in resting:
                preferred.append(Transfer(shard.id, shard.leader, prefer))
        elif len(heirs) > 1 and not shard.members.voters_outgoing and shard.id not in resting:
            free.append((shard, heirs))
    led = _led(view, shards)
    must = [_handed_over(shard, heirs, prefer, led) for shard, heirs in forced]
    may = preferred[:room]
    return must + may + _spread(free, led, threshold, prefer, room - len(may))


def weight(shard: ShardState) -> float:
    """What leading a shard counts for."""
    return shard.load + IDLE_LOAD


def _heirs(view: View, shard: ShardState, goal: Goal | None) -> list[NodeId]:
    """Who may lead a shard: voters that go on voting, and answer."""
    voters = (NodeId(node) for node in shard.members.voters)
    return [node for node in voters if node in view.ready and (goal is None or node in goal.voters)]


def _led(view: View, shards: Iterable[ShardState]) -> dict[NodeId, float]:
    led = dict.fromkeys(sorted(view.ready), 0.0)
    for shard in shards:
        if shard.leader in led:
            led[shard.leader] += weight(shard)
    return led


def _handed_over(
    shard: ShardState, heirs: Sequence[NodeId], prefer: NodeId | None, led: dict[NodeId, float]
) -> Transfer:
    assert shard.leader is not None, "somebody hands over"
    heir = min(heirs, key=lambda node: (node != prefer, led[node], node))
    _count(shard, shard.leader, heir, led)
    return Transfer(shard.id, shard.leader, heir)


def _count(shard: ShardState, source: NodeId, target: NodeId, led: dict[NodeId, float]) -> None:
    if source in led:
        led[source] -= weight(shard)
    led[target] += weight(shard)


def _spread(
    shards: list[tuple[ShardState, list[NodeId]]],
    led: dict[NodeId, float],
    threshold: float,
    prefer: NodeId | None,
    room: int,
) -> list[Transfer]:
    """Hand over from the busiest nodes, the heaviest shards first that help."""
    others = [load for node, load in led.items() if node != prefer]
    band = threshold * sum(others) / len(others) if others else 0.0
    transfers: list[Transfer] = []
    for shard, heirs in sorted(shards, key=lambda known: (-weight(known[0]), known[0].id)):
        if len(transfers) >= room:
            break
        assert shard.leader is not None, "somebody hands over"
        heir = min(heirs, key=lambda node: (led[node], node))
        gap = led[shard.leader] - led[heir]
        size = weight(shard)
        if gap > band and gap - abs(gap - 2 * size) > size:
            _count(shard, shard.leader, heir, led)
            transfers.append(Transfer(shard.id, shard.leader, heir))
    return transfers
