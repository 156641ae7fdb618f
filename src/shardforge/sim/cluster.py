"""Nodes of a simulated cluster: the real node from its replicas to its SQL sessions, over simulated ports, no sockets.

What is simulated is the ports and the crash: a node that crashes keeps what its files had made durable, and nothing
else. What a session was doing is never heard of again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from shardforge import __version__
from shardforge.cluster.plan import Settings
from shardforge.cluster.rebalance import Balance
from shardforge.config import Config
from shardforge.errors import DatabaseError, TransactionError
from shardforge.ids import NodeId, ShardId
from shardforge.node.changing import Changing
from shardforge.node.cutting import Cutting
from shardforge.node.following import Following
from shardforge.node.governing import ROUND_SECONDS, Governing
from shardforge.node.leading import Leading
from shardforge.node.merging import Merging
from shardforge.node.neighbours import neighbours
from shardforge.node.peering import Peering
from shardforge.node.splitting import Splitting
from shardforge.shard.descriptor import ShardDescriptor, initial_shards
from shardforge.shard.files import MemoryFiles, Shelf
from shardforge.shard.host import Host
from shardforge.shard.remote.service import ShardService
from shardforge.shard.replica import Replica
from shardforge.sim.network import SimNetwork
from shardforge.sim.world import SimBlocking, SimClock, World
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.session import Session
from shardforge.sql.session.tenure import Tenure
from shardforge.telemetry import Telemetry
from shardforge.txn.closed import Closed, ClosedTimestamps
from shardforge.txn.standby import StandbyStore
from shardforge.txn.store import Store, replica_options

T = TypeVar("T")

SHARDS = 2
FACTOR = 3
DOWN_AFTER_SECONDS = 2.5
DRIFT_MAX = 0.01
WALL_JUMP_US_MAX = 60_000_000
FLUSH_ENTRIES = 15
LOG_ENTRIES_MAX = 30
"""So few that a node which was away for a moment needs a snapshot."""
PIECE_BYTES = 512
"""So little that a snapshot takes many pieces, and can be interrupted between them."""
GC_RETENTION_SECONDS = 2
MAX_STALENESS_MS = 1500
SHARD_BYTES_MAX = 1 << 30
"""So much that a shard splits only when it is told to."""
SHARD_LOAD_MAX = 0.0
SLACK_BYTES = 500
"""Nodes may differ by so little: replicas move now and then."""
MOVES_MAX = 2


def _config(*, asynchronous: bool, streaming: bool) -> Config:
    config = Config()
    stream_size = 1 if streaming else config.sql.transaction_stream_size
    return replace(
        config,
        storage=replace(config.storage, engine="memory", gc_retention_sec=GC_RETENTION_SECONDS),
        replication=replace(
            config.replication, async_replication=asynchronous, max_staleness_ms=MAX_STALENESS_MS
        ),
        sharding=replace(config.sharding, initial_shard_count=SHARDS, merge_after_sec=0),
        sql=replace(config.sql, transaction_stream_size=stream_size),
    )


def _among(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that is in the set for as long as it runs."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for their ends."""
    ended = sorted(tasks, key=hash)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)


