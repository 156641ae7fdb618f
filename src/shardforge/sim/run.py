"""One simulation from one seed: a cluster, clients, faults; then everything is healed, and judged.

First safety, whatever happens; then, without faults, the cluster must serve again and its replicas must hold the same.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import zlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from shardforge.errors import DatabaseError
from shardforge.ids import ShardId
from shardforge.shard.replica import Replica
from shardforge.sim.clients import Client
from shardforge.sim.cluster import FACTOR, SimNode
from shardforge.sim.faults import KINDS, Faults
from shardforge.sim.loop import SimLoop
from shardforge.sim.workloads import WORKLOADS, Workload
from shardforge.sim.world import World
from shardforge.sql.session.session import Session
from shardforge.storage import mvcc

CLIENTS = 4
THINK_SECONDS = (0.005, 0.1)
STUCK_SECONDS = 60.0
"""How much longer than it was to something may take: a node that has not stopped by then never will."""
HEAL_SECONDS = 40.0
JUDGE_SECONDS = 10.0
LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Report:
    """What a simulation saw. `trace` is the same for the same seed and program."""

    seed: int
    workload: str
    nodes: int
    seconds: float = 0.0
    """Virtual ones."""
    answers: dict[str, int] = field(default_factory=dict)
    """How often clients were told what."""
    faults: int = 0
    splits: int = 0
    merges: int = 0
    moves: int = 0
    interruptions: int = 0
    """Snapshots that were disturbed in the midst of their transfer."""
    deliveries: int = 0
    trace: int = 0
    violations: list[str] = field(default_factory=list)


def simulate(
    seed: int,
    *,
    minutes: float = 0.5,
    workload: str = "register",
    faults: Sequence[str] = tuple(KINDS),
    nodes: int = 3,
    asynchronous: bool = False,
    observers: int = 0,
    streaming: bool = False,
) -> Report:
    """Run one simulation, also with asynchronous replication: the same arguments, the same report, in any process.

    Of the nodes the last `observers` never vote. `streaming`: writes are intents long before their commit.
    """
    loop = SimLoop()
    report = Report(seed, workload, nodes)
    mistakes = _Mistakes()
    logging.getLogger("shardforge").addHandler(mistakes)
    running = gc.isenabled()
    gc.disable()  # a collection closes abandoned coroutines at a moment that no seed knows
    try:
        loop.run_until_complete(
            _Simulation(report, faults, asynchronous, observers, streaming).run(minutes * 60)
        )
    except DatabaseError as error:
        report.violations.append(f"a node could not start: {error}")
    finally:
        for context in loop.failures:
            report.violations.append(f"{context.get('message')}: {context.get('exception')!r}")
        _cancel_all(loop)
        loop.close()
        logging.getLogger("shardforge").removeHandler(mistakes)
        report.violations += mistakes.found
        if running:
            gc.enable()
            gc.collect()
    return report


class _Mistakes(logging.Handler):
    """Collects what nodes log of mistakes of ours that they survive: errors with an exception."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, if it is one."""
        if record.exc_info and record.exc_info[1] is not None:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


