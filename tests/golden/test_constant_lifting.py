"""Every golden statement gives the same with its literals lifted as without: rows, columns, errors and their positions.

A plan cache of size 0 lifts nothing. With one, other literals of the same template are prepared first, so that the
statement itself runs by the plan that they left, if that takes it.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardforge.errors import DatabaseError
from shardforge.ports import Clock
from shardforge.sql.session.session import Session
from tests.inprocess import MEMORY, run_text, running_node, session_of

GOLDEN = Path(__file__).parent
WITHOUT = replace(MEMORY, sql=replace(MEMORY.sql, statement_cache_size=0))


def _json_lines(path: str) -> list[str]:
    return [json.loads(line)["sql"] for line in (GOLDEN / path).read_text("utf-8").splitlines()]


def _scripts() -> dict[str, list[str]]:
    names = ["execute/changes", "execute/joins", "execute/queries", "execute/sharding"]
    found = {name: _json_lines(f"{name}.jsonl") for name in names}
    found["pg-probes"] = _json_lines("pg-probes.jsonl")
    bind = (GOLDEN / "bind/schema.sql").read_text("utf-8").splitlines()
    bind += (GOLDEN / "bind/statements.sql").read_text("utf-8").splitlines()
    bind += _json_lines("bind/answers.jsonl")
    found["bind"] = [sql for sql in bind if "$" not in sql]
    return found


SCRIPTS = _scripts()
LIFTED_MIN = {"execute/queries": 50, "execute/changes": 60, "pg-probes": 60, "bind": 100}


def _same(sql: str) -> str:
    return sql


def _other_numbers(sql: str) -> str:
    """Numbers outside of words and strings, one higher in their last digit (9 becomes 8)."""
    pieces = re.split(r"('(?:[^']|'')*')", sql)
    pieces[::2] = [
        re.sub(r"(?<![\w$\"])(\d*\.?\d+)(?![\w\"])", _next, piece) for piece in pieces[::2]
    ]
    return "".join(pieces)


def _next(match: re.Match[str]) -> str:
    digits = match[0]
    return digits[:-1] + ("8" if digits[-1] == "9" else str(int(digits[-1]) + 1))


def _other_strings(sql: str) -> str:
    """Strings with another digit or letter in them, most of them still of their type."""
    return re.sub(r"'((?:[^']|'')*)'", lambda found: f"'{_changed(found[1])}'", sql)


def _changed(text: str) -> str:
    if any(c.isdigit() for c in text):
        return text.replace("2", "1").replace("3", "2")
    return text.replace("a", "b").replace("x", "y")


def _long_strings(sql: str) -> str:
    return re.sub(r"'((?:[^']|'')*)'", r"'\1\1'", sql)


CHANGES = (_same, _other_numbers, _other_strings, _long_strings)


class _Stopped:
    """A clock at which it is always the same time of day, so that two nodes agree on now()."""

    def __init__(self, clock: Clock) -> None:
        self.monotonic_ns = clock.monotonic_ns
        self.sleep = clock.sleep

    def wall_us(self) -> int:
        """Some day in 2025."""
        return 1_750_000_000_123_456


async def _outcome(session: Session, sql: str) -> Any:
    try:
        rows, types = await run_text(session, sql)
        prepared = session.prepare(sql)
        names = [c.name for c in prepared.columns or ()] if prepared is not None else []
        return sorted(rows, key=repr), types, names
    except DatabaseError as error:
        return (
            error.sqlstate, error.message, error.detail, error.hint, error.position, error.table,
            error.constraint, error.column, error.datatype,
        )  # fmt: skip


async def _outcomes(
    statements: list[str], change: Callable[[str], str] | None
) -> tuple[list[Any], int]:
    """What statements give, and how many ran with lifted literals."""
    found, lifted = [], 0
    async with running_node(WITHOUT if change is None else MEMORY) as node:
        assert node.instance is not None, "running"
        node.instance.clock = _Stopped(node.instance.clock)
        node.instance.random = random.Random(1)
        session = session_of(node)
        for sql in statements:
            if change is not None:
                try:
                    session.prepare(change(sql))
                    known = session.prepare(sql)
                    lifted += known is not None and known.constants is not None
                except DatabaseError:
                    pass  # It fails again below.
            found.append(await _outcome(session, sql))
        await session.close()
    return found, lifted


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", SCRIPTS)
def test_lifting_changes_nothing(name: str, change: Callable[[str], str]) -> None:
    statements = SCRIPTS[name]
    expected, _ = asyncio.run(_outcomes(statements, None))
    got, lifted = asyncio.run(_outcomes(statements, change))
    wrong = [
        f"{sql}\n  without {one}\n  with    {other}"
        for sql, one, other in zip(statements, expected, got, strict=True)
        if one != other
    ]
    assert not wrong, "\n".join(wrong)
    assert lifted >= LIFTED_MIN.get(name, 1)
