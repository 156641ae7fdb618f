"""Which replicas move to another node, so that none is much fuller than its due and none is crowded without need.

What is compared is where everything ends once what is under way has ended, so a move that was decided is never decided
again. A shard whose replicas share places that they need not share moves first. Then bytes. A node's due is the mean,
or more where its zone has few nodes, because each zone has its share of every shard; off by `threshold` of the mean is
still within the band. A move makes the shard no more crowded, puts neither node out of the band, and must bring the two
nearer to each other by more than the shard's own size: so the way back is not worth it, nor is it after some growth.
Moves only begin where all voters answer.
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
BISECTIONS = 40
MIB = 1024 * 1024


class Balance(NamedTuple):
    """When bytes are worth moving."""

    threshold: float
    """How far from its due a node may be, as a share of the mean."""
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


def worthwhile(gap: float, size: int) -> bool:
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


def due_shares(view: View) -> dict[NodeId, float]:
    """What share of all bytes is due to each node: the same for all, as far as replicas can be kept apart then.

    Of every shard a widest place has `level` replicas or one more, or as many as it has nodes.
    """
    zones: dict[str, list[NodeId]] = {}
    for node in sorted(view.ready):
        zones.setdefault(next(iter(view.places[node]), ""), []).append(node)
    counts = [len(nodes) for nodes in zones.values()]
    count = min(view.factor, sum(counts))
    level = max(n for n in range(count + 1) if sum(min(n, c) for c in counts) <= count)

    def replicas(per_node: float, nodes: int) -> float:
        return min(max(per_node * nodes, min(level, nodes)), min(level + 1, nodes))

    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = sum(replicas(middle, c) for c in counts) >= count
        low, high = (low, middle) if enough else (middle, high)
    return {
        node: replicas(high, len(nodes)) / len(nodes) / count
        for nodes in zones.values()
        for node in nodes
    }


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
        total = sum(self._held.values())
        self._due = {node: share * total for node, share in due_shares(view).items()}
        self._band = max(balance.threshold * total / len(self._held), float(balance.slack_bytes))
        self._roomy = {node for node in self._held if self._surplus(node) < 0}
        self._known_legal: dict[tuple[tuple[int, ...], NodeId, NodeId], bool] = {}
        self._shards: dict[NodeId, list[ShardState]] | None = None
        self._given = [shard for shard in shards if shard.id != META_SHARD and shard.size_bytes]

    def next_move(self) -> Move | None:
        """The next move, which counts as made from then on."""
        band = self._band
        nodes = sorted(self._held, key=lambda node: (self._surplus(node), node))
        if self._surplus(nodes[0]) >= -band and self._surplus(nodes[-1]) <= band:
            return None
        targets = self._emptiest(nodes)
        for source in reversed(nodes):
            surplus = self._surplus(source)
            for target in targets:
                lack = -self._surplus(target)
                if surplus + lack <= band or (surplus <= band and lack <= band):
                    break
                shard = self._fitting(source, target)
                if shard is not None:
                    return self._make(shard, source, target)
        return None

    def _surplus(self, node: NodeId) -> float:
        return self._held[node] - self._due[node]

    def _emptiest(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        counts: dict[str, int] = {}
        chosen = []
        for node in nodes:
            widest = next(iter(self._view.places[node]), "")
            counts[widest] = counts.get(widest, 0) + 1
            if counts[widest] <= TARGETS_EACH:
                chosen.append(node)
        return chosen

    def _fitting(self, source: NodeId, target: NodeId) -> ShardState | None:
        """The shard whose move helps most: the largest one that leaves no hole, or else the smallest of all."""
        surplus = self._surplus(source)
        gap = surplus - self._surplus(target)
        limit = surplus if 0 < surplus < gap else gap / 2

        def preference(shard: ShardState) -> tuple[bool, int, float, int, ShardId]:
            size = shard.size_bytes
            # Each gets a first voter on a node with room, before one gets a second: so that leaders find room too.
            roomy = len(self._roomy.intersection(shard.members.voters))
            # Where the source leads, as little load as possible changes its leader.
            load = shard.load / size if shard.leader == source else 0.0
            return size > limit, roomy, load, size if size > limit else -size, shard.id

        for shard in sorted(self._shards_on(source), key=preference):
            useful = worthwhile(gap, shard.size_bytes)
            useful = useful and self._in_band(source, target, shard.size_bytes)
            if useful and self._legal(shard.members.voters, source, target):
                return shard
        return None

    def _in_band(self, source: NodeId, target: NodeId, size: int) -> bool:
        """Whether neither node is put out of the band by what it gives or gets."""
        gives, gets = self._surplus(source), self._surplus(target)
        empties = gives - size < -self._band <= gives
        overfills = gets + size > self._band >= gets
        return not (empties or overfills)

    def _legal(self, voters: tuple[int, ...], source: NodeId, target: NodeId) -> bool:
        """Whether these voters, with the target for the source, are no more crowded."""
        key = voters, source, target
        known = self._known_legal.get(key)
        if known is None:
            rest = [NodeId(node) for node in voters if node != source]
            known = target not in voters and (
                self._view.crowd(target, rest) <= self._view.crowd(source, rest)
            )
            self._known_legal[key] = known
        return known

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
