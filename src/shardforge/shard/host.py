"""All replicas of a node: opened from their directories, ticked, spoken to, and closed together.

The host is the one place where a node's groups meet: one clockwork ticks them, messages of one turn share a frame a
peer (`peers`), and pieces of snapshots are served for all of them. It decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from shardforge.errors import ConsensusError, DatabaseError, StorageError
from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.ports import Blocking, Clock, Network
from shardforge.shard.consensus import FIRST
from shardforge.shard.counters import SnapshotCounters
from shardforge.shard.descriptor import ShardDescriptor, tiles
from shardforge.shard.fetch import Fetch
from shardforge.shard.files import Forked, ShardFiles
from shardforge.shard.pace import Pace
from shardforge.shard.peers import Outbox, decode_frame
from shardforge.shard.replica import Replica
from shardforge.shard.rest import Rest
from shardforge.shard.snapshot import METHOD, decode_pull
from shardforge.shard.surroundings import LogCounters, ReplicaOptions, Surroundings
from shardforge.storage.newest_cache import CacheMemory

FilesOf = Callable[[ShardDescriptor], ShardFiles]

EXPIRY_TICKS = 40
HEARTBEATS_AT_ONCE = 2
"""A node that leads nothing, or nothing that anybody asked for of late, looks at the clockwork once in so many
heartbeats: wake-ups are what a node at rest costs, an election timeout is many more, and the lease still holds."""
AT_REST_NS = 2_000_000_000
PATIENCE_MAX = 2.0
"""A loop that is often late stretches its followers' election timeout, at most so many times."""
LATE_MS = 5.0
"""A pause of the loop, rather than the clock's grain."""
TURNS = 2
"""Turns of the event loop after which what arrived has been read."""

log = logging.getLogger("shardforge.shard")


