"""IF NOT EXISTS beside a transaction that is taking the name: its outcome decides, and nobody gets an error."""

from __future__ import annotations

import asyncio

import pytest

from tests.inprocess import run, running_node, session_of

STATEMENTS = {
    "CREATE TABLE IF NOT EXISTS n (b int)": "SELECT * FROM n",
    "CREATE TABLE IF NOT EXISTS n AS SELECT 1 AS b": "SELECT * FROM n",
    "CREATE SEQUENCE IF NOT EXISTS n": "SELECT nextval('n')",
}


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_the_outcome_of_who_takes_the_name_is_waited_for(statement: str, end: str) -> None:
    async def test() -> None:
        async with running_node() as node:
            one, other = session_of(node), session_of(node)
            await run(one, "BEGIN")
            await run(one, "CREATE TABLE n (a int)")
            await run(one, "INSERT INTO n VALUES (7)")
            creating = asyncio.ensure_future(run(other, statement))
            while not one.instance.store.locks.waiting:  # noqa: ASYNC110 - another task's
                await asyncio.sleep(0)
            await run(one, end)
            await creating
            found = await run(other, "SELECT count(*) FROM pg_class WHERE relname = 'n'")
            assert found == [(1,)]
            if end == "COMMIT":
                assert await run(other, "SELECT a FROM n") == [(7,)]
            else:
                await run(other, STATEMENTS[statement])

    asyncio.run(test())
