"""One shard's goal, its leader, its neighbours: each rule of placement by an example."""

from __future__ import annotations

from shardforge.cluster.goal import Goal, next_step
from shardforge.cluster.leaders import Transfer, transfers_of
from shardforge.cluster.liveness import Sight
from shardforge.cluster.members import ACTIVE, DRAINING, LEFT, Member
from shardforge.cluster.merging import Limits, Merge, mergeable, merges_of
from shardforge.cluster.placement import (
    Fault,
    Move,
    ShardState,
    View,
    faults_of,
    places,
    shard_goal,
)
from shardforge.cluster.plan import MOVE_SECONDS, History, Plan, Settings, plan_of
from shardforge.cluster.rebalance import MIB, Balance, due_shares
from shardforge.ids import NodeId, ShardId
from shardforge.raft.messages import ConfState

ZONES = {1: "zone=a", 2: "zone=b", 3: "zone=c", 4: "zone=a", 5: "zone=b", 6: "zone=c"}


def nodes(*ids: int) -> frozenset[NodeId]:
    return frozenset(NodeId(n) for n in ids)


def view(
    *ids: int,
    down: tuple[int, ...] = (),
    silent: tuple[int, ...] = (),
    draining: tuple[int, ...] = (),
    observers: tuple[int, ...] = (),
    localities: dict[int, str] | None = None,
    factor: int = 3,
) -> View:
    """Nodes 1 to 6 in three zones, unless it is said otherwise."""
    ids = ids or tuple(ZONES)
    members = [
        Member(
            NodeId(n), "", DRAINING if n in draining else ACTIVE, observer=n in observers,
            locality=(ZONES if localities is None else localities).get(n, ""),
        )
        for n in ids
    ]  # fmt: skip
    quiet = {*down, *silent}
    seen = Sight(nodes(*(set(ids) - quiet)), nodes(*quiet), nodes(*down))
    return View(members, seen, factor)


def shard(
    *voters: int, learners: tuple[int, ...] = (), leader: int = 0, mib: int = 10, load: float = 0.0,
    number: int = 1, outgoing: tuple[int, ...] = (),
) -> ShardState:  # fmt: skip
    members = ConfState(voters, outgoing, learners)
    return ShardState(ShardId(number), members, NodeId(leader or voters[0]), mib * MIB, load)


def goal(seen: View, of: ShardState, held: dict[int, int] | None = None, **more: Move) -> Goal:
    held_by = {NodeId(node): size for node, size in (held or {}).items()}
    return shard_goal(seen, of, held_by, **more)


def moved(source: int, target: int, number: int = 1) -> Move:
    return Move(ShardId(number), NodeId(source), NodeId(target))


# ---- where replicas belong -------------------------------------------------------------------------


def test_places_are_nested() -> None:
    assert places("zone=a, host=h1") == ("zone=a", "zone=a,host=h1")
    assert places("") == ()
    apart = {1: "zone=a,host=h1", 2: "zone=b,host=h1", 3: "zone=a,host=h2"}
    assert view(1, 2, 3, localities=apart).crowding(nodes(1, 2, 3)) == (1, 0)


def test_who_votes_goes_on_voting() -> None:
    assert goal(view(), shard(4, 5, 6), {4: 9, 5: 9, 6: 9}).voters == nodes(4, 5, 6)
    assert goal(view(), shard(1, 2, 3), {1: 9}) == Goal(nodes(1, 2, 3), nodes())


def test_a_lost_voter_is_replaced_where_it_stood_and_then_where_least_is_held() -> None:
    assert goal(view(down=(3,)), shard(1, 2, 3)).voters == nodes(1, 2, 6)
    assert goal(view(draining=(3,)), shard(1, 2, 3)).voters == nodes(1, 2, 6)
    bare = view(localities={}, down=(3,))
    assert goal(bare, shard(1, 2, 3), {4: 5, 5: 4, 6: 4}).voters == nodes(1, 2, 5)


def test_a_silent_node_keeps_its_vote_and_is_given_none() -> None:
    assert goal(view(silent=(3,)), shard(1, 2, 3)).voters == nodes(1, 2, 3)
    assert goal(view(down=(3,), silent=(6,)), shard(1, 2, 3)).voters == nodes(1, 2, 4)


def test_a_copy_that_was_begun_is_the_first_choice() -> None:
    bare = view(localities={}, down=(3,))
    assert goal(bare, shard(1, 2, 3, learners=(6,)), {6: 99}).voters == nodes(1, 2, 6)


def test_a_voter_that_is_down_keeps_its_vote_where_nobody_can_replace_it() -> None:
    assert goal(view(1, 2, 3, down=(3,)), shard(1, 2, 3)).voters == nodes(1, 2, 3)
    assert goal(view(1, 2, 3, draining=(3,)), shard(1, 2, 3)) == Goal(nodes(1), nodes(2))


