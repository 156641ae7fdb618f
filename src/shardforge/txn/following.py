"""Reading on a node that does not serve: every shard as of the newest closed timestamp that its replicas have applied.

A store of the past that moves on. A transaction draws the closed timestamp of the moment, as it would draw one of the
oracle's where commits are decided; nothing is asked of another node, and nothing is written. (`txn.standby` stands
still, while nobody leads.)

Invariant: what is read at a timestamp is all there. The state is at or past the entries that closed it, and what was
removed since is refused (`txn.followed`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from shardforge.ids import NodeId, Timestamp
from shardforge.ports import Clock
from shardforge.shard.host import Host
from shardforge.storage.newest_cache import Entry
from shardforge.txn.closed import ClosedTimestamps
from shardforge.txn.followed import FollowedShard, PastStore, holds_all
from shardforge.txn.snapshots import Snapshots
from shardforge.txn.standby import FixedOracle, NoGarbage, NoLease, StandbyCoordinator

WAIT_SECONDS = 1.0
"""How long a statement waits for a timestamp that it may read at."""


class FollowerCoordinator(StandbyCoordinator):
    """Transactions that read one closed timestamp each."""

    def newest_now(self, key: bytes) -> Entry | None:
        """The newest version as of the newest closed timestamp."""
        return self._entry(key)


class FollowerStore(PastStore):
    """Every shard, as of a timestamp that moves on."""

    def __init__(self, host: Host, node: NodeId, closed: ClosedTimestamps, clock: Clock) -> None:
        super().__init__(host, node)
        self.wanted: Callable[[], None] = lambda: None
        """Called when somebody reads: the serving node is to be asked for a newer closed timestamp."""
        self.moved: Callable[[Timestamp], None] = lambda timestamp: None
        """Called with the next timestamp just before it is read at."""
        self._closed = closed
        self._clock = clock
        self._oracle = FixedOracle(Timestamp(0))
        self.snapshots = Snapshots()
        self.coordinator = FollowerCoordinator(
            node, self.router, self._oracle, self.snapshots, NoGarbage(), NoLease()
        )
        self.advance()

    # ---- how far it is ---------------------------------------------------------------------------

    @property
    def timestamp(self) -> Timestamp:
        """The timestamp that is read at now; 0: none was closed yet."""
        return self._oracle.last

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
