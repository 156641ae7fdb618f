"""Where the replicas of all shards belong, and the next step of one shard on the way there.

One node serves at a time and leads every shard, so all shards have the same voters. The meta shard's voters are always
voters of every other shard, or its leader could not lead those: newcomers vote in the meta shard last, and who goes is
removed from it first; on the way a shard other than the meta shard may have an even number of voters. The number that
is aimed at is odd; whoever is left over follows as a learner until another comes. Observers only ever learn.
Invariant: no step leads to a configuration, joint or not, in which those that are alive at that moment are no majority.
A step that would waits until the silent answer again or count as down. One step at a time, none in a joint one.
PURE. Source: Ongaro's thesis, chapter 4; CockroachDB's allocator for the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from shardforge.cluster.liveness import Sight
from shardforge.cluster.members import ACTIVE, Member, odd
from shardforge.ids import NodeId
from shardforge.raft.confchange import Change, ChangeKind, ConfChange, apply, restore
from shardforge.raft.messages import ConfState

CAUGHT_UP_ENTRIES = 500
"""A learner that lags by fewer entries may vote."""


class Goal(NamedTuple):
    """Where replicas belong."""

    voters: frozenset[NodeId]
    learners: frozenset[NodeId]

    @property
    def nodes(self) -> frozenset[NodeId]:
        """All that have a replica."""
        return self.voters | self.learners


def voters_of(members: ConfState) -> set[NodeId]:
    """Everyone whose vote counts."""
    return {NodeId(node) for node in (*members.voters, *members.voters_outgoing)}


def nodes_of(members: ConfState) -> set[NodeId]:
    """Everyone who has a replica."""
    return voters_of(members) | {
        NodeId(node) for node in (*members.learners, *members.learners_next)
    }


def goal_of(
    members: Iterable[Member],
    factor: int,
    meta: ConfState,
    others: Sequence[ConfState],
    sight: Sight,
    serving: NodeId,
) -> Goal:
    """Where the replicas belong, given where those of the meta shard and of the others are.

    Who votes already is preferred, so that nothing moves without need. A voter that is down keeps its vote unless
    another takes its place, because fewer voters would bear fewer losses, but only as long as those that are not
    down outnumber it.
    """
    active = [member for member in members if member.state == ACTIVE]
    shards = [meta, *others]
    votes = {m.id: sum(m.id in voters_of(shard) for shard in shards) for m in active}
    holds = {m.id: sum(m.id in nodes_of(shard) for shard in shards) for m in active}

    def preference(node: NodeId) -> tuple[int, int, bool, bool, NodeId]:
        return -votes[node], -holds[node], node not in sight.alive, node != serving, node

    able = sorted((member.id for member in active if not member.observer), key=preference)
    up = [node for node in able if node not in sight.down][:factor]
    lost = [node for node in able if node in sight.down and holds[node]][: factor - len(up)]
    voting = up + [node for node in lost if node in voters_of(meta)]
    chosen = voting[: min(odd(len(voting)), max(0, 2 * len(up) - 1))]
    if not chosen:
        return Goal(frozenset(), frozenset())
    observers = {m.id for m in active if m.observer and (m.id not in sight.down or holds[m.id])}
    return Goal(frozenset(chosen), frozenset(up + lost) - frozenset(chosen) | observers)


class Step(NamedTuple):
    """What to do next for one shard: give nodes an empty replica, and then change the group."""

    create: tuple[NodeId, ...]
    change: ConfChange


def next_step(
    members: ConfState,
    goal: Goal,
    keep: Collection[NodeId],
    match: Mapping[NodeId, int],
    last: int,
    alive: Collection[NodeId],
) -> Step | None:
    """The next step of a shard towards the goal; None: it is reached, or has to wait.

    `keep` must stay voters although the goal has them not; `match` and `last` tell who has caught up, `alive` who
    answers now.
    """
    if members.voters_outgoing or not goal.voters:
        return None
    present = nodes_of(members)
    missing = sorted(goal.nodes - present, key=lambda node: (node not in goal.voters, node))
    for node in missing:
        if node in alive:
            return Step((node,), ConfChange((Change(ChangeKind.ADD_LEARNER, node),)))
    change = _change_of_voters(members, goal, keep)
    if not change.changes:
        spare = sorted(present - goal.nodes - set(keep))
        gone = tuple(Change(ChangeKind.REMOVE, node) for node in spare[:1])
        return Step((), ConfChange(gone)) if gone else None
    promoted = [NodeId(c.node) for c in change.changes if c.kind is ChangeKind.ADD_VOTER]
    if not all(node in alive and _caught_up(match.get(node, 0), last) for node in promoted):
        return None
    return Step((), change) if _bears(members, change, alive) else None


def _change_of_voters(members: ConfState, goal: Goal, keep: Collection[NodeId]) -> ConfChange:
    voters = voters_of(members)
    wanted = goal.voters | (voters & set(keep))
    changes = [Change(ChangeKind.ADD_VOTER, node) for node in sorted(wanted - voters)]
    for node in sorted(voters - wanted):
        kind = ChangeKind.ADD_LEARNER if node in goal.learners else ChangeKind.REMOVE
        changes.append(Change(kind, node))
    return ConfChange(tuple(changes))


def _caught_up(match: int, last: int) -> bool:
    """Whether a learner may vote: one that has nothing yet may have a large state to fetch before a short log."""
    return match >= last or (match > 0 and match + CAUGHT_UP_ENTRIES >= last)


def _bears(members: ConfState, change: ConfChange, alive: Collection[NodeId]) -> bool:
    """Whether a majority of the voters is alive, before the change, during it and after it."""
    before = restore(members)
    after = apply(before, change)
    return all(
        2 * sum(node in alive for node in half) > len(half)
        for half in (before.incoming, after.incoming)
    )


def meta_may_follow(goal: Goal, others: Sequence[ConfState]) -> bool:
    """Whether the meta shard may take the goal's voters: every other shard has them all."""
    return all(
        not members.voters_outgoing and goal.voters <= {NodeId(n) for n in members.voters}
        for members in others
    )
