"""The catalog on a node that reads at closed timestamps: what it is as of the timestamp that is read at now.

The two move on together and without waiting (`follow`), so a statement that is bound to the current snapshot and draws
its timestamp in the same turn reads with the schema of that timestamp. Snapshots are immutable: a transaction that
stays at an older timestamp keeps the one of that time.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardforge.ids import INFINITY, Timestamp
from shardforge.keys import prefix_end
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.snapshot import KIND_OF, Descriptor
from shardforge.sql.catalog.store import CatalogStore
from shardforge.sql.catalog.virtual import virtual_tables
from shardforge.storage import mvcc
from shardforge.txn.followed import FollowedShard
from shardforge.txn.following import FollowerStore

_START = codec.CATALOG_PREFIX
_END = prefix_end(_START)


class FollowerCatalog(CatalogStore):
    """The catalog of a `FollowerStore`, which tells it how far it is."""

    def __init__(self, store: FollowerStore) -> None:
        """The catalog as of the store's timestamp, which is not 0."""
        super().__init__(store.coordinator, virtual_tables())
        self._store = store
        self._as_of = Timestamp(0)
        self._seen: list[int] = []
        """Up to which entries of its shards nothing is newer than `_as_of`; empty: something may be."""
        self.follow(store.timestamp)
        store.moved = self.follow

    def follow(self, timestamp: Timestamp) -> None:
        """Be as of `timestamp` from now on; the same snapshots stay when nothing was changed until then."""
        if self._changed(timestamp):
            self.adopt(list(self._descriptors(timestamp)))
        self._as_of = timestamp

    def _parts(self) -> Iterator[tuple[FollowedShard, bytes, bytes]]:
        for shard, low, high in self._store.router.shards_of(_START, _END):
            assert isinstance(shard, FollowedShard), "the store has no others"
            yield shard, low, high

    def _changed(self, timestamp: Timestamp) -> bool:
        parts = list(self._parts())
        applied = [shard.applied for shard, _, _ in parts]
        if applied == self._seen:
            return False
        found = [version.timestamp for part in parts for version in self._since(*part)]
        self._seen = applied if all(one <= timestamp for one in found) else []
        # A deletion may have been collected, with all that it deleted.
        collected = any(shard.kept_from > self._as_of for shard, _, _ in parts)
        return collected or any(one <= timestamp for one in found)

    def _since(self, shard: FollowedShard, low: bytes, high: bytes) -> Iterator[mvcc.Version]:
        engine = shard.engine_at(shard.kept_from)
        return mvcc.versions_in(engine, low, high, self._as_of, INFINITY)

    def _descriptors(self, timestamp: Timestamp) -> Iterator[tuple[str, int, Descriptor]]:
        for shard, low, high in self._parts():
            for _, _, value in shard.open_scan(low, high, timestamp, reverse=False):
                database_id, descriptor = codec.decode_row(value)
                yield KIND_OF[type(descriptor)], database_id, descriptor
