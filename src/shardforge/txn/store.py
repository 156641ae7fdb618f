"""The transactional store of a node, put together: shards, oracle, coordinator, background work.

`open_store` is all that the layers above need: keys and values in, ACID out. It builds nothing that is
not described elsewhere, and decides nothing but the order of starting and stopping.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from shardforge.config import Config
from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import NodeId, ShardId
from shardforge.ports import Blocking, Clock, Network
from shardforge.shard.bootstrap import joined_shards, open_shards
from shardforge.shard.consensus import Timing
from shardforge.shard.descriptor import ShardDescriptor, initial_shards, tiles
from shardforge.shard.files import DiskFiles, MemoryFiles, Shelf
from shardforge.shard.host import FilesOf, Host
from shardforge.shard.machine import nothing_lost
from shardforge.shard.peers import NoPeers
from shardforge.shard.remote.replica import Neighbours, RemoteReplica
from shardforge.shard.replica import Replica
from shardforge.shard.router import Router
from shardforge.shard.surroundings import ReplicaOptions
from shardforge.storage.engine import Compression
from shardforge.storage.layout import DataDirectory
from shardforge.storage.rocksdb import SharedMemory
from shardforge.txn.attach import begin_here, new_tenure, recover_marks, unseal
from shardforge.txn.commit_keys import CommitKeyCollector
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.garbage import GarbageCollector
from shardforge.txn.lease import Lease
from shardforge.txn.locks import LockTable
from shardforge.txn.maprows import put_rows
from shardforge.txn.oracle import OracleService
from shardforge.txn.participant import Participant
from shardforge.txn.reads import begun
from shardforge.txn.resolver import Resolver
from shardforge.txn.shardmap import (
    ShardRow,
    born,
    descriptor_of,
    ended,
    existing,
    kept_sticky,
    load_rows,
    row_of,
    sticky_of,
)
from shardforge.txn.snapshots import Snapshots
from shardforge.txn.writes import WriteMemory

Metrics = dict[str, int]

SETTLE_SECONDS = 0.5
"""How long until what could not be settled is tried again."""

NeighboursOf = Callable[[int], Neighbours]
"""Those of a tenure."""

logger = logging.getLogger("shardforge.store")

T = TypeVar("T")


def newest_cache_bytes(config: Config) -> int:
    """Memory of the newest-version caches of all shards together: half of storage.block_cache_size."""
    return config.storage.block_cache_size // 2


class Store:
    """A running store: one tenure. Made by `store_of`."""

    def __init__(
        self,
        host: Host,
        tenure: int,
        shards: Iterable[ShardDescriptor],
        begun: Iterable[ShardId],
        clock: Clock,
        blocking: Blocking,
        retention_us: int,
        neighbours: NeighboursOf | None,
        *,
        asynchronous: bool,
        transaction_memory: WriteMemory,
    ) -> None:
        """`begun`: the shards that were led here when the tenure began in them.

        `neighbours`: how shards that are not led here are reached; None where all of them are.
        """
        self.host = host
        self.tenure = tenure
        self._begun = set(begun)
        self.neighbours = None if neighbours is None else neighbours(tenure)
        self._term = host.meta.serving_term
        self.locks = LockTable()
        self.router = Router([self._participant(shard) for shard in shards])
        self.snapshots = Snapshots()
        self._clock = clock
        self.lease = Lease(host, clock)
        self.oracle = OracleService(host.meta, clock, self.lease)
        self.garbage = GarbageCollector(
            self.router, self.snapshots, lambda: self.oracle.last, clock, blocking, retention_us
        )
        self.coordinator = Coordinator(
            host.node, self.router, self.oracle, self.snapshots, self.garbage, self.lease,
            asynchronous=asynchronous, memory=transaction_memory,
        )  # fmt: skip
        self.resolver = Resolver(self.router, self.coordinator.alive, self.coordinator.tell)
        self.reshaping = asyncio.Lock()
        """Held while a shard is split or merged, or another node is to lead it: one at a time."""
        self.rows: dict[ShardId, ShardRow] = {}
        """The shard map as it is written down."""
        self._tasks: set[asyncio.Task[Any]] = set()
        host.listen(self._on_change)
        host.listen_to_splits(self._divided)
        host.listen_to_tenures(self._deposed)

    def _participant(self, shard: ShardDescriptor) -> Participant:
        replica = self.host.find(shard.id)
        alone = self.neighbours is None or self.host.alone
        if replica is not None and (alone or (replica.serving_term and shard.id in self._begun)):
            return self._local(replica)
        return self._elsewhere(shard)

    def _local(self, replica: Replica) -> Participant:
        participant = Participant(replica, self.locks)
        replica.recover = partial(recover_marks, participant)
        return participant

    def _elsewhere(self, shard: ShardDescriptor) -> Participant:
        assert self.neighbours is not None, "somebody else leads it"
        return Participant(RemoteReplica(shard, self.neighbours), self.locks)

    @property
    def participants(self) -> list[Participant]:
        """Every shard."""
        return self.router.shards

    @property
    def stands(self) -> bool:
        """Whether the tenure goes on: this node leads the meta shard, and what it led of the others."""
        host = self.host
        if host.tenure != self.tenure or host.meta.serving_term != self._term:
            return False
        return all(
            participant.replica.serving_term
            or participant.remote is not None
            or (participant.replica.failure is not None and host.alone)
            for participant in self.participants
        )

    # ---- shards that come, go, and are led by others ---------------------------------------------

    def _on_change(self, replica: Replica) -> None:
        """A shard that is led here no more takes its marks with it: whoever waits for them asks again."""
        for participant in self.participants:
            if participant.replica is replica and not replica.serving_term:
                participant.pending.clear()  # until `recover`, if it is led here again

    def _deposed(self, tenure: int) -> None:
        """A younger tenure has begun somewhere: nothing more is ordered in this one."""
        if tenure > self.tenure:
            for participant in self.participants:
                participant.closed = True

    def _divided(self, parent: Replica, child: Replica) -> None:
        """A shard that is led here was split: from this moment on its upper part is routed to the child."""
        if any(participant.replica is parent for participant in self.participants):
            self._begun.add(child.id)
            self._admit(parent.id, self._participant(child.descriptor))

    def admit(self, parent: ShardId, child: ShardDescriptor) -> None:
        """Route a new shard's keys to it: wherever it is led, the tenure begins in it first."""
        self._admit(parent, self._elsewhere(child))

    def _admit(self, parent: ShardId, participant: Participant) -> None:
        self.garbage.divided(parent, participant.descriptor)
        self.router.replace([*self.participants, participant])
        if participant.remote is not None:
            self._spawn(self.attach(participant))

    async def lead_here(self, before: Participant, replica: Replica) -> None:
        """A shard that was led elsewhere is led here now. Nothing is under way in it. Raises ConsensusError."""
        await begin_here(replica, self.tenure)
        after = self._local(replica)
        await recover_marks(after)  # what older tenures prepared may not have been learnt of yet
        if not replica.serving_term:
            replica.recover = nothing_lost
            raise ConsensusError(f"shard {replica.id} is led elsewhere again")
        self._begun.add(replica.id)
        assert before.remote is not None, "it was led elsewhere"
        before.remote.descriptor = replica.descriptor
        self._learn(replica.descriptor)
        self._exchange(before, after)
        self._spawn(self._settle(replica.descriptor))

    def lead_elsewhere(self, before: Participant) -> Participant:
        """A shard that is led here is not any more. Nothing is under way in it; it serves once its leader is found."""
        after = self._elsewhere(before.descriptor)
        self._exchange(before, after)
        self._spawn(self.attach(after))
        return after

    def merged(self, left: ShardId, right: ShardId) -> None:
        """A shard is a part of the one before it: from this moment on its keys are routed there."""
        known = {participant.replica.id: participant for participant in self.participants}
        before, after = known[right], known[left]
        after.replica.cache.clear()  # it may know of keys that were its own once
        self.garbage.merged(left, right)
        self.router.replace([one for one in self.participants if one is not before])
        if before.remote is not None:
            before.remote.merged = True
        self._let_go(before)

    def _exchange(self, before: Participant, after: Participant) -> None:
        marks = before.pending.marks.values()
        assert all(mark.orphan for mark in marks), "the shard is fenced off, and drained"
        self.router.replace([after if one is before else one for one in self.participants])
        self._let_go(before)

    async def attach(self, participant: Participant) -> None:
        """Let the tenure begin in a shard elsewhere, and then transactions in; unless it comes to be led here first."""
        remote = participant.remote
        assert remote is not None, "it is led elsewhere"
        await self._know_fate(remote.id)
        await remote.attach()
        if not remote.closed:
            self._learn(remote.descriptor)
        while not remote.closed:
            try:
                if remote.sealed:
                    await unseal(participant, self.tenure)
                await recover_marks(participant)
            except DatabaseError as error:
                logger.debug("what shard %d has prepared is not known yet: %s", remote.id, error)
            else:
                break
        if not remote.closed:
            remote.open()
            await self._settle(remote.descriptor)

    async def _settle(self, shard: ShardDescriptor) -> None:
        """What older tenures left in a shard half done, as soon as all that takes part in it can be reached."""
        while True:
            try:
                await self._settle_rows(shard)
                await self.resolver.settle_all()
            except DatabaseError as error:
                logger.debug("what is half done in shard %d stays for now: %s", shard.id, error)
                await self._clock.sleep(SETTLE_SECONDS)
            else:
                return

    async def _know_fate(self, shard: ShardId) -> None:
        """Of a shard that was to be a part of another in an older tenure: return when it is known whether it is."""
        row = self.rows.get(shard)
        if row is None or not row.merging:
            return
        heirs = [one for one in self.participants if one.replica.id == row.heir]
        while heirs and not heirs[0].term:
            try:
                await begun(heirs[0])
            except DatabaseError as error:
                logger.debug("whether shard %d is one is not known yet: %s", shard, error)
                await self._clock.sleep(SETTLE_SECONDS)
            heirs = [one for one in self.participants if one.replica.id == row.heir]

    def _learn(self, parent: ShardDescriptor) -> None:
        """Learn of shards that came out of one, or became a part of it, in an older tenure.

        It could not write it down any more.
        """
        for row in list(self.rows.values()):
            gone = row.heir == parent.id and row.merging and ended(row, parent)
            if gone and any(row.id == one.replica.id for one in self.participants):
                self.merged(parent.id, row.id)
        known = {participant.replica.id for participant in self.participants}
        for row in sorted(self.rows.values(), key=lambda row: row.epoch):
            if row.parent == parent.id and row.id not in known and born(row, parent):
                self.admit(parent.id, descriptor_of(row))

    def start_background(self) -> None:
        """Settle what a crash left, and collect garbage."""
        self._spawn(self._settle(self.host.meta.descriptor))
        self._spawn(self._write_map())
        for participant in self.participants:
            if participant.remote is not None:
                self._spawn(self.attach(participant))
        self._spawn(self.garbage.run())
        self._spawn(self.garbage.run_sweeps())
        self._spawn(CommitKeyCollector(self.coordinator, self._clock).run())

    async def _write_map(self) -> None:
        """Write down what the rows do not say yet."""
        try:
            for participant in self.participants:
                if participant.local:
                    await self._settle_rows(participant.descriptor)
            async with self.reshaping:
                rows = [self._row(one.descriptor) for one in self.participants if one.local]
                await self.write_rows([row for row in rows if self.rows.get(row.id) != row])
        except DatabaseError as error:
            logger.warning("the shard map is not written down yet: %s", error)

    def _row(self, shard: ShardDescriptor) -> ShardRow:
        return kept_sticky(row_of(shard), self.rows.get(shard.id))

    @property
    def sticky(self) -> set[ShardId]:
        """The shards that begin where somebody wanted it."""
        return sticky_of(self.rows.values())

    async def write_rows(self, rows: Sequence[ShardRow]) -> None:
        """Write rows of the shard map, all or none, and with the first of them all others. Raises DatabaseError.

        What is sticky stays so.
        """
        if not rows:
            return
        written = {*self.rows, *(row.id for row in rows)}
        rows = [
            *(kept_sticky(row, self.rows.get(row.id)) for row in rows),
            *(row_of(one.descriptor) for one in self.participants if one.replica.id not in written),
        ]
        await put_rows(self.coordinator, {row.id: row for row in rows})
        self.rows.update((row.id, row) for row in rows)

    async def forget_row(self, shard: ShardId) -> None:
        """Take back the row of a shard that did not come to be. Raises DatabaseError."""
        await put_rows(self.coordinator, {shard: None})
        self.rows.pop(shard, None)

    def check_settled(self, shard: ShardId, *, splits: bool = False) -> None:
        """Raise ConsensusError while the map does not say what became of a merge of the shard, or also of a split."""
        if any(
            (row.merging and shard in (row.id, row.heir))
            or (splits and not row.settled and shard in (row.id, row.parent))
            for row in self.rows.values()
        ):
            raise ConsensusError(
                f"what shard {shard} is now is still to be written down", hint="Try again."
            )

    async def _settle_rows(self, parent: ShardDescriptor) -> None:
        """Of shards that an older tenure was splitting from one, or making a part of it: write down what they are."""
        async with self.reshaping:
            for row in [row for row in self.rows.values() if not row.settled]:
                if row.heir == parent.id and ended(row, parent):
                    await self.write_rows([row_of(parent), replace(row, ended=True)])
                elif (
                    row.merging and row.id == parent.id
                ):  # it is served, so it is no part of another
                    await self.write_rows([row_of(parent)])
                elif row.parent == parent.id and born(row, parent):
                    await self.write_rows([row_of(descriptor_of(row)), row_of(parent)])
                elif row.parent == parent.id:
                    await self.forget_row(row.id)

    def carry_out(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that ends with the tenure, and not with whoever waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._carried_out)
        return task

    def _carried_out(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # is for who waits, if anybody still does

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
        self.host.unlisten(self._on_change)
        self.host.unlisten_to_splits(self._divided)
        self.host.unlisten_to_tenures(self._deposed)
        await self._stop_background()
        for participant in self.participants:
            self._let_go(participant)

    def _let_go(self, participant: Participant) -> None:
        participant.lose()
        here = self.host.find(participant.replica.id)
        if here is participant.replica:
            here.recover = nothing_lost

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
        prepared = [mark for mark in every_mark if mark.orphan or mark.values is not None]
        return {
            "transactions_active": self.coordinator.active,
            "snapshots_active": len(self.snapshots),
            "deadlocks_total": self.coordinator.waits.deadlocks,
            "locks_held": len(self.locks),
            "locks_waiting": self.locks.waiting,
            "shards": len(self.participants),
            "splits_total": self.host.counters.splits,
            "merges_total": self.host.counters.merges,
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
        snapshot_rate=raft.max_snapshot_rate,
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


async def store_of(
    host: Host,
    config: Config,
    clock: Clock,
    blocking: Blocking,
    neighbours: NeighboursOf | None = None,
) -> Store:
    """A store over a host that leads the meta shard, with its background work begun.

    Raises: ConsensusError when leadership is lost on the way, or a younger tenure is heard of.
    """
    tenure = await new_tenure(host.meta)
    if tenure < host.tenure:
        raise ConsensusError("another node serves, or will")
    host.hear_tenure(tenure)
    led = [replica for replica in host.replicas if replica.serving_term]
    begun = await asyncio.gather(
        *(begin_here(replica, tenure) for replica in led), return_exceptions=True
    )
    for failure in begun:
        if failure is not None:
            raise failure
    rows = load_rows(host.meta.engine)
    known = [replica.descriptor for replica in (led if rows else host.live)]
    told = {descriptor.id for descriptor in known}
    doubtful = {row.id for row in rows.values() if row.merging and row.heir not in told}
    shards = existing(rows, known) if rows else known
    if not tiles(shards) or (doubtful and host.alone):
        raise ConsensusError("not every shard is known here yet")
    store = Store(
        host, tenure, shards, [one.id for one in led if one.id not in doubtful], clock, blocking,
        config.storage.gc_retention_sec * 1_000_000, neighbours,
        asynchronous=config.replication.async_replication,
        transaction_memory=WriteMemory(config.sql.transaction_bytes, config.sql.stream_bytes),
    )  # fmt: skip
    store.rows = rows
    try:
        for participant in store.participants:
            if participant.local and participant.term:
                here = host.find(participant.replica.id)
                if here is not None and here.sealed:
                    await unseal(participant, tenure)
                await recover_marks(participant)
    except BaseException:
        await store.end()
        raise
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
    return await store_of(host, config, clock, blocking)


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
    return await store_of(host, config, clock, blocking)
