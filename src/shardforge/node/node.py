"""The composition root: a configuration becomes one running node, and stops again.

Order of start: data directory (locked), logs, replicas (recovery), the first tenure where this node leads, listener.
The reverse to stop. A stop needs no clean-up to be safe: start-up is recovery.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from shardforge import __version__
from shardforge.adapters import logs
from shardforge.adapters.blocking import ThreadBlocking
from shardforge.adapters.clock import SystemClock
from shardforge.config import Config, not_yet_in_force, split_address
from shardforge.errors import ConsensusError, DatabaseError, TransactionError
from shardforge.ids import NodeId
from shardforge.node.belonging import Belonging
from shardforge.node.governing import ROUND_SECONDS, Governing
from shardforge.node.joining import ASK_SECONDS, JOIN, Admission, JoinRequest, join
from shardforge.node.leading import Leading
from shardforge.node.operations import DECOMMISSION, LEAVE, LOCKS, STATUS, Operations
from shardforge.node.peering import Peering
from shardforge.node.public import cluster_of
from shardforge.node.reports import AddressBook, pack, unpack
from shardforge.node.rows import MemberRows
from shardforge.node.verifying import VERIFY, Verification
from shardforge.ports import Network
from shardforge.server.grpc.gateway import Gateway
from shardforge.server.peer.network import PeerNetwork
from shardforge.server.peer.tls import peer_contexts
from shardforge.server.pgwire.server import Server
from shardforge.shard.host import FilesOf, Host
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.tenure import Tenure
from shardforge.storage.layout import DataDirectory, NodeIdentity
from shardforge.telemetry import Telemetry
from shardforge.txn.closed import Closed, ClosedTimestamps, closed_now
from shardforge.txn.store import Metrics, Store, open_host

DRAIN_SECONDS = 8.0
"""How long a lone node lets running statements go on when it stops; others leave them to a new node sooner."""
HAND_OVER_SECONDS = 3.0

log = logging.getLogger("shardforge.node")


class Founding(NamedTuple):
    """A cluster that is new with several nodes, as tests make it."""

    cluster_id: str
    nodes: Mapping[int, str]
    """Their addresses, by id."""
    files_of: FilesOf | None = None
    """Where replicas are kept, with the memory engine; they outlive the node."""
    network: Network | None = None
    """None: TCP."""
    make_peers: Callable[..., PeerNetwork] = PeerNetwork


class Node:
    """One running node. `address` is where it listens."""

    def __init__(
        self,
        config: Config,
        *,
        seeds: Sequence[str] = (),
        founding: Founding | None = None,
    ) -> None:
        """`seeds`: nodes of the cluster to join, as "host:port". Without them the node is a cluster of its own."""
        self.config = config
        self.id = NodeId(config.cluster.node_id or 1)
        self.address: tuple[str, int] = split_address(config.cluster.bind_address)
        self.telemetry = Telemetry()
        self.clock = SystemClock()
        self.closed = ClosedTimestamps()
        self.host: Host | None = None
        self.leading: Leading[Tenure] | None = None
        self.peering: Peering | None = None
        self.governing: Governing | None = None
        self.operations: Operations | None = None
        self.server: Server | None = None
        self._seeds = tuple(seeds)
        self._founding = founding or Founding("", {})
        self._tcp: PeerNetwork | None = None
        self._identity: NodeIdentity | None = None
        self._book: AddressBook | None = None
        self._directory: DataDirectory | None = None
        self._random = random.Random()
        self._started_us = self.clock.wall_us()
        self._closers: list[Callable[[], None]] = []
        self._blocking: ThreadBlocking | None = None
        self._government: asyncio.Task[None] | None = None
        self._belonging: Belonging | None = None
        self._giving_way: asyncio.Task[None] | None = None

    @property
    def instance(self) -> Instance | None:
        """What sessions run on, while this node serves."""
        return None if self.server is None else self.server.instance

    @property
    def advertised(self) -> str:
        """Where other nodes reach this one."""
        return self.config.cluster.advertise_address or f"{self.address[0]}:{self.address[1]}"

    async def start(self) -> None:
        """Bring the node up. Raises DatabaseError, with everything released, when it cannot."""
        try:
            await self._start()
        except BaseException:
            await self._release()
            raise

    async def _start(self) -> None:
        config = self.config
        self._blocking = ThreadBlocking()
        self.server = Server(config, self.telemetry, self.clock)
        self.server.forward_to = self._forward_to
        known = self._open_known()
        self._tcp = tcp = self._founding.make_peers(
            NodeId(0) if known is None else self.id, "" if known is None else known.cluster_id,
            self._random, peer_contexts(config),
        )  # fmt: skip
        tcp.open_to_strangers(JOIN)
        self.server.peers = tcp
        self.server.grpc = Gateway(self.server, self._blocking, cluster_of(self))
        self.address = await self.server.listen()
        self._identity = identity = known or await self._become_known(tcp)
        log.info(
            "ShardForge %s starts as node %d of %s", __version__, self.id, identity.cluster_name
        )
        network = self._founding.network or tcp
        voters = [NodeId(node) for node in sorted(self._founding.nodes)] or [self.id]
        self.host = open_host(
            self._directory, config, self.clock, self._blocking, network, self._random, self.id,
            voters if identity.founder else (), self._founding.files_of,
        )  # fmt: skip
        self.peering = Peering(
            self.host, self._directory, network, self._blocking, self.clock,
            lambda: self.advertised, self._serves, self._offer,
        )  # fmt: skip
        if self._book is not None:
            self.peering.learn(self._book)
            await self.peering.keep()
        elif self._founding.nodes:
            nodes = [(NodeId(node), address) for node, address in self._founding.nodes.items()]
            self.peering.learn(AddressBook(0, NodeId(0), nodes))
        network.on_call(JOIN, lambda _sender, body: self.admit(body))
        self.operations = Operations(
            config, identity, self.host, self.peering, network, lambda: self.governing,
            lambda: self.clock.monotonic_ns() / 1e9, lambda: self.instance,
        )  # fmt: skip
        self._belonging = Belonging(
            self.id,
            self.peering,
            network,
            self.clock,
            lambda: self.governing,
            lambda: self.advertised,
        )
        Verification(self.host, network, self._blocking, self.peering.serving_node)
        tcp.open_to_strangers(STATUS)
        tcp.open_to_strangers(VERIFY, trusted=True)
        tcp.open_to_strangers(LOCKS, trusted=True)
        tcp.open_to_strangers(LEAVE, trusted=True)
        tcp.open_to_strangers(DECOMMISSION, trusted=True)
        self.leading = Leading(
            self.host, self._begin_tenure, self._tenure_began, self._tenure_ends, self._stand_by
        )
        self.host.start()
        self.leading.start()
        if self.host.replicas and self.host.alone:
            await self.leading.first_tenure()
        self._observe()
        for name, feature in not_yet_in_force(config):
            log.debug("%s is not yet in force: it waits for %s", name, feature)
        log.info("ready for connections on %s:%d", *self.address)

    # ---- who this node is ------------------------------------------------------------------------

    @property
    def _path(self) -> Path | None:
        if self.config.storage.engine == "memory":
            return None
        return Path(self.config.cluster.data_directory)

    def _open_known(self) -> NodeIdentity | None:
        """The identity that the data directory has, or that a new cluster gives it; None: a cluster is to be joined."""
        path = self._path
        known = None if path is None else DataDirectory.known(path)
        name = self.config.cluster.name
        if known is None and self._seeds:
            return None
        if path is None:
            return NodeIdentity(self.id, self._founding.cluster_id or str(uuid.uuid4()), name)
        if known is not None and not self.config.cluster.node_id:
            self.id = NodeId(known.node_id)
        self._open_directory(path, name if known is None else known.cluster_name, "")
        assert self._directory is not None, "opened just now"
        return self._directory.node

    async def _become_known(self, network: PeerNetwork) -> NodeIdentity:
        """Join the cluster of the seeds."""
        wanted = self.config.cluster.node_id
        admission = await join(network, self._seeds, self.advertised, wanted)
        self.id, self._book = admission.node, admission.book
        network.node, network.cluster_id = admission.node, admission.cluster_id
        path = self._path
        if path is not None:
            self._open_directory(path, admission.cluster_name, admission.cluster_id)
        return NodeIdentity(
            admission.node, admission.cluster_id, admission.cluster_name, founder=False
        )

    def _open_directory(self, path: Path, name: str, joined: str) -> None:
        directory = DataDirectory.open(path, node_id=self.id, cluster_name=name, joined=joined)
        self._directory = directory
        self._closers.append(directory.close)
        handlers = logs.open_logs(directory.logs, self.config.monitoring.log_level)
        self._closers.append(lambda: logs.close_logs(handlers))

    async def admit(self, body: bytes) -> bytes:
        """Admit the node of a `JoinRequest`, or have the serving node do so; an `Admission`. Raises DatabaseError."""
        assert self.peering is not None, "called by peers of a running node"
        serving = self.peering.serving_node()
        if serving is None:
            raise ConsensusError(
                "no node leads the cluster at present", hint="Try again in a moment."
            )
        if serving != self.id:
            return await self.peering.network.call(serving, JOIN, body, ASK_SECONDS)
        if self.governing is None:
            raise ConsensusError("this node begins to lead at this moment", hint="Try again.")
        request = unpack(body, JoinRequest)
        member = await self.governing.admit(
            request.token, request.address, request.version, request.node
        )
        identity = self._identity
        assert identity is not None, "called by peers of a running node"
        return pack(
            Admission(member.id, identity.cluster_id, identity.cluster_name, self.peering.book)
        )

    def _offer(self, closed: Closed) -> None:
        self.closed.offer(closed, self.clock.monotonic_ns() // 1000)

    def _serves(self) -> bool:
        return self.instance is not None and not self.instance.standby

    def _forward_to(self) -> NodeId | None:
        """Who serves a client that came here, if that is another node."""
        if self.instance is not None or self.peering is None:
            return None
        serving = self.peering.serving_node()
        return None if serving == self.id else serving

    # ---- tenures ---------------------------------------------------------------------------------

    async def _begin_tenure(self) -> Tenure:
        assert self.host is not None, "called by start"
        assert self._blocking is not None, "called by start"
        return await Tenure.begin(
            self.host, self.config, self.clock, self._blocking, self.telemetry, self._random, logs.set_level,
            self._started_us,
        )  # fmt: skip

    def _stand_by(self) -> Awaitable[Tenure] | None:
        host = self.host
        assert host is not None, "called by start"
        timestamp = self.closed.usable({replica.id: replica.applied for replica in host.replicas})
        if not timestamp:
            return None
        return Tenure.stand_by(
            host,
            timestamp,
            self.closed.closed_us,
            self.config,
            self.clock,
            self.telemetry,
            self._random,
            logs.set_level,
            self._started_us,
        )

    def _tenure_began(self, tenure: Tenure) -> None:
        assert self.server is not None, "called by start"
        self.server.serve(tenure.instance)
        store = tenure.store
        if isinstance(store, Store):
            self._government = asyncio.create_task(self._govern(store), name="governing")

    async def _govern(self, store: Store) -> None:
        host, peering = self.host, self.peering
        assert host is not None, "a tenure has a host"
        assert peering is not None, "a tenure has peers"
        governing = Governing(
            host, peering.network, peering, MemberRows(store.coordinator), self.clock,
            self.config.replication.factor, self.config.replication.down_after_sec,
            lambda: closed_now(store.oracle.last, host.replicas), self._yield_to,
        )  # fmt: skip
        founders = {NodeId(n): address for n, address in self._founding.nodes.items()}
        try:
            while self.governing is None:
                try:
                    await governing.begin(
                        founders or {self.id: self.advertised}, self.advertised, __version__
                    )
                    self.governing = governing
                except DatabaseError as error:
                    log.warning("the cluster is not looked after yet: %s", error)
                    await self.clock.sleep(ROUND_SECONDS)
            await governing.run()
        finally:
            self.governing = None
            await governing.close()

    def _yield_to(self, node: NodeId) -> None:
        """Let another node lead, because this one is to hold no replicas."""
        if self._giving_way is None or self._giving_way.done():
            self._giving_way = asyncio.create_task(self._give_way(node), name="yield")

    async def _give_way(self, node: NodeId) -> None:
        assert self.leading is not None, "a tenure has begun"
        await self.leading.give_way(node, HAND_OVER_SECONDS)
        self.leading.resume()

    async def _tenure_ends(self, tenure: Tenure) -> None:
        assert self.server is not None, "called by start"
        if self._government is not None:
            self._government.cancel()
            await asyncio.gather(self._government, return_exceptions=True)
            self._government = None
        await self.server.end_sessions(
            TransactionError(
                "terminating connection because another node leads the cluster now", "57P01",
                hint="Connect again: the connection will be served by the node that leads.",
            )
        )  # fmt: skip

    async def dismissed(self) -> None:
        """Return when this node has left the cluster, and is to stop."""
        assert self._belonging is not None, "running"
        await self._belonging.end()

    def metrics(self) -> Metrics:
        """Figures for monitoring, of the store while this node serves. May be called from any thread."""
        tenure = None if self.leading is None else self.leading.tenure
        return {} if tenure is None else tenure.store.metrics()

    def _observe(self) -> None:
        monitoring = self.config.monitoring
        assert self.server is not None, "called by start"
        if monitoring.metrics_port:
            from shardforge.adapters.metrics import serve_metrics  # 30 MB that few nodes need

            http, _ = serve_metrics(
                self.address[0], monitoring.metrics_port, self.telemetry, self.metrics
            )
            self._closers += [http.server_close, http.shutdown]
        if monitoring.enable_tracing:
            from shardforge.adapters.tracing import start_tracing  # 30 MB that few nodes need

            self.server.record_span, stop = start_tracing(str(self.id), monitoring.otlp_endpoint)
            self._closers.append(stop)

    async def kill(self) -> None:
        """Stop at once, as a crash would: nothing is handed over, nothing made durable. For tests."""
        assert self.host is not None, "running"
        assert self.server is not None, "running"
        self.host.kill()
        await self.server.drain(0)
        if self._tcp is not None:
            await self._tcp.close()
        self.host = None
        await self._release()

    # ---- stopping --------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain connections and stop; at most about `DRAIN_SECONDS` and a flush."""
        if self.server is not None:
            log.info("draining connections")
            lone = self.host is not None and self.host.alone
            await self.server.drain(DRAIN_SECONDS if lone else DRAIN_SECONDS / 4)
        successor = self._successor()
        if self.leading is not None and successor is not None:
            log.info("node %d takes over", successor)
            await self.leading.give_way(successor, HAND_OVER_SECONDS)
        log.info("stopped")
        await self._release()

    def _successor(self) -> NodeId | None:
        """Who can lead when this node stops: the voter with most of the log; None when nobody else can."""
        host = self.host
        if host is None or not host.meta_leads or host.alone:
            return None
        voters = [
            (match, node)
            for node, match in host.meta.followers().items()
            if node in host.meta.members.voters and node != host.node
        ]
        return max(voters)[1] if voters else None

    async def _release(self) -> None:
        if self.leading is not None:
            await self.leading.stop()
            self.leading = None
        if self.host is not None:
            await self.host.close()
            self.host = None
        if self._tcp is not None:
            await self._tcp.close()
            self._tcp = None
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None
        while self._closers:
            self._closers.pop()()
