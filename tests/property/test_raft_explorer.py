"""Seeded exploration of whole groups, and proof that it would notice a core that breaks the rules.

SHARDFORGE_RAFT_SEEDS sets how many schedules are tried (default 300), from SHARDFORGE_RAFT_FIRST_SEED on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest

from shardforge.raft import election, quorum, replication
from shardforge.raft.messages import Message, MessageKind
from shardforge.raft.state import Raft
from tests.property.raft_explorer import explore

SEEDS = int(os.environ.get("SHARDFORGE_RAFT_SEEDS", "300"))
FIRST_SEED = int(os.environ.get("SHARDFORGE_RAFT_FIRST_SEED", "0"))
BATCH = 50
HOSTILE = {"faults": 2, "lease": False}


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, BATCH))
def test_the_invariants_hold(first: int) -> None:
    for seed in range(first, min(first + BATCH, FIRST_SEED + SEEDS)):
        try:
            explore(seed, 2000)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def test_a_seed_names_one_schedule() -> None:
    first, second = explore(7, 1500), explore(7, 1500)
    assert first.chosen == second.chosen
    assert first.chosen_last > 20
    assert first.leaders == second.leaders


def acknowledge_at_once(raft: Raft, to: int, index: int, sent_at: int = 0) -> None:
    raft.messages.append(
        Message(MessageKind.APPEND_RESPONSE, to, raft.id, raft.term, index, sent_at=sent_at)
    )


MUTANTS: dict[str, tuple[int, Mapping[str, Any], AbstractContextManager[Any]]] = {
    "counts an older term's entry": (
        70,
        {
            **HOSTILE,
            "pre_vote": False,
            "check_quorum": False,
            "message_bytes_max": 1,
            "voters": (1, 2, 3, 4, 5),
        }
        | {"churn": 0},
        patch.object(replication, "counts_for_commit", lambda _raft, _index: True),
    ),
    "acknowledges before it is durable": (
        0,
        HOSTILE,
        patch.object(Raft, "respond_to_append", acknowledge_at_once),
    ),
    "votes twice in a term": (
        0,
        HOSTILE,
        patch.object(election, "can_vote", lambda _raft, _message: True),
    ),
    "lets one half of a joint membership commit": (
        40,
        {**HOSTILE, "churn": 8},
        patch.object(
            quorum, "joint_index", lambda new, _old, index: quorum.majority_index(new, index)
        ),
    ),
    "lets one half of a joint membership elect": (
        130,
        {**HOSTILE, "churn": 8},
        patch.object(
            quorum, "joint_vote", lambda new, _old, votes: quorum.majority_vote(new, votes)
        ),
    ),
    "forgets what it promised a leader": (
        190,
        {"faults": 2, "lease": True, "churn": 0, "haste": 2, "pre_vote": False},
        patch.object(Raft, "promised", new_callable=PropertyMock, return_value=False),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_core_that_breaks_a_rule_is_caught(name: str) -> None:
    first, fixed, mutation = MUTANTS[name]
    with mutation, pytest.raises(AssertionError):
        hunt(first, fixed)


def hunt(first: int, fixed: Mapping[str, Any]) -> None:
    for seed in range(first, first + 400):
        explore(seed, 3000, heal=False, fixed=fixed)
