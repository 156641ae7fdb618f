"""The cluster's tables on a terminal of 80 columns."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from shardforge.cli import cluster_tables

FOUND: dict[str, Any] = {
    "nodes": [
        {"id": 12, "address": "192.168.100.100:5432", "state": "leaving", "observer": True, "alive": True,
         "serving": False, "replicas": 12, "leaders": 10, "silent_seconds": 12.5},
    ],
    "shards": [
        {"id": 12, "leader": 12, "voters": [10, 11, 12], "learners": [7], "lag": {"1": 12345}, "term": 123,
         "applied": 123456789, "bytes": 12_345_678_901, "replicated": True},
    ],
}  # fmt: skip


def shown(table: Table) -> list[list[str]]:
    out = StringIO()
    Console(width=80, file=out).print(table)
    lines = out.getvalue().splitlines()
    return [line.split() for line in lines if line.strip() and "─" not in line]


@pytest.mark.parametrize("kind", ["nodes", "shards"])
def test_a_line_is_a_line_and_nothing_is_cut_off(kind: str) -> None:
    header, row = shown(getattr(cluster_tables, kind)(FOUND))
    cells = {
        "nodes": "12 192.168.100.100:5432 leaving never yes no 12 10 12.5 s",
        "shards": "12 12 10,11,12 7 123 123456789 12345 12345.7 yes",
    }
    assert row == cells[kind].split()
    assert "…" not in "".join(header)
