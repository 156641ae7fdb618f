"""pg_sleep and its kin: how long, how often, where in a statement, what interrupts it; and nextval, which waits too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from shardforge.node import Node
from shardforge.sql.functions.waiting import SLEEP_SECONDS_MAX
from shardforge.sql.session.session import Session
from tests.inprocess import failure, running_node, session_of
from tests.inprocess import run as run_sql
from tests.peers import run, until


class Timeless:
    """A clock whose time passes only in sleeps, which it notes."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic_ns(self) -> int:
        return int(sum(self.slept) * 1e9)

    def wall_us(self) -> int:
        return 1_700_000_000_000_000 + int(sum(self.slept) * 1e6)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.slept.append(round(seconds, 3))


def on_session(test: Callable[[Session, Timeless], Awaitable[None]]) -> None:
    async def body() -> None:
        async with running_node() as node:
            session, clock = session_of(node), Timeless()
            await run_sql(session, "CREATE TABLE t (a int)")
            await run_sql(session, "INSERT INTO t VALUES (1), (2), (3)")
            await run_sql(session, "CREATE TABLE k (id int PRIMARY KEY)")
            await run_sql(session, "INSERT INTO k VALUES (1)")
            session.context().eval.clock = clock
            await test(session, clock)
            await session.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("sql", "rows", "slept"),
    [
        ("SELECT pg_sleep(1.5)", [("",)], [1.5]),
        ("SELECT pg_sleep(0), pg_sleep(-1), pg_sleep('nan')", [("", "", "")], []),
        ("SELECT pg_sleep(NULL) IS NULL, pg_sleep(1) IS NULL", [(True, False)], [1]),
        ("SELECT pg_sleep(1), pg_sleep(2), pg_sleep(1)", [("", "", "")], [1, 2, 1]),
        ("SELECT pg_sleep(1500)", [("",)], [SLEEP_SECONDS_MAX, SLEEP_SECONDS_MAX, 300]),
        ("SELECT pg_sleep_for('1 minute 5 seconds')", [("",)], [65]),
        ("SELECT pg_sleep_until(clock_timestamp() + interval '9 s')", [("",)], [9]),
        ("SELECT pg_sleep_until('2020-01-01')", [("",)], []),
        ("SELECT a, pg_sleep(a) FROM t ORDER BY a", [(1, ""), (2, ""), (3, "")], [1, 2, 3]),
        ("SELECT a FROM t WHERE pg_sleep(a) IS NOT NULL AND a > 2", [(3,)], [3]),
        ("SELECT CASE WHEN a > 2 THEN pg_sleep(a) END FROM t ORDER BY a", [(None,), (None,), ("",)], [3]),
        ("SELECT 1 FROM pg_sleep(2)", [(1,)], [2]),
        ("SELECT (SELECT pg_sleep(2)), pg_sleep(1)", [("", "")], [2, 1]),
        ("VALUES (pg_sleep(1)), (pg_sleep(2))", [("",), ("",)], [1, 2]),
        ("UPDATE t SET a = 7 WHERE pg_sleep(a) IS NULL", [], [1, 2, 3]),
        ("SELECT id FROM k WHERE id = 1 AND pg_sleep(2) IS NOT NULL", [(1,)], [2]),
        ("UPDATE k SET id = 1 WHERE id = 1 AND pg_sleep(2) IS NOT NULL", [], [2]),
        ("DELETE FROM k WHERE id = 1 AND pg_sleep(2) IS NOT NULL", [], [2]),
        ("DELETE FROM t WHERE a = 1 RETURNING pg_sleep(4)", [("",)], [4]),
        ("SELECT generate_series(1, 2), pg_sleep(1)", [(1, ""), (2, "")], [1, 1]),
    ],
)  # fmt: skip
def test_each_sleep_of_a_statement_is_slept_once(
    sql: str, rows: list[tuple[object, ...]], slept: list[float]
) -> None:
    async def test(session: Session, clock: Timeless) -> None:
        assert await run_sql(session, sql) == rows
        assert sorted(clock.slept) == pytest.approx(sorted(slept), abs=0.01)

    on_session(test)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(pg_sleep(1)) FROM t",
        "SELECT count(*) FROM t GROUP BY a + nextval('s')",
        "SELECT 1 FROM t LIMIT nextval('s')",
        "SELECT 1 FROM t JOIN t AS u ON t.a = u.a + nextval('s')",
    ],
)
def test_where_nobody_can_wait_it_is_refused(sql: str) -> None:
    async def test(session: Session, clock: Timeless) -> None:
        await run_sql(session, "CREATE SEQUENCE s")
        error = await failure(session, sql)
        assert error.sqlstate == "0A000"
        assert error.hint
        assert not clock.slept

    on_session(test)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT * FROM nextval('s')", [(1,)]),
        ("SELECT count(*) FROM (SELECT a FROM t WHERE nextval('s') < 3) AS found", [(2,)]),
        ("SELECT generate_series(1, nextval('s') + 1)", [(1,), (2,)]),
        ("DELETE FROM t WHERE nextval('s') = 0", []),
    ],
)
def test_a_sequence_with_nothing_in_memory_is_waited_for(
    sql: str, rows: list[tuple[object, ...]]
) -> None:
    async def test(session: Session, _clock: Timeless) -> None:
        await run_sql(session, "CREATE SEQUENCE s")
        assert await run_sql(session, sql) == rows

    on_session(test)


async def connect(node: Node) -> asyncpg.Connection:
    host, port = node.address
    return await asyncpg.connect(host=host, port=port, user="shardforge", database="shardforge")


def test_others_go_on_and_it_is_interrupted() -> None:
    async def whole() -> None:
        async with running_node() as node:
            sleeper, other = await connect(node), await connect(node)
            assert node.server is not None
            connections = node.server.connections
            pid = await sleeper.fetchval("SELECT pg_backend_pid()")
            for sql in ("SELECT pg_sleep(1000)", "SELECT 1 FROM pg_sleep_for('1 hour')"):
                sleeping = asyncio.create_task(sleeper.fetch(sql))
                await until(
                    lambda: any(c.conversation and c.conversation.running for c in connections)
                )
                assert await other.fetchval("SELECT 6 * 7") == 42
                assert not sleeping.done()
                assert await other.fetchval("SELECT pg_cancel_backend($1)", pid)
                with pytest.raises(asyncpg.QueryCanceledError, match="user request"):
                    await sleeping
            await sleeper.execute("SET statement_timeout = 20")
            with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
                await sleeper.fetch("SELECT pg_sleep(1000)")
            await sleeper.execute("SET statement_timeout = 0")
            sleeping = asyncio.create_task(sleeper.fetch("SELECT pg_sleep(1000)"))
            await until(lambda: any(c.conversation and c.conversation.running for c in connections))
            assert await other.fetchval("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(asyncpg.PostgresError, match="administrator command"):
                await sleeping
            await other.close()

    run("uvloop", whole)
