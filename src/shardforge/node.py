"""The composition root: a configuration becomes one running node, and stops again.

Order of start: data directory (locked), logs, store (recovery), catalog, listener. The reverse to stop. A stop needs no
clean-up to be safe: start-up is recovery.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path

from shardforge import __version__
from shardforge.adapters import logs
from shardforge.adapters.blocking import ThreadBlocking
from shardforge.adapters.clock import SystemClock
from shardforge.config import Config, not_yet_in_force, split_address
from shardforge.server.pgwire.server import Server
from shardforge.sql.catalog.store import CatalogStore
from shardforge.sql.session.instance import Instance, PlanCache
from shardforge.storage.layout import DataDirectory
from shardforge.telemetry import Telemetry
from shardforge.txn.store import Store, open_store

DRAIN_SECONDS = 8.0

log = logging.getLogger("shardforge.node")


class Node:
    """One running node. `address` is where it listens."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.address: tuple[str, int] = split_address(config.cluster.bind_address)
        self._closers: list[Callable[[], None]] = []
        self._store: Store | None = None
        self._blocking: ThreadBlocking | None = None
        self._purge: asyncio.Task[None] | None = None
        self.server: Server | None = None
        self.instance: Instance | None = None

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
                node_id=config.cluster.node_id,
                cluster_name=config.cluster.name,
            )
            self._closers.append(directory.close)
            handlers = logs.open_logs(directory.logs, config.monitoring.log_level)
            self._closers.append(lambda: logs.close_logs(handlers))
        log.info("ShardForge %s starts", __version__)
        clock = SystemClock()
        self._blocking = ThreadBlocking()
        self._store = await open_store(directory, config, clock, self._blocking)
        catalog = await CatalogStore.open(self._store, default_sharding=config.sharding.strategy)
        telemetry = Telemetry()
        self.instance = Instance(
            config=config, store=self._store, catalog=catalog, clock=clock, telemetry=telemetry,
            random=random.Random(), plans=PlanCache(config.sql.statement_cache_size), set_log_level=logs.set_level,
            started_us=clock.wall_us(),
        )  # fmt: skip
        self._purge = asyncio.create_task(catalog.purge_forever(), name="purge")
        self.server = Server(config, self.instance)
        self._observe()
        self.address = await self.server.listen()
        for name, feature in not_yet_in_force(config):
            log.debug("%s is not yet in force: it waits for %s", name, feature)
        log.info("ready for connections on %s:%d", *self.address)

    def _observe(self) -> None:
        monitoring = self.config.monitoring
        server, instance, store = self.server, self.instance, self._store
        assert server is not None, "called by start"
        assert instance is not None, "called by start"
        assert store is not None, "called by start"
        if monitoring.metrics_port:
            from shardforge.adapters.metrics import serve_metrics  # 30 MB that few nodes need

            http, _ = serve_metrics(
                self.address[0],
                monitoring.metrics_port,
                instance.telemetry,
                store.metrics,
            )
            self._closers += [http.server_close, http.shutdown]
        if monitoring.enable_tracing:
            from shardforge.adapters.tracing import start_tracing  # 30 MB that few nodes need

            server.record_span, stop = start_tracing(
                str(self.config.cluster.node_id), monitoring.otlp_endpoint
            )
            self._closers.append(stop)

    async def stop(self) -> None:
        """Drain connections and stop; at most about `DRAIN_SECONDS` and a flush."""
        if self.server is not None:
            log.info("draining connections")
            await self.server.drain(DRAIN_SECONDS)
        log.info("stopped")
        await self._release()

    async def _release(self) -> None:
        if self._purge is not None:
            self._purge.cancel()
            await asyncio.gather(self._purge, return_exceptions=True)
            self._purge = None
        if self._store is not None:
            await self._store.close()
            self._store = None
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None
        while self._closers:
            self._closers.pop()()