class Host:
    """The replicas of one node."""

    def __init__(
        self,
        node: NodeId,
        files_of: FilesOf,
        network: Network,
        clock: Clock,
        blocking: Blocking,
        options: ReplicaOptions,
        randomness: random.Random,
        on_failure: Callable[[Replica, Exception], None],
    ) -> None:
        self.node = node
        self.counters = LogCounters()
        self.snapshots = SnapshotCounters()
        self.tenure = 0
        """The youngest tenure that this node has heard of."""
        self.lag_ms = 0.0
        """The longest that the loop was late of late: a follower's patience has to bear it."""
        self._files_of = files_of
        self._clock = clock
        self._replicas: dict[ShardId, Replica] = {}
        self._listeners: list[Callable[[Replica], None]] = []
        self._tenure_listeners: list[Callable[[int], None]] = []
        self._split_listeners: list[Callable[[Replica, Replica], None]] = []
        self._merge_listeners: list[Callable[[Replica], None]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._ticker: asyncio.Task[None] | None = None
        self._closing = False
        self._dropping: set[Replica] = set()
        """Those that `drop` is closing."""
        self._leases_asked = 0
        self._rest = Rest(AT_REST_NS)
        self._timing = options.timing
        self._with = Surroundings(
            node, clock, blocking, options, self.counters, Outbox(network),
            Fetch(network, blocking, clock, self.snapshots, Pace(options.snapshot_rate)), randomness,
            on_failure, self._changed, self._divided, self._merged, self._keeps_logs,
            CacheMemory(options.cache_bytes),
        )  # fmt: skip
        network.on_frame(self._on_frame)
        network.on_call(METHOD, self._on_pull)

    # ---- which replicas --------------------------------------------------------------------------

    @property
    def replicas(self) -> list[Replica]:
        """The replicas, by shard id."""
        return [self._replicas[shard] for shard in sorted(self._replicas)]

    @property
    def meta(self) -> Replica:
        """The replica of the meta shard."""
        return self._replicas[META_SHARD]

    @property
    def live(self) -> list[Replica]:
        """The same without those whose shard is a part of another one's that is here."""
        ended = {
            shard for replica in self._replicas.values() for shard in replica.descriptor.absorbed
        }
        return [replica for replica in self.replicas if replica.id not in ended]

    def find(self, shard: ShardId) -> Replica | None:
        """The replica of a shard, if there is one here."""
        return self._replicas.get(shard)

    def find_meta(self) -> Replica | None:
        """The replica of the meta shard, if there is one here."""
        return self._replicas.get(META_SHARD)

    def open(self, shards: Iterable[ShardDescriptor]) -> None:
        """Open replicas, not started yet. Blocks."""
        for descriptor in shards:
            replica = Replica(descriptor, self._files_of(descriptor), self._with)
            self._replicas[replica.id] = replica

    def adopt(self, shards: Iterable[ShardDescriptor]) -> None:
        """Open and start replicas of a running host. Blocks as long as opening does. Raises 57P03 when it closes."""
        if self._closing:
            raise ConsensusError("the node is stopping", "57P03")
        shards = list(shards)
        self.open(shards)
        for descriptor in shards:
            self._replicas[descriptor.id].start()

    async def drop(self, shard: ShardId) -> None:
        """Close a replica that its group has removed; its files are the caller's to delete."""
        replica = self._replicas.pop(shard, None)
        if replica is not None:
            self._dropping.add(replica)
            try:
                await replica.close()
            finally:
                self._dropping.discard(replica)

    def listen(self, listener: Callable[[Replica], None]) -> None:
        """Have `listener` called whenever a replica's role, leader, members or state of service changed."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[Replica], None]) -> None:
        """Call the listener no more."""
        self._listeners.remove(listener)

    def listen_to_tenures(self, listener: Callable[[int], None]) -> None:
        """Have `listener` called with each tenure that is younger than any before."""
        self._tenure_listeners.append(listener)

    def unlisten_to_tenures(self, listener: Callable[[int], None]) -> None:
        """Call the listener no more."""
        self._tenure_listeners.remove(listener)

    def hear_tenure(self, tenure: int) -> None:
        """Somebody serves in this tenure, or did: older ones are over."""
        if tenure > self.tenure:
            self.tenure = tenure
            for listener in list(self._tenure_listeners):
                listener(tenure)

    def listen_to_splits(self, listener: Callable[[Replica, Replica], None]) -> None:
        """Have `listener` called with parent and child whenever a replica was split, before anything else happens."""
        self._split_listeners.append(listener)

    def unlisten_to_splits(self, listener: Callable[[Replica, Replica], None]) -> None:
        """Call the listener no more."""
        self._split_listeners.remove(listener)

    def listen_to_merges(self, listener: Callable[[Replica], None]) -> None:
        """Have `listener` called with a replica whenever another shard became a part of its, before anything else."""
        self._merge_listeners.append(listener)

    def unlisten_to_merges(self, listener: Callable[[Replica], None]) -> None:
        """Call the listener no more."""
        self._merge_listeners.remove(listener)

    def _merged(self, replica: Replica) -> None:
        self.counters.merges += 1
        for listener in list(self._merge_listeners):
            listener(replica)
        self._changed(replica)

    def _divided(
        self,
        parent: Replica,
        shard: ShardDescriptor,
        forked: Forked | None,
        inherits_us: int | None,
    ) -> None:
        """A replica was split: from here on the child is a replica like any other."""
        self.counters.splits += 1
        child = self._replicas.get(shard.id)
        if child is None:
            if forked is None:
                return  # it was removed from this node since: its group has no member here
            child = Replica(shard, forked[0], self._with, forked[1:])
            self._replicas[shard.id] = child
            parent.cache.move(shard.span.start, child.cache)
            child.start(inherits_us)
            low, high = parent.descriptor.span, shard.span
            parent.tidy([(b"v" + high.start, b"v" + high.end)])
            child.tidy([(b"v" + low.start, b"v" + low.end)])
        for listener in list(self._split_listeners):
            listener(parent, child)
        self._changed(child)

    def _keeps_logs(self) -> bool:
        return any(
            replica.commit_index <= FIRST
            for replica in self._replicas.values()
            if replica.descriptor.epoch > 1
        )

    @property
    def whole(self) -> bool:
        """Whether the replicas here hold every key: one may be missing that came out of a split elsewhere."""
        return tiles(replica.descriptor for replica in self.live)

    def _changed(self, replica: Replica) -> None:
        for listener in list(self._listeners):
            listener(replica)
        self._wake_waiters()

    async def heard(self) -> None:
        """Return when something came from another node, or changed here."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def leads_voting(self) -> bool:
        """Whether every replica that votes here serves as leader, as far as it knows that it votes."""
        return all(
            replica.serving_term for replica in self.live if self.node in replica.members.voters
        )

    @property
    def meta_leads(self) -> bool:
        """Whether the meta shard is here and serves as leader."""
        meta = self.find_meta()
        return meta is not None and bool(meta.serving_term)

    @property
    def alone(self) -> bool:
        """Whether this node is the only voter of every shard."""
        return all(replica.alone for replica in self._replicas.values())

    def lease_until_us(self, now_us: int) -> int:
        """Until when nobody else can serve: the meta shard's lease; 0: not now."""
        self._leases_asked += 1
        meta = self.find_meta()
        return 0 if meta is None else meta.lease_until_us(now_us)

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work: replay every log, vote, lead or follow."""
        for replica in self.replicas:
            replica.start()
        self._ticker = asyncio.create_task(self._tick(), name="ticks")

    async def serving(self) -> None:
        """Return when every replica serves as leader."""
        for replica in self.replicas:
            await replica.serving()

    async def _tick(self) -> None:
        """Tick all groups, several ticks at a time where that is enough.

        A pause of the loop counts as what was slept for, not as many ticks; followers bear the lag of late.
        """
        owed = 0.0
        ticks = 0
        while True:
            steps = self._steps()
            span_ms = steps * self._timing.tick_ms
            before = self._clock.monotonic_ns()
            await self._clock.sleep(span_ms / 1000)
            late_ms = self._late_ms(before, span_ms)
            if late_ms > LATE_MS:
                for _ in range(
                    TURNS
                ):  # what arrived during a pause is heard before it counts as silence
                    await self._clock.sleep(0)
                late_ms = self._late_ms(before, span_ms)
            for _ in range(steps):
                self.lag_ms = max(late_ms, self.lag_ms * 0.995)
                patience = min(PATIENCE_MAX, 1 + self.lag_ms / self._timing.tick_ms / 4)
                owed += 1 / patience
                followers_too = owed >= 1
                owed -= followers_too
                for replica in list(self._replicas.values()):
                    if followers_too or replica.serving_term:
                        self._tick_one(replica)
                ticks += 1
                if ticks % EXPIRY_TICKS == 0:
                    for replica in list(self._replicas.values()):
                        replica.expire_pins()

    @staticmethod
    def _tick_one(replica: Replica) -> None:
        try:
            replica.tick()
        except Exception as error:
            log.exception("shard %d: a tick", replica.id)
            replica.fail(error)

    def _steps(self) -> int:
        """Ticks until something may be due: one while a shard has no leader, else those of one heartbeat or several."""
        replicas = self._replicas.values()
        if not all(replica.lead is not None for replica in replicas):
            return 1
        leading = any(replica.lead == self.node for replica in replicas)
        at_once = 1 if leading and not self._at_rest() else HEARTBEATS_AT_ONCE
        return self._timing.heartbeat_ticks * at_once

    def _at_rest(self) -> bool:
        """Whether for a while nothing was written here and no lease was asked for, as strong reads do."""
        return self._rest.seen(
            self._clock.monotonic_ns(), self.counters.entries, self._leases_asked
        )

    def _late_ms(self, before_ns: int, span_ms: int) -> float:
        """By how much the end of a pause of `span_ms`, begun at `before_ns`, is late."""
        return (self._clock.monotonic_ns() - before_ns) / 1e6 - span_ms

    def _on_frame(self, sender: NodeId, frame: bytes) -> None:
        try:
            messages = decode_frame(frame)
        except DatabaseError as error:
            log.warning("node %d: %s", sender, error)
            return
        for shard, message in messages:
            replica = self._replicas.get(ShardId(shard))
            if replica is not None and message.sender == sender:
                try:
                    replica.step(message)
                except Exception as error:
                    log.exception("shard %d: a message of node %d", shard, sender)
                    replica.fail(error)  # it alone: the others go on, and so does the connection
        if self._waiters:
            self._wake_waiters()

    async def _on_pull(self, sender: NodeId, body: bytes) -> bytes:
        pull = decode_pull(body)
        replica = self._replicas.get(pull.shard)
        if replica is None:
            raise StorageError(f"shard {pull.shard} is not here", "55000")
        piece, last = await replica.snapshot_piece(pull.pin, pull.after, sender)
        self.snapshots.sent_bytes += len(piece)
        self.snapshots.sent += last
        return piece

    def hand_over(self, to: NodeId) -> None:
        """Let other nodes lead every shard that this one leads: `to` where it votes, else who has most of the log."""
        for replica in self.replicas:
            if not replica.is_leader or replica.alone:
                continue
            voters = {NodeId(node) for node in replica.members.voters} - {self.node}
            match = replica.followers()
            successor = (
                to if to in voters else max(voters, key=lambda node: (match.get(node, 0), -node))
            )
            replica.hand_over(successor)

    def draw_leaderships(self) -> None:
        """Ask for the leadership of every shard that another node leads and this one votes in."""
        for replica in self.replicas:
            votes = self.node in replica.members.voters
            if votes and not replica.is_leader and replica.lead is not None:
                replica.hand_over(self.node)

    async def drain(self) -> None:
        """Return when everything proposed so far is applied, refused or lost."""
        for replica in self.replicas:
            if replica.failure is None:
                await replica.drain()

    async def close(self) -> None:
        """Finish what is under way and close everything."""
        self._closing = True
        if self._ticker is not None:
            self._ticker.cancel()
        for replica in (*self.replicas, *self._dropping):
            await replica.close()

    def kill(self) -> None:
        """Stop at once, as a crash would. For tests and simulation."""
        if self._ticker is not None:
            self._ticker.cancel()
        for replica in self.replicas:
            replica.kill()
