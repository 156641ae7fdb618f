"""The transactional store of a node, put together: shards, oracle, coordinator, background work.

`open_store` is all that the layers above need: keys and values in, ACID out. It builds nothing that is
not described elsewhere, and decides nothing but the order of starting and stopping.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from shardforge.config import Config
from shardforge.ids import NodeId
from shardforge.ports import Blocking, Clock, Network
from shardforge.shard.bootstrap import joined_shards, open_shards
from shardforge.shard.consensus import Timing
from shardforge.shard.descriptor import ShardDescriptor, initial_shards
from shardforge.shard.files import DiskFiles, MemoryFiles, Shelf
from shardforge.shard.host import FilesOf, Host
from shardforge.shard.peers import NoPeers
from shardforge.shard.replica import Replica
from shardforge.shard.router import Router
from shardforge.shard.surroundings import ReplicaOptions
from shardforge.storage.engine import Compression
from shardforge.storage.layout import DataDirectory
from shardforge.storage.rocksdb import SharedMemory
from shardforge.txn.commit_keys import CommitKeyCollector
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.garbage import GarbageCollector
from shardforge.txn.lease import Lease
from shardforge.txn.locks import LockTable
from shardforge.txn.oracle import OracleService
from shardforge.txn.participant import Participant
from shardforge.txn.resolver import Resolver
from shardforge.txn.snapshots import Snapshots

Metrics = dict[str, int]

logger = logging.getLogger("shardforge.store")


def newest_cache_bytes(config: Config) -> int:
    """Memory of the newest-version caches of all shards together: half of storage.block_cache_size."""
    return config.storage.block_cache_size // 2


class Store:
    """A running store. Made by `open_store`."""

    def __init__(
        self,
        host: Host,
        node: NodeId,
        clock: Clock,
        blocking: Blocking,
        retention_us: int,
        *,
        asynchronous: bool,
    ) -> None:
        self.host = host
        self._locks = LockTable()
        self.participants = [Participant(replica, self._locks) for replica in host.replicas]
        self.router = Router(self.participants)
        self.snapshots = Snapshots()
        self._clock = clock
        self.lease = Lease(host, clock)
        self.oracle = OracleService(host.meta, clock, self.lease)
        self.garbage = GarbageCollector(
            self.router, self.snapshots, lambda: self.oracle.last, clock, blocking, retention_us
        )
        self.coordinator = Coordinator(
            node, self.router, self.oracle, self.snapshots, self.garbage, self.lease,
            asynchronous=asynchronous,
        )  # fmt: skip
        self.resolver = Resolver(self.router, self.coordinator.committing)
        self._tasks: set[asyncio.Task[None]] = set()
        host.listen_to_splits(self._divided)

    def _divided(self, parent: Replica, child: Replica) -> None:
        """A shard was split: from this moment on its upper part is routed to the child."""
        self.participants = [*self.participants, Participant(child, self._locks)]
        self.garbage.divided(parent.id, child)
        self.router.replace(self.participants)

    def start_background(self) -> None:
        """Settle what a crash left, and collect garbage."""
        self._spawn(self.resolver.settle_all())
        self._spawn(self.garbage.run())
        self._spawn(self.garbage.run_sweeps())
        self._spawn(CommitKeyCollector(self.coordinator, self._clock).run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("work in the background has ended: %s", error, exc_info=error)

    async def end(self) -> None:
        """Stop the background work: this node does not lead any more. The host goes on."""
        self.lease.close()
        self.host.unlisten_to_splits(self._divided)
        await self._stop_background()

    async def close(self) -> None:
        """Finish the commits under way and close, host included. A crash instead loses nothing acknowledged."""
        await self._stop_background()
        await self.host.drain()
        await self.host.close()

    async def kill(self) -> None:
        """Stop at once, as a crash would. For tests and simulation."""
        self.host.kill()
        await self._stop_background()

    async def _stop_background(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def metrics(self) -> Metrics:
        """Figures of this tenure for monitoring: names in `_total` only grow. The node adds what exists without one."""
        marks = {
            shard.replica.id: list(shard.pending.marks.values()) for shard in self.participants
        }
        every_mark = [mark for found in marks.values() for mark in found]
        prepared = [mark for mark in every_mark if mark.values is not None]
        return {
            "transactions_active": self.coordinator.active,
            "snapshots_active": len(self.snapshots),
            "deadlocks_total": self.coordinator.waits.deadlocks,
            "locks_held": len(self._locks),
            "locks_waiting": self._locks.waiting,
            "shards": len(self.participants),
            "splits_total": self.host.counters.splits,
            "commit_marks": len(every_mark),
            "intents": sum(len(mark.keys) for mark in prepared),
            "garbage_versions_waiting": len(self.garbage),
            "garbage_versions_collected_total": self.garbage.collected,
            "orphans_resolved_total": self.resolver.resolved,
        }


def replica_options(config: Config) -> ReplicaOptions:
    """What the configuration says about each of a node's replicas."""
    raft = config.raft
    return ReplicaOptions(
        raft.snapshot_interval_entries,
        raft.max_log_entries,
        newest_cache_bytes(config),
        Timing.of(raft.election_timeout_ms, raft.heartbeat_interval_ms),
    )


