"""Advisory locks beyond what a script of sessions shows: deadlocks, waits given up, holders that go, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from shardforge.errors import ConsensusError, DatabaseError
from shardforge.node import Node
from shardforge.sql.session import advisory
from shardforge.sql.session.session import Session
from tests.inprocess import failure, run, running_node, session_of
from tests.peers import run as run_on
from tests.peers import until

Scenario = Callable[[Node, Session, Session, Session], Awaitable[None]]
HELD = "SELECT objid, pid, granted FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1, 3 DESC, 2"


def play(scenario: Scenario) -> None:
    async def body() -> None:
        async with running_node() as node:
            one, two, three = (session_of(node) for _ in range(3))
            await run(one, "CREATE TABLE t (id int PRIMARY KEY, v int)")
            await run(one, "INSERT INTO t VALUES (1, 0), (2, 0)")
            await scenario(node, one, two, three)
            for session in (one, two, three):
                await session.close()
            assert node.instance is not None
            node.instance.advisory.check()
            assert not len(node.instance.advisory)
            assert not node.instance.store.coordinator.waits.sessions

    run_on("asyncio", body)


async def begin_waiting(session: Session, sql: str) -> asyncio.Task[object]:
    """A statement that waits for a lock."""
    task: asyncio.Task[object] = asyncio.create_task(run(session, sql))
    waits = session.instance.store.coordinator.waits
    before = len(waits)
    await until(lambda: len(waits) > before or session.lock_owner.waiting_for is not None)
    assert not task.done()
    return task


@pytest.mark.parametrize("level", ["", "xact_"])
def test_two_sessions_that_wait_for_each_other(level: str) -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        for session, number in ((one, 1), (two, 2)):
            await run(session, "BEGIN")
            await run(session, f"SELECT pg_advisory_{level}lock({number})")
        waiting = await begin_waiting(one, f"SELECT pg_advisory_{level}lock(2)")
        error = await failure(two, f"SELECT pg_advisory_{level}lock_shared(1)")
        assert (error.sqlstate, error.message) == ("40P01", "deadlock detected")
        assert error.detail.count("waits for a lock; blocked by transaction") == 2
        assert "-" not in error.detail
        await run(two, "ROLLBACK")
        if not level:
            assert not waiting.done()
            await run(two, "SELECT pg_advisory_unlock(2)")
        await waiting
        await run(one, "COMMIT")

    play(scenario)


@pytest.mark.parametrize(
    ("lock", "blocked"),
    [
        ("UPDATE t SET v = 1 WHERE id = 1", "UPDATE t SET v = 2 WHERE id = 1"),
        ("LOCK TABLE t", "SELECT v FROM t"),
        ("SELECT v FROM t", "ALTER TABLE t ADD COLUMN w int"),
    ],
)
def test_a_deadlock_over_different_locks_whoever_closes_it(lock: str, blocked: str) -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        for first, last in (("number", "other"), ("other", "number")):
            await run(one, "BEGIN")
            await run(one, lock)
            await run(two, "BEGIN")
            await run(two, "SELECT pg_advisory_xact_lock(7)")
            statements = {
                "number": (one, "SELECT pg_advisory_lock(7)"),
                "other": (two, blocked),
            }
            waiting = await begin_waiting(*statements[first])
            closing = asyncio.create_task(run(*statements[last]))
            done, _ = await asyncio.wait({waiting, closing}, return_when="FIRST_EXCEPTION")
            [victim] = [task for task in done if task.exception()]
            error = victim.exception()
            assert isinstance(error, DatabaseError)
            assert error.sqlstate == "40P01"
            await run(statements[first if victim is waiting else last][0], "ROLLBACK")
            await asyncio.wait({waiting, closing})
            for session in (one, two):
                await run(session, "ROLLBACK")
                await run(session, "SELECT pg_advisory_unlock_all()")

    play(scenario)


def test_a_session_that_waits_for_nothing_closes_no_circle() -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        await run(one, "SELECT pg_advisory_lock(1)")
        await run(two, "SELECT pg_advisory_lock(2)")
        await run(three, "SELECT pg_advisory_lock(3)")
        first = await begin_waiting(one, "SELECT pg_advisory_lock(2)")
        second = await begin_waiting(two, "SELECT pg_advisory_lock(3)")
        assert await run(three, HELD) == [
            (1, one.process_id, True),
            (2, two.process_id, True),
            (2, one.process_id, False),
            (3, three.process_id, True),
            (3, two.process_id, False),
        ]
        await run(three, "SELECT pg_advisory_unlock_all()")
        await second
        await run(two, "SELECT pg_advisory_unlock_all()")
        await first

    play(scenario)


def test_a_wait_that_is_given_up_leaves_nothing() -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        await run(one, "SELECT pg_advisory_lock_shared(1)")
        await run(two, "SELECT pg_advisory_lock_shared(1)")
        waiting = await begin_waiting(two, "SELECT pg_advisory_lock(1)")
        behind = await begin_waiting(three, "SELECT pg_advisory_xact_lock_shared(1)")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await behind
        assert await run(three, HELD) == [
            (1, one.process_id, True), (1, two.process_id, True),
        ]  # fmt: skip
        # Granted in the very turn in which it is given up.
        waiting = await begin_waiting(two, "SELECT pg_advisory_lock(1)")
        await run(one, "SELECT pg_advisory_unlock_shared(1)")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await run(three, "SELECT pg_try_advisory_lock_shared(1)") == [(True,)]

    play(scenario)


def test_a_lock_timeout_ends_the_wait() -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        await run(one, "SELECT pg_advisory_lock(1)")
        await run(two, "SET lock_timeout = '10ms'")
        error = await failure(two, "SELECT pg_advisory_lock_shared(1)")
        assert error.sqlstate == "55P03"
        assert await run(one, "SELECT pg_advisory_unlock(1)") == [(True,)]
        assert await run(three, HELD) == []

    play(scenario)


def test_databases_have_their_own_locks() -> None:
    async def scenario(node: Node, one: Session, two: Session, three: Session) -> None:
        await run(one, "CREATE DATABASE other")
        assert node.instance is not None
        far = Session(node.instance, user="shardforge", database="other")
        await run(one, "SELECT pg_advisory_lock(1)")
        assert await run(far, "SELECT pg_try_advisory_lock(1)") == [(True,)]
        shown = "SELECT datname FROM pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory'"
        assert sorted(await run(two, shown)) == [("other",), ("shardforge",)]
        await far.close()

    play(scenario)


@pytest.mark.interpreted
def test_nothing_is_granted_where_another_node_may_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        held = False

        async def wait(self) -> None:
            if not self.held:
                raise ConsensusError("this node does not lead the cluster any more")

    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        coordinator, lease = one.instance.store.coordinator, Lost()
        await run(one, "SELECT pg_advisory_lock(1)")
        waiting = await begin_waiting(two, "SELECT pg_advisory_lock(1)")
        with monkeypatch.context() as patch:
            patch.setattr(coordinator, "_lease", lease)
            patch.setattr(coordinator, "_lease_held", lambda: lease.held)
            for function in ("pg_advisory_lock", "pg_try_advisory_xact_lock_shared"):
                assert (await failure(three, f"SELECT {function}(2)")).sqlstate == "57P03"
            await run(one, "SELECT pg_advisory_unlock(1)")
            with pytest.raises(ConsensusError):
                await waiting
        assert await run(three, "SELECT pg_try_advisory_lock(2)") == [(True,)]

    play(scenario)


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        monkeypatch.setattr(advisory, "LOCKS_MAX", 2)
        await run(one, "SELECT pg_advisory_lock(1), pg_advisory_lock(2), pg_advisory_lock(1)")
        assert (await failure(two, "SELECT pg_try_advisory_lock(3)")).sqlstate == "53200"
        await run(one, "SELECT pg_advisory_unlock(2)")
        assert await run(two, "SELECT pg_try_advisory_lock(3)") == [(True,)]

    play(scenario)


def test_a_holder_that_is_killed_lets_others_go_on() -> None:
    async def body() -> None:
        async with running_node() as node:
            host, port = node.address
            holder, waiter, judge = [
                await asyncpg.connect(
                    host=host, port=port, user="shardforge", database="shardforge"
                )
                for _ in range(3)
            ]
            assert node.instance is not None
            waits = node.instance.store.coordinator.waits
            await holder.execute("SELECT pg_advisory_lock(1)")
            waiting = asyncio.create_task(waiter.execute("SELECT pg_advisory_lock(1)"))
            await until(lambda: len(waits) == 1)
            await judge.fetchval("SELECT pg_terminate_backend($1)", holder.get_server_pid())
            await waiting
            waiting = asyncio.create_task(judge.execute("SELECT pg_advisory_lock(1)"))
            await until(lambda: len(waits) == 1)
            waiter.terminate()
            await waiting
            await judge.close()

    run_on("uvloop", body)
