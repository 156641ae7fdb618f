"""Shards that merge and split all the time, among every fault: nothing is wrong, and broken builds are noticed.

SHARDFORGE_SIM_SEEDS sets how many runs there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

import pytest

from shardforge.shard.command import Outcome, Seal
from shardforge.sim.faults import KINDS
from shardforge.sim.run import Report, simulate
from shardforge.txn import merging

SEEDS = int(os.environ.get("SHARDFORGE_SIM_SEEDS", "200")) * 2 // 10
FIRST_SEED = 200
BATCH = 10
MINUTES = 0.2
WORKLOADS = ("append", "bank", "register", "counter", "ddl")
MERGING = ("split", "split", "split", "merge", "merge", "merge", "merge")
FAULTS = (*KINDS, *MERGING)
MOVING = ("split", "merge", "move", "move")
DYING = ("crash", "pause", "partition", "weather", "move", *MERGING)

FOUND = [
    (107, "register", 3, MOVING),  # the id of a shard that was merged was given again
    (14, "ddl", 3, FAULTS),  # the same, and the cluster served no more
    (
        255,
        "append",
        3,
        FAULTS,
    ),  # a node kept a shard's replica because of another that had ended too
]
"""Seeds that found something, which is mended."""


def _simulate(seed: int, faults: Sequence[str]) -> Report:
    workload, nodes = WORKLOADS[seed % 5], (3, 5, 3)[seed % 3]
    return simulate(seed, minutes=MINUTES, workload=workload, faults=faults, nodes=nodes)


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, BATCH))
def test_nothing_is_wrong_while_shards_merge(first: int) -> None:
    merges = 0
    for seed in range(first, first + BATCH):
        report = _simulate(seed, DYING if seed % 2 else FAULTS)
        assert not report.violations, report
        merges += report.merges
    assert merges > BATCH // 2


@pytest.mark.parametrize(("seed", "workload", "nodes", "faults"), FOUND)
def test_what_was_found_stays_mended(
    seed: int, workload: str, nodes: int, faults: Sequence[str]
) -> None:
    report = simulate(seed, minutes=MINUTES, workload=workload, faults=faults, nodes=nodes)
    assert not report.violations, report


# ---- broken builds -----------------------------------------------------------------------------------


def _applied(*_: object) -> Outcome:
    return Outcome.APPLIED


async def _at_once(*_: object) -> None:
    return


COMMANDS = "shardforge.shard.application._APPLY"
# Each with the seed to begin with: about one run in thirty tells.
MUTANTS: dict[str, tuple[str, int, Sequence[str], list[AbstractContextManager[Any]]]] = {
    "commits under way go on while it is copied": (
        "append",
        48,
        ("split", "merge"),
        [patch.object(merging, "drained", _at_once), patch.dict(COMMANDS, {Seal: _applied})],
    ),
    "a version less is copied": (
        "bank",
        31,
        ("split", "merge"),
        [patch.object(merging, "chunks", lambda pairs: [pairs[:-1]])],
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_build_that_merges_wrongly_is_noticed(name: str) -> None:
    workload, first, faults, patches = MUTANTS[name]
    with ExitStack() as stack:
        for broken in patches:
            stack.enter_context(broken)
        for seed in range(first, first + 60):
            if simulate(seed, minutes=0.25, workload=workload, faults=faults).violations:
                return
    pytest.fail("60 seeds found nothing wrong")
