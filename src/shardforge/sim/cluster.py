"""Nodes of a simulated cluster: the real node from its replicas to its SQL sessions, over simulated ports, no sockets.

What is simulated is the ports and the crash: a node that crashes keeps what its files had made durable, and nothing
else. What a session was doing is never heard of again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from shardforge.cluster.plan import Settings
from shardforge.cluster.rebalance import Balance
from shardforge.config import Config
from shardforge.ids import NodeId, ShardId
from shardforge.node.governing import Governing
from shardforge.node.government import Founders
from shardforge.node.peering import Peering
from shardforge.node.serving import Serving
from shardforge.shard.descriptor import ShardDescriptor, initial_shards
from shardforge.shard.files import MemoryFiles, Shelf
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.sim.network import SimNetwork
from shardforge.sim.sessions import SimSessions
from shardforge.sim.world import SimBlocking, SimClock, World
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.session import Session
from shardforge.telemetry import Telemetry
from shardforge.txn.closed import ClosedTimestamps
from shardforge.txn.store import replica_options

T = TypeVar("T")

SHARDS = 2
FACTOR = 3
DOWN_AFTER_SECONDS = 3
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
SHARD_LOAD_MAX = 0
SETTINGS = Settings(Balance(threshold=0.2, slack_bytes=500), moves_max=2)
"""Nodes may differ by so little that replicas move now and then."""


def _config(*, asynchronous: bool, streaming: bool) -> Config:
    config = Config()
    stream_size = 1 if streaming else config.sql.transaction_stream_size
    return replace(
        config,
        storage=replace(config.storage, engine="memory", gc_retention_sec=GC_RETENTION_SECONDS),
        replication=replace(
            config.replication, factor=FACTOR, down_after_sec=DOWN_AFTER_SECONDS,
            async_replication=asynchronous, max_staleness_ms=MAX_STALENESS_MS,
        ),
        sharding=replace(
            config.sharding, initial_shard_count=SHARDS, max_shard_size=SHARD_BYTES_MAX,
            max_shard_load=SHARD_LOAD_MAX, merge_after_sec=0,
        ),
        sql=replace(config.sql, transaction_stream_size=stream_size),
    )  # fmt: skip


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
        self.serving: Serving | None = None
        self.sessions = SimSessions()
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
        self._network: SimNetwork | None = None
        self._peering: Peering | None = None

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
        return self.sessions.instance

    @property
    def governing(self) -> Governing | None:
        """The cluster's government, while this node serves."""
        return None if self.serving is None else self.serving.governing

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
        return self.sessions.begin(work)

    def begin_reading(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run the work of a client that the node answers as a follower, which need not be cancelled with a tenure."""
        return self.sessions.begin_reading(work)

    async def follower_session(self, level: str) -> Session | None:
        """A new session that reads at closed timestamps; None where the node passes it on."""
        if self.serving is None or self.serves:
            return None
        instance = await self.serving.following.ready(level)
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
        blocking = SimBlocking(world, self.id)
        options = replica_options(self._config)._replace(
            flush_entries=FLUSH_ENTRIES,
            log_entries_max=LOG_ENTRIES_MAX,
            cache_bytes=1 << 20,
            piece_bytes=PIECE_BYTES,
        )
        host = Host(
            self.id, self._open, network, self.clock, blocking, options,
            random.Random(world.random.getrandbits(64)), self._failed,
        )  # fmt: skip
        host.open(list(self._shards.values()))
        self._held = set(self._shards)
        host.listen_to_splits(lambda _, child: self._held.add(child.id))
        self.host = host
        self._peering = Peering(
            host, None, network, blocking, self.clock, lambda: self._everyone[self.id], lambda: self.serves,
            ClosedTimestamps(),
        )  # fmt: skip
        self.serving = Serving(
            self._config, host, self._peering, self.sessions, self.clock, blocking, Telemetry(),
            random.Random(world.random.getrandbits(64)), SETTINGS,
            Founders(self._everyone, self._observers), self.clock.wall_us(),
        )  # fmt: skip
        host.start()
        self.serving.start()

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

    async def crash(self) -> None:
        """Lose everything that was not durable."""
        host, serving = self.host, self.serving
        assert host is not None, "running"
        assert serving is not None, "running"
        assert self._network is not None, "running"
        self._network.close()
        host.kill()
        self.host = self.serving = None
        await self.sessions.end()
        await serving.stop()
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
