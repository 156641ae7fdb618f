"""UPDATE and DELETE of more rows than are kept: each changes once, as it was before the statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shardforge.sql.execute.context import BATCH_ROWS
from shardforge.sql.session.session import Session
from tests.inprocess import run, running_node, session_of

ROWS = 3 * BATCH_ROWS


def on_table(test: Callable[[Session, Session], Awaitable[None]]) -> None:
    async def work() -> None:
        async with running_node() as node:
            one, other = session_of(node), session_of(node)
            await run(one, "CREATE TABLE t (a int PRIMARY KEY, b int, c text)")
            await run(one, f"INSERT INTO t SELECT g, g, 'x' FROM generate_series(1, {ROWS}) g")
            await asyncio.wait_for(test(one, other), 60)

    asyncio.run(work())


def test_an_update_sees_what_was_before_it() -> None:
    async def test(one: Session, _: Session) -> None:
        await run(one, "UPDATE t SET b = (SELECT max(b) FROM t) + a, c = c || a % 2")
        assert await run(one, "SELECT min(b - a), max(b - a), count(*) FROM t") == [
            (ROWS, ROWS, ROWS)
        ]
        await run(one, "UPDATE t SET b = 0 WHERE b > (SELECT avg(b) FROM t) AND c = 'x1'")
        assert await run(one, "SELECT count(*) FROM t WHERE b = 0") == [(ROWS // 4,)]

    on_table(test)


def test_an_update_after_others_in_its_transaction() -> None:
    async def test(one: Session, other: Session) -> None:
        await run(one, "BEGIN")
        await run(one, "DELETE FROM t WHERE a % 3 = 0")
        await run(one, "INSERT INTO t VALUES (0, 0, 'new')")
        await run(one, "UPDATE t SET b = b + 1")
        await run(one, "UPDATE t SET b = b + 1 WHERE a % 2 = 0")
        assert await run(other, "SELECT count(*) FROM t WHERE a = b") == [(ROWS,)]
        await run(one, "COMMIT")
        left = ROWS - ROWS // 3 + 1
        assert await run(other, "SELECT count(*), sum(b - a) FROM t") == [
            (left, left + left // 2 + 1)
        ]

    on_table(test)


def test_rows_that_change_meanwhile_are_met_as_they_became() -> None:
    async def test(one: Session, other: Session) -> None:
        await run(other, "BEGIN")
        await run(other, f"UPDATE t SET b = -1 WHERE a = {ROWS}")
        await run(other, f"DELETE FROM t WHERE a = {ROWS - 1}")
        changing = asyncio.ensure_future(run(one, "UPDATE t SET b = b * 10"))
        store = one.instance.store
        while not store.locks.waiting:  # noqa: ASYNC110 - another task's
            await asyncio.sleep(0)
        await run(other, "COMMIT")
        await changing
        assert await run(other, "SELECT count(*) FROM t WHERE b = 10 * a") == [(ROWS - 2,)]
        assert await run(other, f"SELECT b FROM t WHERE a = {ROWS}") == [(-10,)]

    on_table(test)


def test_a_delete_takes_the_index_entries_with_it() -> None:
    async def test(one: Session, _: Session) -> None:
        await run(one, "CREATE UNIQUE INDEX ON t (b)")
        await run(one, "CREATE INDEX ON t (c)")
        await run(one, f"DELETE FROM t WHERE a > {BATCH_ROWS // 2}")
        assert await run(one, "SELECT count(*) FROM t WHERE c = 'x'") == [(BATCH_ROWS // 2,)]
        await run(
            one,
            f"INSERT INTO t SELECT g, g, 'y' FROM generate_series({BATCH_ROWS // 2 + 1}, {ROWS}) g",
        )
        assert await run(one, "SELECT count(*), count(DISTINCT b) FROM t") == [(ROWS, ROWS)]

    on_table(test)