class SimNode:
    """One node; its files outlive it."""

    def __init__(
        self,
        world: World,
        number: int,
        nodes: int,
        *,
        asynchronous: bool = False,
        observers: int = 0,
        streaming: bool = False,
    ) -> None:
        """Node `number` of `nodes`, the last `observers` of which never vote.

        `streaming`: every transaction is so large that its writes do not wait for its commit.
        """
        self.id = NodeId(number)
        self.host: Host | None = None
        self.leading: Leading[Tenure] | None = None
        self.governing: Governing | None = None
        self._governing: Governing | None = None
        self._cutting: Cutting | None = None
        self._changing: Changing | None = None
        self.following: Following | None = None
        self.failures: list[str] = []
        """Replicas that stopped, and why."""
        self._world = world
        self._config = _config(asynchronous=asynchronous, streaming=streaming)
        self._everyone = {NodeId(n): f"node{n}" for n in range(1, nodes + 1)}
        self._observers = {NodeId(n) for n in range(nodes - observers + 1, nodes + 1)}
        voters = min(FACTOR, nodes - observers)
        self._files: dict[ShardId, MemoryFiles] = {}
        self._forked: Shelf = {}
        self._held: set[ShardId] = set()
        """The shards that had a replica since the node started."""
        self._shards: dict[ShardId, ShardDescriptor] = {}
        if number <= voters:
            founders = [NodeId(n) for n in range(1, voters + 1)]
            self._shards = {shard.id: shard for shard in initial_shards(SHARDS, founders)}
            self._files = {shard: MemoryFiles(shelf=self._forked) for shard in self._shards}
        rate = 1 + world.random.uniform(-DRIFT_MAX, DRIFT_MAX)
        offset_us = world.random.randrange(-WALL_JUMP_US_MAX, WALL_JUMP_US_MAX)
        self.clock = SimClock(world, self.id, rate, offset_us)
        self._clients: set[asyncio.Task[Any]] = set()
        self._readers: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = ClosedTimestamps()
        self._network: SimNetwork | None = None
        self._blocking = SimBlocking(world, self.id)
        self._peering: Peering | None = None
        self._government: asyncio.Task[None] | None = None
        self._yielding: asyncio.Task[None] | None = None

    @property
    def damaged(self) -> bool:
        """Whether a replica has stopped because of its disk."""
        return self.host is not None and any(r.failure is not None for r in self.host.replicas)

    # ---- what clients see ------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the node runs."""
        return self.host is not None

    @property
    def instance(self) -> Instance | None:
        """What sessions belong to, while this node serves."""
        tenure = None if self.leading is None else self.leading.tenure
        return None if tenure is None else tenure.instance

    @property
    def serves(self) -> bool:
        """Whether it takes writes."""
        instance = self.instance
        return instance is not None and not instance.standby

    @property
    def believed(self) -> NodeId | None:
        """Who serves, as far as this node knows: to whom it passes clients on."""
        return None if self._peering is None else self._peering.serving_node()

    def session(self) -> Session:
        """A new session of the superuser, on a node that has an instance."""
        instance = self.instance
        assert instance is not None, "only a node with an instance has sessions"
        return Session(instance, user="shardforge", database="shardforge")

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a client's work on this node; it is cancelled when the node ceases to serve, or to live."""
        return _among(self._clients, work)

    def begin_reading(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run the work of a client that the node answers as a follower, which need not be cancelled with a tenure."""
        return _among(self._readers, work)

    async def follower_session(self, level: str) -> Session | None:
        """A new session that reads at closed timestamps; None where the node passes it on."""
        if self.following is None or self.serves:
            return None
        instance = await self.following.ready(level)
        if instance is None:
            return None
        session = Session(instance, user="shardforge", database="shardforge")
        await session.execute(f"SET shardforge.consistency_level = '{level}'")
        return session

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start over the files that there are."""
        world = self._world
        self._network = network = SimNetwork(world, self.id)
        for node, address in self._everyone.items():
            network.set_address(node, address)
        blocking = self._blocking = SimBlocking(world, self.id)
        options = replica_options(self._config)._replace(
            flush_entries=FLUSH_ENTRIES,
            log_entries_max=LOG_ENTRIES_MAX,
            cache_bytes=1 << 20,
            piece_bytes=PIECE_BYTES,
        )
        self._closed = ClosedTimestamps()
        host = Host(
            self.id, self._open, network, self.clock, blocking, options,
            random.Random(world.random.getrandbits(64)), self._failed,
        )  # fmt: skip
        host.open(list(self._shards.values()))
        self._held = set(self._shards)
        host.listen_to_splits(lambda _, child: self._held.add(child.id))
        self.host = host
        self._peering = peering = Peering(
            host, None, network, blocking, self.clock, lambda: self._everyone[self.id], lambda: self.serves,
            self._offer,
        )  # fmt: skip
        service = ShardService(host, network, blocking)
        self._cutting = Cutting(host, network, blocking)
        self._changing = Changing(host, network)
        surroundings = random.Random(world.random.getrandbits(64))

        async def begin() -> Tenure:
            return await Tenure.begin(
                host, self._config, self.clock, blocking, Telemetry(), surroundings, lambda _: None,
                self.clock.wall_us(), neighbours(
                    host, service, network, peering, self.clock, lambda: self._governing
                ),
            )  # fmt: skip

        def stand_by() -> Awaitable[Tenure] | None:
            applied = {replica.id: replica.applied for replica in host.replicas}
            timestamp = self._closed.usable(applied)
            if not timestamp:
                return None
            return Tenure.stand_by(
                host, timestamp, self._closed.closed_us, self._config, self.clock, Telemetry(), surroundings,
                lambda _: None, self.clock.wall_us(),
            )  # fmt: skip

        self.leading = leading = Leading(host, begin, self._began, self._ending, stand_by)

        def store() -> Store | StandbyStore | None:
            return None if leading.tenure is None else leading.tenure.store

        self.following = Following(
            self._config, host, network, self.clock, Telemetry(), surroundings, lambda _: None,
            self.clock.wall_us(), self._closed, self._peering.serving_node, store, self._end_readers,
        )  # fmt: skip
        host.start()
        leading.start()
        self.following.start()

    def _open(self, shard: ShardDescriptor) -> MemoryFiles:
        if (
            self.host is not None
        ):  # a replica that is new here: what an earlier one left was deleted
            self._shards[shard.id] = shard
            self._held.add(shard.id)
            self._files[shard.id] = MemoryFiles(shelf=self._forked)
        return self._files[shard.id]

    def _failed(self, replica: Replica, error: Exception) -> None:
        self.failures.append(f"node {self.id} shard {replica.id}: {error}")

    def _offer(self, closed: Closed) -> None:
        self._closed.offer(closed, self.clock.monotonic_ns() // 1000)

    async def crash(self) -> None:
        """Lose everything that was not durable."""
        host, leading = self.host, self.leading
        assert host is not None, "running"
        assert leading is not None, "running"
        assert self._network is not None, "running"
        self._network.close()
        host.kill()
        following, self.following = self.following, None
        assert following is not None, "running"
        self.host = self.leading = None
        await leading.stop()
        await following.stop()
        await _cancelled(self._readers)
        for task in sorted(self._tasks, key=hash):
            task.cancel()
        for shard, (made, forked) in self._forked.items():  # also one that had no replica yet
            if shard not in self._shards:
                self._shards[shard], self._files[shard] = made, forked
        gone = self._held - {replica.id for replica in host.replicas}
        self._shards = {shard: what for shard, what in self._shards.items() if shard not in gone}
        for shard in self._shards:
            files = self._files[shard]
            kept = self._world.random.randint(0, files.engine.unflushed_count)
            self._files[shard] = MemoryFiles(
                files.engine.crash(kept), files.log.crash(), self._forked
            )

    # ---- tenures ---------------------------------------------------------------------------------

    def _began(self, tenure: Tenure) -> None:
        store = tenure.store
        if isinstance(store, Store):
            self._government = self._spawn(self._govern(store))

    async def _ending(self, _tenure: Tenure) -> None:
        if self._government is not None:
            self._government.cancel()
            await asyncio.gather(self._government, return_exceptions=True)
            self._government = None
        await _cancelled(self._clients)

    async def _end_readers(self, _instance: Instance, _reason: TransactionError) -> None:
        await _cancelled(self._readers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return _among(self._tasks, work)

    async def _govern(self, store: Store) -> None:
        host, peering, network = self.host, self._peering, self._network
        assert host is not None, "a tenure has a host"
        assert peering is not None, "a tenure has peers"
        assert network is not None, "a tenure has a network"
        assert self._cutting is not None, "a tenure has a host"
        assert self._changing is not None, "a tenure has a host"
        governing = Governing(
            host, network, peering, store, self.clock, self._changing, FACTOR,
            Settings(Balance(0.2, SLACK_BYTES), MOVES_MAX), DOWN_AFTER_SECONDS, self._yield_to,
        )  # fmt: skip
        self._governing = governing
        try:
            while self.governing is None:
                try:
                    await governing.begin(
                        self._everyone, self._everyone[self.id], __version__, self._observers
                    )
                    self.governing = governing
                except DatabaseError:
                    await self.clock.sleep(ROUND_SECONDS)
            governing.splitting = splitting = Splitting(
                host,
                store,
                self.clock,
                self._cutting,
                SHARD_BYTES_MAX,
                SHARD_LOAD_MAX,
                governing.event,
                governing.rest,
            )
            governing.merging = Merging(
                host, store, self.clock, self._blocking, self._cutting, self._config.sharding, governing.event,
                governing.rest,
            )  # fmt: skip
            async with asyncio.TaskGroup() as group:
                group.create_task(governing.run())
                group.create_task(splitting.run())
        finally:
            self.governing = self._governing = None
            await governing.close()

    def _yield_to(self, node: NodeId) -> None:
        leading = self.leading
        if leading is not None and (self._yielding is None or self._yielding.done()):
            self._yielding = self._spawn(self._give_way(leading, node))

    async def _give_way(self, leading: Leading[Tenure], node: NodeId) -> None:
        await leading.give_way(node, DOWN_AFTER_SECONDS)
        leading.resume()
