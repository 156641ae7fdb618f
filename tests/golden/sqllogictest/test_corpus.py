"""A slice of SQLite's sqllogictest corpus through the whole stack, on the memory engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shardforge.errors import DatabaseError
from tests.golden.sqllogictest.runner import Report, run_file
from tests.inprocess import run_text, running_node, session_of

FILES = sorted(Path(__file__).parent.glob("*.test"))


async def _run(path: Path) -> Report:
    async with running_node() as node:
        session = session_of(node)

        async def execute(sql: str) -> list[list[str | None]]:
            rows, _ = await run_text(session, sql)
            return rows

        return await run_file(path, execute, DatabaseError)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_record_gives_what_postgresql_gives(path: Path) -> None:
    report = asyncio.run(_run(path))
    assert not report.failures, "\n\n".join(report.failures)
    assert report.passed > 50
