"""A node that has left is told so, whoever is asked; an election, a partition and a stranger's question end nobody."""

from __future__ import annotations

import asyncio

import pytest

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId, Timestamp
from shardforge.node.belonging import ANNOUNCE, Announcement
from shardforge.node.reports import REPORT, AddressBook, pack, unpack
from shardforge.txn.closed import Closed
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


def test_the_late_question_of_one_that_served_changes_nobody_s_mind():
    """A leader that stood still asks once more before it notices that another one leads."""

    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        nodes = list(three.nodes.values())
        await until(lambda: all(n.peering and n.peering.book.serving == serving.id for n in nodes))
        before = nodes[serving.id % 3]
        assert serving.peering is not None
        book = serving.peering.book
        late = AddressBook(book.version + 10**9, before.id, book.nodes, term=book.term - 1)
        body = pack((late, Closed(Timestamp(0), {})))
        for node in nodes:
            if node is not before:
                await three.fabric.nodes[before.id].call(node.id, REPORT, body, 5)
        assert all(n.peering and n.peering.book.serving == serving.id for n in nodes)

    on_three(test)
