"""Simulated clusters whose shards live on nodes of their own and are led by any, and builds that would lose by it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import pytest

from shardforge.ids import ShardId
from shardforge.node import serving
from shardforge.node.splitting import Splitting
from shardforge.shard.application import Application
from shardforge.shard.command import Outcome, Run
from shardforge.shard.remote import load
from shardforge.shard.remote.service import Passes
from shardforge.shard.remote.stream import Stream
from shardforge.sim import cluster
from shardforge.sim.run import simulate
from shardforge.sql.sieve import terms
from shardforge.sql.sieve.reading import read_sieve

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
    reports = [simulate(seed, minutes=MINUTES, workload="bank", nodes=5) for seed in (2, 10)]
    assert not any(report.violations for report in reports), reports
    assert any(report.moves for report in reports), reports


def test_shards_that_are_asked_much_elsewhere_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SHARD_LOAD_MAX", 4)
    monkeypatch.setattr(load, "SAMPLE_MIN", 12)
    cut: list[ShardId] = []

    async def counted(watch: Splitting, *of: Any, **how: Any) -> ShardId:
        child = await split(watch, *of, **how)
        cut.append(child)
        return child

    split = Splitting._split
    monkeypatch.setattr(Splitting, "_split", counted)
    for seed in range(310, 316):
        workload, faults = ("bank", "append")[seed % 2], ("move", "one-way")
        report = simulate(seed, minutes=0.5, workload=workload, nodes=5, faults=faults)
        assert not report.violations, report
    assert len(cut) >= 3


def test_conditions_are_evaluated_where_shards_are_led(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's definition changes all the time, and what is read by an index is compared with what is sifted."""
    left_out = 0

    def counted(data: bytes) -> Passes:
        passes = read_sieve(data)

        def sifted(key: bytes, value: bytes) -> bool:
            nonlocal left_out
            passed = passes(key, value)
            left_out += not passed
            return passed

        return sifted

    monkeypatch.setattr(serving, "read_sieve", counted)
    report = simulate(320, minutes=MINUTES, workload="ddl", nodes=5, faults=("move", "split"))
    assert not report.violations, report
    assert left_out > 1_000


# ---- broken builds -----------------------------------------------------------------------------------


def _over_gaps(application: Application, command: Run) -> Outcome:
    application.number = max(application.number, command.first - 1)
    return _run(application, command)


def _from_one(stream: Stream, _number: int) -> None:
    _begin(stream, 0)


def _newest_layout_only(data: bytes) -> Passes:
    passes, newest = read_sieve(data), len(terms.decode(data).layouts) - 1
    return lambda key, value: passes(key, value) and int.from_bytes(value[:2], "little") == newest


_run = Application._run
_begin = Stream.begin

MUTANTS: dict[str, tuple[str, int, Sequence[str], AbstractContextManager[Any]]] = {
    "commands that pass over others": (
        "bank",
        5,
        MOVING,
        patch.dict("shardforge.shard.application._APPLY", {Run: _over_gaps}),
    ),
    "a shard that goes elsewhere again counts from one": (
        "bank",
        3,
        ("move", "split"),
        patch.object(Stream, "begin", _from_one),
    ),
    "a sieve that leaves out rows of older layouts": (
        "ddl",
        5,
        ("move", "split"),
        patch.object(serving, "read_sieve", _newest_layout_only),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_build_is_noticed(name: str) -> None:
    workload, nodes, faults, broken = MUTANTS[name]
    with broken:
        for seed in range(60):
            report = simulate(seed, minutes=MINUTES, workload=workload, nodes=nodes, faults=faults)
            if report.violations:
                return
    pytest.fail("60 seeds found nothing wrong")
