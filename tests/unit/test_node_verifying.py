"""`cluster verify`: replicas are compared at one entry under load, and a damaged one is found wherever it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shardforge.cluster.leaders import Transfer
from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import NodeId, ShardId
from shardforge.node.reports import pack, unpack
from shardforge.node.verifying import TAKE, VERIFY, WATCH, Watch
from shardforge.shard.replica import Replica
from shardforge.storage import mvcc
from tests.inprocess import run, session_of
from tests.unit.test_node_tenures import Three, on_three, until


async def ask(three: Three, to: int, method: str, body: object) -> bytes:
    network = three.fabric.nodes[NodeId(to % 3 + 1)]
    return await network.call(NodeId(to), method, pack(body), 20)


async def verified(three: Three, shard: int, *, asked: int = 1) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            try:
                return unpack(await ask(three, asked, VERIFY, shard), dict[str, Any])
            except ConsensusError as error:  # a leader changed: on a busy machine at any time
                if "Try again" not in error.hint:
                    raise
                await asyncio.sleep(0.01)


def replica_of(three: Three, node: int, shard: int) -> Replica:
    host = three.nodes[node].host
    assert host is not None
    replica = host.find(ShardId(shard))
    assert replica is not None
    return replica


def test_replicas_are_equal_at_one_entry_under_load():
    async def test(three: Three) -> None:
        session = session_of(await three.serving())
        await run(session, "CREATE TABLE t (a int PRIMARY KEY, b text)")
        over = asyncio.Event()

        async def load() -> int:
            value = 0
            while not over.is_set():
                value += 1
                await run(session, f"INSERT INTO t VALUES ({value}, repeat('x', 1000))")
            return value

        writer = asyncio.create_task(load())
        for asked in (1, 2, 3):
            for shard in range(4):
                found = await verified(three, shard, asked=asked)
                assert (found["equal"], found["complete"]) == (True, True), found
                assert [replica["node"] for replica in found["replicas"]] == [1, 2, 3]
        over.set()
        assert await writer
        total = sum([(await verified(three, shard))["replicas"][0]["bytes"] for shard in range(4)])
        assert total > 1000

    on_three(test)


@pytest.mark.parametrize(
    ("node", "damage"), [(1, "changed"), (2, "changed"), (2, "removed"), (3, "added")]
)
def test_a_damaged_replica_is_found(node: int, damage: str):
    async def test(three: Three) -> None:
        serving = await three.serving()
        session = session_of(serving)
        await run(session, "CREATE TABLE t (a int PRIMARY KEY, b text)")
        await run(session, "INSERT INTO t SELECT g, repeat('x', 20) FROM generate_series(1, 200) g")
        replica = replica_of(three, node, 1)
        await verified(three, 1)  # whoever lags has the rows now
        [(key, value), *_] = replica.engine.scan(*mvcc.versions_of(b"\x00", b"\xff"))
        replica.engine.write([{
            "changed": (key, value[:-1] + b"?"), "removed": (key, None), "added": (key + b"\x01", b""),
        }[damage]])  # fmt: skip
        found = await verified(three, 1)
        assert not found["equal"]
        assert found["complete"]
        assert [one["node"] for one in found["replicas"] if one["differs"]] == [node]
        assert (await verified(three, 2))["equal"]

    on_three(test)


def test_a_shard_that_is_led_elsewhere_is_compared_by_its_leader():
    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        governing = serving.governing
        assert governing is not None
        other = NodeId(serving.id % 3 + 1)
        governing.history.hand_over(ShardId(1), governing.now())  # so that it is not drawn back
        governing.relocation.hand_over(Transfer(ShardId(1), serving.id, other))
        await until(lambda: governing.sight_of(ShardId(1)).leader == other)
        for asked in (1, 2, 3):
            found = await verified(three, 1, asked=asked)
            assert (found["equal"], found["complete"]) == (True, True), found
            assert [replica["node"] for replica in found["replicas"]] == [1, 2, 3]
        assert governing.sight_of(ShardId(1)).leader == other

    on_three(test)


def test_what_cannot_be_compared_is_told():
    async def test(three: Three) -> None:
        serving = await three.serving()
        lost = serving.id % 3 + 1
        three.fabric.isolate(NodeId(lost))
        network = three.fabric.nodes[NodeId((serving.id + 1) % 3 + 1)]
        answer = await network.call(serving.id, VERIFY, pack(0), 20)
        found = unpack(answer, dict[str, Any])
        assert (found["equal"], found["complete"]) == (True, False)
        assert "cannot be reached" in found["replicas"][lost - 1]["error"]
        with pytest.raises(DatabaseError, match="no shard 99"):
            await network.call(serving.id, VERIFY, pack(99), 20)

    on_three(test)


def test_a_state_is_kept_only_at_an_entry_to_come_and_taken_once():
    async def test(three: Three) -> None:
        serving = await three.serving()
        replica = replica_of(three, serving.id, 1)
        here, past = serving.id, Watch(ShardId(1), replica.applied)
        with pytest.raises(DatabaseError, match="applied already"):
            await ask(three, here, WATCH, past)
        first, second = Watch(ShardId(1), past.index + 1), Watch(ShardId(1), past.index + 2)
        await ask(three, here, WATCH, first)
        await ask(three, here, WATCH, second)
        await replica.drain()
        await replica.drain()
        with pytest.raises(DatabaseError, match="not kept"):
            await ask(three, here, TAKE, first)
        assert await ask(three, here, TAKE, second)
        with pytest.raises(DatabaseError, match="not kept"):
            await ask(three, here, TAKE, second)

    on_three(test)


def test_an_entry_that_does_not_come_is_told(monkeypatch):
    monkeypatch.setattr("shardforge.node.verifying.ARRIVE_SECONDS", 0.05)

    async def test(three: Three) -> None:
        serving = await three.serving()
        far = Watch(ShardId(1), replica_of(three, serving.id, 1).applied + 1000)
        await ask(three, serving.id, WATCH, far)
        with pytest.raises(ConsensusError, match="has not applied"):
            await ask(three, serving.id, TAKE, far)

    on_three(test)
