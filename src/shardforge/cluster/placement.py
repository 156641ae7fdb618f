"""Where the replicas of one shard belong: what breaks a rule, what is better, and the goal that follows.

Every shard has `replication.factor` voters of its own. A node's locality is a list of tags from the widest to the
narrowest place ("zone=a,host=h1"); two nodes share as much as their lists begin alike, and a node without tags shares
nothing. Replicas are *crowded* where pairs of them share a place, counted place by place, the widest first: so losing
the widest place costs as few votes as possible, and a majority only where nothing else is possible.
Who votes already goes on, unless it leaves, or is down and another can take its place. Being crowded is no reason to
drop a voter here: that is repaired by moves (`rebalance.py`), a few at a time, because new tags concern all shards.
Invariants as in `goal.py`, whose `next_step` carries out one goal as well as another.
PURE. Source: CockroachDB's allocator for the vocabulary; greedy choice is best here, as places are nested.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from shardforge.cluster.goal import Goal, nodes_of, voters_of
from shardforge.cluster.liveness import Sight
from shardforge.cluster.members import ACTIVE, Member, odd, present
from shardforge.ids import NodeId, ShardId
from shardforge.raft.messages import ConfState

Crowding = tuple[int, ...]
"""Pairs that share a place of each width, the widest first; the smaller the better."""


class ShardState(NamedTuple):
    """One shard, as its leader knows it."""

    id: ShardId
    members: ConfState
    leader: NodeId | None = None
    size_bytes: int = 0
    load: float = 0.0
    """Reads and writes a second."""


class Move(NamedTuple):
    """A shard's vote goes from one node to another."""

    shard: ShardId
    source: NodeId
    target: NodeId


class Fault(enum.Enum):
    """What is wrong with where a shard's replicas are."""

    TOO_FEW = "fewer voters than there could be"
    TOO_MANY = "more voters than wanted"
    LEAVING = "a voter that is not to vote"
    DOWN = "a voter that is down, while another could take its place"
    CROWDED = "voters share more places than they have to"


def places(locality: str) -> tuple[str, ...]:
    """The places of a locality, from the widest to the narrowest: each as the tags up to there."""
    tags = [tag.strip() for tag in locality.split(",") if tag.strip()]
    return tuple(",".join(tags[: depth + 1]) for depth in range(len(tags)))


class _Places(dict[NodeId, tuple[str, ...]]):
    """Where each node stands, as many places for each; what a locality does not name is the node's own."""

    def __init__(self, named: Mapping[NodeId, tuple[str, ...]]) -> None:
        super().__init__()
        self.depth = max(map(len, named.values()), default=0)
        for node, known in named.items():
            self[node] = known + self[node][len(known) :]

    def __missing__(self, node: NodeId) -> tuple[str, ...]:
        return (f"node={node}",) * self.depth


