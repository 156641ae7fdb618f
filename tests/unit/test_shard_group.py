"""Shards replicated over several hosts of one process: elections, replication, snapshots, membership, restarts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from shardforge.adapters.clock import SystemClock
from shardforge.errors import ConsensusError
from shardforge.ids import META_SHARD, NodeId, ShardId, Timestamp, TxnId
from shardforge.raft.confchange import Change, ChangeKind, ConfChange
from shardforge.raft.messages import Message, MessageKind
from shardforge.shard.command import Collect, Commit, Outcome
from shardforge.shard.consensus import Timing
from shardforge.shard.descriptor import ShardDescriptor, initial_shards
from shardforge.shard.files import MemoryFiles
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.shard.rest import Rest
from shardforge.shard.surroundings import ReplicaOptions
from shardforge.storage import mvcc
from shardforge.testing.network import Fabric
from tests.inline import Inline

KEY = b"h\x00\x00key"
OPTIONS = ReplicaOptions(flush_entries=5, log_entries_max=10, timing=Timing(5, 6, 2))


class Group:
    """Hosts with the same two shards."""

    def __init__(self, *nodes: int) -> None:
        self.fabric = Fabric()
        self.files: dict[tuple[int, int], MemoryFiles] = {}
        self.hosts: dict[int, Host] = {}
        self.expected: type[Exception] | None = None
        """What a replica may stop with."""
        self.stopped: list[tuple[ShardId, Exception]] = []
        for node in nodes:
            self.open(node, initial_shards(1, [NodeId(n) for n in nodes]))

    def open(self, node: int, shards: list[ShardDescriptor]) -> Host:
        def files_of(descriptor: ShardDescriptor) -> MemoryFiles:
            return self.files.setdefault((node, descriptor.id), MemoryFiles())

        host = Host(
            NodeId(node), files_of, self.fabric.network(NodeId(node)), SystemClock(), Inline(), OPTIONS,
            random.Random(node), self._failed,
        )  # fmt: skip
        host.open(shards)
        host.start()
        self.hosts[node] = host
        return host

    def _failed(self, replica: Replica, error: Exception) -> None:
        if self.expected is None or not isinstance(error, self.expected):
            raise AssertionError(f"shard {replica.id} stopped") from error
        self.stopped.append((replica.id, error))

    def crash(self, node: int) -> None:
        self.fabric.remove(NodeId(node))
        self.hosts.pop(node).kill()
        for (owner, shard), files in list(self.files.items()):
            if owner == node:
                engine = files.engine.crash(kept=files.engine.unflushed_count // 2)
                self.files[owner, shard] = MemoryFiles(engine, files.log.crash())

    def replica(self, node: int, shard: int = 1) -> Replica:
        return next(r for r in self.hosts[node].replicas if r.id == shard)

    async def leader(self, shard: int = 1, *, among: set[int] | None = None) -> Replica:
        return await until(
            lambda: next(
                (
                    r
                    for node in among or set(self.hosts)
                    if (r := self.replica(node, shard)).serving_term
                ),
                None,
            )
        )

    async def write(self, number: int, *, among: set[int] | None = None) -> None:
        while True:
            leader = await self.leader(among=among)
            outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            command = Commit(
                TxnId(number), Timestamp(number), leader.serving_term, [(KEY, b"%d" % number)]
            )
            leader.propose(command, outcome.set_result)
            if await asyncio.wait_for(outcome, 5) is Outcome.APPLIED:
                return

    def value(self, node: int) -> bytes | None:
        return mvcc.read(self.replica(node).engine, KEY, 1 << 40)

    async def settled(self, value: bytes) -> None:
        await until(lambda: all(self.value(node) == value for node in self.hosts) or None)

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.close()


async def until(found: Callable[[], object]):
    async with asyncio.timeout(10):
        while (value := found()) is None:  # noqa: ASYNC110 - a condition over several hosts
            await asyncio.sleep(0.002)
        return value


def run(test: Callable[[Group], Awaitable[None]], *nodes: int) -> None:
    async def body() -> None:
        group = Group(*nodes)
        try:
            await test(group)
        finally:
            await group.close()

    asyncio.run(body())


def test_three_replicas_hold_what_the_leader_acknowledged():
    async def test(group: Group) -> None:
        for number in range(1, 30):
            await group.write(number)
        await group.settled(b"29")
        assert {r.lead for r in map(group.replica, (1, 2, 3))} == {group.replica(1).lead}

    run(test, 1, 2, 3)


def test_a_node_is_at_rest_when_nothing_was_done_for_a_while() -> None:
    rest = Rest(100)
    assert not rest.seen(1_000, 5, 7)
    assert not rest.seen(1_099, 5, 7)
    assert rest.seen(1_100, 5, 7)
    assert not rest.seen(1_101, 5, 8), "somebody has asked for the lease"
    assert not rest.seen(1_200, 5, 8)
    assert rest.seen(1_201, 5, 8)
    assert not rest.seen(1_202, 6, 8), "something was written"


def test_a_lost_leader_is_replaced_and_catches_up_when_it_is_back():
    async def test(group: Group) -> None:
        await group.write(1)
        lost = int((await group.leader()).lead or 0)
        group.crash(lost)
        for number in range(2, 40):
            await group.write(number)
        group.open(lost, initial_shards(1, [NodeId(n) for n in (1, 2, 3)]))
        await group.settled(b"39")

    run(test, 1, 2, 3)


@pytest.mark.parametrize("where", ["step", "tick"])
def test_a_mistake_in_one_replica_stops_that_one_alone(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class MistakeError(Exception):
        pass

    def fails(*_: object) -> None:
        monkeypatch.undo()
        raise MistakeError

    async def test(group: Group) -> None:
        await group.write(1)
        leader, meta = await group.leader(), await group.leader(META_SHARD)
        node = int(leader.lead or 0)
        group.expected = MistakeError
        monkeypatch.setattr(leader, where, fails)
        await until(lambda: leader.failure)
        others = {1, 2, 3} - {node}
        await group.write(2, among=others)
        assert [(shard, type(error)) for shard, error in group.stopped] == [(1, MistakeError)]
        assert "Traceback" in caplog.text
        assert group.replica(node, META_SHARD).failure is None
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        meta.propose(Collect(()), outcome.set_result)
        assert await asyncio.wait_for(outcome, 5) is Outcome.APPLIED
        applied = meta.applied
        await until(lambda: group.replica(node, META_SHARD).applied >= applied or None)

    run(test, 1, 2, 3)


def test_a_minority_acknowledges_nothing_and_its_lease_ends():
    async def test(group: Group) -> None:
        await group.write(1)
        old = await group.leader()
        cut = int(old.lead or 0)
        others = {1, 2, 3} - {cut}
        group.fabric.isolate(NodeId(cut))
        outcomes: list[Outcome] = []
        old.propose(
            Commit(TxnId(2), Timestamp(2), old.serving_term, [(KEY, b"lost")]), outcomes.append
        )
        await group.leader(among=others)
        clock = SystemClock()
        assert old.lease_until_us(clock.monotonic_ns() // 1000) < clock.monotonic_ns() // 1000
        await group.write(3, among=others)
        await until(lambda: not old.serving_term or None)
        assert outcomes == [Outcome.UNKNOWN]
        group.fabric.cut.clear()
        await group.settled(b"3")

    run(test, 1, 2, 3)


def test_a_newcomer_gets_a_snapshot_then_a_vote():
    async def test(group: Group) -> None:
        for number in range(1, 10):
            await group.write(number)
        newcomers = [s for s in initial_shards(1, []) if s.id != META_SHARD]
        group.open(2, newcomers)
        leader = await group.leader()
        assert leader.change_members(ConfChange((Change(ChangeKind.ADD_LEARNER, 2),)))
        await until(lambda: group.value(2) == b"9" or None)
        assert group.replica(2).members.learners == (2,)
        assert leader.change_members(ConfChange((Change(ChangeKind.ADD_VOTER, 2),)))
        await until(lambda: group.replica(2).members.voters == (1, 2) or None)
        await group.write(10)
        leader.hand_over(NodeId(2))
        await until(lambda: group.replica(2).serving_term or None)
        await group.write(11, among={2})
        await group.settled(b"11")

    run(test, 1)


def test_a_follower_behind_the_log_is_sent_the_whole_state():
    async def test(group: Group) -> None:
        await group.write(1)
        leader = await group.leader()
        behind = next(node for node in (1, 2, 3) if node != leader.lead)
        group.fabric.isolate(NodeId(behind))
        others = {1, 2, 3} - {behind}
        for number in range(2, 60):
            await group.write(number, among=others)
        await until(lambda: all(group.replica(n)._log.base_index > 30 for n in others) or None)
        group.fabric.cut.clear()
        await group.settled(b"59")
        group.crash(behind)
        group.open(behind, initial_shards(1, [NodeId(n) for n in (1, 2, 3)]))
        await group.write(60)
        await group.settled(b"60")

    run(test, 1, 2, 3)


@pytest.mark.parametrize("seed", range(5))
def test_crashes_and_cuts_lose_nothing_acknowledged(seed: int):
    async def test(group: Group) -> None:
        choice = random.Random(seed)
        number = 0
        for _ in range(6):
            for _ in range(choice.randrange(1, 8)):
                number += 1
                await group.write(number)
            node = choice.choice((1, 2, 3))
            if choice.random() < 0.5:
                group.crash(node)
                number += 1
                await group.write(number)
                group.open(node, initial_shards(1, [NodeId(n) for n in (1, 2, 3)]))
            else:
                group.fabric.isolate(NodeId(node))
                number += 1
                await group.write(number, among={1, 2, 3} - {node})
                group.fabric.cut.clear()
        await group.settled(b"%d" % number)

    run(test, 1, 2, 3)


def test_a_leader_says_what_its_own_log_has_before_a_majority_does():
    async def test(group: Group) -> None:
        await group.write(1)
        leader = await group.leader()
        group.fabric.isolate(leader.lead)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcomes: list[Outcome] = []
        command = Commit(TxnId(2), Timestamp(2), leader.serving_term, [(KEY, b"2")])
        leader.propose(command, outcomes.append, lambda: stored.set_result(None))
        await asyncio.wait_for(stored, 5)
        assert not outcomes
        assert mvcc.read(leader.engine, KEY, 1 << 40) == b"1"
        await until(lambda: outcomes or None)
        assert outcomes == [Outcome.UNKNOWN]

    run(test, 1, 2, 3)


def test_a_replica_made_anew_does_not_vote_before_it_has_a_state():
    """Else it could help a member of old, which missed that others were removed, to a majority of old."""

    async def test(group: Group) -> None:
        await group.write(1)
        group.crash(1)
        for number in (0, 1):
            group.files[1, number] = MemoryFiles()
        group.open(1, initial_shards(1, []))
        group.fabric.isolate(NodeId(1))
        fresh = group.replica(1)
        fresh.step(Message(MessageKind.VOTE, 1, 2, 99, 100, 98, context=b"transfer"))
        assert fresh.term < 99

    run(test, 1, 2, 3)


def test_a_host_that_closes_waits_for_replicas_that_are_dropped_and_takes_no_more():
    async def test(group: Group) -> None:
        await group.write(1)
        host, dropped = group.hosts[1], group.replica(1)
        dropping = asyncio.create_task(host.drop(dropped.id))
        await asyncio.sleep(0)
        assert host.find(dropped.id) is None
        await host.close()
        assert dropped._pump is not None
        assert dropped._pump.done()
        await dropping
        with pytest.raises(ConsensusError, match="stopping"):
            host.adopt([dropped.descriptor])

    run(test, 1)
