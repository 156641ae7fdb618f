"""A shard that another node leads, and that is asked much, is split where its requests halve; one led here is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.node import Node
from shardforge.shard.remote import load
from tests.inprocess import run, session_of
from tests.unit.test_node_placing import Four, on_four, voters
from tests.unit.test_node_tenures import FAST, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = replace(FAST, sharding=replace(FAST.sharding, max_shard_load=100))
    monkeypatch.setattr("tests.unit.test_node_placing.FAST", busy)
    monkeypatch.setattr(load, "SAMPLE_MIN", 16)
    monkeypatch.setattr("shardforge.node.splitting.ROUND_SECONDS", 0.2)


def shard_ids(node: Node) -> set[ShardId]:
    assert node.serving is not None
    assert node.governing is not None
    return {sight.descriptor.id for sight in node.governing.shards()}


def test_a_shard_elsewhere_is_split_where_its_requests_halve() -> None:
    async def test(four: Four) -> None:
        serving, governing = await four.settled()
        session = session_of(serving)
        await run(session, "CREATE TABLE t (a int PRIMARY KEY, b int)")
        await run(session, "INSERT INTO t SELECT g, 0 FROM generate_series(1, 2000) g")
        before = shard_ids(serving)
        busy = next(
            s for s in sorted(before) if s != META_SHARD and serving.id in voters(governing, s)
        )
        [spare] = {1, 2, 3, 4} - voters(governing, busy)
        await serving.operations.move(busy, serving.id, NodeId(spare))
        await until(lambda: governing.sight_of(busy).leader not in (None, serving.id))
        async with asyncio.timeout(30):
            while shard_ids(serving) == before:
                await run(session, "UPDATE t SET b = b + 1")
        await until(lambda: len(governing.shards()) == len(before) + 1)
        [event] = [one["event"] for one in governing.events if "is split" in one["event"]]
        assert event.startswith(f"shard {busy} is split for its load, "), "no other is"
        assert await run(session, "SELECT count(*), min(b) = max(b) FROM t") == [(2000, True)]

    on_four(test)
