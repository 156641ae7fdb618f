"""The government of a tenure under faults, as nodes run it: a mistake in it is reported, and ends with the tenure.

A build whose government outlived its tenure once hung real nodes, and no simulation could tell: it ran a copy.
"""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from shardforge.node.government import Government
from shardforge.node.splitting import Splitting
from shardforge.sim.run import Report, simulate

SEEDS = range(3)
FAULTS = ("crash", "partition", "pause")


def report_of(seed: int) -> Report:
    """A run in which one member of the government fails in the moment that it is cancelled, once."""
    failed: list[Splitting] = []

    async def failing(watch: Splitting) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if not failed:
                failed.append(watch)
                raise RuntimeError("a mistake")

    with patch.object(Splitting, "run", failing):
        report = simulate(seed, minutes=0.25, faults=FAULTS, workload="counter")
    assert failed
    return report


@pytest.mark.parametrize("seed", SEEDS)
def test_a_government_that_fails_while_it_is_ended_is_reported_and_ends(seed: int) -> None:
    [violation] = report_of(seed).violations
    assert violation.startswith("the government of the cluster ended")
    assert "a mistake" in violation


async def _cancel_only(government: Government) -> None:
    assert government._task is not None
    government._task.cancel()
    await asyncio.gather(government._task, return_exceptions=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_government_that_outlives_its_tenure_is_noticed(seed: int) -> None:
    with patch.object(Government, "stop", _cancel_only):
        violations = report_of(seed).violations
    assert any("did not end: a node does not stop" in what for what in violations), violations
