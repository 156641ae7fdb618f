"""Advisory locks between real clients: waiting, deadlock, cancel, a holder that goes, a pool's reset, a failover."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import asyncpg
import psycopg
import pytest

from shardforge.testing import cluster
from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 20.0
Connection = psycopg.Connection[Any]


def begin(pool: ThreadPoolExecutor, judge: Connection, waiter: Connection, sql: str) -> Future[Any]:
    """A statement that waits for a lock."""
    waiting = pool.submit(lambda: waiter.execute(sql).fetchone())  # type: ignore[call-overload]
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
    while judge.execute(query, (waiter.info.backend_pid,)).fetchone() != (1,):
        assert not waiting.done()
    return waiting


def test_who_waits_goes_on_when_the_holder_gives_back_or_goes(server: ServerProcess) -> None:
    with (
        ThreadPoolExecutor() as pool,
        server.connect() as one,
        server.connect() as two,
        server.connect() as three,
        server.connect() as judge,
    ):
        one.execute("SELECT pg_advisory_lock(%s)", (1,), prepare=True)
        waiting = begin(pool, judge, two, "SELECT pg_advisory_lock(1)")
        one.execute("SELECT pg_advisory_unlock(1)")
        assert waiting.result(PATIENCE_SECONDS) == ("",)
        waiting = begin(pool, judge, one, "SELECT pg_advisory_lock(1)")
        two.close()
        assert waiting.result(PATIENCE_SECONDS) == ("",)
        waiting = begin(pool, judge, three, "SELECT pg_advisory_xact_lock(1)")
        judge.execute("SELECT pg_terminate_backend(%s)", (one.info.backend_pid,))
        assert waiting.result(PATIENCE_SECONDS) == ("",)


def test_a_deadlock_over_a_row_and_a_number_has_one_victim(server: ServerProcess) -> None:
    with (
        ThreadPoolExecutor() as pool,
        server.connect(autocommit=False) as one,
        server.connect(autocommit=False) as two,
        server.connect() as judge,
    ):
        judge.execute("CREATE TABLE numbered (id int PRIMARY KEY)")
        judge.execute("INSERT INTO numbered VALUES (1)")
        one.execute("SELECT id FROM numbered FOR UPDATE")
        two.execute("SELECT pg_advisory_lock(2)")
        waiting = begin(pool, judge, one, "SELECT pg_advisory_xact_lock(2)")
        failed = []
        try:
            two.execute("UPDATE numbered SET id = id")
        except psycopg.errors.DeadlockDetected:
            failed.append("two")
            two.rollback()
            two.execute("SELECT pg_advisory_unlock(2)")
        try:
            waiting.result(PATIENCE_SECONDS)
        except psycopg.errors.DeadlockDetected:
            failed.append("one")
        assert len(failed) == 1
        one.rollback()
        two.rollback()
        judge.execute("DROP TABLE numbered")


def test_waiting_is_cancelled_and_limited(server: ServerProcess) -> None:
    with (
        ThreadPoolExecutor() as pool,
        server.connect() as one,
        server.connect() as two,
        server.connect() as judge,
    ):
        one.execute("SELECT pg_advisory_lock(1, 2)")
        waiting = begin(pool, judge, two, "SELECT pg_advisory_lock(1, 2)")
        two.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiting.result(PATIENCE_SECONDS)
        two.execute("SET lock_timeout = 20")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            two.execute("SELECT pg_advisory_lock_shared(1, 2)")
        two.execute("SET lock_timeout = 0")
        two.execute("SET statement_timeout = 20")
        with pytest.raises(psycopg.errors.QueryCanceled):
            two.execute("SELECT pg_advisory_lock_shared(1, 2)")


def test_a_pool_resets_what_its_users_leave(server: ServerProcess) -> None:
    async def go() -> None:
        pool = await asyncpg.create_pool(
            host="127.0.0.1", port=server.port, user="shardforge", database="shardforge",
            min_size=1, max_size=1,
        )  # fmt: skip
        async with pool, asyncio.timeout(PATIENCE_SECONDS):
            async with pool.acquire() as connection:
                await connection.execute("LISTEN left_behind")
                assert await connection.fetchval("SELECT pg_try_advisory_lock(5)")
            async with pool.acquire() as connection:
                left = (
                    "SELECT (SELECT count(*) FROM pg_listening_channels()) + count(*) FROM pg_locks"
                )
                assert await connection.fetchval(f"{left} WHERE locktype = 'advisory'") == 0

    asyncio.run(go())


def test_a_failover_ends_sessions_and_so_their_locks() -> None:
    with cluster(nodes=3) as made:
        serving = made.serving
        other = next(node for node in made.nodes if node != serving)
        with psycopg.connect(made.node_dsn(other), autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(1)")
            with psycopg.connect(made.dsn, autocommit=True) as waiter:
                taken = waiter.execute("SELECT pg_try_advisory_lock(1)").fetchone()
                assert taken == (False,)
            made.kill(serving)
            with pytest.raises(psycopg.OperationalError):
                holder.execute("SELECT 1")
        with psycopg.connect(made.dsn, autocommit=True) as waiter:
            assert waiter.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,)