class View:
    """The nodes at one moment, as far as placement asks."""

    def __init__(self, members: Iterable[Member], sight: Sight, factor: int) -> None:
        known = present(members)
        active = [member for member in known if member.state == ACTIVE]
        self.known = frozenset(member.id for member in known)
        self.sight = sight
        self.factor = factor
        self.able = frozenset(member.id for member in active if not member.observer)
        """Those on which voters belong."""
        self.up = self.able - sight.down
        self.ready = self.able & sight.alive
        """Those that a replica may be moved to."""
        self.observers = frozenset(member.id for member in active if member.observer)
        self.places = _Places({member.id: places(member.locality) for member in active})
        self._depth = self.places.depth
        self._wanted = frozenset(self.observers - sight.down)
        ideal = choose(self, (), self.ready, factor, dict.fromkeys(self.ready, 0))
        self.best = self.crowding(ideal)
        """How crowded `factor` voters have to be."""

    def crowd(self, node: NodeId, others: Iterable[NodeId]) -> Crowding:
        """How many of the others share each of a node's places."""
        rows = [self.places[other] for other in others if other != node]
        counts = []
        for depth, place in enumerate(self.places[node]):
            rows = [row for row in rows if row[depth] == place]  # places are nested
            counts.append(len(rows))
        return tuple(counts)

    def crowding(self, nodes: Collection[NodeId]) -> Crowding:
        """How crowded replicas on these nodes are."""
        totals = [0] * self._depth
        for depth in range(self._depth):
            column = [self.places[node][depth] for node in nodes]
            distinct = set(column)
            if len(distinct) == len(column):
                break  # nor do they share narrower places
            counts = [column.count(place) for place in distinct]
            totals[depth] = sum(count * (count - 1) // 2 for count in counts)
        return tuple(totals)

    def settled(self, members: ConfState) -> bool:
        """Whether nothing but moves is to be done: `factor` voters that are up, and the observers that are."""
        return (
            not members.voters_outgoing
            and len(members.voters) == self.factor
            and self.up.issuperset(members.voters)
            and self._wanted.issubset(members.learners)
            and self.observers.issuperset(members.learners)
        )


def choose(
    view: View,
    taken: Sequence[NodeId],
    candidates: Iterable[NodeId],
    count: int,
    held: Mapping[NodeId, int],
    holders: Collection[NodeId] = (),
) -> list[NodeId]:
    """The best nodes beside those taken, best first: least crowded, then least full, then the lowest id.

    A node that holds the shard already is preferred to one as little crowded; one that is silent and does not hold it
    comes last.
    """
    chosen = list(taken)
    left = set(candidates) - set(taken)

    def preference(node: NodeId) -> tuple[bool, Crowding, bool, int, NodeId]:
        holds = node in holders
        hopeless = not holds and node not in view.sight.alive
        return hopeless, view.crowd(node, chosen), not holds, held.get(node, 0), node

    while left and len(chosen) < len(taken) + count:
        best = min(left, key=preference)
        left.remove(best)
        chosen.append(best)
    return chosen[len(taken) :]


def shard_goal(
    view: View, shard: ShardState, held: Mapping[NodeId, int], move: Move | None = None
) -> Goal:
    """Where one shard's replicas belong. `held` are the bytes on each node, once all that is under way has ended.

    A move counts as long as the shard has all its voters without it. A voter that is down keeps its vote unless another
    takes its place, because fewer voters would bear fewer losses, but only as long as those that are not down
    outnumber it.
    """
    members, factor = shard.members, view.factor
    voters, holders = voters_of(members), nodes_of(members)
    stay = _stay(view, members, held, shard.leader)
    up = stay + choose(view, stay, view.up, factor - len(stay), held, holders)
    lost = sorted(view.able & view.sight.down & holders, key=lambda n: (n not in voters, n))
    lost = lost[: factor - len(up)]
    voting = up + [node for node in lost if node in voters]
    chosen = voting[: min(odd(len(voting)), max(0, 2 * len(up) - 1))]
    if not chosen:
        return Goal(frozenset(), frozenset())
    if len(stay) == factor and move is not None and _possible(view, move, chosen):
        chosen = [node for node in chosen if node != move.source] + [move.target]
        up = chosen
    observers = {node for node in view.observers if node not in view.sight.down or node in holders}
    return Goal(frozenset(chosen), frozenset(up + lost) - frozenset(chosen) | observers)


def _stay(
    view: View, members: ConfState, held: Mapping[NodeId, int], leader: NodeId | None
) -> list[NodeId]:
    """Who votes and may go on: the new half of a joint configuration first, the leader among the first."""

    def preference(node: NodeId) -> tuple[bool, bool, NodeId]:
        return node not in view.sight.alive, node != leader, node

    incoming = sorted(view.up & {NodeId(node) for node in members.voters}, key=preference)
    outgoing = sorted(view.up & voters_of(members) - set(incoming), key=preference)
    if len(incoming) <= view.factor:
        return (incoming + outgoing)[: view.factor]
    first = [node for node in incoming if node == leader]
    return first + choose(view, first, incoming, view.factor - len(first), held, incoming)


def _possible(view: View, move: Move, chosen: Collection[NodeId]) -> bool:
    return move.source in chosen and move.target not in chosen and move.target in view.up


def faults_of(view: View, shard: ShardState) -> frozenset[Fault]:
    """What is wrong with where a shard's voters are; nothing: the set is legal."""
    voters = {NodeId(node) for node in shard.members.voters}
    found = set()
    wanted = odd(min(view.factor, len(view.up)))
    spare = len(view.up - voters) > 0
    if len(voters) < wanted:
        found.add(Fault.TOO_FEW)
    if len(voters) > view.factor:
        found.add(Fault.TOO_MANY)
    if voters - view.able:
        found.add(Fault.LEAVING)
    if spare and voters & view.sight.down:
        found.add(Fault.DOWN)
    if len(voters) == view.factor and voters <= view.ready and view.crowding(voters) > view.best:
        found.add(Fault.CROWDED)
    return frozenset(found)
