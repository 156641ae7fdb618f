"""Quorum and membership arithmetic against the definitions, written out."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from shardforge.raft import confchange, quorum
from shardforge.raft.confchange import (
    Change,
    ChangeKind,
    ConfChange,
    ConfChangeError,
    Configuration,
    Transition,
)
from shardforge.raft.quorum import VoteResult

nodes = st.integers(1, 7)
voters = st.sets(nodes, max_size=7)
indexes = st.dictionaries(nodes, st.integers(0, 9))
ballots = st.dictionaries(nodes, st.booleans())
changes = st.lists(st.builds(Change, st.sampled_from(ChangeKind), st.integers(0, 5)), max_size=4)


def majorities(group: set[int]) -> list[set[int]]:
    """Every set of voters that is more than half of the group; the empty group needs nobody."""
    smallest = len(group) // 2 + 1 if group else 0
    return [
        set(chosen)
        for size in range(smallest, len(group) + 1)
        for chosen in combinations(sorted(group), size)
    ]


@given(voters, indexes)
def test_an_index_is_committed_when_a_majority_has_it(
    group: set[int], known: dict[int, int]
) -> None:
    reached = [
        min((known.get(node, 0) for node in chosen), default=quorum.EVERYTHING)
        for chosen in majorities(group)
    ]
    assert quorum.majority_index(group, known) == max(reached)


@given(voters, voters, indexes)
def test_a_joint_index_is_on_a_majority_of_each_half(
    new: set[int], old: set[int], known: dict[int, int]
) -> None:
    index = quorum.joint_index(new, old, known)
    holders = {node for node in new | old if known.get(node, 0) >= index}
    above = {node for node in new | old if known.get(node, 0) >= index + 1}
    if index != quorum.EVERYTHING:
        assert all(any(chosen <= holders for chosen in majorities(half)) for half in (new, old))
        assert not all(any(chosen <= above for chosen in majorities(half)) for half in (new, old))


def ends(half: set[int], votes: dict[int, bool]) -> set[bool]:
    """Whether the half may say yes, over all that the missing votes could be."""
    sure = {node for node in half if votes.get(node) is True}
    possible = {node for node in half if votes.get(node) is not False}
    return {
        any(chosen <= supporters for chosen in majorities(half)) for supporters in (sure, possible)
    }


@given(voters, voters, ballots)
def test_a_vote_is_decided_when_the_missing_votes_cannot_change_it(
    new: set[int], old: set[int], votes: dict[int, bool]
) -> None:
    outcomes = [ends(half, votes) for half in (new, old)]
    if {False} in outcomes:
        expected = VoteResult.LOST
    elif outcomes == [{True}, {True}]:
        expected = VoteResult.WON
    else:
        expected = VoteResult.PENDING
    assert quorum.joint_vote(new, old, votes) is expected


def quorums(configuration: Configuration) -> list[set[int]]:
    return [
        new | old
        for new in majorities(set(configuration.incoming))
        for old in majorities(set(configuration.outgoing))
    ]


@given(st.lists(st.tuples(changes, st.sampled_from(Transition)), max_size=6))
def test_each_membership_overlaps_the_one_before(
    steps: list[tuple[list[Change], Transition]],
) -> None:
    present = Configuration(frozenset({1, 2, 3}))
    for parts, transition in steps:
        try:
            changed = confchange.apply(present, ConfChange(tuple(parts), transition))
        except ConfChangeError:
            continue
        assert confchange.restore(changed.conf_state()) == changed
        assert changed.incoming
        assert not changed.learners & changed.voters
        for before in quorums(present):
            for after in quorums(changed):
                assert before & after, "two quorums without a common voter"
        present = changed


@given(changes, st.sampled_from(Transition))
def test_a_change_survives_its_encoding(parts: list[Change], transition: Transition) -> None:
    change = ConfChange(tuple(parts), transition)
    assert confchange.decode_conf_change(confchange.encode_conf_change(change)) == change
