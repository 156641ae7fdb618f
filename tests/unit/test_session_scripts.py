"""Scripts of several statements: what a client is told about the one that fails."""

from __future__ import annotations

import asyncio

import pytest

from shardforge.errors import QueryError
from shardforge.sql.session.scripts import statements
from shardforge.sql.session.session import Session
from tests.inprocess import running_node, session_of


async def _run(session: Session, script: str) -> None:
    session.begin_statement(script)
    async for prepared in statements(session, script):
        await session.fetch_all(await session.run(prepared))


async def _position(script: str) -> int:
    async with running_node() as node:
        session = session_of(node)
        with pytest.raises(QueryError) as raised:
            await _run(session, script)
        await session.fail()
        return raised.value.position


@pytest.mark.parametrize(
    "script",
    [
        "SELECT nothing",
        "SELECT 1; SELECT nothing",
        "SELECT 'äöü';\n\n  SELECT 1 + nothing; SELECT 2",
        "SELECT 1; SELECT 2; INSERT INTO nothing VALUES (1)",
    ],
)
def test_an_error_position_counts_from_the_start_of_the_script(script: str) -> None:
    assert asyncio.run(_position(script)) == script.index("nothing") + 1
