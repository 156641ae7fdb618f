"""Exactly-once commits: `SET LOCAL shardforge.commit_key`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.sql.session.session import Session
from shardforge.txn.commit_keys import RETENTION_US, CommitKeyCollector
from tests.inprocess import run, running_node, session_of

Scenario = Callable[[Node, Session], Awaitable[None]]
KEY = "SET LOCAL shardforge.commit_key = 'a'"
ADD = "UPDATE t SET v = v + 1 WHERE id = 1"


def play(scenario: Scenario) -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE t (id int PRIMARY KEY, v int)")
            await run(session, "CREATE TABLE other (id int PRIMARY KEY)")
            await run(session, "INSERT INTO t VALUES (1, 0)")
            await asyncio.wait_for(scenario(node, session), 10)

    asyncio.run(main())


async def block(session: Session, *statements: str, begin: str = "BEGIN") -> str:
    """Run a block; the command tag of its COMMIT."""
    for sql in (begin, *statements):
        await run(session, sql)
    _, tag = await session.execute("COMMIT")
    return tag


def notices(session: Session) -> list[str]:
    found = [error.sqlstate for _, error in session.notices]
    session.notices.clear()
    return found


async def value(session: Session) -> int:
    [(found,)] = await run(session, "SELECT v FROM t WHERE id = 1")
    return int(found)


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_repeated_key_takes_effect_once(level: str) -> None:
    async def scenario(node: Node, session: Session) -> None:
        begin = f"BEGIN ISOLATION LEVEL {level}"
        assert await block(session, KEY, ADD, begin=begin) == "COMMIT"
        assert notices(session) == []
        assert await block(session, KEY, ADD, begin=begin) == "COMMIT"
        assert notices(session) == ["01S00", "01S00"], "at SET LOCAL, and at COMMIT"
        other = session_of(node)
        late = "SELECT set_config('shardforge.commit_key', 'a', true)"
        assert await block(other, ADD, late, begin=begin) == "COMMIT"
        assert notices(other) == ["01S00"]
        assert await value(session) == 1
        assert await block(session, ADD) == "COMMIT"
        assert await value(session) == 2, "the key is gone with its block"

    play(scenario)


def test_of_two_at_a_time_one_decides() -> None:
    async def scenario(node: Node, session: Session) -> None:
        other = session_of(node)
        await run(session, "BEGIN")
        await run(session, KEY)
        await run(session, ADD)
        waiting = asyncio.create_task(block(other, KEY, ADD))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        await run(session, "COMMIT")
        assert await waiting == "COMMIT"
        assert notices(other) == ["01S00", "01S00"]
        assert await value(session) == 1

    play(scenario)


def test_two_that_set_it_late_apply_once() -> None:
    async def scenario(node: Node, session: Session) -> None:
        other = session_of(node)
        late = "SELECT set_config('shardforge.commit_key', 'a', true)"
        for one, row in ((session, 1), (other, 2)):
            await run(one, "BEGIN")
            await run(one, f"INSERT INTO t VALUES ({row + 10}, 0)")
            await run(one, late)
        await asyncio.gather(run(session, "COMMIT"), run(other, "COMMIT"))
        assert await run(session, "SELECT count(*) FROM t") == [(2,)]

    play(scenario)


def test_a_rollback_leaves_the_key_unused() -> None:
    async def scenario(_: Node, session: Session) -> None:
        for sql in ("BEGIN", KEY, ADD, "ROLLBACK"):
            await run(session, sql)
        await block(session, KEY, ADD)
        assert notices(session) == []
        assert await value(session) == 1

    play(scenario)


def test_a_savepoint_takes_the_key_back() -> None:
    async def scenario(node: Node, session: Session) -> None:
        await block(session, ADD, "SAVEPOINT s", KEY, "ROLLBACK TO s")
        await block(session, "SAVEPOINT s", KEY, "RELEASE s", ADD)
        assert notices(session) == []
        await block(session, KEY, "SAVEPOINT s", ADD, "ROLLBACK TO s", ADD)
        assert notices(session) == ["01S00", "01S00"]
        assert await value(session) == 2

    play(scenario)


def test_without_writes_nothing_is_recorded() -> None:
    async def scenario(_: Node, session: Session) -> None:
        await block(session, KEY, "SELECT v FROM t")
        await block(session, KEY, "SELECT v FROM t", begin="BEGIN READ ONLY")
        await block(session, KEY, ADD)
        assert notices(session) == []
        await block(session, KEY)
        assert notices(session) == ["01S00", "01S00"], "told, having done nothing"
        await block(session, KEY, begin="BEGIN READ ONLY")
        assert notices(session) == []

    play(scenario)


def test_another_transaction_may_not_use_the_key() -> None:
    async def scenario(node: Node, session: Session) -> None:
        await block(session, KEY, ADD)
        with pytest.raises(DatabaseError) as refused:
            await block(session, KEY, ADD, "INSERT INTO other VALUES (1)")
        assert refused.value.sqlstate == "22023"
        assert session.status == "I"
        assert await run(session, "SELECT * FROM other") == []
        assert node.instance is not None, "running"
        stranger = Session(node.instance, user="somebody", database="shardforge")
        await block(stranger, KEY, ADD)
        assert notices(stranger) == []
        assert await value(session) == 2, "users have keys of their own"

    play(scenario)


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SET shardforge.commit_key = 'a'", "55P02"),
        ("SELECT set_config('shardforge.commit_key', 'a', false)", "55P02"),
        ("ALTER ROLE shardforge SET shardforge.commit_key = 'a'", "55P02"),
        (f"SET LOCAL shardforge.commit_key = '{'x' * 256}'", "22023"),
        ("SET LOCAL shardforge.commit_key = E'a\\nb'", "22023"),
    ],
)
def test_bad_keys_are_refused(sql: str, sqlstate: str) -> None:
    async def scenario(_: Node, session: Session) -> None:
        with pytest.raises(DatabaseError) as refused:
            await run(session, sql)
        assert refused.value.sqlstate == sqlstate

    play(scenario)


def test_a_discarded_block_leaves_nothing() -> None:
    async def scenario(_: Node, session: Session) -> None:
        await block(session, KEY, ADD)
        await block(session, KEY, "SET work_mem = '1MB'", "DECLARE c CURSOR WITH HOLD FOR SELECT 1")
        assert await run(session, "SELECT count(*) FROM pg_cursors") == [(0,)]
        before = await run(session, "SHOW work_mem")
        assert before != [("1MB",)]

    play(scenario)


def test_keys_are_kept_for_a_day() -> None:
    async def scenario(node: Node, session: Session) -> None:
        await block(session, KEY, ADD)
        assert node.instance is not None, "running"
        collector = CommitKeyCollector(node.instance.store.coordinator, node.instance.clock)
        assert await collector.collect(RETENTION_US) == 0
        assert await collector.collect(0) == 1
        assert await collector.collect(0) == 0
        await block(session, KEY, ADD)
        assert notices(session) == []
        assert await collector.collect(RETENTION_US) == 0
        assert await value(session) == 2

    play(scenario)
