"""Scripts of statements with PostgreSQL 15's answers: rows as text, or SQLSTATE, message, detail, table, constraint.

Row order counts where a query orders. `WITH (sharding ...)` was left out when PostgreSQL was asked.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from shardforge.errors import DatabaseError
from tests.inprocess import run_text, running_node, session_of

FILES = sorted(Path(__file__).parent.glob("*.jsonl"))


async def _differences(lines: list[str]) -> list[str]:
    found = []
    async with running_node() as node:
        session = session_of(node)
        for line in lines:
            expected: dict[str, Any] = json.loads(line)
            sql = expected["sql"]
            got: dict[str, Any]
            try:
                rows, _ = await run_text(session, sql)
                got = {"rows": rows}
            except DatabaseError as error:
                got = {
                    "error": [
                        error.sqlstate, error.message, error.detail, error.table, error.constraint
                    ]
                }  # fmt: skip
            ordered = "order by" in sql.lower() and "returning" not in sql.lower()
            if "rows" in expected and "rows" in got and not ordered:
                expected["rows"].sort(key=repr)
                got["rows"].sort(key=repr)
            if got != {key: value for key, value in expected.items() if key != "sql"}:
                found.append(f"{sql}\n  expected {expected}\n  got      {got}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_statement_gives_what_postgresql_gives(path: Path) -> None:
    differences = asyncio.run(_differences(path.read_text().splitlines()))
    assert not differences, "\n".join(differences)
