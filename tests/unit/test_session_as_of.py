"""Reading the past: `shardforge.as_of_system_time`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.sql.session.session import Session
from tests.inprocess import run, running_node, session_of

Scenario = Callable[[Node, Session], Awaitable[None]]


def play(scenario: Scenario) -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE t (id int PRIMARY KEY, v int)")
            await run(session, "CREATE INDEX ON t (v)")
            await run(session, "INSERT INTO t VALUES (1, 10), (2, 20)")
            await scenario(node, session)

    asyncio.run(main())


async def now(session: Session) -> str:
    """A moment after what has been committed, and before what is committed later."""
    [(text,)] = await run(session, "SELECT clock_timestamp()::text")
    while True:
        [(later,)] = await run(
            session, "SELECT (clock_timestamp() > %s)".replace("%s", f"'{text}'")
        )
        if later:
            return str(text)


async def refusal(session: Session, sql: str) -> tuple[str, str]:
    with pytest.raises(DatabaseError) as failed:
        await run(session, sql)
    return failed.value.sqlstate, failed.value.message


def test_every_path_of_reading_sees_the_past() -> None:
    async def scenario(node: Node, session: Session) -> None:
        before = await now(session)
        await run(session, "UPDATE t SET v = v + 1")
        await run(session, "DELETE FROM t WHERE id = 2")
        await run(session, "INSERT INTO t VALUES (3, 30)")
        reads = {
            "SELECT v FROM t WHERE id = 1": ([(10,)], [(11,)]),
            "SELECT id FROM t WHERE v = 20": ([(2,)], []),
            "SELECT * FROM t ORDER BY id": ([(1, 10), (2, 20)], [(1, 11), (3, 30)]),
            "SELECT count(*) FROM t a JOIN t b USING (id)": ([(2,)], [(2,)]),
            "SELECT id FROM t ORDER BY v DESC LIMIT 1": ([(2,)], [(3,)]),
        }
        for sql, (past, present) in reads.items():
            assert await run(session, sql) == present
            await run(session, f"SET shardforge.as_of_system_time = '{before}'")
            assert await run(session, sql) == past, sql
            await run(session, "RESET shardforge.as_of_system_time")
            assert await run(session, sql) == present

    play(scenario)


def test_a_block_reads_one_moment_and_writes_nothing() -> None:
    async def scenario(node: Node, session: Session) -> None:
        before = await now(session)
        other = session_of(node)
        await run(session, "UPDATE t SET v = 0")
        await run(session, "BEGIN")
        await run(session, f"SET LOCAL shardforge.as_of_system_time = '{before}'")
        assert await run(session, "SELECT sum(v) FROM t") == [(30,)]
        await run(other, "UPDATE t SET v = 5")
        assert await run(session, "SELECT sum(v) FROM t") == [(30,)]
        await run(session, "COMMIT")
        assert await run(session, "SELECT sum(v) FROM t") == [(10,)]
        await run(session, f"SET shardforge.as_of_system_time = '{before}'")
        for sql in (
            "INSERT INTO t VALUES (9, 9)",
            "UPDATE t SET v = 1 WHERE id = 1",
            "DELETE FROM t",
            "CREATE TABLE u (id int)",
            "SELECT * FROM t FOR UPDATE",
            "COPY t FROM STDIN",
            "TRUNCATE t",
        ):
            assert (await refusal(session, sql))[0] == "25006", sql

    play(scenario)


def test_the_moment_is_chosen_before_the_first_query() -> None:
    async def scenario(node: Node, session: Session) -> None:
        before = await now(session)
        await run(session, "BEGIN")
        await run(session, "SELECT v FROM t WHERE id = 1")
        await run(session, f"SET LOCAL shardforge.as_of_system_time = '{before}'")
        assert (await refusal(session, "SELECT * FROM t"))[0] == "25001"
        await run(session, "ROLLBACK")
        await run(session, "BEGIN")
        set_config = f"SELECT set_config('shardforge.as_of_system_time', '{before}', true)"
        await run(session, set_config)
        assert (await refusal(session, "SELECT * FROM t"))[0] == "25001"
        await run(session, "ROLLBACK")

    play(scenario)


def test_what_cannot_be_read_is_refused() -> None:
    async def scenario(node: Node, session: Session) -> None:
        before = await now(session)
        await run(session, "CREATE TABLE later (id int)")
        await run(session, "CREATE INDEX ON t (v, id)")
        await run(session, f"SET shardforge.as_of_system_time = '{before}'")
        for table in ("t", "later"):
            sqlstate, message = await refusal(session, f"SELECT * FROM {table}")
            assert sqlstate == "0A000"
            assert f'"{table}"' in message
        await run(session, "SET shardforge.as_of_system_time = '2100-01-01'")
        assert (await refusal(session, "SELECT * FROM t")) == (
            "22023",
            "cannot read as of a time in the future",
        )
        for value in ("10s", "-0s", "now", "yesterday", "-1 fortnight", "0"):
            sqlstate, _ = await refusal(session, f"SET shardforge.as_of_system_time = '{value}'")
            assert sqlstate == "22023", value

    play(scenario)


def test_versions_that_were_collected_are_not_guessed() -> None:
    async def scenario(node: Node, session: Session) -> None:
        before = await now(session)
        await run(session, "UPDATE t SET v = 0")
        assert node.instance is not None
        garbage = node.instance.store.garbage  # type: ignore[union-attr]
        garbage._retention_us = 0
        assert garbage.collect()
        await run(session, f"SET shardforge.as_of_system_time = '{before}'")
        assert (await refusal(session, "SELECT * FROM t")) == ("72000", "snapshot too old")

    play(scenario)


def test_a_reader_of_the_past_keeps_its_versions() -> None:
    async def scenario(node: Node, session: Session) -> None:
        before = await now(session)
        other = session_of(node)
        await run(session, "UPDATE t SET v = 0")
        await run(session, "BEGIN")
        await run(session, f"SET LOCAL shardforge.as_of_system_time = '{before}'")
        assert await run(session, "SELECT sum(v) FROM t") == [(30,)]
        assert node.instance is not None
        garbage = node.instance.store.garbage  # type: ignore[union-attr]
        garbage._retention_us = 0
        garbage.collect()
        await run(other, "UPDATE t SET v = 1")
        garbage.collect()
        assert await run(session, "SELECT sum(v) FROM t") == [(30,)]

    play(scenario)


def test_cockroachdb_s_spelling_is_answered_with_the_setting() -> None:
    async def scenario(node: Node, session: Session) -> None:
        with pytest.raises(DatabaseError) as failed:
            await run(session, "SELECT * FROM t AS OF SYSTEM TIME '-1s'")
        assert failed.value.sqlstate == "42601"
        assert "shardforge.as_of_system_time" in failed.value.hint
        assert (await refusal(session, "SET shardforge.as_of_time = '-1s'"))[0] == "42602"
        assert (await refusal(session, "SET shardforge.consistency_level = 'x'"))[0] == "22023"

    play(scenario)
