"""Where a node stands comes from its configuration into its record: when it joins, and after each start."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from shardforge.cluster.members import Member, admit, decode_member, encode_member
from shardforge.ids import NodeId
from shardforge.node.joining import JoinRequest
from shardforge.node.reports import NodeReport, pack, unpack
from tests.inprocess import MEMORY, running_node
from tests.unit.test_node_tenures import Three, on_three, until


def test_who_joins_says_where_it_stands_and_may_say_otherwise_when_it_asks_again():
    member = admit([], "token", "a:1", "0.1", 0, 0, locality="zone=a")
    assert decode_member(encode_member(member)) == member
    assert member.locality == "zone=a"
    again = admit([member], "token", "b:1", "0.1", 0, 0, locality="zone=b")
    assert (again.id, again.locality) == (member.id, "zone=b")


def test_messages_and_rows_of_earlier_versions_name_no_locality():
    request = JoinRequest("t", "a:1", "0.1", NodeId(0), locality="zone=a")
    assert unpack(pack(request), JoinRequest) == request
    assert unpack(pack(["t", "a:1", "0.1", 0, True]), JoinRequest).locality == ""
    assert unpack(pack([1, "a:1", "0.1", False, [], 0.5]), NodeReport).locality == ""
    assert decode_member(pack({"id": 1, "address": "a:1"})) == Member(NodeId(1), "a:1")


def test_the_founder_of_a_cluster_notes_where_it_stands():
    async def test() -> None:
        cluster = replace(MEMORY.cluster, locality="zone=a,host=h1")
        async with running_node(replace(MEMORY, cluster=cluster)) as node:
            await until(lambda: node.governing is not None)
            assert node.governing is not None
            assert [m.locality for m in node.governing.members] == ["zone=a,host=h1"]

    asyncio.run(test())


def test_a_node_that_stands_elsewhere_now_gets_its_record_changed():
    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        other = three.nodes[serving.id % 3 + 1]
        other.peering.locality = "zone=b"
        governing = serving.governing
        assert governing is not None
        await until(
            lambda: any(m.id == other.id and m.locality == "zone=b" for m in governing.members)
        )

    on_three(test)
