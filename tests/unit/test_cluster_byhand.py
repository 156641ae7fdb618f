"""Moves and scattering by hand: what is refused and why, and how even shards are afterwards."""

from __future__ import annotations

import pytest

from shardforge.cluster.byhand import check_move, scattering
from shardforge.cluster.leaders import Transfer
from shardforge.cluster.placement import Move, ShardState
from shardforge.errors import DatabaseError
from shardforge.ids import META_SHARD, NodeId, ShardId
from tests.unit.test_cluster_placement import moved, shard, view

FLAT: dict[int, str] = {}
SERVING = NodeId(1)


def refused(seen, of: ShardState, move: Move, busy: tuple[int, ...] = ()) -> tuple[str, str]:
    with pytest.raises(DatabaseError) as caught:
        check_move(seen, of, move, SERVING, [ShardId(number) for number in busy])
    return caught.value.sqlstate, caught.value.message


def test_a_move_that_nothing_speaks_against_is_let_pass() -> None:
    seen = view(1, 2, 3, 4, localities=FLAT)
    check_move(seen, shard(1, 2, 3), moved(1, 4), SERVING, ())
    check_move(seen, shard(1, 2, 3, number=META_SHARD), moved(2, 4, META_SHARD), SERVING, ())
    check_move(view(), shard(1, 2, 3), moved(1, 4), SERVING, ())  # the same zone


@pytest.mark.parametrize(
    ("of", "move", "sqlstate", "message"),
    [
        (shard(1, 2, 3), moved(1, 9), "42704", "there is no node 9 in the cluster"),
        (shard(1, 2, 3), moved(4, 5), "42704", "node 4 has no vote in shard 1"),
        (shard(1, 2, 3), moved(1, 2), "42710", "node 2 has a replica of shard 1 already"),
        (shard(1, 2, 3), moved(2, 2), "42710", "node 2 has a replica of shard 1 already"),
        (shard(1, 2, 3, learners=(4,)), moved(1, 4), "42710", "node 4 has a replica of shard 1 already"),
        (shard(1, 2, 3, outgoing=(1, 2)), moved(1, 4), "55006", "the members of shard 1 are changing, or too few"),
        (shard(1, 2), moved(1, 4), "55006", "the members of shard 1 are changing, or too few"),
        (
            shard(1, 2, 3, number=META_SHARD),
            moved(1, 4, META_SHARD),
            "55000",
            "node 1 serves, so the meta shard stays on it",
        ),
        (shard(1, 2, 3), moved(1, 5), "55000", "shard 1 would have more voters in one place than it has now"),
    ],
)  # fmt: skip
def test_what_is_refused(of: ShardState, move: Move, sqlstate: str, message: str) -> None:
    assert refused(view(), of, move) == (sqlstate, message)


def test_nodes_that_are_not_to_vote_or_do_not_answer_are_refused() -> None:
    of = shard(1, 2, 3)
    no_voters = ("55000", "node 4 is not to hold replicas that vote")
    assert refused(view(1, 2, 3, 4, draining=(4,)), of, moved(1, 4)) == no_voters
    assert (
        refused(view(1, 2, 3, 4, observers=(4,)), shard(1, 2, 3, learners=()), moved(1, 4))[0]
        == "55006"
    )
    assert refused(view(1, 2, 3, 4, silent=(4,)), of, moved(1, 4)) == (
        "55000",
        "node 4 does not answer",
    )
    assert refused(view(1, 2, 3, 4, silent=(2,)), of, moved(1, 4)) == (
        "55000",
        "node 2 does not answer",
    )
    assert refused(view(1, 2, 3, 4), of, moved(1, 4), busy=(1,))[0] == "55006"


def after(shards: list[ShardState], moves: list[Move]) -> list[ShardState]:
    """The shards when the moves have ended."""
    moving = {move.shard: move for move in moves}
    found = []
    for one in shards:
        voters = {NodeId(node) for node in one.members.voters}
        if one.id in moving:
            voters = voters - {moving[one.id].source} | {moving[one.id].target}
        assert len(voters) == 3
        found.append(shard(*sorted(voters), number=one.id))
    return found


def test_scattering_again_until_nothing_moves_makes_bytes_even_to_a_shard() -> None:
    seen = view(1, 2, 3, 4, 5, localities=FLAT)
    shards = [shard(1, 2, 3, number=number) for number in range(1, 9)]
    passes = 0
    while found := scattering(seen, shards, {}, SERVING).moves:
        assert len({move.shard for move in found}) == len(found), "one a shard"
        shards = after(shards, found)
        passes += 1
    assert 0 < passes <= 3
    counts = [sum(node in one.members.voters for one in shards) for node in range(1, 6)]
    assert sorted(counts) == [4, 5, 5, 5, 5]


def test_scattering_counts_what_moves_already_and_leaves_it_alone() -> None:
    shards = [shard(1, 2, 3, number=number) for number in range(1, 5)]
    under_way = {ShardId(1): moved(1, 4, 1), ShardId(2): moved(2, 4, 2)}
    found = scattering(view(1, 2, 3, 4, localities=FLAT), shards, under_way, SERVING)
    assert [move.shard for move in found.moves] == [3]
    assert found.moves[0].source == 3


def test_scattering_leaves_the_meta_shard_and_keeps_zones_apart() -> None:
    shards = [shard(1, 2, 3, number=number) for number in range(7)]
    found = scattering(view(), shards, {}, SERVING)
    assert META_SHARD not in {move.shard for move in found.moves}
    zones = {1: 4, 2: 5, 3: 6}
    assert found.moves
    assert all(zones[move.source] == move.target for move in found.moves)


def test_scattering_hands_over_leaderships_whatever_the_threshold() -> None:
    seen = view(1, 2, 3, 4, localities=FLAT)
    shards = [
        shard(2, 3, 4, leader=leader, mib=0, number=number)
        for number, leader in ((1, 2), (2, 2), (3, 3), (4, 2))
    ]
    shards.append(shard(1, 2, 3, leader=3, mib=0, number=5))
    found = scattering(seen, shards, {}, SERVING)
    assert found.transfers[0] == Transfer(ShardId(5), NodeId(3), SERVING)
    assert [(t.source, t.target) for t in found.transfers[1:]] == [(2, 4)]