def files_on_disk(directory: DataDirectory, config: Config) -> FilesOf:
    """Opens shards in their folders, sharing cache and memtable memory."""
    storage = config.storage
    memory = SharedMemory(
        storage.block_cache_size - newest_cache_bytes(config), storage.write_buffer_size
    )
    compression = cast("Compression", storage.compression)  # the configuration checks the choice
    return lambda descriptor: DiskFiles(directory, descriptor.id, memory, compression)


def _report_failure(replica: Replica, error: Exception) -> None:
    logger.critical("shard %d stopped and refuses all requests: %s", replica.id, error)


def open_host(
    directory: DataDirectory | None,
    config: Config,
    clock: Clock,
    blocking: Blocking,
    network: Network,
    randomness: random.Random,
    node: NodeId,
    voters: Sequence[NodeId],
    in_memory: FilesOf | None = None,
    forked: Shelf | None = None,
    on_failure: Callable[[Replica, Exception], None] = _report_failure,
) -> Host:
    """The replicas of a node's directory, or of memory, where `in_memory` may keep them, and `forked` those of splits.

    Those of a new cluster are made now, with these first voters; a node that joins one (no `voters`) is given its own.

    `on_failure` is called when a replica had to stop: its shard is not served here until a restart.
    """
    count = config.sharding.initial_shard_count
    if directory is None:
        shards = initial_shards(count, voters) if voters else []
        shelf: Shelf = {} if forked is None else forked
        files_of: FilesOf = in_memory or (lambda _: MemoryFiles(shelf=shelf))
        shards += [made for made, _ in shelf.values()]
    else:
        shards = open_shards(directory, count, voters) if voters else joined_shards(directory)
        files_of = files_on_disk(directory, config)
    options = replica_options(config)
    host = Host(node, files_of, network, clock, blocking, options, randomness, on_failure)
    host.open(shards)
    return host


def store_of(host: Host, config: Config, clock: Clock, blocking: Blocking) -> Store:
    """A store over a host that leads all shards, with its background work begun."""
    store = Store(
        host, host.node, clock, blocking, config.storage.gc_retention_sec * 1_000_000,
        asynchronous=config.replication.async_replication,
    )  # fmt: skip
    store.start_background()
    return store


async def start_store(
    shards: list[ShardDescriptor],
    files_of: FilesOf,
    config: Config,
    clock: Clock,
    blocking: Blocking,
    on_failure: Callable[[Replica, Exception], None],
) -> Store:
    """A store of one node over given shards; returns when all of them serve."""
    node = NodeId(config.cluster.node_id or 1)
    options = replica_options(config)
    host = Host(
        node, files_of, NoPeers(), clock, blocking, options, random.Random(0), on_failure
    )  # fmt: skip
    host.open(shards)
    host.start()
    await host.serving()
    return store_of(host, config, clock, blocking)


async def open_store(
    directory: DataDirectory | None,
    config: Config,
    clock: Clock,
    blocking: Blocking,
    on_failure: Callable[[Replica, Exception], None] = _report_failure,
) -> Store:
    """Open, or make, the store of a node that is alone; `directory` None: in memory."""
    node = NodeId(config.cluster.node_id or 1)
    host = open_host(
        directory, config, clock, blocking, NoPeers(), random.Random(0), node, [node], None, None, on_failure
    )  # fmt: skip
    host.start()
    await host.serving()
    return store_of(host, config, clock, blocking)
