"""SHOW SHARDS: which shards there are, and which of them hold a table."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from shardforge.cluster.plan import History
from shardforge.errors import QueryError
from shardforge.ids import ShardId
from shardforge.sql.session.shard_view import printed
from shardforge.txn.shardmap import load_rows, sticky_of
from shardforge.txn.store import Store
from tests.inprocess import MEMORY, run, running_node, session_of
from tests.unit.test_node_tenures import until

FOUR_SHARDS = replace(MEMORY, sharding=replace(MEMORY.sharding, initial_shard_count=4))


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"", "min"),
        (b"t", "max"),
        (b"s", "s"),
        (b"h\x00\x10", "h/16"),
        (b"h\x00\x10" + (7).to_bytes(4) + (1).to_bytes(4) + b"\x02\xab", "h/16/orders/1/0x02ab"),
        (b"r" + (8).to_bytes(4) + (1).to_bytes(4), "r/8/1"),
        (b"g\x01\x02", "g/0102"),
        (b"g\x01", "g/0100"),
        (b"r\x00", "r/0x00"),
    ],
)
def test_a_boundary_is_printed_for_people(key: bytes, shown: str) -> None:
    assert printed(key, {7: "orders"}) == shown


async def _shown() -> None:
    async with running_node(FOUR_SHARDS) as node:
        session = session_of(node)
        await run(session, "CREATE TABLE hashed (id int PRIMARY KEY)")
        await run(session, "CREATE TABLE ranged (id int PRIMARY KEY) WITH (sharding = 'range')")
        shards = await run(session, "SHOW SHARDS")
        assert [row[:3] for row in shards] == [
            (1, "min", "h/16"), (2, "h/16", "h/32"), (3, "h/32", "h/48"), (4, "h/48", "s"), (0, "s", "max"),
        ]  # fmt: skip
        assert all(row[3:6] == (1, 1, "1") for row in shards)
        assert [r[0] for r in await run(session, "show shards from table hashed;")] == [1, 2, 3, 4]
        assert [r[0] for r in await run(session, 'SHOW SHARDS FROM TABLE public."ranged"')] == [4]
        with pytest.raises(QueryError, match='relation "nothing" does not exist'):
            await run(session, "SHOW SHARDS FROM TABLE nothing")
        with pytest.raises(QueryError, match="syntax error"):
            await run(session, "SHOW SHARDS FROM ranged")


SPLIT_AT = (b"h\x00\x08", b"h\x00\x04", b"h\x00\x0c")


async def _sticky() -> None:
    async with running_node(FOUR_SHARDS) as node:
        session = session_of(node)
        await until(lambda: node.governing is not None and node.governing.merging is not None)
        assert node.governing is not None
        splitting, merging = node.governing.splitting, node.governing.merging
        assert splitting is not None
        assert merging is not None
        store = node.instance and node.instance.store
        assert isinstance(store, Store)

        async def shown() -> list[tuple[int, bool]]:
            written = sticky_of(load_rows(node.host.meta.engine).values())
            found = [(row[0], row[-1]) for row in await run(session, "SHOW SHARDS")]
            assert {shard for shard, sticky in found if sticky} == written
            return found

        assert await splitting.split(ShardId(1), SPLIT_AT[0]) == 5
        assert node.governing.history.resting() == {1, 5}, "the plan leaves both alone for a while"
        for participant, at in zip(store.participants[:2], SPLIT_AT[1:], strict=True):
            await splitting._split(participant, at)  # as the watch over sizes does
        assert await shown() == [
            (1, False), (6, False), (5, True), (7, False), (2, False), (3, False), (4, False), (0, False)
        ]  # fmt: skip
        assert node.governing.history.resting() == {1, 5, 6, 7}
        node.governing.history = History()
        assert await merging.merge(ShardId(5)) == 7
        assert node.governing.history.resting() == {5}
        assert await merging.merge(ShardId(1)) == 6
        assert (await shown())[:3] == [(1, False), (5, True), (2, False)]
        assert await merging.merge(ShardId(1)) == 5
        assert [shard for shard, _ in await shown()] == [1, 2, 3, 4, 0]


def test_a_boundary_made_by_hand_is_sticky_until_it_goes_by_hand() -> None:
    asyncio.run(_sticky())


def test_shards_are_shown_in_key_order_and_those_of_a_table() -> None:
    asyncio.run(_shown())
