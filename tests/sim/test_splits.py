"""Shards that split all the time, among every fault: nothing is wrong, and a build that splits wrongly is noticed.

SHARDFORGE_SIM_SEEDS sets how many runs there are.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

import pytest

from shardforge.shard.application import Application
from shardforge.shard.files import MemoryFiles, ShardFiles
from shardforge.shard.split import Division
from shardforge.sim.faults import KINDS
from shardforge.sim.run import Report, simulate
from shardforge.storage.engine import Engine
from shardforge.storage.memory import MemoryEngine
from shardforge.txn import splitting

SEEDS = int(os.environ.get("SHARDFORGE_SIM_SEEDS", "200")) * 3 // 10
FIRST_SEED = 200
BATCH = 10
MINUTES = 0.15
WORKLOADS = ("append", "bank", "register", "counter", "ddl")
FAULTS = (*KINDS, "split", "split", "split", "split")


def _simulate(seed: int) -> Report:
    return simulate(
        seed,
        minutes=MINUTES,
        workload=WORKLOADS[seed % 5],
        faults=FAULTS,
        nodes=(3, 5, 3)[seed % 3],
    )


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, BATCH))
def test_nothing_is_wrong_while_shards_split(first: int) -> None:
    splits = 0
    for seed in range(first, first + BATCH):
        report = _simulate(seed)
        assert not report.violations, report
        splits += report.splits
    assert splits > BATCH // 2


def test_a_node_that_misses_a_shard_leaves_leading_to_others() -> None:
    """Seed 116: it handed over again and again at one moment, and time stood still."""
    report = simulate(116, minutes=0.25, workload="bank", faults=FAULTS, nodes=3)
    assert not report.violations, report


_fork = MemoryFiles.fork


def _fork_what_was_flushed(
    files: MemoryFiles, division: Division, engine: Engine
) -> ShardFiles | None:
    assert isinstance(engine, MemoryEngine)
    return _fork(files, division, MemoryEngine(dict(engine._flushed)))


async def _drained_at_once(*_: object) -> None:
    return


MUTANTS: dict[str, tuple[str, list[AbstractContextManager[Any]]]] = {
    "commits under way are torn in two": (
        "append",
        [
            patch.object(splitting, "drained", _drained_at_once),
            patch.object(Application, "_holds", lambda *_: True),
        ],
    ),
    "a child from before its checkpoint": (
        "append",
        [patch.object(MemoryFiles, "fork", _fork_what_was_flushed)],
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_build_that_splits_wrongly_is_noticed(name: str) -> None:
    workload, patches = MUTANTS[name]
    with ExitStack() as stack:
        for broken in patches:
            stack.enter_context(broken)
        for seed in range(40):
            if simulate(seed, minutes=0.25, workload=workload, faults=("split",)).violations:
                return
    pytest.fail("40 seeds found nothing wrong")
