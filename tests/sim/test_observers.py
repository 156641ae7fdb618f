"""Clusters with nodes that never vote: they catch up after any fault, cost nothing when lost, and decide nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from shardforge.raft.messages import Message, MessageKind
from shardforge.raft.state import Role
from shardforge.shard.member import GroupMember
from shardforge.shard.replica import Replica
from shardforge.sim import run
from shardforge.sim.cluster import SimNode
from shardforge.sim.faults import KINDS, Faults
from shardforge.sim.loop import SimLoop
from shardforge.sim.workloads import WORKLOADS
from shardforge.sim.world import World
from shardforge.sql.session.session import Session

MINUTES = 0.25
SEEDS = 12
VOTERS = 3
BALLOTS = {MessageKind.VOTE, MessageKind.PRE_VOTE, MessageKind.TIMEOUT_NOW}
GRANTS = {MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE_RESPONSE}


@pytest.fixture(autouse=True)
def ballots() -> Iterator[list[str]]:
    """What nodes beyond the voters said in elections: it must stay empty."""
    said: list[str] = []
    send, look = GroupMember._send, Replica._role_changed

    def sent(member: GroupMember, messages: list[Message]) -> None:
        for message in messages:
            granted = message.kind in GRANTS and not message.reject
            if message.sender > VOTERS and (granted or message.kind in BALLOTS):
                said.append(f"node {message.sender}: {message.kind.name}")
        send(member, messages)

    def looked(replica: Replica) -> None:
        if replica._with.node > VOTERS and replica.role is not Role.FOLLOWER:
            said.append(f"node {replica._with.node}: {replica.role.name}")
        look(replica)

    with patch.object(GroupMember, "_send", sent), patch.object(Replica, "_role_changed", looked):
        yield said
    assert not said


@pytest.mark.parametrize("first", range(0, SEEDS, 4))
def test_an_observer_catches_up_and_never_votes(first: int) -> None:
    names = list(WORKLOADS)
    for seed in range(first, first + 4):
        nodes, observers = (4, 1) if seed % 2 else (5, 2)
        report = run.simulate(
            seed, minutes=MINUTES, workload=names[seed % len(names)], nodes=nodes, observers=observers
        )  # fmt: skip
        assert not report.violations, report


def test_losing_an_observer_costs_nothing() -> None:
    async def loss_of_the_last(faults: Faults, _node: SimNode, seconds: float) -> None:
        await faults.crash(faults._nodes[-1], seconds)

    with patch.dict(KINDS, {"loss-of-the-last": loss_of_the_last}):
        report = run.simulate(3, minutes=MINUTES, faults=["loss-of-the-last"], nodes=4, observers=1)
    assert not report.violations, report
    assert report.faults > 3
    assert set(report.answers) == {"ok"}, report.answers


def test_a_majority_of_the_voters_is_needed() -> None:
    """Two of three voters are gone: with the observer half of the nodes are there, and nobody serves."""

    async def scenario() -> None:
        world = World(1)
        nodes = [SimNode(world, n, 4, observers=1) for n in (1, 2, 3, 4)]
        for node in nodes:
            node.start()
        async with asyncio.timeout(20):
            while not holds_all(nodes[3]) or serving(nodes) is None:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)
        first = serving(nodes)
        assert first is not None
        others = [node for node in nodes[:3] if node is not first]
        for node in others:
            await node.crash()
        await asyncio.sleep(10)
        assert serving(nodes) is None
        observer = nodes[3].host
        assert observer is not None
        assert observer.meta.lead is None, "it follows nobody"
        others[0].start()
        async with asyncio.timeout(20):
            while (now := serving(nodes)) is None:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)
        assert now in (first, others[0])
        session: Session = now.session()
        await asyncio.wait_for(session.execute("CREATE TABLE t (id int PRIMARY KEY)", ()), 10)

    loop = SimLoop()
    try:
        loop.run_until_complete(scenario())
    finally:
        run._cancel_all(loop)
        loop.close()


def holds_all(node: SimNode) -> bool:
    assert node.host is not None
    replicas = node.host.replicas
    return bool(replicas) and all(node.id in r.members.learners for r in replicas)


def serving(nodes: list[SimNode]) -> SimNode | None:
    return next((node for node in nodes if node.running and node.serves), None)
