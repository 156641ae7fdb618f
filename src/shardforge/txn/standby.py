"""Reading the past on a node that nobody leads: every shard as of one closed timestamp, and nothing is written.

It has the face of a `Store`, so the layers above need not know: transactions are read only, all of them at that
timestamp, and no lease is asked, because the timestamp says how old the answers are.
"""

from __future__ import annotations

from shardforge.errors import TransactionError
from shardforge.ids import INFINITY, NodeId, Timestamp
from shardforge.shard.host import Host
from shardforge.storage.newest_cache import Entry
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.followed import FollowedShard, PastStore
from shardforge.txn.snapshots import Snapshots
from shardforge.txn.transaction import Isolation, Transaction


class FixedOracle:
    """Gives the same timestamp always."""

    def __init__(self, timestamp: Timestamp) -> None:
        self.last = timestamp

    def try_next(self) -> Timestamp | None:
        """The timestamp."""
        return self.last

    async def next(self) -> Timestamp:
        """The timestamp."""
        return self.last


class NoLease:
    """Nothing is promised, so nothing is asked."""

    def held(self) -> bool:
        """Reads of the past may begin at any time."""
        return True

    async def wait(self) -> None:
        """Reads of the past wait for nobody."""


class NoGarbage:
    """Nothing is superseded."""

    kept_from = INFINITY
    """Only the one timestamp is read at."""

    def superseded(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """Nobody commits."""
        raise AssertionError("a standby commits nothing")

    async def superseded_many(self, transaction: Transaction, timestamp: Timestamp) -> None:
        """Nobody commits."""
        raise AssertionError("a standby commits nothing")


class StandbyCoordinator(Coordinator):
    """Transactions that read one state of the past."""

    def begin(self, isolation: Isolation, *, read_only: bool = False) -> Transaction:
        """A new transaction, read only whatever was asked for."""
        return super().begin(isolation, read_only=True)

    def newest_now(self, key: bytes) -> Entry | None:
        """Nothing is known to be the newest."""
        return None

    async def read_latest(self, key: bytes) -> bytes | None:
        """The value as of the timestamp."""
        return self._entry(key)[1]

    def _entry(self, key: bytes) -> Entry:
        shard = self.router.shard_of(key)
        assert isinstance(shard, FollowedShard), "the router has no others"
        return shard.entry_at(key, self.oracle.last)

    async def commit(self, transaction: Transaction) -> None:
        """Refuse what writes."""
        raise TransactionError("cannot write in a read-only transaction", "25006")


class StandbyStore(PastStore):
    """Every shard as of one timestamp. Who reads what was removed since, because the node came back, is refused."""

    def __init__(self, host: Host, node: NodeId, timestamp: Timestamp) -> None:
        super().__init__(host, node)
        self.timestamp = timestamp
        self.coordinator = StandbyCoordinator(
            node, self.router, FixedOracle(timestamp), Snapshots(), NoGarbage(), NoLease()
        )
