"""Nesting: deep statements run, deeper ones fail with 54001, and neither takes exponential time."""

from __future__ import annotations

import asyncio

import pytest

from shardforge.errors import DatabaseError
from tests.inprocess import run, running_node, session_of

SHAPES = {
    "parentheses": ("(", "1", ")"),
    "arithmetic": ("(1+", "1", ")"),
    "not": ("not ", "true", ""),
    "case": ("case when true then ", "1", " end"),
    "calls": ("abs(", "1", ")"),
    "scalar subqueries": ("(select ", "1", ")"),
    "exists": ("exists (select 1 where ", "true", ")"),
    "coalesce": ("coalesce(null, ", "1", ")"),
    "from": ("(select * from (values (1)) v where 1 = ", "1", ")"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_nesting_is_answered_or_refused(shape: str) -> None:
    before, inside, after = SHAPES[shape]

    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            for depth in (40, 3_000):
                try:
                    rows = await run(session, f"SELECT {before * depth}{inside}{after * depth}")
                    assert len(rows) == 1
                except DatabaseError as error:
                    refused = error.sqlstate
                else:
                    refused = ""
                assert refused in ("", "54001", "42601")  # the grammar's own stack ends at 10,000
                assert depth > 40 or not refused
            assert await run(session, "SELECT 1") == [(1,)]

    asyncio.run(main())


def test_a_record_s_text_is_bounded() -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            with pytest.raises(DatabaseError) as failed:
                await run(session, f"SELECT length(({'row(' * 60}1{')' * 60})::text)")
            assert failed.value.sqlstate == "54000"

    asyncio.run(main())