def _cancel_all(loop: SimLoop) -> None:
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class _Simulation:
    def __init__(
        self, report: Report, faults: Sequence[str], asynchronous: bool, observers: int, streaming: bool
    ) -> None:  # fmt: skip
        self._report = report
        self._observers = observers
        self._world = world = World(report.seed)
        self._nodes = [
            SimNode(
                world,
                n,
                report.nodes,
                asynchronous=asynchronous,
                observers=observers,
                streaming=streaming,
            )
            for n in range(1, report.nodes + 1)
        ]
        self._faults = Faults(world, self._nodes, faults)
        self._workload: Workload = WORKLOADS[report.workload]()
        self._clients = [Client(world, self._nodes, number) for number in range(CLIENTS)]
        self._over = asyncio.Event()

    async def run(self, seconds: float) -> None:
        """The whole simulation."""
        report = self._report
        for node in self._nodes:
            node.start()
        if await self._insist("prepare"):
            users = [asyncio.create_task(self._use(client)) for client in self._clients]
            healed = await self._in_time("a fault", self._faults.run(seconds), seconds)
            self._over.set()
            await asyncio.gather(*users)
            if healed and await self._insist("judge"):
                await self._compare()
        await self._in_time("the simulation", self._stop())
        for client in self._clients:
            report.violations += client.unexpected
        report.seconds = asyncio.get_running_loop().time()
        report.faults = self._faults.injected
        report.splits = self._faults.splits
        report.merges = self._faults.merges
        report.moves = self._faults.moves
        report.interruptions = self._faults.interruptions
        report.deliveries = self._world.deliveries
        report.trace = self._world.trace

    async def _stop(self) -> None:
        for node in self._nodes:
            if node.running:
                await node.crash()

    async def _in_time(self, what: str, work: Awaitable[None], seconds: float = 0.0) -> bool:
        """Whether it ended not much later than it was to."""
        try:
            async with asyncio.timeout(seconds + STUCK_SECONDS):
                await work
        except TimeoutError:
            self._report.violations.append(f"{what} did not end: a node does not stop")
            return False
        return True

    async def _use(self, client: Client) -> None:
        while not self._over.is_set():
            await self._workload.step(client)
            await asyncio.sleep(client.random.uniform(*THINK_SECONDS))
        for outcome, times in client.answers.items():
            self._report.answers[outcome] = self._report.answers.get(outcome, 0) + times

    async def _insist(self, what: str) -> bool:
        """Prepare or judge, which must succeed before long when there are no faults."""
        loop = asyncio.get_running_loop()
        end = loop.time() + HEAL_SECONDS
        work = self._workload.prepare if what == "prepare" else self._judge
        while loop.time() < end:
            if (await self._clients[0].attempt(work, seconds=JUDGE_SECONDS)).ok:
                return True
        self._report.violations.append(
            f"{what}: nobody served for {HEAL_SECONDS:g} s without faults"
        )
        return False

    async def _judge(self, session: Session) -> None:
        self._report.violations += await self._workload.judge(session)

    async def _compare(self) -> None:
        """Replicas of a shard must come to hold the same, and be as many as they should be; no intent is left."""
        loop = asyncio.get_running_loop()
        end = loop.time() + HEAL_SECONDS
        wrong = self._differences()
        while wrong and loop.time() < end:
            await asyncio.sleep(LOOK_SECONDS)
            wrong = self._differences()
        self._report.violations += wrong

    def _differences(self) -> list[str]:
        replicas: dict[ShardId, list[Replica]] = {}
        for node in self._nodes:
            assert node.host is not None, "healed"
            for replica in node.host.replicas:
                replicas.setdefault(replica.id, []).append(replica)
        wrong = [
            f"node {node.id} takes node {node.believed} for the one that serves"
            for node in self._nodes
            if node.believed is None or not self._nodes[node.believed - 1].serves
        ]
        able = len(self._nodes) - self._observers
        wanted = min(FACTOR, able) + self._observers
        for shard, copies in sorted(replicas.items()):
            applied = [replica.applied for replica in copies]
            voters = {replica.members.voters for replica in copies}
            if len(set(applied)) > 1:
                wrong.append(f"shard {shard}: replicas stay at {applied}")
            elif len(copies) != wanted or len(voters) != 1:
                wrong.append(f"shard {shard}: {len(copies)} replicas, voters {sorted(voters)}")
            elif len({_checksum(replica) for replica in copies}) > 1:
                wrong.append(f"shard {shard}: replicas differ at {applied[0]}")
            elif left := sum(1 for _ in mvcc.intents(copies[0].engine, b"", b"\xff")):
                wrong.append(f"shard {shard}: {left} intents are nobody's")
        return wrong


def _checksum(replica: Replica) -> int:
    """Of every pair of a replica's state machine."""
    crc = 0
    for key, value in replica.engine.scan(b"", b"\xff"):
        crc = zlib.crc32(value, zlib.crc32(key, crc))
    return crc
