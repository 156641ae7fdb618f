"""The composition root: a configuration becomes one running node, and stops again.

Order of start: data directory (locked), logs, replicas (recovery), the first tenure where this node leads, listener.
The reverse to stop. A stop needs no clean-up to be safe: start-up is recovery.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from shardforge import __version__
from shardforge.adapters import logs
from shardforge.adapters.blocking import ThreadBlocking
from shardforge.adapters.clock import SystemClock
from shardforge.config import Config, not_yet_in_force, split_address
from shardforge.errors import TransactionError
from shardforge.ids import NodeId
from shardforge.node.leading import Leading
from shardforge.ports import Network
from shardforge.server.pgwire.server import Server
from shardforge.shard.host import Host
from shardforge.shard.peers import NoPeers
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.tenure import Tenure
from shardforge.storage.layout import DataDirectory
from shardforge.telemetry import Telemetry
from shardforge.txn.closed import ClosedTimestamps
from shardforge.txn.store import Metrics, open_host

DRAIN_SECONDS = 8.0
"""How long a lone node lets running statements go on when it stops."""
HAND_OVER_SECONDS = 3.0

log = logging.getLogger("shardforge.node")


class Node:
    """One running node. `address` is where it listens."""

    def __init__(
        self, config: Config, network: Network | None = None, voters: Sequence[int] = ()
    ) -> None:
        """`voters`: the nodes of a cluster that is new with all of them; this node alone by default."""
        self.config = config
        self.id = NodeId(config.cluster.node_id or 1)
        self._network = network or NoPeers()
        self._voters = [NodeId(node) for node in voters] or [self.id]
        self.address: tuple[str, int] = split_address(config.cluster.bind_address)
        self.telemetry = Telemetry()
        self.clock = SystemClock()
        self.closed = ClosedTimestamps()
        self._random = random.Random()
        self._started_us = self.clock.wall_us()
        self._closers: list[Callable[[], None]] = []
        self._blocking: ThreadBlocking | None = None
        self.host: Host | None = None
        self.leading: Leading | None = None
        self.server: Server | None = None

    @property
    def instance(self) -> Instance | None:
        """What sessions run on, while this node serves."""
        return None if self.server is None else self.server.instance

    async def start(self) -> None:
        """Bring the node up. Raises DatabaseError, with everything released, when it cannot."""
        try:
            await self._start()
        except BaseException:
            await self._release()
            raise

    async def _start(self) -> None:
        config = self.config
        directory = None
        if config.storage.engine != "memory":
            directory = DataDirectory.open(
                Path(config.cluster.data_directory),
                node_id=self.id,
                cluster_name=config.cluster.name,
            )
            self._closers.append(directory.close)
            handlers = logs.open_logs(directory.logs, config.monitoring.log_level)
            self._closers.append(lambda: logs.close_logs(handlers))
        log.info("ShardForge %s starts", __version__)
        self._blocking = ThreadBlocking()
        self.host = open_host(
            directory, config, self.clock, self._blocking, self._network, self._random, self.id, self._voters
        )  # fmt: skip
        self.server = Server(config, self.telemetry, self.clock)
        self.leading = Leading(
            self.host, self._begin_tenure, self._tenure_began, self._tenure_ends, self._stand_by
        )
        self.host.start()
        self.leading.start()
        if self.host.alone:
            await self.leading.first_tenure()
        self._observe()
        self.address = await self.server.listen()
        for name, feature in not_yet_in_force(config):
            log.debug("%s is not yet in force: it waits for %s", name, feature)
        log.info("ready for connections on %s:%d", *self.address)

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

    async def _tenure_ends(self, tenure: Tenure) -> None:
        assert self.server is not None, "called by start"
        await self.server.end_sessions(
            TransactionError(
                "terminating connection because another node leads the cluster now", "57P01",
                hint="Connect again: the connection will be served by the node that leads.",
            )
        )  # fmt: skip

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

    def kill(self) -> None:
        """Stop at once, as a crash would; nothing is closed. For tests and simulation."""
        assert self.host is not None, "running"
        self.host.kill()

    # ---- stopping --------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain connections and stop; at most about `DRAIN_SECONDS` and a flush."""
        if self.server is not None:
            log.info("draining connections")
            await self.server.drain(DRAIN_SECONDS)
        successor = self._successor()
        if self.leading is not None and successor is not None:
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
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None
        while self._closers:
            self._closers.pop()()
