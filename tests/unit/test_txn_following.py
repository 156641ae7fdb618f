"""Reading at closed timestamps: whom a follower answers, at which timestamp, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shardforge.errors import DatabaseError
from shardforge.ids import ShardId, Timestamp
from shardforge.node import Node
from shardforge.node.following import Following, closing
from shardforge.server.follower import LEVEL, READ_ONLY, level_for
from shardforge.shard.application import Application
from shardforge.shard.command import Clear, Collect
from shardforge.sql.session.session import Session
from shardforge.storage import mvcc
from shardforge.storage.memory import MemoryEngine
from shardforge.txn.closed import OFFERS_MAX, Closed, ClosedTimestamps
from shardforge.txn.garbage import FOLLOWERS_US
from shardforge.txn.store import Store
from tests.inprocess import MEMORY, run, running_node, session_of
from tests.unit.test_node_tenures import Three, on_three, until

SHARD = ShardId(1)


# ---- whom it answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "role", "cluster", "level"),
    [
        ({}, {}, "strong", "strong"),
        ({LEVEL: "bounded"}, {}, "strong", "bounded"),
        ({LEVEL.upper(): "eventual"}, {}, "strong", "eventual"),
        ({LEVEL: "strong"}, {LEVEL: "bounded", READ_ONLY: "on"}, "bounded", "strong"),
        ({LEVEL: "bounded", READ_ONLY: "off"}, {}, "strong", "strong"),
        ({LEVEL: "sometimes"}, {}, "bounded", "strong"),
        # Nobody who may write is refused because of a default.
        ({}, {}, "bounded", "strong"),
        ({}, {LEVEL: "eventual"}, "bounded", "strong"),
        ({READ_ONLY: "off"}, {READ_ONLY: "on"}, "bounded", "strong"),
        ({READ_ONLY: "true"}, {}, "bounded", "bounded"),
        ({READ_ONLY: "on"}, {LEVEL: "eventual"}, "bounded", "eventual"),
        ({READ_ONLY: "on"}, {LEVEL: "strong"}, "bounded", "strong"),
        ({}, {LEVEL: "eventual", READ_ONLY: "on"}, "strong", "eventual"),
    ],
)
def test_whom_a_follower_answers(
    given: dict[str, str], role: dict[str, str], cluster: str, level: str
) -> None:
    assert level_for(given, role, cluster) == level


# ---- which timestamp ---------------------------------------------------------------------------------


def test_only_an_answer_tells_for_certain_how_old_a_state_is():
    node = ClosedTimestamps()
    node.offer(Closed(Timestamp(10), {SHARD: 5}, Timestamp(10)), 100)
    node.usable({SHARD: 5})
    assert (node.closed_us, node.asked_us) == (100, 0)
    node.offer(Closed(Timestamp(20), {SHARD: 5}, Timestamp(20)), 300, asked_us=250)
    node.usable({SHARD: 5})
    assert (node.closed_us, node.asked_us) == (300, 250)


def test_without_a_lease_nothing_is_said_of_the_age():
    node = ClosedTimestamps()
    node.offer(Closed(Timestamp(20), {SHARD: 5}), 300, asked_us=250)
    assert node.usable({SHARD: 5}) == 20
    assert (node.closed_us, node.asked_us) == (0, 0)


def test_a_shard_that_is_not_here_does_not_hold_up_what_comes_later():
    node = ClosedTimestamps()
    node.offer(Closed(Timestamp(10), {SHARD: 5, ShardId(9): 1}, Timestamp(10)), 100)
    node.offer(Closed(Timestamp(20), {SHARD: 6}, Timestamp(20)), 200)
    assert node.usable({SHARD: 6}) == 20
    assert not node.waiting


def test_a_node_that_is_far_behind_finds_what_it_can_serve():
    node = ClosedTimestamps()
    for number in range(1, 20 * OFFERS_MAX):
        node.offer(Closed(Timestamp(number), {SHARD: number}, Timestamp(number)), number)
    behind = 18 * OFFERS_MAX
    assert behind / 2 < node.usable({SHARD: behind}) <= behind


@pytest.mark.parametrize("kind", [Collect, Clear])
def test_what_is_removed_leaves_a_note_for_readers_of_the_past(kind: type[Collect | Clear]):
    engine = MemoryEngine()
    for index, (horizon, kept_from) in enumerate(((7, 7), (5, 7), (9, 9)), start=1):
        application = Application(engine, 1)
        application.apply(kind([], Timestamp(horizon)))
        engine.write(application.finish(index))
        assert mvcc.kept_from(engine) == kept_from
        assert application.kept_from == (horizon if horizon == kept_from else 0)


# ---- sessions ----------------------------------------------------------------------------------------


def followed(test: Callable[[Session, Session, Node, Node], Awaitable[None]]) -> None:
    """Run a test with a session on the serving node and one on a follower, and the two nodes."""

    async def body(three: Three) -> None:
        serving = await three.serving()
        node = next(node for node in three.nodes.values() if node is not serving)
        writer = session_of(serving)
        await run(writer, "CREATE TABLE t (a int PRIMARY KEY, b int)")
        await run(writer, "INSERT INTO t SELECT g, 0 FROM generate_series(1, 50) g")
        await caught_up(following_of(node), "bounded")
        instance = await following_of(node).ready("bounded")
        assert instance is not None
        reader = Session(instance, user="shardforge", database="shardforge")
        await run(reader, "SET shardforge.consistency_level = 'bounded'")
        await test(writer, reader, serving, node)
        await reader.close()

    on_three(body)


def following_of(node: Node) -> Following:
    assert node.serving is not None
    return node.serving.following


async def caught_up(following: Following, level: str) -> None:
    """Return when what was committed until now can be read."""
    asked_us = following._clock.monotonic_ns() // 1000
    async with asyncio.timeout(10):
        while following._closed.asked_us <= asked_us:
            await following.ready(level)
            await asyncio.sleep(0.005)


async def refused(session: Session, sql: str) -> str:
    """The SQLSTATE that a statement is refused with."""
    with pytest.raises(DatabaseError) as error:
        await run(session, sql)
    return error.value.sqlstate


def test_statements_move_on_and_transactions_stay():
    async def test(writer: Session, reader: Session, _: Node, node: Node) -> None:
        total = "SELECT count(*), sum(b) FROM t"
        assert await run(reader, total) == [(50, 0)]
        await run(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert await run(reader, total) == [(50, 0)]
        await run(writer, "UPDATE t SET b = 1")
        await run(writer, "ALTER TABLE t ADD COLUMN c int DEFAULT 5")
        await caught_up(following_of(node), "bounded")
        assert await run(reader, total) == [(50, 0)]
        assert await run(reader, "SELECT * FROM t WHERE a = 1") == [(1, 0)], "the schema of then"
        await run(reader, "COMMIT")
        assert await run(reader, total) == [(50, 50)]
        assert await run(reader, "SELECT * FROM t WHERE a = 1") == [(1, 1, 5)]
        await run(reader, "BEGIN")
        assert await run(reader, total) == [(50, 50)]
        await run(writer, "UPDATE t SET b = 2")
        await caught_up(following_of(node), "bounded")
        assert await run(reader, total) == [(50, 100)], "READ COMMITTED"
        await run(reader, "COMMIT")

    followed(test)


def test_a_cursor_keeps_the_state_and_the_schema_that_it_began_with():
    async def test(writer: Session, reader: Session, _: Node, node: Node) -> None:
        await run(reader, "BEGIN")
        await run(reader, "DECLARE c CURSOR FOR SELECT * FROM t")
        await run(writer, "UPDATE t SET b = 1")
        await run(writer, "ALTER TABLE t ADD COLUMN c int DEFAULT 5")
        await caught_up(following_of(node), "bounded")
        assert await run(reader, "SELECT sum(b) FROM t") == [(0,)]
        assert await run(reader, "SELECT * FROM t WHERE a = 3") == [(3, 0)]
        rows = await run(reader, "FETCH ALL FROM c")
        assert sorted(rows) == [(number, 0) for number in range(1, 51)]
        assert await run(reader, "SELECT sum(b), max(c) FROM t") == [(50, 5)]
        await run(reader, "COMMIT")

    followed(test)


def test_what_was_removed_is_refused_and_never_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shardforge.sql.catalog.store.PURGE_PAUSE_SECONDS", 0)

    async def test(writer: Session, reader: Session, _: Node, node: Node) -> None:
        await run(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert await run(reader, "SELECT count(*) FROM t") == [(50,)]
        await run(writer, "DROP TABLE t")
        host = node.host
        assert host is not None
        await until(lambda: any(replica.kept_from for replica in host.replicas))
        assert await refused(reader, "SELECT count(*) FROM t") == "72000"
        assert await refused(reader, "SELECT 1") == "25P02"
        await run(reader, "ROLLBACK")
        await caught_up(following_of(node), "bounded")
        assert await refused(reader, "SELECT count(*) FROM t") == "42P01"

    followed(test)


def test_bounded_waits_and_then_refuses_what_is_too_old(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shardforge.txn.following.WAIT_SECONDS", 0.05)

    async def test(_writer: Session, reader: Session, _: Node, node: Node) -> None:
        following = following_of(node)
        assert await run(reader, "SELECT b FROM t WHERE a = 1") == [(0,)]
        monkeypatch.setattr(following, "_serving_node", lambda: None)
        closed = following._closed
        await until(lambda: not closed.waiting)
        closed.asked_us -= reader.instance.config.replication.max_staleness_ms * 1000
        for sql in (
            "SELECT count(*) FROM t",
            "SELECT b FROM t WHERE a = 1",
            "EXPLAIN ANALYZE TABLE t",
        ):
            assert await refused(reader, sql) == "57P03"
        assert await following.ready("bounded") is None, "others are passed on"
        await run(reader, "SET shardforge.consistency_level = 'eventual'")
        assert await run(reader, "SELECT count(*) FROM t") == [(50,)]
        assert await run(reader, "SELECT b FROM t WHERE a = 1") == [(0,)]
        assert await following.ready("eventual") is reader.instance

    followed(test)


def test_sessions_go_on_when_their_node_begins_to_serve():
    async def test(_writer: Session, reader: Session, serving: Node, node: Node) -> None:
        assert serving.leading is not None
        await serving.leading.give_way(node.id, 5)
        await until(lambda: node.instance is not None)
        assert closing(following_of(node)._store()).timestamp, "it closes by itself now"
        await run(session_of(node), "INSERT INTO t VALUES (100, 0)")
        await caught_up(following_of(node), "bounded")
        assert await run(reader, "SELECT count(*) FROM t") == [(51,)]
        assert await refused(reader, "INSERT INTO t VALUES (101, 0)") == "25006"
        assert not closing(following_of(serving)._store()).timestamp
        serving.leading.resume()

    followed(test)


def test_a_catalog_is_read_again_when_a_deletion_may_have_been_collected():
    """A dropped table's descriptor and its tombstone may both be gone: nothing tells that there was a change."""

    async def test(writer: Session, reader: Session, serving: Node, node: Node) -> None:
        assert await run(reader, "SELECT count(*) FROM t") == [(50,)]
        instance = following_of(node).instance
        assert instance is not None
        before = instance.catalog.current("shardforge")
        host = serving.host
        assert host is not None
        collected = asyncio.get_running_loop().create_future()
        now = closing(following_of(serving)._store()).timestamp
        host.meta.propose(Collect([], Timestamp(now + 1)), collected.set_result)
        await collected
        await run(writer, "INSERT INTO t VALUES (100, 0)")
        await caught_up(following_of(node), "bounded")
        assert await run(reader, "SELECT count(*) FROM t") == [(51,)]
        assert instance.catalog.current("shardforge") is not before

    followed(test)


@pytest.mark.parametrize(("retention_sec", "kept_us"), [(600, FOLLOWERS_US), (2, 2_000_000)])
def test_a_full_queue_of_garbage_keeps_what_followers_read(retention_sec: int, kept_us: int):
    async def body() -> None:
        storage = replace(MEMORY.storage, gc_retention_sec=retention_sec)
        async with running_node(replace(MEMORY, storage=storage)) as node:
            session = session_of(node)
            store = session.instance.store
            assert isinstance(store, Store)
            newest = store.oracle.last
            assert store.garbage.horizon() == newest - retention_sec * 1_000_000
            assert store.garbage.horizon(retained=False) == newest - kept_us

    asyncio.run(body())
