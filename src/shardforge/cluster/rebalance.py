"""Which replicas move to another node, so that none is much fuller than the mean and none is crowded without need.

What is compared is where everything ends once what is under way has ended, so a move that was decided is never decided
again. A shard whose replicas share places that they need not share moves first. Then bytes: a node counts as full above
the mean and `threshold` of it, as empty below. A move goes from a fuller node to an emptier one, makes the shard no
more crowded, puts neither node out of the band, and must bring the two nearer to each other by more than the shard's
own size: so it is not worth the way back, nor is it after some growth. Moves only begin where all voters answer.
The meta shard does not move for bytes: its leader runs the sessions.
PURE. Source: CockroachDB's and TiKV's schedulers, for comparing what will be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from shardforge.cluster.goal import Goal, nodes_of
from shardforge.cluster.placement import Move, ShardState, View
from shardforge.ids import META_SHARD, NodeId, ShardId

TARGETS_EACH = 4
"""So many of the emptiest nodes of each widest place are looked at."""
MIB = 1024 * 1024


class Balance(NamedTuple):
    """When bytes are worth moving."""

    threshold: float
    """How far from the mean a node may be, as a share of it."""
    slack_bytes: int = MIB
    """How far it may be in any case."""


def will_hold(
    shards: Iterable[ShardState], goals: Mapping[ShardId, Goal], nodes: Iterable[NodeId]
) -> dict[NodeId, int]:
    """The bytes on each node once every shard is where it belongs; without a goal, it is there already."""
    held = dict.fromkeys(nodes, 0)
    for shard in shards:
        goal = goals.get(shard.id)
        for node in nodes_of(shard.members) if goal is None else goal.nodes:
            if node in held:
                held[node] += shard.size_bytes
    return held


def worthwhile(gap: int, size: int) -> bool:
    """Whether two nodes with this gap get nearer to each other by more than what is moved between them."""
    return gap - abs(gap - 2 * size) > size


def spread_moves(
    view: View, shards: Iterable[ShardState], held: Mapping[NodeId, int], room: int
) -> list[Move]:
    """Moves that make shards less crowded, at most `room` of them; one a shard."""
    moves: list[Move] = []
    full = dict(held)
    for shard in shards:
        if len(moves) >= room:
            break
        voters = [NodeId(node) for node in shard.members.voters]
        if view.crowding(voters) <= view.best:
            continue
        move = _least_crowded(view, shard, voters, full)
        if move is not None:
            moves.append(move)
            full[move.source] -= shard.size_bytes
            full[move.target] += shard.size_bytes
    return moves


def _least_crowded(
    view: View, shard: ShardState, voters: Sequence[NodeId], held: Mapping[NodeId, int]
) -> Move | None:
    targets = view.ready - set(voters)
    best = None
    for source in voters:
        rest = [node for node in voters if node != source]
        now = view.crowd(source, rest)
        for target in targets:
            then = view.crowd(target, rest)
            gain = tuple(a - b for a, b in zip(now, then, strict=True))
            if then < now:
                leads = source == shard.leader
                key = tuple(-g for g in gain), leads, held[target], -held[source], target, source
                best = key if best is None else min(best, key)
    return None if best is None else Move(shard.id, best[5], best[4])


def byte_moves(
    view: View,
    shards: Iterable[ShardState],
    held: Mapping[NodeId, int],
    balance: Balance,
    room: int,
) -> list[Move]:
    """Moves that bring the bytes of nodes nearer to the mean, at most `room` of them; one a shard."""
    if len(view.ready) <= view.factor or room <= 0:
        return []
    scales = _Scales(view, shards, held, balance)
    moves: list[Move] = []
    while len(moves) < room:
        move = scales.next_move()
        if move is None:
            break
        moves.append(move)
    return moves


class _Scales:
    """Bytes on nodes, while moves are chosen."""

    def __init__(
        self,
        view: View,
        shards: Iterable[ShardState],
        held: Mapping[NodeId, int],
        balance: Balance,
    ) -> None:
        self._view = view
        self._held = {node: held.get(node, 0) for node in sorted(view.ready)}
        self._mean = sum(self._held.values()) / len(self._held)
        self._band = max(balance.threshold * self._mean, float(balance.slack_bytes))
        self._shards: dict[NodeId, list[ShardState]] | None = None
        self._given = [shard for shard in shards if shard.id != META_SHARD and shard.size_bytes]

    def next_move(self) -> Move | None:
        """The next move, which counts as made from then on."""
        low, high = self._mean - self._band, self._mean + self._band
        nodes = sorted(self._held, key=lambda node: (self._held[node], node))
        if self._held[nodes[0]] >= low and self._held[nodes[-1]] <= high:
            return None
        targets = self._emptiest(nodes)
        for source in reversed(nodes):
            for target in targets:
                if self._held[source] - self._held[target] <= self._band:
                    break
                if self._held[source] <= high and self._held[target] >= low:
                    break
                shard = self._fitting(source, target)
                if shard is not None:
                    return self._make(shard, source, target)
        return None

    def _emptiest(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        counts: dict[str, int] = {}
        chosen = []
        for node in nodes:
            widest = next(iter(self._view.places.get(node, ())), "")
            counts[widest] = counts.get(widest, 0) + 1
            if counts[widest] <= TARGETS_EACH:
                chosen.append(node)
        return chosen

    def _fitting(self, source: NodeId, target: NodeId) -> ShardState | None:
        """The shard whose move helps most: the largest one that leaves no hole, or else the smallest of all."""
        gap = self._held[source] - self._held[target]
        surplus = self._held[source] - self._mean
        limit = surplus if 0 < surplus < gap else gap / 2
        best, best_key = None, (True, 0.0, 0, 0)
        for shard in self._shards_on(source):
            size = shard.size_bytes
            over = size > limit
            # Where the source leads, as little load as possible changes its leader.
            load = shard.load / size if shard.leader == source else 0.0
            key = (over, load, size if over else -size, int(shard.id))
            if best is not None and key >= best_key:
                continue
            useful = worthwhile(gap, size) and self._in_band(source, target, size)
            if useful and self._legal(shard, source, target):
                best, best_key = shard, key
        return best

    def _in_band(self, source: NodeId, target: NodeId, size: int) -> bool:
        """Whether neither node is put out of the band by what it gives or gets."""
        low, high = self._mean - self._band, self._mean + self._band
        gives, gets = self._held[source], self._held[target]
        return not (gives - size < low <= gives or gets + size > high >= gets)

    def _legal(self, shard: ShardState, source: NodeId, target: NodeId) -> bool:
        if target in shard.members.voters:
            return False
        rest = [NodeId(node) for node in shard.members.voters if node != source]
        return self._view.crowd(target, rest) <= self._view.crowd(source, rest)

    def _shards_on(self, node: NodeId) -> list[ShardState]:
        if self._shards is None:
            self._shards = {}
            for shard in self._given:
                for voter in shard.members.voters:
                    self._shards.setdefault(NodeId(voter), []).append(shard)
        return self._shards.get(node, [])

    def _make(self, shard: ShardState, source: NodeId, target: NodeId) -> Move:
        self._held[source] -= shard.size_bytes
        self._held[target] += shard.size_bytes
        assert self._shards is not None, "the shard was found there"
        for voter in shard.members.voters:
            self._shards[NodeId(voter)].remove(shard)
        return Move(shard.id, source, target)


def movable(
    view: View, shards: Iterable[ShardState], busy: Collection[ShardId]
) -> list[ShardState]:
    """Shards that may begin a move: all their voters answer, nothing else is to be done, and nothing was lately."""
    return [
        shard
        for shard in shards
        if shard.id not in busy
        and view.settled(shard.members)
        and view.ready.issuperset(shard.members.voters)
    ]
