"""Observers in placement, membership and status: they hold everything and count for nothing."""

from __future__ import annotations

import pytest

from shardforge.cluster.goal import Goal, goal_of, next_step
from shardforge.cluster.liveness import Sight
from shardforge.cluster.members import DRAINING, Member, admit, decommissioned, drained
from shardforge.cluster.status import NodeFigures, ShardFigures, document
from shardforge.errors import ConsensusError
from shardforge.ids import NodeId, ShardId
from shardforge.node.joining import JoinRequest
from shardforge.node.reports import AddressBook, pack, unpack
from shardforge.raft.confchange import Change, ChangeKind, ConfChange
from shardforge.raft.messages import ConfState
from shardforge.shard.descriptor import Span

FACTOR = 3
VOTERS = [Member(NodeId(n), f"node{n}") for n in (1, 2, 3)]
OBSERVER = Member(NodeId(4), "node4", observer=True)
FOUR = [*VOTERS, OBSERVER]
SHARD = ConfState(voters=(1, 2, 3), learners=(4,))


def nodes(*ids: int) -> frozenset[NodeId]:
    return frozenset(NodeId(n) for n in ids)


def sight(alive: set[int], *, down: set[int] = frozenset()) -> Sight:  # type: ignore[assignment]
    return Sight(nodes(*alive), nodes(*down), nodes(*down))


def goal(
    members: list[Member], seen: Sight, shard: ConfState = SHARD, factor: int = FACTOR
) -> Goal:
    return goal_of(members, factor, shard, [shard], seen, NodeId(1))


def test_an_observer_learns_every_shard_and_takes_no_voters_place():
    everybody = sight({1, 2, 3, 4})
    assert goal(FOUR, everybody) == Goal(nodes(1, 2, 3), nodes(4))
    assert goal(FOUR, everybody, factor=5) == Goal(nodes(1, 2, 3), nodes(4))
    # A voter is down: a spare would take its place, an observer does not.
    lost = sight({1, 2, 4}, down={3})
    assert goal(FOUR, lost) == Goal(nodes(1, 2, 3), nodes(4))
    spare = Member(NodeId(5), "node5")
    assert goal([*FOUR, spare], lost) == Goal(nodes(1, 2, 5), nodes(4))
    assert next_step(SHARD, goal(FOUR, lost), (), {NodeId(4): 99}, 99, nodes(1, 2, 4)) is None


def test_an_observer_that_is_down_keeps_what_it_holds_and_is_given_nothing():
    down = sight({1, 2, 3}, down={4})
    assert goal(FOUR, down) == Goal(nodes(1, 2, 3), nodes(4))
    bare = ConfState(voters=(1, 2, 3))
    assert goal(FOUR, down, bare) == Goal(nodes(1, 2, 3), nodes())


def test_an_observer_is_added_as_a_learner_and_removed_when_it_leaves():
    bare = ConfState(voters=(1, 2, 3))
    alive = nodes(1, 2, 3, 4)
    step = next_step(bare, goal(FOUR, sight({1, 2, 3, 4}), bare), (), {}, 99, alive)
    assert step is not None
    assert step.create == (NodeId(4),)
    assert step.change == ConfChange((Change(ChangeKind.ADD_LEARNER, NodeId(4)),))
    leaving = [*VOTERS, Member(NodeId(4), "node4", DRAINING, observer=True)]
    step = next_step(SHARD, goal(leaving, sight({1, 2, 3, 4})), (), {}, 99, alive)
    assert step is not None
    assert step.change == ConfChange((Change(ChangeKind.REMOVE, NodeId(4)),))


def test_an_observer_may_always_go_and_a_voter_is_not_replaced_by_one():
    assert drained(FOUR, NodeId(4), FACTOR, nodes(1)).state == DRAINING
    assert decommissioned(FOUR, NodeId(4), FACTOR, sight({1}, down={2, 3, 4})).state == DRAINING
    two = [VOTERS[0], VOTERS[1], OBSERVER]
    with pytest.raises(ConsensusError, match="too few nodes would answer: 0 of 1"):
        drained(two, NodeId(1), FACTOR, nodes(1, 4))
    with pytest.raises(ConsensusError, match="the last one of the cluster that may vote"):
        drained([VOTERS[0], OBSERVER], NodeId(1), FACTOR, nodes(1, 4))


def test_who_joined_as_an_observer_stays_one():
    member = admit(VOTERS, "token", "a:1", "0.1", 0, 0, observer=True)
    assert (member.id, member.observer) == (4, True)
    again = admit([*VOTERS, member], "token", "b:1", "0.1", 0, 0, observer=False)
    assert again.observer, "the same request, repeated"
    assert again.address == "b:1"


def test_requests_and_address_books_of_earlier_versions_know_no_observers():
    request = JoinRequest("t", "a:1", "0.1", NodeId(0), observer=True)
    assert unpack(pack(request), JoinRequest) == request
    assert unpack(pack(["t", "a:1", "0.1", 0]), JoinRequest).observer is False
    assert unpack(pack([1, 2, [(2, "a:1")]]), AddressBook).observers == []


def test_the_status_counts_voters_only():
    def figures(alive: set[int]) -> list[NodeFigures]:
        return [NodeFigures(m, m.id in alive, m.id == 1, 1, 0, 0.0, 0.0) for m in FOUR]

    def described(state: ConfState, alive: set[int]) -> dict[str, object]:
        shard = ShardFigures(ShardId(0), Span(b"", b"\xff"), NodeId(1), 2, 9, 9, state, {}, 0)
        return document("c", "id", NodeId(1), figures(alive), [shard], FACTOR, [])

    whole = described(SHARD, {1, 2, 3})
    assert whole["under_replicated_shards"] == whole["unavailable_shards"] == 0
    assert [node["observer"] for node in whole["nodes"]] == [False, False, False, True]  # type: ignore[attr-defined]
    assert described(SHARD, {1, 2, 4})["under_replicated_shards"] == 1
    assert described(SHARD, {1, 4})["unavailable_shards"] == 1
    one = ShardFigures(
        ShardId(0), Span(b"", b"\xff"), NodeId(1), 2, 9, 9, ConfState(voters=(1,), learners=(4,)), {}, 0
    )  # fmt: skip
    lone = [NodeFigures(m, True, m.id == 1, 1, 0, 0.0, 0.0) for m in (VOTERS[0], OBSERVER)]
    assert document("c", "id", NodeId(1), lone, [one], FACTOR, [])["under_replicated_shards"] == 0
