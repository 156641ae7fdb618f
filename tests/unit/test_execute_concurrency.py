"""Statements of several sessions at once: restarts, lock waits, foreign keys, ON CONFLICT."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.errors import DatabaseError
from shardforge.sql.session.session import Session
from tests.inprocess import run, running_node, session_of

Scenario = Callable[[Session, Session], Awaitable[None]]


def play(scenario: Scenario, *setup: str) -> None:
    """Run a scenario of two sessions after some statements."""

    async def main() -> None:
        async with running_node() as node:
            first, second = session_of(node), session_of(node)
            for sql in setup:
                await run(first, sql)
            await scenario(first, second)

    asyncio.run(main())


async def waits(task: asyncio.Task[object]) -> None:
    """Let a statement run until it cannot go on."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()


ACCOUNTS = (
    "create table acc (id int primary key, grp int, v int)",
    "insert into acc select g, g % 2, 0 from generate_series(1, 6) g",
)


@pytest.mark.parametrize("condition", ["id = 1", "grp = 1", "v = 0 and grp = 1"])
def test_an_update_that_waited_sees_the_row_as_it_is_now(condition: str) -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "update acc set v = v + 1 where id = 1")
        waiting = asyncio.create_task(
            run(b, f"update acc set v = v + 1 where {condition} returning id, v")
        )
        await waits(waiting)
        await run(a, "commit")
        rows = dict(await waiting)
        expected = {"id = 1": {1: 2}, "grp = 1": {1: 2, 3: 1, 5: 1}}
        assert rows == expected.get(condition, {3: 1, 5: 1})

    play(scenario, *ACCOUNTS)


def test_a_delete_that_waited_does_not_find_what_is_gone() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "delete from acc where id = 1")
        waiting = asyncio.create_task(run(b, "update acc set v = 9 where grp = 1 returning id"))
        await waits(waiting)
        await run(a, "commit")
        assert sorted(await waiting) == [(3,), (5,)]

    play(scenario, *ACCOUNTS)


def test_repeatable_read_refuses_a_row_changed_since_its_snapshot() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(b, "begin isolation level repeatable read")
        await run(b, "select * from acc")
        await run(a, "update acc set v = 5 where id = 1")
        with pytest.raises(DatabaseError) as caught:
            await run(b, "update acc set v = v + 1 where grp = 1")
        assert caught.value.sqlstate == "40001"

    play(scenario, *ACCOUNTS)


def test_skip_locked_takes_the_next_free_rows_and_locks_no_more() -> None:
    async def scenario(a: Session, b: Session) -> None:
        take = "select id from acc order by id limit 2 for update skip locked"
        await run(a, "begin")
        assert await run(a, take) == [(1,), (2,)]
        await run(b, "begin")
        assert await run(b, take) == [(3,), (4,)]
        with pytest.raises(DatabaseError) as caught:
            await run(b, "select id from acc where id = 1 for update nowait")
        assert caught.value.sqlstate == "55P03"

    play(scenario, *ACCOUNTS)


def test_for_update_that_waited_returns_the_new_row() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "update acc set v = 7 where id = 1")
        waiting = asyncio.create_task(
            run(b, "select v from acc where grp = 1 and id < 3 for update")
        )
        await waits(waiting)
        await run(a, "commit")
        assert await waiting == [(7,)]

    play(scenario, *ACCOUNTS)


def test_two_inserts_of_one_key_leave_one_row() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "insert into acc values (10, 0, 1)")
        waiting = asyncio.create_task(run(b, "insert into acc values (10, 0, 2)"))
        await waits(waiting)
        await run(a, "commit")
        with pytest.raises(DatabaseError) as caught:
            await waiting
        assert caught.value.sqlstate == "23505"

    play(scenario, *ACCOUNTS)


def test_an_upsert_that_waited_updates_the_row_that_came_first() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "insert into acc values (10, 0, 1)")
        upsert = "insert into acc values (10, 0, 5) on conflict (id) do update set v = acc.v + excluded.v returning v"
        waiting = asyncio.create_task(run(b, upsert))
        await waits(waiting)
        await run(a, "commit")
        assert await waiting == [(6,)]

    play(scenario, *ACCOUNTS)