def test_observers_learn_and_a_joint_configuration_goes_on_to_its_new_half() -> None:
    seen = view(observers=(6,))
    assert goal(seen, shard(1, 2, 3)) == Goal(nodes(1, 2, 3), nodes(6))
    joint = shard(1, 2, 6, outgoing=(1, 2, 3))
    assert goal(view(), joint).voters == nodes(1, 2, 6)


def test_too_many_voters_go_from_where_they_crowd() -> None:
    assert goal(view(), shard(1, 2, 3, 4, 5, leader=4)).voters == nodes(2, 3, 4)


def test_a_move_counts_only_while_nothing_is_missing() -> None:
    move = moved(1, 4)
    assert goal(view(), shard(1, 2, 3), move=move).voters == nodes(2, 3, 4)
    assert goal(view(down=(4,)), shard(1, 2, 3), move=move).voters == nodes(1, 2, 3)
    assert goal(view(down=(2,)), shard(1, 2, 3), move=move).voters == nodes(1, 3, 5)


def test_what_is_wrong_is_named() -> None:
    def wrong(seen: View, *voters: int) -> set[Fault]:
        return set(faults_of(seen, shard(*voters)))

    assert wrong(view(), 1, 2, 3) == set()
    assert wrong(view(), 1, 2, 4) == {Fault.CROWDED}
    assert wrong(view(), 1) == {Fault.TOO_FEW}
    assert wrong(view(), 1, 2, 3, 4, 5) == {Fault.TOO_MANY}
    assert wrong(view(draining=(3,)), 1, 2, 3) == {Fault.LEAVING}
    assert wrong(view(down=(3,)), 1, 2, 3) == {Fault.DOWN}
    assert wrong(view(1, 2, 3, down=(3,)), 1, 2, 3) == set(), "nobody can take its place"
    assert wrong(view(1, 2, 4), 1, 2, 4) == set(), "there are no other nodes"


def test_a_small_zone_is_due_more_on_each_node() -> None:
    even = due_shares(view())
    assert all(abs(share - 1 / 6) < 1e-6 for share in even.values())
    uneven = due_shares(view(1, 2, 3, 4, 5))
    assert [round(uneven[NodeId(n)], 3) for n in (1, 2, 3)] == [0.167, 0.167, 0.333]
    assert abs(sum(uneven.values()) - 1) < 1e-6


# ---- who leads -------------------------------------------------------------------------------------


def transfers(
    seen: View, *shards: ShardState, goals: dict[ShardId, Goal] | None = None, prefer: int = 0,
    resting: tuple[int, ...] = (), room: int = 9,
) -> list[Transfer]:  # fmt: skip
    return transfers_of(
        seen, shards, goals or {}, prefer=NodeId(prefer) if prefer else None, threshold=0.2,
        resting={ShardId(n) for n in resting}, room=room,
    )  # fmt: skip


def test_a_leader_that_is_to_go_hands_over_first() -> None:
    leaving = shard(1, 2, 3)
    goals = {leaving.id: Goal(nodes(2, 3, 4), nodes())}
    assert transfers(view(), leaving, goals=goals, resting=(1,), room=0) == [
        Transfer(leaving.id, NodeId(1), NodeId(2))
    ]
    assert transfers(view(silent=(2,)), leaving, goals=goals, prefer=3)[0].target == 3


def test_a_preferred_node_leads_what_it_votes_in() -> None:
    shards = shard(1, 2, 3), shard(4, 5, 6, number=2), shard(1, 2, 3, number=0)
    assert transfers(view(), *shards, prefer=2) == [Transfer(ShardId(1), NodeId(1), NodeId(2))]
    assert transfers(view(), *shards, prefer=2, resting=(1,)) == []
    [spread] = transfers(view(silent=(2,)), *shards, prefer=2)
    assert spread.target == 3, "as if nobody were preferred"


def test_load_is_spread_until_a_transfer_would_only_turn_it_round() -> None:
    busy = [shard(1, 2, 3, number=n, load=100.0) for n in (1, 2)]
    assert transfers(view(1, 2, 3), *busy) == [Transfer(ShardId(1), NodeId(1), NodeId(2))]
    assert transfers(view(1, 2, 3), busy[0]) == []
    assert transfers(view(1, 2, 3), *busy, room=0) == []


# ---- neighbours ------------------------------------------------------------------------------------


