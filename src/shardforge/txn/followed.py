"""A shard of the past, on a replica that goes on applying: what is read is all there, or refused.

Its leader removes versions (`Collect`, `Clear`) that are of no use to readers from the replica's `kept_from` on. So a
reader below that is refused (72000) when it opens something, and goes on with what it has open. A replica that was
split, merged, replaced or removed is another one (57P03).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from shardforge.errors import ConsensusError, QueryError
from shardforge.ids import NodeId, ShardId, Timestamp
from shardforge.shard.application import Prepared, nothing_prepared
from shardforge.shard.command import Command, Outcome
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.host import Host
from shardforge.shard.pending import Mark
from shardforge.shard.proposals import Done
from shardforge.shard.replica import Replica
from shardforge.shard.router import Router
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine, Pair, Snapshot
from shardforge.storage.newest_cache import ABSENT, CacheMemory, Entry, NewestCache
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.locks import LockTable
from shardforge.txn.participant import Participant
from shardforge.txn.shardmap import load_rows, sticky_of

CACHE_BYTES = 4 << 20


def holds_all(host: Host) -> bool:
    """Whether every key's shard has a replica here, with a state in it."""
    return host.whole and all(replica.applied for replica in host.live)


def too_old() -> QueryError:
    """72000: what a reader at its timestamp needs may have been removed."""
    return QueryError(
        "snapshot too old",
        "72000",
        detail="Row versions of that time may have been removed.",
        hint="Run the transaction again. Old row versions are kept for storage.gc_retention_sec.",
    )


class FrozenReplica:
    """A replica as its readers at one timestamp see it: nothing is under way, and nothing is taken."""

    def __init__(self, replica: Replica) -> None:
        self.id = replica.id
        self.descriptor: ShardDescriptor = replica.descriptor
        self.engine = replica.engine
        self.cache = NewestCache(CacheMemory(CACHE_BYTES))
        self.prepared: Prepared = nothing_prepared
        self.lead: NodeId | None = None
        self.members = replica.members
        self.size_bytes = replica.size_bytes
        self.serving_term = 1
        self.index = replica.applied
        self.failure: Exception | None = None

    def propose(
        self, command: Command, done: Done, stored: Callable[[], None] | None = None
    ) -> None:
        """Refuse."""
        done(Outcome.REFUSED)

    def defer(self, command: Command, done: Done) -> None:
        """Refuse."""
        done(Outcome.REFUSED)


class KeptView:
    """An engine's state, and from which timestamp on it has everything."""

    def __init__(self, state: Snapshot, kept_from: Timestamp) -> None:
        self._state = state
        self.kept_from = kept_from

    def get(self, key: bytes) -> bytes | None:
        """The value under exactly `key`."""
        return self._state.get(key)

    def first(self, start: bytes, end: bytes) -> Pair | None:
        """The first pair of the span."""
        return self._state.first(start, end)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[Pair]:
        """The pairs of the span."""
        return self._state.scan(start, end, reverse=reverse)

    def close(self) -> None:
        """Let go of the state."""
        self._state.close()


class FollowedShard(Participant):
    """A shard as readers at closed timestamps see it on a replica that goes on applying."""

    __slots__ = ("_descriptor", "_host", "_source")

    def __init__(self, host: Host, replica: Replica, locks: LockTable) -> None:
        frozen = FrozenReplica(replica)
        frozen.lead = replica.lead
        super().__init__(frozen, locks)
        self._host = host
        self._source = replica
        self._descriptor = replica.descriptor

    @property
    def current(self) -> bool:
        """Whether the replica still is what it was when this was made: not split, merged, replaced or removed since."""
        source = self._source
        return (
            source.descriptor is self._descriptor
            and not source.installing
            and self._host.find(source.id) is source
        )

    @property
    def kept_from(self) -> Timestamp:
        """Readers below it may miss what was removed."""
        return self._source.kept_from

    @property
    def applied(self) -> int:
        """The last entry that the replica applied."""
        return self._source.applied

    def engine_at(self, timestamp: Timestamp) -> Engine:
        """The engine, for what a reader at `timestamp` opens in this turn. Raises 57P03, 72000."""
        if not self.current:
            raise ConsensusError(
                f"shard {self._source.id} is being replaced on this node",
                hint="Try again in a moment.",
            )
        if timestamp < self.kept_from:
            raise too_old()
        return self._source.engine

    def entry_at(self, key: bytes, timestamp: Timestamp) -> Entry:
        """The newest version at or before `timestamp`; (0, None) if there is none."""
        engine = self.engine_at(timestamp)
        found = self._source.cache.get(key)
        if found is None or found[0] > timestamp:
            version = mvcc.version_at(engine, key, timestamp)
            return ABSENT if version is None else (version.timestamp, version.value)
        return found

    def read_now(self, key: bytes, timestamp: Timestamp) -> bytes | None:
        """The value as of `timestamp`."""
        return self.entry_at(key, timestamp)[1]

    def visible(self, key: bytes, timestamp: Timestamp) -> Mark | None:
        """No commit under way is of any interest below a closed timestamp."""
        return None

    def open_scan(
        self, start: bytes, end: bytes, timestamp: Timestamp, *, reverse: bool
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, timestamp, value) in key order, of the state at this call."""
        return mvcc.scan(self.engine_at(timestamp), start, end, timestamp, reverse=reverse)

    def view(self) -> Snapshot:
        """The engine's state now, for `scan_view`."""
        return KeptView(self.engine_at(self.kept_from).snapshot(), self.kept_from)

    def scan_view(
        self, view: Snapshot, start: bytes, end: bytes, timestamp: Timestamp, *, reverse: bool
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """(key, timestamp, value) in key order, of the state when `view` was taken."""
        assert isinstance(view, KeptView), "made by `view`"
        if timestamp < view.kept_from:
            raise too_old()
        return mvcc.scan(view, start, end, timestamp, reverse=reverse)


class PastStore:
    """Every shard of a node for readers of the past; the map follows its splits and merges."""

    coordinator: Coordinator

    def __init__(self, host: Host, node: NodeId) -> None:
        """Raises ConsensusError 57P03 when not every shard is here."""
        if not holds_all(host):
            raise ConsensusError(f"node {node} does not hold all shards")
        self._host = host
        self._locks = LockTable()
        self.router: Router[Participant] = Router(self._shards())
        host.listen_to_splits(self._on_reshaping)
        host.listen_to_merges(self._on_reshaping)

    def _shards(self) -> Iterable[FollowedShard]:
        return [FollowedShard(self._host, replica, self._locks) for replica in self._host.live]

    def _on_reshaping(self, *_replicas: Replica) -> None:
        """A split or a merge: what was found in one shard is another's from here on, as of every time of the past."""
        if self._host.whole:
            self.router.replace(self._shards())

    @property
    def sticky(self) -> set[ShardId]:
        """The shards that begin where somebody wanted it, as far as it is written down here."""
        return sticky_of(load_rows(self._host.meta.engine).values())

    def metrics(self) -> dict[str, int | float | dict[ShardId, int]]:
        """Figures for monitoring."""
        return {"transactions_active": self.coordinator.active}

    async def end(self) -> None:
        """Stop to follow the shards."""
        self._host.unlisten_to_splits(self._on_reshaping)
        self._host.unlisten_to_merges(self._on_reshaping)
