"""All replicas of a node: opened from their directories, run, and closed together.

The initial shards are made at the first start, before anything is served, in one go: a directory with a
cluster identity and no complete set of shards was never in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shardforge.ids import META_SHARD, NodeId
from shardforge.ports import Blocking, Clock
from shardforge.shard.descriptor import ShardDescriptor, check_tiling
from shardforge.shard.log import ShardLog
from shardforge.shard.replica import LogCounters, Replica, ReplicaOptions
from shardforge.storage.engine import Engine

OpenShard = Callable[[ShardDescriptor], tuple[Engine, ShardLog]]


class Host:
    """The replicas of one node."""

    def __init__(
        self,
        node: NodeId,
        shards: Iterable[ShardDescriptor],
        open_shard: OpenShard,
        clock: Clock,
        blocking: Blocking,
        options: ReplicaOptions,
        on_failure: Callable[[Replica, Exception], None],
    ) -> None:
        self.counters = LogCounters()
        descriptors = list(shards)
        check_tiling(descriptors)
        self.replicas = [
            Replica(
                descriptor,
                node,
                *open_shard(descriptor),
                clock,
                blocking,
                self.counters,
                options,
                on_failure,
            )
            for descriptor in descriptors
        ]

    @property
    def meta(self) -> Replica:
        """The replica of the meta shard."""
        return next(replica for replica in self.replicas if replica.id == META_SHARD)

    async def start(self) -> None:
        """Replay every log and return when all shards serve."""
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            await replica.serving()

    async def drain(self) -> None:
        """Return when everything proposed so far is applied."""
        for replica in self.replicas:
            if replica.failure is None:
                await replica.drain()

    async def close(self) -> None:
        """Finish what is under way and close everything."""
        for replica in self.replicas:
            await replica.close()

    def kill(self) -> None:
        """Stop at once, as a crash would. For tests and simulation."""
        for replica in self.replicas:
            replica.kill()
