"""Simulated clusters whose shards live on nodes of their own and are led by any, and builds that would lose by it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import pytest

from shardforge.shard.command import Application, Outcome, Run
from shardforge.shard.replica import Replica
from shardforge.sim.run import simulate
from shardforge.txn import store

MINUTES = 0.25
MOVING = ("move", "split", "one-way", "partition", "weather", "crash")


@pytest.mark.parametrize("seed", range(300, 304))
def test_shards_that_move_lose_nothing(seed: int) -> None:
    workload = ("bank", "append", "counter", "register")[seed % 4]
    report = simulate(seed, minutes=MINUTES, workload=workload, nodes=5, faults=("move", "split"))
    assert not report.violations, report
    assert report.moves, report


def test_a_shard_moves_under_every_fault() -> None:
    # One node served twice in one term: commands of the second tenure counted as repeated.
    report = simulate(2, minutes=MINUTES, workload="bank", nodes=5)
    assert not report.violations, report
    assert report.moves, report


# ---- broken builds -----------------------------------------------------------------------------------


async def _term(meta: Replica) -> int:
    return meta.serving_term


def _over_gaps(application: Application, command: Run) -> Outcome:
    application.number = max(application.number, command.first - 1)
    return _run(application, command)


_run = Application._run

MUTANTS: dict[str, tuple[str, Sequence[str], AbstractContextManager[Any]]] = {
    "tenures numbered by the term": ("bank", MOVING, patch.object(store, "new_tenure", _term)),
    "commands that pass over others": (
        "bank",
        MOVING,
        patch.dict("shardforge.shard.command._APPLY", {Run: _over_gaps}),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_build_is_noticed(name: str) -> None:
    workload, faults, broken = MUTANTS[name]
    with broken:
        for seed in range(60):
            report = simulate(seed, minutes=MINUTES, workload=workload, nodes=5, faults=faults)
            if report.violations:
                return
    pytest.fail("60 seeds found nothing wrong")
