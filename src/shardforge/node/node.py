"""The composition root: a configuration becomes one running node, and stops again.

Order of start: data directory (locked), logs, replicas (recovery), the first tenure where this node leads, listener.
The reverse to stop. A stop needs no clean-up to be safe: start-up is recovery.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from shardforge import __version__
from shardforge.adapters.blocking import ThreadBlocking
from shardforge.adapters.clock import SystemClock
from shardforge.cluster.plan import Settings
from shardforge.cluster.rebalance import Balance
from shardforge.config import Config, split_address
from shardforge.ids import NodeId
from shardforge.node.admitting import Admitting
from shardforge.node.belonging import Belonging
from shardforge.node.figures import Figures, NodeFigures, asked_of
from shardforge.node.governing import Governing
from shardforge.node.government import Founders
from shardforge.node.joining import JOIN
from shardforge.node.leading import Leading
from shardforge.node.operations import (
    DECOMMISSION,
    LEAVE,
    LOCKS,
    MERGE,
    MOVE,
    SCATTER,
    SPLIT,
    STATUS,
    Operations,
)
from shardforge.node.peering import Peering
from shardforge.node.public import cluster_of
from shardforge.node.reports import AddressBook
from shardforge.node.serving import Serving
from shardforge.node.standing import Standing
from shardforge.node.verifying import VERIFY, Verification
from shardforge.ports import Network
from shardforge.server.grpc.gateway import Gateway
from shardforge.server.peer.network import PeerNetwork
from shardforge.server.peer.tls import peer_contexts
from shardforge.server.pgwire.server import Server
from shardforge.shard.files import Shelf
from shardforge.shard.host import FilesOf, Host
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.tenure import Tenure
from shardforge.telemetry import Telemetry
from shardforge.txn.closed import ClosedTimestamps
from shardforge.txn.store import open_host

DRAIN_SECONDS = 8.0
"""How long a lone node lets running statements go on when it stops; others leave them to a new node sooner."""

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
    forked: Shelf | None = None
    """Where replicas that come out of splits are kept, with the memory engine."""


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
        self.address: tuple[str, int] = split_address(config.cluster.bind_address)
        self.telemetry = Telemetry()
        self.clock = SystemClock()
        self.closed = ClosedTimestamps()
        self.host: Host | None = None
        self.serving: Serving | None = None
        self.peering: Peering | None = None
        self.admitting: Admitting | None = None
        self.operations: Operations | None = None
        self.server: Server | None = None
        self._seeds = tuple(seeds)
        self._founding = founding or Founding("", {})
        self._tcp: PeerNetwork | None = None
        self._standing = Standing(config)
        self._random = random.Random()
        self._started_us = self.clock.wall_us()
        self._closers: list[Callable[[], None]] = []
        self._blocking: ThreadBlocking | None = None
        self._belonging: Belonging | None = None
        self._figures: NodeFigures | None = None

    @property
    def id(self) -> NodeId:
        """This node's id: in a cluster that it joins, not before it is admitted."""
        return self._standing.id

    @property
    def instance(self) -> Instance | None:
        """What sessions run on, while this node serves."""
        return None if self.server is None else self.server.instance

    @property
    def leading(self) -> Leading[Tenure] | None:
        """When this node serves, while it runs."""
        return None if self.serving is None else self.serving.leading

    @property
    def governing(self) -> Governing | None:
        """The cluster's government, while this node serves."""
        return None if self.serving is None else self.serving.governing

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
        standing, founding = self._standing, self._founding
        known = standing.open_known(joins=bool(self._seeds), cluster_id=founding.cluster_id)
        self._tcp = tcp = founding.make_peers(
            NodeId(0) if known is None else self.id, "" if known is None else known.cluster_id,
            self._random, peer_contexts(config),
        )  # fmt: skip
        tcp.open_to_strangers(JOIN)
        self.server.peers = tcp
        self.server.grpc = Gateway(self.server, self._blocking, cluster_of(self))
        self.address = await self.server.listen()
        identity = known or await standing.become_known(tcp, self._seeds, self.advertised)
        log.info(
            "ShardForge %s starts as node %d of %s", __version__, self.id, identity.cluster_name
        )
        network = founding.network or tcp
        voters = [NodeId(node) for node in sorted(founding.nodes)] or [self.id]
        self.host = open_host(
            standing.directory, config, self.clock, self._blocking, network, self._random, self.id,
            voters if identity.founder else (), founding.files_of, founding.forked,
        )  # fmt: skip
        self.peering = Peering(
            self.host, standing.directory, network, self._blocking, self.clock,
            lambda: self.advertised, self._serves, self.closed, config.cluster.locality,
        )  # fmt: skip
        if standing.book is not None:
            self.peering.learn(standing.book)
            await self.peering.keep()
        elif founding.nodes:
            nodes = [(NodeId(node), address) for node, address in founding.nodes.items()]
            self.peering.learn(AddressBook(0, NodeId(0), nodes))
        self.admitting = Admitting(identity, self.id, self.peering, lambda: self.governing)
        self.operations = Operations(
            config, identity, self.host, self.peering, network, lambda: self.governing,
            lambda: self.clock.monotonic_ns() / 1e9, lambda: self.instance,
        )  # fmt: skip
        self._figures = NodeFigures(
            self.host, self.peering, tcp, self.operations, self._store_metrics
        )
        self._belonging = Belonging(
            self.id,
            self.peering,
            network,
            self.clock,
            lambda: self.governing,
            lambda: self.advertised,
        )
        Verification(
            self.host,
            network,
            self._blocking,
            self.peering.serving_node,
            self.operations.leader_of,
        )
        founders = {NodeId(n): address for n, address in founding.nodes.items()}
        self.serving = Serving(
            config, self.host, self.peering, self.server, self.clock, self._blocking, self.telemetry, self._random,
            Settings(Balance(config.sharding.rebalance_threshold)),
            Founders(founders or {self.id: self.advertised}), self._started_us,
        )  # fmt: skip
        tcp.open_to_strangers(STATUS)
        tcp.open_to_strangers(VERIFY, trusted=True)
        tcp.open_to_strangers(LOCKS, trusted=True)
        tcp.open_to_strangers(LEAVE, trusted=True)
        tcp.open_to_strangers(DECOMMISSION, trusted=True)
        for method in (SPLIT, MERGE, MOVE, SCATTER):
            tcp.open_to_strangers(method, trusted=True)
        self.host.start()
        self.serving.start()
        self.server.following = self.serving.following
        if self.host.replicas and self.host.alone:
            await self.serving.leading.first_tenure()
        self._observe()
        log.info("ready for connections on %s:%d", *self.address)

    def _serves(self) -> bool:
        return self.instance is not None and not self.instance.standby

    def _forward_to(self) -> NodeId | None:
        """Who serves a client that came here, if that is another node."""
        if self.instance is not None or self.peering is None:
            return None
        serving = self.peering.serving_node()
        return None if serving == self.id else serving

    async def dismissed(self) -> None:
        """Return when this node has left the cluster, and is to stop."""
        assert self._belonging is not None, "running"
        await self._belonging.end()

    def metrics(self) -> Figures:
        """Figures for monitoring. To be called on the event loop."""
        return {} if self._figures is None else self._figures.read()

    def _store_metrics(self) -> Figures:
        if self.serving is None:
            return {}
        tenure, figures = self.serving.leading.tenure, self.serving.following.figures()
        return figures if tenure is None else {**figures, **tenure.store.metrics()}

    def _observe(self) -> None:
        monitoring = self.config.monitoring
        assert self.server is not None, "called by start"
        if monitoring.metrics_port:
            from shardforge.adapters.metrics import serve_metrics  # 30 MB that few nodes need

            http, _ = serve_metrics(
                self.address[0], monitoring.metrics_port, self.telemetry,
                asked_of(asyncio.get_running_loop(), self.metrics),
            )  # fmt: skip
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
        if self.serving is not None:
            await self.serving.hand_over()
        log.info("stopped")
        await self._release()

    async def _release(self) -> None:
        self._figures = None
        if self.serving is not None:
            await self.serving.stop()
            self.serving = None
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
        self._standing.close()
