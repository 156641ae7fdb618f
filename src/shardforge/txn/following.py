"""Reading on a node that does not serve: every shard as of the newest closed timestamp that its replicas have applied.

A store of the past that moves on. A transaction draws the closed timestamp of the moment, as it would draw one of the
oracle's where commits are decided; nothing is asked of another node, and nothing is written. (`txn.standby` stands
still, while nobody leads.)

Invariant: what is read at a timestamp is all there. The state is at or past the entries that closed it; and what the
shards' leaders removed since (`Collect`, `Clear`) was of no use to readers from the replica's `kept_from` on, so a
reader below that is refused (72000) when it opens something, and goes on with what it has open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from shardforge.errors import ConsensusError, QueryError
from shardforge.ids import NodeId, ShardId, Timestamp
from shardforge.ports import Clock
from shardforge.shard.host import Host
from shardforge.shard.pending import Mark
from shardforge.shard.replica import Replica
from shardforge.shard.router import Router
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine, Pair, Snapshot
from shardforge.storage.newest_cache import ABSENT, Entry
from shardforge.txn.closed import ClosedTimestamps
from shardforge.txn.locks import LockTable
from shardforge.txn.participant import Participant
from shardforge.txn.shardmap import load_rows, sticky_of
from shardforge.txn.snapshots import Snapshots
from shardforge.txn.standby import (
    FixedOracle,
    FrozenReplica,
    NoGarbage,
    NoLease,
    StandbyCoordinator,
    holds_all,
)

WAIT_SECONDS = 1.0
"""How long a statement waits for a timestamp that it may read at."""


def too_old() -> QueryError:
    """72000: what a reader at its timestamp needs may have been removed."""
    return QueryError(
        "snapshot too old",
        "72000",
        detail="Row versions of that time may have been removed.",
        hint="Run the transaction again. Old row versions are kept for storage.gc_retention_sec.",
    )


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


class FollowerCoordinator(StandbyCoordinator):
    """Transactions that read one closed timestamp each."""

    def newest_now(self, key: bytes) -> Entry | None:
        """The newest version as of the newest closed timestamp."""
        shard = self.router.shard_of(key)
        assert isinstance(shard, FollowedShard), "the router has no others"
        return shard.entry_at(key, self.oracle.last)

    async def read_latest(self, key: bytes) -> bytes | None:
        """Its value."""
        found = self.newest_now(key)
        return None if found is None else found[1]


class FollowerStore:
    """Every shard, as of a timestamp that moves on."""

    def __init__(self, host: Host, node: NodeId, closed: ClosedTimestamps, clock: Clock) -> None:
        if not holds_all(host):
            raise ConsensusError(f"node {node} does not hold all shards")
        self.wanted: Callable[[], None] = lambda: None
        """Called when somebody reads: the serving node is to be asked for a newer closed timestamp."""
        self.moved: Callable[[Timestamp], None] = lambda timestamp: None
        """Called with the next timestamp just before it is read at."""
        self._host = host
        self._node = node
        self._closed = closed
        self._clock = clock
        self._locks = LockTable()
        self._oracle = FixedOracle(Timestamp(0))
        self.snapshots = Snapshots()
        self.router: Router[Participant] = Router(self._shards())
        host.listen_to_splits(self._on_split)
        host.listen_to_merges(self._on_merge)
        self.coordinator = FollowerCoordinator(
            node, self.router, self._oracle, self.snapshots, NoGarbage(), NoLease()
        )
        self.advance()

    def _shards(self) -> Iterable[FollowedShard]:
        return [FollowedShard(self._host, replica, self._locks) for replica in self._host.live]

    def _on_split(self, _parent: Replica, _child: Replica) -> None:
        if self._host.whole:
            self.router.replace(self._shards())

    def _on_merge(self, _replica: Replica) -> None:
        if self._host.whole:
            self.router.replace(self._shards())

    # ---- how far it is ---------------------------------------------------------------------------

    @property
    def timestamp(self) -> Timestamp:
        """The timestamp that is read at now; 0: none was closed yet."""
        return self._oracle.last

    @property
    def sticky(self) -> set[ShardId]:
        """The shards that begin where somebody wanted it, as far as it is written down here."""
        return sticky_of(load_rows(self._host.meta.engine).values())

    def advance(self) -> None:
        """Read at the newest closed timestamp whose state is here. Never goes back."""
        if not self._closed.waiting or not self._readable():
            return
        newest = self._closed.usable({r.id: r.applied for r in self._host.replicas})
        if newest > self._oracle.last and all(
            newest >= shard.kept_from for shard in self._followed()
        ):
            self.moved(newest)
            self._oracle.last = newest

    def _followed(self) -> Iterator[FollowedShard]:
        for shard in self.router.shards:
            assert isinstance(shard, FollowedShard), "the router has no others"
            yield shard

    def _readable(self) -> bool:
        """Whether the router leads to replicas as they are; it is made again where they have changed."""
        if all(shard.current for shard in self._followed()):
            return True
        if not self.whole or any(replica.installing for replica in self._host.live):
            return False
        self.router.replace(self._shards())
        return True

    @property
    def whole(self) -> bool:
        """Whether this node still holds every shard."""
        return holds_all(self._host)

    @property
    def age_us(self) -> int:
        """How old at most what is read now is."""
        return self._clock.monotonic_ns() // 1000 - self._closed.asked_us

    def ready(self, age_us_max: int | None) -> bool:
        """Whether a transaction may read now, and, unless any age will do, at most so far back."""
        self.advance()
        timestamp = self._oracle.last
        return (
            timestamp > 0
            and self._readable()
            and all(timestamp >= shard.kept_from for shard in self._followed())
            and (age_us_max is None or self.age_us <= age_us_max)
        )

    async def wait_ready(self, age_us_max: int | None) -> bool:
        """`ready`, awaited for a moment in which the serving node is asked for more."""
        self.wanted()
        if self.ready(age_us_max):
            return True
        # A task: a connection's flow has no timeouts.
        return await asyncio.ensure_future(self._become_ready(age_us_max))

    async def _become_ready(self, age_us_max: int | None) -> bool:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not self.ready(age_us_max):
                    self.wanted()
                    await self._host.heard()
        except TimeoutError:
            return False
        return True

    # ---- as a store ------------------------------------------------------------------------------

    def metrics(self) -> dict[str, int | float | dict[ShardId, int]]:
        """Figures for monitoring."""
        return {"transactions_active": self.coordinator.active}

    async def end(self) -> None:
        """Stop to follow the shards."""
        self._host.unlisten_to_splits(self._on_split)
        self._host.unlisten_to_merges(self._on_merge)