def test_small_neighbours_become_one_wherever_they_are() -> None:
    left, right = shard(1, 2, 3, mib=3), shard(1, 5, 6, mib=4, number=2)
    assert mergeable(left, right, Limits(64 * MIB)) == Merge(left.id, right.id)
    assert mergeable(left, right, Limits(28 * MIB)) is None, "a quarter is not small"
    assert mergeable(left, right, Limits(64 * MIB), {right.id}) is None, "it moves"
    assert mergeable(shard(1, 2, 3, number=0), right, Limits(640 * MIB)) is None, "the meta shard"
    assert mergeable(left, shard(1, 2, 3, outgoing=(1, 2, 4), number=2), Limits(640 * MIB)) is None
    assert mergeable(left, right, Limits(64 * MIB, copied=4 * MIB - 1)) is None, "much to copy"
    assert mergeable(left, right, Limits(64 * MIB), sticky={right.id}) is None, "split by hand"
    assert mergeable(left, right, Limits(64 * MIB), sticky={left.id}) is not None, (
        "at its other end"
    )
    asked = [shard(1, 2, 3, mib=1, number=n, load=30.0) for n in (1, 2)]
    assert mergeable(*asked, Limits(64 * MIB, load=121.0)) is not None
    assert mergeable(*asked, Limits(64 * MIB, load=120.0)) is None, "half of what splits one"
    assert mergeable(*asked, Limits(64 * MIB)) is not None, "any load"


def test_a_shard_is_in_one_merge_and_some_shards_stay() -> None:
    four = [shard(1, 2, 3, mib=1, number=n) for n in (1, 2, 3, 4)]
    pairs = [(m.left, m.right) for m in merges_of(four, Limits(64 * MIB), (), 1)]
    assert pairs == [(1, 2), (3, 4)]
    apart = merges_of(four, Limits(64 * MIB), (), 1, sticky={ShardId(2)})
    assert [(m.left, m.right) for m in apart] == [(2, 3)]
    assert len(merges_of(four, Limits(64 * MIB), (), 3)) == 1
    assert merges_of(four, Limits(64 * MIB), (), 4) == []


# ---- rounds ----------------------------------------------------------------------------------------


def planned(seen: View, shards: list[ShardState], history: History, now: float = 0.0) -> Plan:
    return plan_of(seen, shards, history, Settings(Balance(0.2), moves_max=2), now)


def test_repairs_come_before_moves_and_the_worst_off_first() -> None:
    hurt = [shard(1, 2, 3, number=n) for n in (1, 2, 3)]
    worst = shard(2, 3, 4, number=4)
    plan = planned(view(down=(3, 4)), [*hurt, worst], History())
    assert sorted(plan.goals) == [1, 4]
    assert plan.moves == []


def test_a_move_is_carried_on_until_it_has_ended_and_then_the_shard_rests() -> None:
    history = History(rest_seconds=10)
    history.begin([moved(1, 4)], 0.0)
    plan = planned(view(), [shard(1, 2, 3)], history)
    wanted = plan.goals[ShardId(1)]
    assert wanted.voters == nodes(2, 3, 4)
    assert plan.transfers == [Transfer(ShardId(1), NodeId(1), NodeId(2))]
    assert next_step(ConfState((1, 2, 3)), wanted, (), {}, 9, nodes(1, 2, 3, 4)) is not None
    plan = planned(view(), [shard(2, 3, 4, leader=2)], history, 1.0)
    assert not plan.goals
    assert not history.under_way
    assert history.resting() == {1}
    planned(view(), [shard(2, 3, 4)], history, 12.0)
    assert history.resting() == set()


def test_a_move_is_given_up_when_its_target_is_lost_or_it_takes_too_long() -> None:
    for seen, now in ((view(down=(4,)), 1.0), (view(), MOVE_SECONDS + 1)):
        history = History()
        history.begin([moved(1, 4)], 0.0)
        plan = planned(seen, [shard(1, 2, 3, learners=(4,))], history, now)
        assert not history.under_way
        assert plan.goals[ShardId(1)] == Goal(nodes(1, 2, 3), nodes()), "the copy goes"


def test_a_move_goes_on_when_nothing_is_known_of_its_shard_for_a_moment() -> None:
    history = History()
    history.begin([moved(1, 4)], 0.0)
    planned(view(), [shard(1, 2, 3, number=2)], history, 1.0)
    history.keep([ShardId(1), ShardId(2)])
    plan = planned(view(), [shard(1, 2, 3, learners=(4,))], history, 2.0)
    assert plan.goals[ShardId(1)].voters == nodes(2, 3, 4)


def test_a_shard_that_is_gone_is_forgotten_and_members_that_left_count_for_nothing() -> None:
    history = History()
    history.begin([moved(1, 4)], 0.0)
    history.keep([ShardId(2)])
    assert not history.under_way
    left = Member(NodeId(9), "", LEFT, locality="zone=z")
    assert NodeId(9) not in View([left], Sight(nodes(9)), 3).able
