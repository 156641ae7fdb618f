"""What the replicas of a node share: clock, threads, network, configuration, and who is told of changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from shardforge.ids import NodeId
from shardforge.ports import Blocking, Clock
from shardforge.shard.consensus import Timing
from shardforge.shard.fetch import Fetch
from shardforge.shard.peers import Outbox
from shardforge.shard.snapshot import PIECE_BYTES
from shardforge.storage.newest_cache import CacheMemory

if TYPE_CHECKING:
    from shardforge.shard.descriptor import ShardDescriptor
    from shardforge.shard.files import Forked
    from shardforge.shard.replica import Replica


class ReplicaOptions(NamedTuple):
    """What the configuration says about every replica."""

    flush_entries: int = 10_000
    log_entries_max: int = 100_000
    cache_bytes: int = 16 * 1024 * 1024
    """Of all replicas of a node together."""
    timing: Timing = Timing(25, 18, 2)
    piece_bytes: int = PIECE_BYTES
    """About how much of a snapshot is sent at a time."""
    snapshot_rate: float = 64 * 1024 * 1024
    """Bytes a second that a node takes of snapshots, of all replicas together."""


class LogCounters:
    """What the node's logs did so far."""

    __slots__ = ("appends", "bytes", "entries", "merges", "splits", "sync_ns", "syncs")

    def __init__(self) -> None:
        self.appends = 0
        self.entries = 0
        self.splits = 0
        self.merges = 0
        self.bytes = 0
        self.syncs = 0
        self.sync_ns = 0


class Surroundings(NamedTuple):
    """What all replicas of a node share."""

    node: NodeId
    clock: Clock
    blocking: Blocking
    options: ReplicaOptions
    counters: LogCounters
    outbox: Outbox
    fetch: Fetch
    randomness: random.Random
    on_failure: Callable[[Replica, Exception], None]
    on_change: Callable[[Replica], None]
    """Called when a replica begins or ceases to serve, or learns of another leader or other members."""
    on_split: Callable[[Replica, ShardDescriptor, Forked | None, int | None], None]
    """Called between two entries, when a replica has been split: the child, its files if they are new, and since when
    it leads, by the monotonic clock, if it does from the beginning."""
    on_merge: Callable[[Replica], None]
    """Called between two entries, when another shard became a part of a replica's."""
    keeps_logs: Callable[[], bool]
    """Whether a shard that came out of a split here may not be on a majority yet: those that are to make it out of
    their copies of the parent need its log."""
    cache_memory: CacheMemory
    """What the replicas' caches share."""
