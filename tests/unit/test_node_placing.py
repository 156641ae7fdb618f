"""`shard move` and `shard scatter` on four nodes of one process: what they do, and what is refused by SQLSTATE."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId, ShardId
from shardforge.node import Founding, Node
from shardforge.node.governing import Governing
from shardforge.raft.confchange import Change, ChangeKind, ConfChange
from tests.inprocess import run, session_of
from tests.unit.test_node_tenures import FAST, Three, until

SECONDS_MAX = 40.0


class Four(Three):
    """Four nodes, of which each shard has three."""

    async def start(self) -> None:
        founders = dict.fromkeys((1, 2, 3, 4), "")
        for number in founders:
            config = replace(FAST, cluster=replace(FAST.cluster, node_id=number))
            network = self.fabric.network(NodeId(number))
            self.nodes[number] = Node(config, founding=Founding("", founders, network=network))
        await asyncio.gather(*(node.start() for node in self.nodes.values()))

    async def settled(self) -> tuple[Node, Governing]:
        """The serving node, once every shard has three voters and nothing changes."""
        serving = await self.serving()
        await until(lambda: serving.governing is not None and _at_rest(serving.governing))
        assert serving.governing is not None
        return serving, serving.governing


def _at_rest(governing: Governing) -> bool:
    sights = governing.shards()
    return len(sights) == 4 and all(governing.view().settled(one.members) for one in sights)


def on_four(test: Callable[[Four], Awaitable[None]]) -> None:
    async def body() -> None:
        four = Four()
        await four.start()
        try:
            async with asyncio.timeout(SECONDS_MAX):
                await test(four)
        finally:
            await four.stop()

    asyncio.run(body())


def voters(governing: Governing, shard: int) -> set[int]:
    return set(governing.sight_of(ShardId(shard)).members.voters)


def homes(governing: Governing, shard: int) -> tuple[NodeId, NodeId]:
    """A node that votes in the shard, the serving one if it does, and one that does not."""
    there = voters(governing, shard)
    leader = governing.sight_of(ShardId(shard)).leader
    source = leader if leader in there else min(there)
    return NodeId(source), NodeId(({1, 2, 3, 4} - there).pop())


def test_a_replica_moves_with_its_data_and_is_not_moved_back() -> None:
    async def test(four: Four) -> None:
        serving, governing = await four.settled()
        session = session_of(serving)
        await run(session, "CREATE TABLE t (a int PRIMARY KEY, b text)")
        await run(
            session, "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 500) g"
        )
        source, target = homes(governing, 1)
        other = next(node for node in four.nodes.values() if node is not serving)
        await other.operations.move(ShardId(1), source, target)  # of any node
        await until(lambda: voters(governing, 1) == {1, 2, 3, 4} - {source})
        assert ShardId(1) in governing.history.resting()
        session = session_of(await four.serving())
        assert await run(session, "SELECT count(*), max(a) FROM t") == [(500, 500)]
        await run(session, "INSERT INTO t SELECT g, 'y' FROM generate_series(501, 600) g")
        assert await run(session, "SELECT count(*) FROM t") == [(600,)]

    on_four(test)


def test_what_cannot_be_moved_is_refused() -> None:
    async def test(four: Four) -> None:
        serving, governing = await four.settled()
        source, target = homes(governing, 1)
        operations = serving.operations

        async def refused(shard: int, source: int, target: int) -> str:
            with pytest.raises(DatabaseError) as caught:
                await operations.move(ShardId(shard), NodeId(source), NodeId(target))
            return caught.value.sqlstate

        assert await refused(99, source, target) == "42704"
        assert await refused(1, source, 9) == "42704"
        assert await refused(1, target, source) == "42704"
        assert await refused(1, source, next(iter(voters(governing, 1) - {source}))) == "42710"
        spare = ({1, 2, 3, 4} - voters(governing, 0)).pop()
        assert await refused(0, serving.id, spare) == "55000"
        moving = asyncio.create_task(operations.move(ShardId(1), source, target))
        await asyncio.sleep(0)
        assert await refused(1, source, target) == "55006"
        await moving

    on_four(test)


def test_a_move_that_ends_otherwise_is_said_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(four: Four) -> None:
        serving, governing = await four.settled()
        shard = ShardId(1)
        _, target = homes(governing, 1)
        source = NodeId(next(iter(voters(governing, 1) - {serving.id})))
        begin = governing.history.begin
        monkeypatch.setattr(governing.history, "begin", lambda moves, _: begin(moves, -1_000.0))
        with pytest.raises(DatabaseError) as caught:
            await serving.operations.move(shard, source, target)  # it has begun long ago
        assert caught.value.sqlstate == "55000"

    on_four(test)


SHARDS = (1, 2, 3)
"""Those that hold rows."""


def spread(governing: Governing) -> dict[int, int]:
    """How many shards each node votes in, the emptiest node first."""
    counts = {node: sum(node in voters(governing, s) for s in SHARDS) for node in (1, 2, 3, 4)}
    return dict(sorted(counts.items(), key=lambda one: (one[1], one[0])))


def test_scattering_moves_replicas_until_they_are_even() -> None:
    async def test(four: Four) -> None:
        serving, governing = await four.settled()
        session = session_of(serving)
        await run(session, "CREATE TABLE t (a int PRIMARY KEY, b text)")
        rows = "SELECT g, repeat('x', 100) FROM generate_series(1, 500) g"
        await run(session, f"INSERT INTO t {rows}")
        assert [*spread(governing).values()] == [2, 2, 2, 3]
        source, target = [*spread(governing)][:2]
        shard = next(s for s in SHARDS if {source, target} & voters(governing, s) == {source})
        await serving.operations.move(ShardId(shard), NodeId(source), NodeId(target))
        await until(lambda: [*spread(governing).values()] == [1, 2, 3, 3])
        other = next(node for node in four.nodes.values() if node is not serving)
        with pytest.raises(DatabaseError) as caught:
            await other.operations.scatter("shardforge", "public", "nothing")
        assert caught.value.sqlstate == "42P01"
        moves, _ = await other.operations.scatter("shardforge", "public", "t")
        assert moves == 1
        await until(lambda: not governing.history.under_way)
        await until(lambda: [*spread(governing).values()] == [2, 2, 2, 3])
        assert await run(session_of(await four.serving()), "SELECT count(*) FROM t") == [(500,)]
        assert await serving.operations.scatter("", "", "") == (0, 0), "even already"

    on_four(test)


async def nothing() -> None:
    """A round in which nothing is done."""


def test_a_member_is_not_dropped_because_an_old_report_knows_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A learner that had acknowledged a state was made anew, empty, and became a voter by what it had acknowledged.
    async def test(four: Four) -> None:
        _, governing = await four.settled()
        shard = ShardId(1)
        _, target = homes(governing, 1)
        before = governing.sight_of(shard)
        assert before.leader is not None
        old = before._replace(applied=10**9)
        host = four.nodes[target].host
        assert host is not None
        await until(lambda: host.find(shard) is None)  # the round that settled it drops it last
        monkeypatch.setattr(governing, "_round", nothing)
        await governing._create(before.descriptor, target)
        learns = ConfChange((Change(ChangeKind.ADD_LEARNER, target),))
        assert await governing._changer.change(before.leader, shard, learns)
        replica = host.find(shard)
        assert replica is not None
        await until(lambda: target in replica.members.learners)
        await governing._remove_spare({shard: old})
        assert host.find(shard) is replica
        leaves = ConfChange((Change(ChangeKind.REMOVE, target),))
        assert await governing._changer.change(before.leader, shard, leaves)
        async with asyncio.timeout(10):
            while host.find(shard) is not None:  # as rounds would do it
                await governing._remove_spare({shard: old})
                await asyncio.sleep(0.01)

    on_four(test)


def test_a_government_that_ends_on_a_mistake_is_logged_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise RuntimeError("a mistake")

    async def test(four: Four) -> None:
        serving, governing = await four.settled()
        monkeypatch.setattr(governing, "_round", broken)
        governing.wake()
        await until(lambda: serving.governing not in (None, governing))
        assert "the government of the cluster ended" in caplog.text
        again = serving.governing
        assert again is not None
        await until(lambda: len(again.view().ready) == len(four.nodes))

    on_four(test)


def test_a_government_that_fails_while_it_is_ended_does_not_begin_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The group of its tasks then raises the failure alone: the node waited for ever for the end of its tenure.
    async def test(four: Four) -> None:
        serving, governing = await four.settled()
        reached = asyncio.Event()

        async def failing() -> None:
            reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise RuntimeError("a mistake")

        monkeypatch.setattr(governing, "_round", failing)
        governing.wake()
        await reached.wait()
        async with asyncio.timeout(10):
            await serving.stop()

    on_four(test)
