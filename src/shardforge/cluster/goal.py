"""Where the replicas of all shards belong, and the next step of one shard on the way there.

One node serves at a time and leads every shard, so all shards have the same voters. The meta shard's voters are always
voters of every other shard, or its leader could not lead those: newcomers vote in the meta shard last, and who goes is
removed from it first. The number of voters is odd; whoever is left over follows as a learner until another comes.
One step at a time, none while a joint configuration is in force.
PURE. Source: Ongaro's thesis, chapter 4; CockroachDB's allocator for the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from shardforge.cluster.members import ACTIVE, Member
from shardforge.ids import NodeId
from shardforge.raft.confchange import Change, ChangeKind, ConfChange
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


def goal_of(
    members: Sequence[Member], factor: int, present: Collection[NodeId], down: Collection[NodeId]
) -> Goal:
    """Where the replicas belong: `present` have them now, `down` did not answer for too long.

    A node that is down keeps its vote unless another takes its place: fewer voters would bear fewer losses.
    """
    active = sorted(member.id for member in members if member.state == ACTIVE)
    up = [node for node in active if node not in down]
    ordered = [n for n in up if n in present] + [n for n in up if n not in present]
    chosen = ordered[:factor]
    lost = [node for node in active if node in down and node in present]
    chosen += lost[: max(0, factor - len(chosen))]
    odd = len(chosen) - (len(chosen) % 2 == 0)
    if odd < 1:
        return Goal(frozenset(), frozenset())
    # The voters among those that are up come first: who is left over must not be one that can vote.
    return Goal(frozenset(chosen[:odd]), frozenset(chosen[odd:]))


class Step(NamedTuple):
    """What to do next for one shard: give nodes an empty replica, and then change the group."""

    create: tuple[NodeId, ...]
    change: ConfChange


def next_step(
    members: ConfState, goal: Goal, keep: Collection[NodeId], match: Mapping[NodeId, int], last: int
) -> Step | None:
    """The next step of a shard towards the goal; None: it is reached, or something is under way.

    `keep` must stay voters although the goal has them not; `match` and `last` tell who has caught up.
    """
    if members.voters_outgoing or not goal.voters:
        return None
    voters = {NodeId(node) for node in members.voters}
    learners = {NodeId(node) for node in members.learners}
    missing = goal.nodes - voters - learners
    if missing:
        node = min(missing)
        return Step((node,), ConfChange((Change(ChangeKind.ADD_LEARNER, node),)))
    wanted = goal.voters | (voters & set(keep))
    promoted = sorted(wanted - voters)
    if any(match.get(node, 0) + CAUGHT_UP_ENTRIES < last for node in promoted):
        return None
    changes = [Change(ChangeKind.ADD_VOTER, node) for node in promoted]
    for node in sorted(voters - wanted):
        kind = ChangeKind.ADD_LEARNER if node in goal.learners else ChangeKind.REMOVE
        changes.append(Change(kind, node))
    if not changes:
        spare = sorted(learners - goal.nodes)
        changes = [Change(ChangeKind.REMOVE, node) for node in spare[:1]]
    return Step((), ConfChange(tuple(changes))) if changes else None


def meta_may_follow(goal: Goal, others: Sequence[ConfState]) -> bool:
    """Whether the meta shard may take the goal's voters: every other shard has them all."""
    return all(
        not members.voters_outgoing and goal.voters <= {NodeId(n) for n in members.voters}
        for members in others
    )
