"""A large transaction's writes become intents before its commit: nobody sees them but itself, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.storage import mvcc
from shardforge.txn.splitting import drained
from tests.inprocess import MEMORY, failure, run, running_node, session_of

ROWS = 5000
SMALL = replace(
    MEMORY,
    sharding=replace(MEMORY.sharding, initial_shard_count=3),
    sql=replace(MEMORY.sql, transaction_stream_size=1),
)


def on_node(test: Callable[[Node], Awaitable[None]]) -> None:
    async def work() -> None:
        async with running_node(SMALL) as node:
            await run(session_of(node), "CREATE TABLE t (a int PRIMARY KEY, b text, c int UNIQUE)")
            await asyncio.wait_for(test(node), 60)

    asyncio.run(work())


def store_of(node: Node):
    assert node.instance is not None
    return node.instance.store


def intents(node: Node) -> int:
    store = store_of(node)
    return sum(
        1
        for one in store.participants
        for _ in mvcc.intents(
            one.replica.engine, one.descriptor.span.start, one.descriptor.span.end
        )
    )


async def at_rest(node: Node) -> None:
    """No intent, lock, mark or byte is left of any transaction."""
    store = store_of(node)
    async with asyncio.timeout(20):
        while (  # noqa: ASYNC110 - a condition over several shards
            intents(node) or any(one.pending.marks for one in store.participants)
            or len(store.locks) or store.coordinator.streaming or store.coordinator.memory.used
        ):  # fmt: skip
            await asyncio.sleep(0)
    assert not any(one.streams for one in store.participants)


FILL = f"INSERT INTO t SELECT g, 'x' || g, -g FROM generate_series(1, {ROWS}) g"


def test_nobody_sees_it_before_the_commit() -> None:
    async def test(node: Node) -> None:
        one, other = session_of(node), session_of(node)
        await run(one, "BEGIN")
        await run(one, FILL)
        assert intents(node) >= ROWS
        assert await run(other, "SELECT count(*) FROM t") == [(0,)]
        assert await run(other, "SELECT b FROM t WHERE a = 17") == []
        assert await run(one, "SELECT count(*), max(b) FROM t") == [(ROWS, "x999")]
        assert await run(one, "SELECT b FROM t WHERE a = 17") == [("x17",)]
        assert await run(one, "SELECT a FROM t WHERE c = -17") == [(17,)]
        await run(one, "COMMIT")
        assert await run(other, "SELECT count(*), sum(a), sum(c) FROM t") == [
            (ROWS, ROWS * (ROWS + 1) // 2, -ROWS * (ROWS + 1) // 2)
        ]
        assert await run(other, "SELECT b FROM t WHERE a = 17") == [("x17",)]
        await at_rest(node)
        assert await run(other, "SELECT count(*) FROM t WHERE c < 0") == [(ROWS,)]

    on_node(test)


def test_a_rollback_leaves_nothing() -> None:
    async def test(node: Node) -> None:
        session = session_of(node)
        await run(session, "BEGIN")
        await run(session, FILL)
        await run(session, "ROLLBACK")
        await at_rest(node)
        assert await run(session, "SELECT count(*) FROM t") == [(0,)]
        await run(session, FILL)
        await at_rest(node)
        assert await run(session, "SELECT count(*) FROM t") == [(ROWS,)]

    on_node(test)


def test_what_it_wrote_is_changed_and_deleted_again() -> None:
    async def test(node: Node) -> None:
        one, other = session_of(node), session_of(node)
        await run(one, FILL)
        await at_rest(node)
        await run(one, "BEGIN")
        await run(one, "UPDATE t SET b = 'y', c = -c")
        assert await run(one, "SELECT count(*) FROM t WHERE b = 'y' AND c > 0") == [(ROWS,)]
        await run(one, "UPDATE t SET b = 'z' WHERE a % 2 = 0")
        await run(one, "DELETE FROM t WHERE a % 3 = 0")
        await run(one, "INSERT INTO t VALUES (3, 'back', -3)")
        await run(one, "UPDATE t SET b = b || '!' WHERE a IN (3, 4, 5)")
        assert await run(other, "SELECT count(*) FROM t WHERE b LIKE 'x%' AND c < 0") == [(ROWS,)]
        seen = [(3, "back!", -3), (4, "z!", 4), (5, "y!", 5), (7, "y", 7)]
        assert await run(one, "SELECT * FROM t WHERE a < 8 AND a > 2 ORDER BY a") == seen
        backwards = await run(one, "SELECT * FROM t WHERE a < 8 AND a > 2 ORDER BY a DESC")
        assert backwards == seen[::-1]
        await run(one, "COMMIT")
        assert await run(other, "SELECT * FROM t WHERE a < 8 AND a > 2 ORDER BY a") == seen
        assert await run(other, "SELECT count(*) FROM t") == [(ROWS - ROWS // 3 + 1,)]
        await at_rest(node)
        assert await run(other, "SELECT a FROM t WHERE c = 7") == [(7,)]
        assert await run(other, "SELECT a FROM t WHERE c = -7") == []

    on_node(test)


def test_keys_that_it_has_written_are_taken() -> None:
    async def test(node: Node) -> None:
        session = session_of(node)
        for again in ("VALUES (9, 'twice', 0)", "VALUES (0, 'twice', -9)"):
            await run(session, "BEGIN")
            await run(session, FILL)
            error = await failure(session, f"INSERT INTO t {again}")
            assert error.sqlstate == "23505"
            await run(session, "ROLLBACK")
            await at_rest(node)
        await run(session, "BEGIN")
        await run(session, FILL)
        await run(
            session,
            "INSERT INTO t VALUES (9, 'new', 1) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
        )
        await run(session, "COMMIT")
        assert await run(session, "SELECT b, c FROM t WHERE a = 9") == [("new", -9)]

    on_node(test)


def test_savepoints_come_back_to_it() -> None:
    async def test(node: Node) -> None:
        session = session_of(node)
        await run(session, "BEGIN")
        await run(session, FILL)
        await run(session, "SAVEPOINT s")
        before = intents(node)
        await run(session, "UPDATE t SET b = 'lost'")
        await run(session, "DELETE FROM t WHERE a < 100")
        assert intents(node) == before
        assert await run(session, "SELECT count(*) FROM t WHERE b = 'lost'") == [(ROWS - 99,)]
        await run(session, "ROLLBACK TO s")
        assert await run(session, "SELECT count(*) FROM t WHERE b LIKE 'x%'") == [(ROWS,)]
        await run(session, "RELEASE s")
        await run(session, "UPDATE t SET b = 'kept'")
        await run(session, "COMMIT")
        await at_rest(node)
        assert await run(session, "SELECT count(*), min(b) FROM t") == [(ROWS, "kept")]

    on_node(test)


def test_others_wait_for_its_rows_as_for_any() -> None:
    async def test(node: Node) -> None:
        one, other = session_of(node), session_of(node)
        await run(one, FILL)
        await run(one, "BEGIN")
        await run(one, "UPDATE t SET b = 'y'")
        error = await failure(other, "SELECT * FROM t WHERE a = 5 FOR UPDATE NOWAIT")
        assert error.sqlstate == "55P03"
        waiting = asyncio.ensure_future(run(other, "UPDATE t SET b = b || '!' WHERE a = 5"))
        while not store_of(node).locks.waiting:  # noqa: ASYNC110 - another task's
            await asyncio.sleep(0)
        await run(one, "COMMIT")
        await waiting
        assert await run(other, "SELECT b FROM t WHERE a = 5") == [("y!",)]
        await at_rest(node)

    on_node(test)


def test_a_snapshot_taken_before_stays_what_it_was() -> None:
    async def test(node: Node) -> None:
        one, other = session_of(node), session_of(node)
        await run(one, FILL)
        await run(other, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert await run(other, "SELECT count(*) FROM t") == [(ROWS,)]
        await run(one, "BEGIN")
        await run(one, "DELETE FROM t WHERE a <= 4000")
        assert await run(other, "SELECT count(*), min(a) FROM t") == [(ROWS, 1)]
        await run(one, "COMMIT")
        assert await run(other, "SELECT count(*), min(a) FROM t") == [(ROWS, 1)]
        error = await failure(other, "UPDATE t SET b = 'late' WHERE a = 1")
        assert error.sqlstate == "40001"
        await run(other, "ROLLBACK")
        assert await run(other, "SELECT count(*), min(a) FROM t") == [(ROWS - 4000, 4001)]
        await at_rest(node)

    on_node(test)


def test_serializable_transactions_heed_it() -> None:
    async def test(node: Node) -> None:
        one, other = session_of(node), session_of(node)
        await run(one, FILL)
        for session in (one, other):
            await run(session, "BEGIN ISOLATION LEVEL SERIALIZABLE")
        assert await run(other, "SELECT sum(c) FROM t WHERE a < 1000") == [(-999 * 500,)]
        await run(one, "SELECT b FROM t WHERE a = 4999")
        await run(one, "UPDATE t SET c = c - 100000")
        await run(one, "COMMIT")
        await run(other, "INSERT INTO t VALUES (0, 'x', 5)")
        error = await failure(other, "COMMIT")
        assert error.sqlstate == "40001"
        await at_rest(node)

    on_node(test)


def test_its_shards_are_not_reshaped_while_it_lives() -> None:
    async def test(node: Node) -> None:
        session = session_of(node)
        store = store_of(node)
        await run(session, "BEGIN")
        await run(session, FILL)
        held = [one for one in store.participants if one.streams]
        assert held
        for one in held:
            with pytest.raises(DatabaseError, match="large transaction"):
                await drained(store.coordinator, node.clock, one)
        await run(session, "COMMIT")
        await at_rest(node)
        for one in held:
            await drained(store.coordinator, node.clock, one)

    on_node(test)


def test_a_lost_leadership_costs_a_retry_and_leaves_nothing() -> None:
    async def test(node: Node) -> None:
        session = session_of(node)
        store = store_of(node)
        await run(session, "BEGIN")
        await run(session, FILL)
        streamed = next(iter(session.transaction().streamed.terms))
        session.transaction().streamed.terms[streamed] -= 1  # as if it had been led again since
        error = await failure(session, "COMMIT")
        assert error.sqlstate == "40001"
        await at_rest(node)
        assert await run(session, "SELECT count(*) FROM t") == [(0,)]
        assert not store.coordinator.active

    on_node(test)


def test_memory_holds_a_place_for_each_key_only() -> None:
    async def test(node: Node) -> None:
        session = session_of(node)
        memory = store_of(node).coordinator.memory
        await run(session, "BEGIN")
        await run(
            session, "INSERT INTO t SELECT g, repeat('x', 2000), g FROM generate_series(1, 2000) g"
        )
        assert 0 < memory.used < 4_000_000
        await run(session, "COMMIT")
        await at_rest(node)

    on_node(test)