def test_a_unique_value_given_up_by_an_open_transaction_is_waited_for() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "create table u (id int primary key, n text unique)")
        await run(a, "insert into u values (1, 'x')")
        await run(a, "begin")
        await run(a, "update u set n = 'y' where id = 1")
        waiting = asyncio.create_task(run(b, "insert into u values (2, 'x') returning n"))
        await waits(waiting)
        await run(a, "commit")
        assert await waiting == [("x",)]

    play(scenario)


FAMILY = (
    "create table parent (id int primary key)",
    "create table child (id int primary key, pid int references parent)",
    "insert into parent values (1)",
)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_parent_is_not_deleted_under_a_child_that_is_being_inserted(isolation: str) -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(b, f"begin isolation level {isolation}")
        await run(b, "select * from child")
        await run(a, "begin")
        await run(a, "insert into child values (1, 1)")
        waiting = asyncio.create_task(run(b, "delete from parent where id = 1"))
        await waits(waiting)
        await run(a, "commit")
        with pytest.raises(DatabaseError) as caught:
            await waiting
        assert caught.value.sqlstate in ("23503", "40001")

    play(scenario, *FAMILY)


def test_a_child_is_not_inserted_under_a_parent_that_is_being_deleted() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "delete from parent where id = 1")
        waiting = asyncio.create_task(run(b, "insert into child values (1, 1)"))
        await waits(waiting)
        await run(a, "commit")
        with pytest.raises(DatabaseError) as caught:
            await waiting
        assert caught.value.sqlstate == "23503"

    play(scenario, *FAMILY)


def test_children_in_parallel_share_their_parent() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "insert into child values (1, 1)")
        await run(b, "begin")
        await run(b, "insert into child values (2, 1)")
        await run(a, "commit")
        await run(b, "commit")
        assert await run(a, "select count(*) from child") == [(2,)]

    play(scenario, *FAMILY)


def test_increments_of_many_sessions_are_all_there() -> None:
    async def main() -> None:
        async with running_node() as node:
            setup = session_of(node)
            for sql in ACCOUNTS:
                await run(setup, sql)

            async def work(number: int) -> None:
                session = session_of(node)
                condition = ("id = 1", "grp = 1 and id < 2", "id in (1)")[number % 3]
                for _ in range(10):
                    await run(session, f"update acc set v = v + 1 where {condition}")

            await asyncio.gather(*(work(number) for number in range(12)))
            assert await run(setup, "select v from acc where id = 1") == [(120,)]

    asyncio.run(main())


def test_nowait_names_the_relation_that_is_locked() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "update other set v = 1 where id = 2")
        joined = "select * from acc join other using (id) where id = 2 for update"
        with pytest.raises(DatabaseError) as failed:
            await run(b, f"{joined} nowait")
        assert (failed.value.sqlstate, failed.value.message) == (
            "55P03",
            'could not obtain lock on row in relation "other"',
        )
        assert len(await run(b, f"{joined} of acc nowait")) == 1
        assert await run(b, f"{joined} skip locked") == []
        await run(a, "rollback")

    play(
        scenario,
        *ACCOUNTS,
        "create table other (id int primary key, v int)",
        "insert into other values (2, 0)",
    )


def test_deferred_checks_hold_against_other_sessions() -> None:
    async def scenario(a: Session, b: Session) -> None:
        await run(a, "begin")
        await run(a, "set constraints all deferred")
        await run(a, "insert into child values (1, 1)")
        await run(b, "delete from parent where id = 1")
        with pytest.raises(DatabaseError) as failed:
            await run(a, "commit")
        assert failed.value.sqlstate == "23503"
        assert await run(b, "select * from child") == []

    play(
        scenario,
        "create table parent (id int primary key)",
        "create table child (id int primary key, p int references parent deferrable)",
        "insert into parent values (1)",
    )
