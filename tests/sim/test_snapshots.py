"""Snapshots cut off in the midst of their transfer: nothing is wrong, and a build that installs half is noticed.

SHARDFORGE_SIM_SEEDS sets how many runs there are.
"""

from __future__ import annotations

import os
from unittest.mock import patch

import pytest

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId, ShardId
from shardforge.shard.fetch import Fetch
from shardforge.sim.run import Report, simulate
from shardforge.storage.engine import Engine

SEEDS = max(10, int(os.environ.get("SHARDFORGE_SIM_SEEDS", "200")) // 20)
BATCH = 10
WORKLOADS = ("once", "fed-bank", "append", "counter", "ddl")
FAULTS = ("snapshot", "snapshot", "broken-disk", "weather", "power")


def _simulate(seed: int) -> Report:
    return simulate(
        seed, minutes=0.25, workload=WORKLOADS[seed % 5], faults=FAULTS, nodes=(3, 5)[seed % 2]
    )


@pytest.mark.parametrize("first", range(300, 300 + SEEDS, BATCH))
def test_nothing_is_wrong_when_snapshots_are_cut_off(first: int) -> None:
    interruptions = 0
    for seed in range(first, first + BATCH):
        report = _simulate(seed)
        assert not report.violations, report
        interruptions += report.interruptions
    assert interruptions >= BATCH // 2


_pull = Fetch._pull


async def _pull_what_comes(
    fetch: Fetch, node: NodeId, shard: ShardId, pin: int, staged: Engine
) -> None:
    try:
        await _pull(fetch, node, shard, pin, staged)
    except DatabaseError:
        return  # taken for the whole


def test_a_build_that_installs_half_a_snapshot_is_noticed() -> None:
    with patch.object(Fetch, "_pull", _pull_what_comes):
        for seed in range(40):
            if simulate(seed, minutes=0.25, workload="counter", faults=("snapshot",)).violations:
                return
    pytest.fail("40 seeds found nothing wrong")
