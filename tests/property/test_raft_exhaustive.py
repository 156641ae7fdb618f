"""Every schedule of small groups, and proof that the search would notice a core that breaks the rules.

SHARDFORGE_RAFT_WIDE=1 searches further: minutes for each scope, and gigabytes.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from shardforge.raft import core, election, quorum, replication
from shardforge.raft.confchange import Change, ChangeKind, ConfChange
from shardforge.raft.messages import Message, MessageKind
from shardforge.raft.state import Raft
from tests.property.raft_exhaustive import Scope, Search, explore

ALL = (1, 2, 3)
LEAVE_TO_FIRST = ConfChange((Change(ChangeKind.REMOVE, 2), Change(ChangeKind.REMOVE, 3)))
"""A joint membership in which node 1 alone is the incoming half."""
FIVE = Scope(voters=(1, 2, 3, 4, 5), interchangeable=(3, 4, 5))
LED = Scope(led=True, interchangeable=(2, 3))

ELECTIONS = Scope(interchangeable=ALL)
CHANGE = LED._replace(change=1, membership=LEAVE_TO_FIRST)
OLDER_ENTRY = Scope(led=True, campaign=3, propose=1, campaigners=(1, 2), entry_at_a_time=True)
SNAPSHOT = LED._replace(propose=1, compact=1, heartbeat=1)


class Case(NamedTuple):
    """A scope, one that goes further, and what must have happened in it for it to mean anything."""

    scope: Scope
    wide: Scope
    happens: frozenset[MessageKind]


def case(scope: Scope, wide: Scope, *happens: MessageKind) -> Case:
    return Case(scope, wide, frozenset(happens))


CASES = {
    "three elections": case(
        ELECTIONS._replace(campaign=3),
        ELECTIONS._replace(campaign=4),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "elections with messages of older terms": case(
        ELECTIONS._replace(campaign=2, keep_stale=True),
        ELECTIONS._replace(campaign=3, keep_stale=True),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "elections with pre-vote": case(
        ELECTIONS._replace(campaign=2, pre_vote=True, depth=13),
        ELECTIONS._replace(campaign=2, pre_vote=True),
        MessageKind.PRE_VOTE, MessageKind.APPEND,
    ),
    "an election with a crash": case(
        ELECTIONS._replace(campaign=1, crash=1),
        ELECTIONS._replace(campaign=2, crash=2),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "a new leader with a crash": case(
        LED._replace(campaign=1, propose=1, crash=1, depth=13),
        LED._replace(campaign=1, propose=1, crash=1),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "a new leader with a repeated message": case(
        LED._replace(campaign=1, propose=1, repeat=1, depth=15),
        LED._replace(campaign=1, propose=1, repeat=1),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "a new leader after a proposal": case(
        LED._replace(campaign=1, propose=1),
        LED._replace(campaign=2, propose=1),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "entries of older terms": case(
        OLDER_ENTRY._replace(depth=14),
        OLDER_ENTRY._replace(depth=18),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "a membership change": case(CHANGE, CHANGE._replace(propose=1), MessageKind.APPEND),
    "a membership change and a new leader": case(
        CHANGE._replace(campaign=1, depth=14),
        CHANGE._replace(campaign=2, depth=17),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "a transfer": case(
        LED._replace(transfer=1, propose=1),
        LED._replace(transfer=1, propose=1, campaign=1),
        MessageKind.TIMEOUT_NOW,
    ),
    "a transfer and an election": case(
        LED._replace(transfer=1, campaign=1),
        LED._replace(transfer=1, campaign=1, crash=1),
        MessageKind.TIMEOUT_NOW,
    ),
    "a snapshot": case(
        SNAPSHOT, SNAPSHOT._replace(campaign=1, depth=16), MessageKind.SNAPSHOT
    ),
    "five nodes": case(
        FIVE._replace(campaign=2, campaigners=(1, 2), depth=13),
        FIVE._replace(campaign=2, campaigners=(1, 2), depth=18),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
    "five nodes and another leader": case(
        FIVE._replace(led=True, campaign=1, campaigners=(2,)),
        FIVE._replace(led=True, campaign=1, campaigners=(2,), propose=1, depth=22),
        MessageKind.VOTE, MessageKind.APPEND,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_invariants_hold_in_every_state(name: str) -> None:
    chosen = CASES[name]
    search = explore(chosen.wide if os.environ.get("SHARDFORGE_RAFT_WIDE") else chosen.scope)
    assert chosen.happens <= search.kinds
    assert len(search.visited) > 1000


def test_interchangeable_nodes_make_one_state_of_many() -> None:
    alike = explore(Scope(campaign=1, interchangeable=ALL))
    apart = explore(Scope(campaign=1))
    assert alike.depth == apart.depth
    assert 2 * len(alike.visited) < len(apart.visited) <= 6 * len(alike.visited)


def acknowledge_at_once(raft: Raft, to: int, index: int, sent_at: int = 0) -> None:
    raft.messages.append(
        Message(MessageKind.APPEND_RESPONSE, to, raft.id, raft.term, index, sent_at=sent_at)
    )


def follow_older_terms(raft: Raft, message: Message) -> bool:
    """A core that settles nothing: messages of every term are handled as if they were of this one."""
    if message.term > raft.term:
        raft.become_follower(message.term, 0)
    return True


MUTANTS: dict[str, tuple[Scope, AbstractContextManager[Any]]] = {
    "votes twice in a term": (
        ELECTIONS._replace(campaign=2),
        patch.object(election, "can_vote", lambda _raft, _message: True),
    ),
    "votes for a log that lacks entries": (
        LED._replace(campaign=1, propose=1),
        patch("shardforge.raft.log.RaftLog.is_up_to_date", lambda *_: True),
    ),
    "acknowledges before it is durable": (
        LED._replace(propose=1, crash=1, campaign=1),
        patch.object(Raft, "respond_to_append", acknowledge_at_once),
    ),
    "counts an older term's entry": (
        OLDER_ENTRY,
        patch.object(replication, "counts_for_commit", lambda _raft, _index: True),
    ),
    "lets one half of a joint membership commit": (
        CHANGE._replace(campaign=1),
        patch.object(
            quorum, "joint_index", lambda new, _old, index: quorum.majority_index(new, index)
        ),
    ),
    "lets one half of a joint membership elect": (
        CHANGE._replace(campaign=2),
        patch.object(
            quorum, "joint_vote", lambda new, _old, votes: quorum.majority_vote(new, votes)
        ),
    ),
    "takes messages of older terms": (
        ELECTIONS._replace(campaign=2, keep_stale=True),
        patch.object(core, "_settle_term", follow_older_terms),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_core_that_breaks_a_rule_is_caught(name: str) -> None:
    scope, mutation = MUTANTS[name]
    with mutation, pytest.raises(AssertionError) as caught:
        Search(scope).run()
    assert any(":" in note for note in caught.value.__notes__)


def test_what_breaks_a_rule_is_told_with_the_way_to_it() -> None:
    scope, mutation = MUTANTS["votes twice in a term"]
    with mutation, pytest.raises(AssertionError, match="two leaders in term 2") as caught:
        explore(scope)
    assert caught.value.__notes__[0].endswith("campaign ")
