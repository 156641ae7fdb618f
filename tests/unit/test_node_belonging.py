"""A node that has left is told so, whoever is asked; an election, a partition and a stranger's question end nobody."""

from __future__ import annotations

import asyncio

import pytest

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId
from shardforge.node.belonging import ANNOUNCE, Announcement
from shardforge.node.reports import pack, unpack
from tests.unit.test_node_tenures import Three, on_three, until


async def told(three: Three, asked: int, about: int) -> str:
    network = three.fabric.nodes[NodeId(asked % 3 + 1)]
    body = pack(Announcement(NodeId(about), "127.0.0.1:1"))
    return unpack(await network.call(NodeId(asked), ANNOUNCE, body, 5), str)


def test_the_rows_say_who_belongs():
    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        await until(
            lambda: all(n.peering and n.peering.serving_node() for n in three.nodes.values())
        )
        for asked in (1, 2, 3):
            said = [await told(three, asked, about) for about in (1, 2, 3, 4)]
            assert said == ["active", "active", "active", ""]

    on_three(test)


def test_a_node_given_up_ends_and_the_others_do_not(monkeypatch):
    monkeypatch.setattr("shardforge.node.belonging.UNASKED_SECONDS", 0.2)
    monkeypatch.setattr("shardforge.node.belonging.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shardforge.node.governing.SILENT_SECONDS", 0.5)

    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        governing = serving.governing
        assert governing is not None
        lost = three.nodes[serving.id % 3 + 1]
        ends = {n: asyncio.ensure_future(node.dismissed()) for n, node in three.nodes.items()}
        await until(lambda: len(governing.heard_at) == 2)
        three.fabric.isolate(lost.id)
        await until(lambda: lost.id in governing.sight().silent)
        assert not any(end.done() for end in ends.values()), "cut off is not gone"
        await governing.decommission(lost.id)
        await until(lambda: any(m.id == lost.id and m.state == "left" for m in governing.members))
        assert not ends[lost.id].done()
        three.fabric.cut.clear()
        await until(ends[lost.id].done)
        assert ends[lost.id].result() is None
        assert [end.done() for end in ends.values()].count(True) == 1
        for end in ends.values():
            end.cancel()

    on_three(test)


def test_without_a_leader_nobody_is_told_anything():
    async def test(three: Three) -> None:
        serving = await three.serving()
        for number in three.nodes:
            if number != serving.id:
                three.fabric.isolate(NodeId(number))
        three.fabric.cut -= {(NodeId(1), NodeId(2)), (NodeId(2), NodeId(3)), (NodeId(3), NodeId(1))}
        await until(lambda: not serving.instance)
        with pytest.raises(DatabaseError):
            await told(three, serving.id, 2)

    on_three(test)
