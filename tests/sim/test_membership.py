"""Nodes that are told to leave, and are taken back, under faults: replicas move all the time, and nothing is wrong.

What moves a replica is the goal that the members' rows give, so a node that is taken back before, while or after its
replicas went is as good as a new one, and harder: it may still hold what it held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from shardforge.cluster.members import ACTIVE
from shardforge.errors import DatabaseError
from shardforge.sim import run
from shardforge.sim.cluster import SimNode
from shardforge.sim.faults import KINDS, Faults
from shardforge.sim.workloads import WORKLOADS

MINUTES = 0.25
FIRST_SEED = 26
SEEDS = 20
"""Among them 40: a leader whose transfer came to nothing had no lease any more, and nobody served."""
PATIENCE_SECONDS = 3.0


async def drain(faults: Faults, node: SimNode, seconds: float) -> None:
    """Tell one node to leave, and take all back after a while."""
    for serving in faults._nodes:
        if serving.governing is not None:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await serving.governing.drain(node.id)
            except (DatabaseError, TimeoutError):
                return
    await asyncio.sleep(2 * seconds)
    await take_back(faults._nodes)


async def take_back(nodes: list[SimNode]) -> bool:
    """Have every node stay after all. Whether that is settled."""
    for serving in nodes:
        governing = serving.governing
        if governing is not None and serving.serves:
            leaving = [member for member in governing.members if member.state != ACTIVE]
            try:
                async with asyncio.timeout(PATIENCE_SECONDS), governing._changing:
                    await governing._put(*(replace(member, state=ACTIVE) for member in leaving))
            except (DatabaseError, TimeoutError):
                return False
            return True
    return False


async def compare_whole(simulation: run._Simulation) -> None:
    while not await take_back(simulation._nodes):  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(run.LOOK_SECONDS)
    await COMPARE(simulation)


COMPARE = run._Simulation._compare


@pytest.fixture(autouse=True)
def drains() -> Iterator[None]:
    with (
        patch.dict(KINDS, {"drain": drain}),
        patch.object(run._Simulation, "_compare", compare_whole),
    ):
        yield


def simulate(seed: int) -> run.Report:
    names = list(WORKLOADS)
    kinds = [*KINDS, "drain", "drain", "drain", "drain"]
    return run.simulate(
        seed, minutes=MINUTES, workload=names[seed % len(names)], faults=kinds, nodes=(5, 4, 7)[seed % 3]
    )  # fmt: skip


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, 5))
def test_replicas_may_always_move(first: int) -> None:
    for seed in range(first, first + 5):
        report = simulate(seed)
        assert not report.violations, report
