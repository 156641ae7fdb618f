"""Simulated clusters whose tables are written anew beside writers, and a build that would lose by it."""

from __future__ import annotations

from typing import Any

import pytest

from shardforge.sim import workloads
from shardforge.sim.run import Report, simulate
from shardforge.sql.ddl import alter_table, catchup, rewrite

MINUTES = 0.25
REWRITES = (
    "ALTER TABLE items ALTER n TYPE bigint",
    "ALTER TABLE items ALTER n TYPE int",
    "ALTER TABLE items SET (sharding = 'range')",
    "ALTER TABLE items SET (shard_key = 'id')",
    "ALTER TABLE items RESET (shard_key, sharding)",
    "ALTER TABLE items ADD COLUMN IF NOT EXISTS drawn float DEFAULT random()",
    "ALTER TABLE items DROP COLUMN IF EXISTS drawn",
    "CREATE INDEX IF NOT EXISTS items_n ON items (n)",
)


@pytest.fixture(autouse=True)
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changes each round of each rewriting applied."""
    applied: list[int] = []
    catch_up = rewrite.catch_up

    async def counted(*of: Any) -> int:
        applied.append(await catch_up(*of))
        return applied[-1]

    monkeypatch.setattr(rewrite, "catch_up", counted)
    monkeypatch.setattr(alter_table, "ROWS_UNDER_THE_LOCK", 0)
    monkeypatch.setattr(workloads, "SCHEMA_CHANGES", REWRITES)
    return applied


def run(seed: int, **more: Any) -> Report:
    return simulate(seed, minutes=MINUTES, workload="ddl", nodes=(3, 5)[seed % 2], **more)


@pytest.mark.parametrize("seed", range(500, 505))
def test_tables_are_written_anew_under_any_fault(seed: int, rounds: list[int]) -> None:
    report = run(seed)
    assert not report.violations, report
    assert rounds


@pytest.mark.parametrize("seed", range(510, 513))
def test_shards_move_and_split_meanwhile(seed: int, rounds: list[int]) -> None:
    report = run(seed, faults=("move", "split"), streaming=seed == 512)
    assert not report.violations, report
    assert sum(rounds)


def test_changes_that_are_not_applied_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*of: Any) -> None:
        """What a build would do that copies and does not catch up."""

    monkeypatch.setattr(catchup, "_apply", nothing)
    assert any(run(seed, faults=("move",)).violations for seed in range(510, 513))
