"""Reading the past on a node that nobody leads: every shard as of one closed timestamp, and nothing is written.

It has the face of a `Store`, so the layers above need not know: transactions are read only, all of them at that
timestamp, and no lease is asked, because the timestamp says how old the answers are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardforge.errors import ConsensusError, TransactionError
from shardforge.ids import INFINITY, NodeId, ShardId, Timestamp
from shardforge.shard.application import Prepared, nothing_prepared
from shardforge.shard.command import Command, Outcome
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.host import Host
from shardforge.shard.proposals import Done
from shardforge.shard.replica import Replica
from shardforge.shard.router import Router
from shardforge.storage import mvcc
from shardforge.storage.newest_cache import CacheMemory, Entry, NewestCache
from shardforge.txn.coordinator import Coordinator
from shardforge.txn.locks import LockTable
from shardforge.txn.participant import Participant
from shardforge.txn.shardmap import load_rows, sticky_of
from shardforge.txn.snapshots import Snapshots
from shardforge.txn.transaction import Isolation, Transaction

CACHE_BYTES = 4 << 20


def holds_all(host: Host) -> bool:
    """Whether every key's shard has a replica here, with a state in it."""
    return host.whole and all(replica.applied for replica in host.live)


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
        return mvcc.read(self.router.shard_of(key).replica.engine, key, self.oracle.last)

    async def commit(self, transaction: Transaction) -> None:
        """Refuse what writes."""
        raise TransactionError("cannot write in a read-only transaction", "25006")


class StandbyStore:
    """Every shard as of one timestamp."""

    def __init__(self, host: Host, node: NodeId, timestamp: Timestamp) -> None:
        self.timestamp = timestamp
        if not holds_all(host):
            raise ConsensusError(f"node {node} does not hold all shards")
        self._host = host
        self._locks = LockTable()
        router = Router([Participant(FrozenReplica(replica), self._locks) for replica in host.live])
        self._router = router
        host.listen_to_splits(self._on_split)
        host.listen_to_merges(self._on_merge)
        self.coordinator = StandbyCoordinator(
            node, router, FixedOracle(timestamp), Snapshots(), NoGarbage(), NoLease()
        )

    @property
    def sticky(self) -> set[ShardId]:
        """The shards that begin where somebody wanted it, as far as it is written down here."""
        return sticky_of(load_rows(self._host.meta.engine).values())

    def metrics(self) -> dict[str, int | float | dict[ShardId, int]]:
        """Figures for monitoring."""
        return {"transactions_active": self.coordinator.active}

    def _on_split(self, _parent: Replica, child: Replica) -> None:
        """What was found in the parent so far is the child's from here on, as of every timestamp of the past."""
        self._reroute([*self._router.shards, Participant(FrozenReplica(child), self._locks)])

    def _on_merge(self, _replica: Replica) -> None:
        """What was found in a shard so far is found in the one before it as well."""
        live = {replica.id for replica in self._host.live}
        self._reroute([one for one in self._router.shards if one.replica.id in live])

    def _reroute(self, shards: Sequence[Participant]) -> None:
        for participant in shards:
            replica = self._host.find(participant.replica.id)
            if replica is not None:
                participant.replica.descriptor = replica.descriptor
        self._router.replace(shards)

    async def end(self) -> None:
        """Stop to follow the shards."""
        self._host.unlisten_to_splits(self._on_split)
        self._host.unlisten_to_merges(self._on_merge)
