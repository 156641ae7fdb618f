"""Three nodes of one process: who serves, what a lost node costs its sessions, and what survives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import NodeId, Timestamp
from shardforge.node import Founding, Node
from shardforge.testing.network import Fabric
from shardforge.txn.closed import closed_now
from shardforge.txn.store import Store
from tests.inprocess import MEMORY, run, session_of

FAST = replace(
    MEMORY,
    raft=replace(MEMORY.raft, election_timeout_ms=150, heartbeat_interval_ms=30),
    sharding=replace(MEMORY.sharding, initial_shard_count=3),
)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a condition over several nodes
            await asyncio.sleep(0.005)


class Three:
    """Three nodes that share a fabric."""

    def __init__(self) -> None:
        self.fabric = Fabric()
        self.nodes: dict[int, Node] = {}

    async def start(self) -> None:
        for number in (1, 2, 3):
            config = replace(FAST, cluster=replace(FAST.cluster, node_id=number))
            network = self.fabric.network(NodeId(number))
            self.nodes[number] = Node(
                config, founding=Founding("", {1: "", 2: "", 3: ""}, network=network)
            )
        await asyncio.gather(*(node.start() for node in self.nodes.values()))

    async def serving(self, *, other_than: int = 0) -> Node:
        async with asyncio.timeout(10):
            while True:
                for number, node in self.nodes.items():
                    if number != other_than and node.instance is not None:
                        return node
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))


def on_three(test: Callable[[Three], Awaitable[None]]) -> None:
    async def body() -> None:
        three = Three()
        await three.start()
        try:
            await test(three)
        finally:
            await three.stop()

    asyncio.run(body())


def test_one_node_serves_and_another_takes_over_with_everything_committed():
    async def test(three: Three) -> None:
        first = await three.serving()
        session = session_of(first)
        await run(session, "CREATE TABLE t (a int PRIMARY KEY, b text)")
        await run(session, "INSERT INTO t SELECT g, 'b' || g FROM generate_series(1, 500) g")
        lost = first.id
        three.fabric.isolate(lost)
        second = await three.serving(other_than=lost)
        with pytest.raises(DatabaseError):
            async with asyncio.timeout(5):
                await run(session, "INSERT INTO t VALUES (1000, 'lost')")
        other = session_of(second)
        assert await run(other, "SELECT count(*), max(a) FROM t") == [(500, 500)]
        await run(other, "INSERT INTO t VALUES (501, 'kept')")
        three.fabric.cut.clear()
        assert first.instance is None
        assert await run(other, "SELECT count(*) FROM t") == [(501,)]

    on_three(test)


def test_a_minority_reads_the_past_and_writes_nothing(monkeypatch):
    monkeypatch.setattr("shardforge.node.leading.STANDBY_SECONDS", 0.3)

    async def test(three: Three) -> None:
        first = await three.serving()
        session = session_of(first)
        await run(session, "CREATE TABLE t (a int PRIMARY KEY)")
        await run(session, "INSERT INTO t SELECT generate_series(1, 100)")
        assert first.leading is not None
        assert first.leading.tenure is not None
        store = first.leading.tenure.store
        assert isinstance(store, Store)
        await until(lambda: not store.metrics()["commit_marks"])  # resolved behind the answer
        closed = closed_now(store.oracle.last, store.participants)
        await run(session, "INSERT INTO t SELECT generate_series(101, 200)")
        cut = next(node for node in three.nodes.values() if node is not first)
        cut.closed.offer(closed, -1_000_000_000)
        host = cut.host
        assert host is not None
        await until(lambda: cut.closed.usable({r.id: r.applied for r in host.replicas}))
        three.fabric.isolate(cut.id)
        await until(lambda: cut.instance is not None)
        past = session_of(cut)
        assert past.instance.standby == closed.timestamp
        with pytest.raises(ConsensusError, match="majority") as caught:
            await run(past, "SELECT count(*) FROM t")
        assert "consistency_level" in caught.value.hint
        for sql in ("SELECT a FROM t WHERE a = 7", "EXPLAIN ANALYZE SELECT a FROM t WHERE a = 7"):
            with pytest.raises(ConsensusError, match="majority"):
                await run(past, sql)
        await run(past, "SET shardforge.consistency_level = bounded")
        with pytest.raises(ConsensusError, match="bounded read") as caught:
            await run(past, "SELECT count(*) FROM t")
        assert "max_staleness_ms" in caught.value.detail
        past.instance.standby_us += 1_000_000_000 + cut.clock.monotonic_ns() // 1000
        assert await run(past, "SELECT count(*) FROM t") == [(100,)]
        await run(past, "SET shardforge.consistency_level = eventual")
        assert await run(past, "SELECT count(*) FROM t") == [(100,)]
        assert await run(past, "SELECT a FROM t WHERE a = 7") == [(7,)]
        for sql in (
            "INSERT INTO t VALUES (-1)",
            "DELETE FROM t",
            "CREATE TABLE u (a int)",
            "TRUNCATE t",
        ):
            with pytest.raises(DatabaseError) as refused:
                await run(past, sql)
            assert refused.value.sqlstate == "25006"
        for (
            replica
        ) in host.replicas:  # as when the node is back, and what was removed meanwhile arrives
            replica.kept_from = Timestamp(closed.timestamp + 1)
        for sql in ("SELECT count(*) FROM t", "SELECT a FROM t WHERE a = 7"):
            with pytest.raises(DatabaseError) as gone:
                await run(past, sql)
            assert gone.value.sqlstate == "72000"
        three.fabric.cut.clear()
        await until(lambda: cut.instance is None or not cut.instance.standby)
        serving = await three.serving()
        assert await run(session_of(serving), "SELECT count(*) FROM t") == [(200,)]

    on_three(test)


def test_a_node_that_stops_hands_over():
    async def test(three: Three) -> None:
        for _ in range(2):
            first = await three.serving()
            session = session_of(first)
            await run(session, "CREATE TABLE IF NOT EXISTS t (a int PRIMARY KEY)")
            await run(session, "INSERT INTO t SELECT count(*) FROM t")
            assert first.host is not None
            assert first.leading is not None
            [other, *_] = [n for n in three.nodes.values() if n is not first]
            before = first.host.meta.term
            await first.leading.give_way(other.id, 5)
            assert other.host is not None
            assert other.host.meta.term == before + 1, "one election, by a transfer"
            second = await three.serving(other_than=first.id)
            assert second is other
            first.leading.resume()
        assert await run(session_of(await three.serving()), "TABLE t ORDER BY 1") == [(0,), (1,)]

    on_three(test)
