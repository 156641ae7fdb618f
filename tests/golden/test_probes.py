"""PostgreSQL 15's own answers to 193 expressions: values, types and SQLSTATEs.

An answer is either PostgreSQL's, or a refusal with 0A000. A wrong answer fails, and so does a probe that used to be
answered and is not any more (`IDENTICAL_MIN` only grows).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from shardforge.errors import DatabaseError
from tests.inprocess import run_text, running_node, session_of

PROBES = Path(__file__).parent / "pg-probes.jsonl"
IDENTICAL_MIN = 120


async def answers() -> list[tuple[dict[str, Any], str]]:
    """Each probe with 'identical', 'refused', or what was wrong."""
    probes = [json.loads(line) for line in PROBES.read_text(encoding="utf-8").splitlines()]
    async with running_node() as node:
        session = session_of(node)
        results = [(probe, await verdict(session, probe)) for probe in probes]
        await session.close()
    return results


async def verdict(session: Any, probe: dict[str, Any]) -> str:
    """What our answer to one probe is worth."""
    try:
        rows, types = await run_text(session, probe["sql"])
    except DatabaseError as error:
        if error.sqlstate == probe.get("pg_error"):
            return "identical"
        if error.sqlstate == "0A000":
            return "refused"
        return f"raised {error.sqlstate} {error.message}"
    if "pg_error" in probe:
        return f"gave {rows} where PostgreSQL raises {probe['pg_error']}"
    if rows != probe["pg_result"]:
        return f"gave {rows}, PostgreSQL {probe['pg_result']}"
    if types != probe["pg_types"]:
        return f"has types {types}, PostgreSQL {probe['pg_types']}"
    return "identical"


def test_every_answer_is_postgresql_s_or_a_refusal() -> None:
    results = asyncio.run(answers())
    wrong = [
        f"{probe['sql']}: {what}" for probe, what in results if what not in ("identical", "refused")
    ]
    assert not wrong, "\n".join(wrong)
    assert sum(what == "identical" for _, what in results) >= IDENTICAL_MIN


if __name__ == "__main__":
    for found, outcome in asyncio.run(answers()):
        if outcome != "identical":
            print(f"{found['sql']}\n    {outcome}")
