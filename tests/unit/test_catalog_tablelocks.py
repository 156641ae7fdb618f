"""Table locks: PostgreSQL's conflicts, first come first served, deadlocks over tables and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.errors import DatabaseError
from shardforge.ids import TxnId
from shardforge.sql.catalog.tablelocks import LockOwner, TableLockMode, TableLocks
from tests.inprocess import run, running_node, session_of

M = TableLockMode
T = 1


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


CONFLICTS = """
ACCESS_SHARE            .......X
ROW_SHARE               ......XX
ROW_EXCLUSIVE           ....XXXX
SHARE_UPDATE_EXCLUSIVE  ...XXXXX
SHARE                   ..XX.XXX
SHARE_ROW_EXCLUSIVE     ..XXXXXX
EXCLUSIVE               .XXXXXXX
ACCESS_EXCLUSIVE        XXXXXXXX
"""


@pytest.mark.parametrize("line", CONFLICTS.strip().splitlines())
def test_conflicts_are_those_of_the_manual(line: str):
    name, row = line.split()
    for held, mark in zip(M, row, strict=True):
        locks = TableLocks()
        assert locks.try_acquire(LockOwner(), T, held)
        assert locks.try_acquire(LockOwner(), T, M[name]) is (mark == ".")


def test_a_waiter_is_served_in_turn_and_nobody_overtakes_it():
    async def test() -> None:
        locks, a, b, c = TableLocks(), LockOwner("a"), LockOwner("b"), LockOwner("c")
        order: list[str] = []

        async def take(owner: LockOwner, mode: M) -> None:
            await locks.acquire(owner, T, mode)
            order.append(str(owner.name))

        await take(a, M.ACCESS_SHARE)
        exclusive = asyncio.create_task(take(b, M.ACCESS_EXCLUSIVE))
        await asyncio.sleep(0)
        late = asyncio.create_task(take(c, M.ACCESS_SHARE))
        await asyncio.sleep(0)
        assert order == ["a"]
        locks.release_all(a)
        await exclusive
        assert not late.done()
        locks.release_all(b)
        await late
        assert order == ["a", "b", "c"]
        locks.release_all(c)
        assert list(locks.held()) == []

    in_loop(test)


def test_a_holder_asking_for_more_does_not_wait_behind_others():
    async def test() -> None:
        locks, a, b = TableLocks(), LockOwner(), LockOwner()
        await locks.acquire(a, T, M.ACCESS_SHARE)
        waiting = asyncio.create_task(locks.acquire(b, T, M.ACCESS_EXCLUSIVE))
        await asyncio.sleep(0)
        await asyncio.wait_for(locks.acquire(a, T, M.ROW_EXCLUSIVE), 1)
        locks.release_all(a)
        await waiting

    in_loop(test)


def test_nowait_and_timeout_leave_nothing_behind():
    async def test() -> None:
        locks, a, b = TableLocks(), LockOwner(), LockOwner()
        await locks.acquire(a, T, M.EXCLUSIVE)
        for options in ({"nowait": True}, {"timeout_ms": 1}):
            with pytest.raises(DatabaseError) as failure:
                await locks.acquire(b, T, M.EXCLUSIVE, **options)
            assert failure.value.sqlstate == "55P03"
        locks.release_all(a)
        assert list(locks.held()) == []

    in_loop(test)


def test_upgrades_of_two_owners_are_a_deadlock():
    async def test() -> None:
        locks, a, b = TableLocks(), LockOwner(), LockOwner()
        await locks.acquire(a, T, M.ACCESS_SHARE)
        await locks.acquire(b, T, M.ACCESS_SHARE)
        waiting = asyncio.create_task(locks.acquire(a, T, M.ACCESS_EXCLUSIVE))
        await asyncio.sleep(0)
        with pytest.raises(DatabaseError) as failure:
            await locks.acquire(b, T, M.ACCESS_EXCLUSIVE)
        assert failure.value.sqlstate == "40P01"
        locks.release_all(b)
        await waiting

    in_loop(test)


def test_a_granted_waiter_blocks_nobody_before_it_resumes():
    async def test() -> None:
        locks, a, b, c = TableLocks(), LockOwner(), LockOwner(), LockOwner()
        for number, owner in enumerate((a, b, c)):
            owner.transaction = TxnId(number + 1)
        await locks.acquire(a, T, M.ACCESS_EXCLUSIVE)
        second = asyncio.create_task(locks.acquire(b, T, M.ACCESS_EXCLUSIVE))
        await asyncio.sleep(0)
        locks.release_all(a)  # b is granted, and has not run yet
        third = asyncio.create_task(locks.acquire(c, T, M.ACCESS_SHARE))
        await second
        await asyncio.sleep(0)
        assert not third.done()
        locks.release_all(b)
        await third

    in_loop(test)


@pytest.mark.parametrize("row_first", [True, False])
def test_a_cycle_over_a_row_and_a_table_is_found(row_first: bool):
    async def test() -> None:
        async with running_node() as node:
            one, two = session_of(node), session_of(node)
            await run(one, "CREATE TABLE r (a int PRIMARY KEY, b int)")
            await run(one, "INSERT INTO r VALUES (1, 0)")
            await run(one, "CREATE TABLE t (a int)")
            for session in (one, two):
                await run(session, "BEGIN")
            await run(one, "UPDATE r SET b = 1 WHERE a = 1")
            await run(two, "ALTER TABLE t ADD COLUMN b int")
            first, second = (two, "UPDATE r SET b = 2 WHERE a = 1"), (one, "SELECT * FROM t")
            if not row_first:
                first, second = second, first
            waiting = asyncio.create_task(run(*first))
            await asyncio.sleep(0.01)
            results = await asyncio.wait_for(
                asyncio.gather(_settled(run(*second), second[0]), _settled(waiting, first[0])), 5
            )
            assert sorted(results) == ["", "40P01"]

    in_loop(test)


async def _settled(work: Awaitable[object], session: object) -> str:
    """'' or the SQLSTATE; a failed transaction is rolled back so that the other can go on."""
    try:
        await work
    except DatabaseError as error:
        await run(session, "ROLLBACK")  # type: ignore[arg-type]
        return error.sqlstate
    return ""


def test_a_statement_sees_the_table_as_the_ddl_it_waited_for_left_it():
    async def test() -> None:
        async with running_node() as node:
            one, two = session_of(node), session_of(node)
            await run(one, "CREATE TABLE t (a int)")
            await run(one, "BEGIN")
            await run(one, "ALTER TABLE t ADD COLUMN b int DEFAULT 7")
            waiting = asyncio.create_task(run(two, "INSERT INTO t (a) VALUES (1)"))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await run(one, "COMMIT")
            await waiting
            assert await run(two, "SELECT a, b FROM t") == [(1, 7)]

    in_loop(test)
