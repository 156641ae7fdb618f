"""Replicas move from anywhere to where they belong, and no configuration on the way loses its majority.

The model has a meta shard and two others, whose changes take effect some rounds after they were proposed, as in the
real thing; nodes go silent, come back, are added and taken out meanwhile. Learners take
their time to catch up; who is not alive acknowledges nothing.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shardforge.cluster.goal import (
    CAUGHT_UP_ENTRIES,
    Goal,
    Step,
    goal_of,
    meta_may_follow,
    next_step,
    nodes_of,
    voters_of,
)
from shardforge.cluster.liveness import Sight
from shardforge.cluster.members import ACTIVE, DRAINING, Member
from shardforge.ids import NodeId
from shardforge.raft.confchange import ConfChange, Configuration, apply, leave_joint, restore
from shardforge.raft.messages import ConfState

SEEDS = 2_000
SEEDS_EACH = 500
LAST = 5_000
ROUNDS_MAX = 120
QUIET_ROUNDS = 3
"""So long it takes a learner to catch up."""
META = 0


def majority(half: frozenset[int], alive: set[int]) -> bool:
    """Whether this half of a configuration can decide."""
    return not half or 2 * len(half & alive) > len(half)


class Model:
    """A cluster: configurations of shards, and what is known of the nodes."""

    def __init__(
        self, members: list[Member], factor: int, voters: frozenset[int], silent: set[int]
    ) -> None:
        self.members = {int(member.id): member for member in members}
        self.factor = factor
        self.shards = [Configuration(voters) for _ in range(3)]
        self.pending: list[ConfChange | None] = [None, None, None]
        self.match = [dict.fromkeys(voters, LAST) for _ in range(3)]
        self.silent = set(silent)
        self.down: set[int] = set()

    @property
    def alive(self) -> set[int]:
        return set(self.members) - self.silent

    def sight(self) -> Sight:
        """What the serving node sees."""
        return Sight(*(frozenset(map(NodeId, n)) for n in (self.alive, self.silent, self.down)))

    def can_decide(self) -> bool:
        """Whether every shard can go on, now and after what was proposed."""
        ahead = [
            apply(shard, change)
            for shard, change in zip(self.shards, self.pending, strict=True)
            if change is not None
        ]
        return all(
            majority(half, self.alive)
            for shard in [*self.shards, *ahead]
            for half in (shard.incoming, shard.outgoing)
        )

    def serving(self) -> NodeId:
        """The one that leads all shards: a living voter of the meta shard."""
        return NodeId(min(self.shards[META].voters & self.alive))

    def goal(self) -> Goal:
        """Where the replicas belong now."""
        meta, *others = self.states()
        members = self.members.values()
        return goal_of(members, self.factor, meta, others, self.sight(), self.serving())

    def states(self) -> list[ConfState]:
        return [shard.conf_state() for shard in self.shards]

    def changing(self, index: int) -> bool:
        return self.pending[index] is not None or self.shards[index].joint

    def step(self, index: int, goal: Goal) -> Step | None:
        """The next step of one shard, or None."""
        if self.changing(index):
            return None
        meta = self.shards[META].conf_state()
        keep = set() if index == META else voters_of(meta)
        match = {NodeId(node): at for node, at in self.match[index].items()}
        alive = self.sight().alive
        return next_step(self.shards[index].conf_state(), goal, keep, match, LAST, alive)

    def govern(self) -> bool:
        """One round of the serving node; whether anything was proposed."""
        goal = self.goal()
        proposed = False
        if not self.changing(META):
            for index in (1, 2):
                proposed |= self.propose(index, self.step(index, goal))
        if not any(map(self.changing, (1, 2))) and meta_may_follow(goal, self.states()[1:]):
            proposed |= self.propose(META, self.step(META, goal))
        return proposed

    def propose(self, index: int, step: Step | None) -> bool:
        """Take a step: what it leads to must bear the nodes that are silent now."""
        if step is None:
            return False
        self.pending[index] = step.change
        assert set(step.create) <= self.alive, "a replica is made on a node that answers"
        after = apply(self.shards[index], step.change)
        for node in after.incoming - self.shards[index].incoming:
            assert node in self.alive, "who gets a vote answers"
            assert self.match[index].get(node, 0) > LAST - CAUGHT_UP_ENTRIES - 1, "and has the log"
        return True

    def catch_up(self, node: int) -> None:
        """A node that is alive acknowledges more of every shard's log."""
        if node not in self.alive:
            return
        for index, shard in enumerate(self.shards):
            if node in shard.members:
                known = self.match[index].get(node, 0)
                self.match[index][node] = min(LAST, known + LAST // 2)

    def settle(self, index: int) -> None:
        """What was proposed takes effect, and a joint configuration is left."""
        change, self.pending[index] = self.pending[index], None
        if change is not None:
            self.shards[index] = apply(self.shards[index], change)
        elif self.shards[index].joint:
            self.shards[index] = leave_joint(self.shards[index])
        for node in set(self.match[index]) - self.shards[index].members:
            del self.match[index][node]

    def check(self) -> None:
        """What must hold at every moment."""
        assert self.can_decide(), (self.shards, self.pending, self.silent)
        meta, *others = self.shards
        for other in others:
            assert meta.voters <= other.incoming, "the meta shard's leader can lead the others"
        observers = {node for node, member in self.members.items() if member.observer}
        for shard in self.shards:
            assert not shard.voters & observers

    def to_the_goal(self) -> None:
        """Go on with nothing else happening: those that are silent count as down now."""
        self.down = set(self.silent)
        quiet = 0
        for _ in range(ROUNDS_MAX):
            proposed = self.govern()
            self.check()
            busy = any(self.changing(index) for index in range(3))
            for index in range(3):
                self.settle(index)
                self.check()
            for node in self.members:
                self.catch_up(node)
            quiet = 0 if proposed or busy else quiet + 1
            if quiet > QUIET_ROUNDS:
                break
        else:
            raise AssertionError(f"no end: {self.shards} {self.goal()}")
        goal = self.goal()
        for state in self.states():
            assert voters_of(state) == goal.voters, (state, goal)
            assert nodes_of(state) - goal.nodes == set(), (state, goal)
            assert goal.nodes - nodes_of(state) <= self.down


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Up to seven nodes of all states, shards on some of them, with a majority that lives."""
    count = draw(st.integers(1, 7))
    ids = range(1, count + 1)
    factor = draw(st.sampled_from([1, 3, 5]))
    voters = draw(st.sets(st.sampled_from(ids), min_size=1, max_size=5))
    members = []
    for node in ids:
        state = draw(st.sampled_from([ACTIVE, ACTIVE, ACTIVE, DRAINING]))
        observer = node not in voters and draw(st.booleans())
        members.append(Member(NodeId(node), "", state, observer=observer))
    silent = draw(st.sets(st.sampled_from(ids)))
    model = Model(members, factor, frozenset(voters), silent)
    assume(model.can_decide())
    assume(any(m.may_vote and m.id in model.alive for m in members))
    return model


@given(models())
def test_replicas_get_where_they_belong(model: Model) -> None:
    model.to_the_goal()


@given(models())
def test_the_goal_has_an_odd_number_of_voters_of_whom_most_are_not_down(model: Model) -> None:
    model.down = set(model.silent)
    goal = model.goal()
    able = {node for node, member in model.members.items() if member.may_vote}
    assert len(goal.voters) % 2 == 1
    assert len(goal.voters) <= model.factor
    assert goal.voters <= able
    assert not goal.voters & goal.learners
    assert 2 * len(goal.voters & model.down) < len(goal.voters)


@given(models())
def test_what_is_reached_stays(model: Model) -> None:
    model.to_the_goal()
    before = model.goal().voters
    model.silent = set()
    model.to_the_goal()
    assert model.goal().voters >= before, "a node that comes back takes nobody's place"


def random_model(random: Random) -> Model | None:
    """As `models`, but drawn evenly: a cluster at rest in which much is about to happen."""
    ids = range(1, random.randint(2, 7) + 1)
    voters = frozenset(random.sample(ids, random.randint(1, min(5, len(ids)))))
    members = [
        Member(NodeId(node), "", observer=node not in voters and random.random() < 0.2)
        for node in ids
    ]
    model = Model(members, random.choice([1, 3, 3, 5]), voters, set())
    return model if any(member.may_vote for member in members) else None


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_EACH))
def test_no_majority_is_lost_whatever_happens_on_the_way(first: int) -> None:
    for seed in range(first, first + SEEDS_EACH):
        explore(Random(seed))


def explore(random: Random) -> None:
    """One run of random events, and then the way to the goal."""
    model = random_model(random)
    if model is None:
        return
    for _ in range(random.randint(10, 120)):
        event = random.choice(EVENTS)
        if event == "round":
            model.govern()
        elif event == "settle":
            model.settle(random.randrange(3))
        else:
            happen(model, event, random.choice(sorted(model.members)))
        model.check()
    model.silent &= model.down
    if any(m.may_vote and m.id in model.alive for m in model.members.values()):
        model.to_the_goal()


EVENTS = ("round", "round", "settle", "settle", "catch up", "silent", "down", "back", "drain")


def happen(model: Model, event: str, node: int) -> None:
    """Something befalls a node, unless it would by itself cost a majority."""
    if event == "silent":
        model.silent.add(node)
        if not model.can_decide():
            model.silent.remove(node)
    elif event == "back":
        model.silent.discard(node)
        model.down.discard(node)
    elif event == "down" and node in model.silent:
        model.down.add(node)
    elif event == "catch up":
        for known in model.members:
            model.catch_up(known)
    elif event == "drain":
        member = model.members[node]
        model.members[node] = Member(member.id, "", DRAINING, observer=member.observer)


def test_an_even_number_of_nodes_leaves_one_without_a_vote() -> None:
    model = Model([Member(NodeId(n), "") for n in (1, 2)], 3, frozenset({1}), set())
    model.to_the_goal()
    assert model.shards[META].conf_state() == ConfState((1,), (), (2,))
    assert restore(model.shards[META].conf_state()) == model.shards[META]
