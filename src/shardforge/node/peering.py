"""A member's side of the cluster's government: it reports, makes and removes replicas, and learns who the others are.

The serving node asks; nothing here decides. The address book is kept in the data directory, so that a node that starts
finds the others before any of them has spoken to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from shardforge import __version__
from shardforge.errors import StorageError
from shardforge.ids import NodeId, ShardId
from shardforge.node.reports import (
    CREATE,
    DROP,
    REPORT,
    AddressBook,
    Drop,
    pack,
    report_of,
    unpack,
)
from shardforge.ports import Blocking, Clock, Network
from shardforge.shard.bootstrap import add_shards
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.host import Host
from shardforge.storage.layout import ClusterIdentity, DataDirectory
from shardforge.txn.closed import Closed, ClosedTimestamps
from shardforge.txn.shardmap import NOBODY

BELIEF_SECONDS = 3.0
"""How long a node without the meta shard believes that whoever asked it last still serves."""

log = logging.getLogger("shardforge.cluster")


class Peering:
    """One node among others. `directory` None: in memory."""

    def __init__(
        self, host: Host, directory: DataDirectory | None, network: Network, blocking: Blocking, clock: Clock,
        address: Callable[[], str], serves: Callable[[], bool], closed: ClosedTimestamps,
        locality: str = "",
    ) -> None:  # fmt: skip
        self.book = AddressBook(0, NodeId(0), [])
        self._host = host
        self._directory = directory
        self.network = network
        self._blocking = blocking
        self._clock = clock
        self.address = address
        """Where others reach this node."""
        self.locality = locality
        """Where this node stands, as it is configured."""
        self._serves = serves
        self.closed = closed
        """What the serving node closed."""
        self._asked_at = 0.0
        self._made_at = clock.monotonic_ns() / 1e9
        if directory is not None:
            known = directory.identity
            nodes = [
                (NodeId(node), address)
                for node, address in zip(known.members, known.addresses, strict=False)
            ]
            observers = [NodeId(node) for node in known.observers]
            self.learn(AddressBook(0, NodeId(0), nodes, observers))
        network.on_call(REPORT, self._on_report)
        network.on_call(CREATE, self._on_create)
        network.on_call(DROP, self._on_drop)

    def offer(self, closed: Closed) -> None:
        """Take over what the serving node closed."""
        self.closed.offer(closed, self._clock.monotonic_ns() // 1000)

    # ---- who the others are ----------------------------------------------------------------------

    def learn(self, book: AddressBook) -> None:
        """Take over an address book."""
        here = self._host.node
        before = dict(self.book.nodes)
        self.book = book
        for node, address in book.nodes:
            if node != here and before.get(node) != address:
                self.network.set_address(node, address)
        for node in before.keys() - dict(book.nodes).keys() - {here}:
            self.network.forget(node)

    async def keep(self) -> None:
        """Write the address book down, where a start finds it."""
        directory = self._directory
        if directory is None:
            return
        known = directory.identity
        nodes = sorted(self.book.nodes)
        identity = ClusterIdentity(
            known.cluster_id, known.name, tuple(n for n, _ in nodes), tuple(a for _, a in nodes),
            tuple(sorted(self.book.observers)),
        )  # fmt: skip
        if identity != known:
            await self._blocking.run(lambda: directory.write_identity(identity))

    def serving_node(self) -> NodeId | None:
        """Who serves, as far as this node knows: the meta shard's leader, or whoever asked last."""
        if self._serves():
            return self._host.node
        meta = self._host.find_meta()
        if meta is not None and self._host.node in meta.members.voters:
            return meta.lead
        if self._clock.monotonic_ns() / 1e9 - self._asked_at < BELIEF_SECONDS:
            return self.book.serving
        return None

    @property
    def unasked_seconds(self) -> float:
        """How long no serving node has asked this one anything, since it started at the most."""
        return self._clock.monotonic_ns() / 1e9 - max(self._asked_at, self._made_at)

    # ---- what the serving node asks --------------------------------------------------------------

    async def _on_report(self, sender: NodeId, body: bytes) -> bytes:
        book, closed = unpack(body, tuple[AddressBook, Closed])
        self.offer(closed)
        if book.term >= self.book.term:  # the question of one that serves no more may come late
            self._asked_at = self._clock.monotonic_ns() / 1e9
        if book.age > self.book.age:
            self.learn(book)
            await self.keep()
        address, serves = self.address(), self._serves()
        report = report_of(self._host, address, __version__, serving=serves, locality=self.locality)
        return pack(report)

    async def _on_create(self, sender: NodeId, body: bytes) -> bytes:
        missing = await self.create(body)
        if missing:  # who asks may not know yet that a split made one
            log.info("node %d asked for replicas of shards %s", sender, [s.id for s in missing])
        return b""

    async def create(self, body: bytes) -> list[ShardDescriptor]:
        """Make room for replicas that are not here; which those are. Raises StorageError."""
        wanted = unpack(body, list[ShardDescriptor])
        here = {replica.id for replica in self._host.replicas}
        missing = [shard for shard in wanted if shard.id not in here and not shard.voters]
        for shard in missing:
            if any(
                replica.descriptor.span.overlaps(*_bounds(shard)) for replica in self._host.live
            ):
                # Another replica here has yet to be split, and makes this one when it is.
                raise StorageError(
                    f"the keys of shard {shard.id} are in another shard here", "55000"
                )
        directory = self._directory
        if directory is not None:
            await self._blocking.run(lambda: add_shards(directory, missing))
        self._host.adopt(missing)
        return missing

    async def _on_drop(self, sender: NodeId, body: bytes) -> bytes:
        await self.drop(unpack(body, list[Drop]), sender)
        return b""

    async def drop(self, drops: Iterable[Drop], sender: NodeId) -> None:
        """Remove replicas that their groups removed, or whose shards have ended. Raises StorageError."""
        kept: StorageError | None = None
        for drop in drops:
            replica = self._host.find(drop.shard)
            if replica is None:
                continue
            if drop.heir != NOBODY:
                if not self._absorbed(drop):
                    kept = StorageError(f"shard {drop.shard} still holds its keys here", "55000")
                    continue
            elif replica.applied > drop.index:
                kept = StorageError(f"shard {drop.shard} was given to this node again", "55000")
                continue
            await self._remove(drop.shard, ended=drop.heir != NOBODY)
            log.info("node %d had the replica of shard %d removed", sender, drop.shard)
        if kept is not None:
            raise kept

    def _absorbed(self, drop: Drop) -> bool:
        """Whether nothing here needs a shard that has ended: its keys are in another durably, or are not here."""
        having = [one for one in self._host.replicas if drop.shard in one.descriptor.absorbed]
        if having:
            return all(replica.recorded for replica in having)
        return self._host.find(drop.heir) is None

    async def _remove(self, shard: ShardId, *, ended: bool = False) -> None:
        await self._host.drop(shard)
        directory = self._directory
        if directory is not None:
            if not ended:
                # First: a founder that lost its shards to others would found the cluster again, empty, when it starts.
                await self._blocking.run(directory.found_no_more)
            await self._blocking.run(lambda: directory.remove_shard(shard))


def _bounds(shard: ShardDescriptor) -> tuple[bytes, bytes]:
    return shard.span.start, shard.span.end
