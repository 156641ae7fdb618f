"""What this node does while it serves: its tenures, and the government of the cluster that goes with each.

`leading` says when; here a tenure is made, opened to sessions, governed, and ended.
Invariant: nothing of a tenure outlives it: its sessions end with it, and so does its government.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Mapping

from shardforge import __version__
from shardforge.adapters import logs
from shardforge.cluster.plan import Settings
from shardforge.cluster.rebalance import Balance
from shardforge.config import Config
from shardforge.errors import DatabaseError, TransactionError
from shardforge.ids import NodeId
from shardforge.node.changing import Changing
from shardforge.node.cutting import Cutting
from shardforge.node.following import Following
from shardforge.node.governing import ROUND_SECONDS, Governing
from shardforge.node.leading import Leading
from shardforge.node.merging import Merging
from shardforge.node.neighbours import neighbours
from shardforge.node.peering import Peering
from shardforge.node.splitting import Splitting
from shardforge.ports import Blocking, Clock
from shardforge.server.pgwire.server import Server
from shardforge.shard.host import Host
from shardforge.shard.remote.service import ShardService
from shardforge.sql.session.tenure import Tenure
from shardforge.telemetry import Telemetry
from shardforge.txn.closed import ClosedTimestamps
from shardforge.txn.standby import StandbyStore
from shardforge.txn.store import NeighboursOf, Store

HAND_OVER_SECONDS = 3.0
MOVES_MAX = 4
"""Shards that get a new copy at a time."""
AGAIN_SECONDS = 1.0
"""How long a government that ended on a mistake of ours is not begun again."""

log = logging.getLogger("shardforge.node")


class Serving:
    """One node's tenures."""

    def __init__(
        self, config: Config, host: Host, peering: Peering, server: Server, clock: Clock, blocking: Blocking,
        telemetry: Telemetry, randomness: random.Random, closed: ClosedTimestamps, founders: Mapping[NodeId, str],
        address: str, started_us: int,
    ) -> None:  # fmt: skip
        """`founders` are the members of a cluster that has no record of any yet; `address` is this node's."""
        self.governing: Governing | None = None
        self._config = config
        self._host = host
        self._peering = peering
        self._server = server
        self._clock = clock
        self._blocking = blocking
        self._telemetry = telemetry
        self._random = randomness
        self._closed = closed
        self._founders = founders
        self._address = address
        self._started_us = started_us
        self._governing: Governing | None = None
        """The same from the moment that it begins to look after the cluster."""
        self._service = ShardService(host, peering.network, blocking)
        self._cutting = Cutting(host, peering.network, blocking)
        self._changing = Changing(host, peering.network)
        self._government: asyncio.Task[None] | None = None
        self._giving_way: asyncio.Task[None] | None = None
        self.following = Following(
            config, host, peering.network, clock, telemetry, randomness, logs.set_level, started_us, closed,
            peering.serving_node, self._store, server.end_sessions,
        )  # fmt: skip
        self.leading: Leading[Tenure] = Leading(
            host, self._begin, self._began, self._ends, self._stand_by
        )

    def start(self) -> None:
        """Begin to follow the leaderships, and what is closed elsewhere."""
        self.leading.start()
        self.following.start()

    def _store(self) -> Store | StandbyStore | None:
        return None if self.leading.tenure is None else self.leading.tenure.store

    async def _begin(self) -> Tenure:
        return await Tenure.begin(
            self._host, self._config, self._clock, self._blocking, self._telemetry, self._random,
            logs.set_level, self._started_us, self._neighbours(),
        )  # fmt: skip

    def _neighbours(self) -> NeighboursOf:
        peering = self._peering
        return neighbours(
            self._host,
            self._service,
            peering.network,
            peering,
            self._clock,
            lambda: self._governing,
        )

    def _stand_by(self) -> Awaitable[Tenure] | None:
        applied = {replica.id: replica.applied for replica in self._host.replicas}
        timestamp = self._closed.usable(applied)
        if not timestamp:
            return None
        return Tenure.stand_by(
            self._host, timestamp, self._closed.closed_us, self._config, self._clock, self._telemetry,
            self._random, logs.set_level, self._started_us,
        )  # fmt: skip

    def _began(self, tenure: Tenure) -> None:
        self._server.serve(tenure.instance)
        store = tenure.store
        if isinstance(store, Store):
            self._government = asyncio.create_task(self._govern(store), name="governing")

    async def _ends(self, _tenure: Tenure) -> None:
        government, self._government = self._government, None
        if government is not None:
            government.cancel()
            await asyncio.gather(government, return_exceptions=True)
        await self._server.end_tenure(
            TransactionError(
                "terminating connection because another node leads the cluster now", "57P01",
                hint="Connect again: the connection will be served by the node that leads.",
            )
        )  # fmt: skip

    # ---- the cluster's government ----------------------------------------------------------------

    async def _govern(self, store: Store) -> None:
        """Look after the cluster for one tenure, whatever goes wrong in it."""
        # Not until it is cancelled: a group of tasks that fails meanwhile tells the failure alone (CPython 3.11).
        while self._government is not None:
            try:
                await self._govern_once(store)
            except Exception:  # our own mistake: a tenure must not go on without a government
                log.exception("the government of the cluster ended, and begins again")
                await self._clock.sleep(AGAIN_SECONDS)

    async def _govern_once(self, store: Store) -> None:
        host, peering = self._host, self._peering
        replication = self._config.replication
        balance = Balance(self._config.sharding.rebalance_threshold)
        governing = Governing(
            host, peering.network, peering, store, self._clock, self._changing, replication.factor,
            Settings(balance, MOVES_MAX), replication.down_after_sec, self._yield_to,
        )  # fmt: skip
        self._governing = governing
        try:
            while self.governing is None:
                try:
                    await governing.begin(self._founders, self._address, __version__)
                    self.governing = governing
                except DatabaseError as error:
                    log.warning("the cluster is not looked after yet: %s", error)
                    await self._clock.sleep(ROUND_SECONDS)
            governing.splitting = splitting = Splitting(
                host,
                store,
                self._clock,
                self._cutting,
                self._config.sharding.max_shard_size,
                self._config.sharding.max_shard_load,
                governing.event,
                governing.rest,
            )
            governing.merging = Merging(
                host, store, self._clock, self._blocking, self._cutting, self._config.sharding, governing.event,
                governing.rest,
            )  # fmt: skip
            async with asyncio.TaskGroup() as group:
                group.create_task(governing.run())
                group.create_task(splitting.run())
        finally:
            self.governing = self._governing = None
            await governing.close()

    def _yield_to(self, node: NodeId) -> None:
        """Let another node lead, because this one is to hold no replicas."""
        if self._giving_way is None or self._giving_way.done():
            self._giving_way = asyncio.create_task(self._give_way(node), name="yield")

    async def _give_way(self, node: NodeId) -> None:
        await self.leading.give_way(node, HAND_OVER_SECONDS)
        self.leading.resume()

    # ---- stopping --------------------------------------------------------------------------------

    async def hand_over(self) -> None:
        """Let another node take over before this one stops, if one can."""
        successor = self._successor()
        if successor is not None:
            log.info("node %d takes over", successor)
            await self.leading.give_way(successor, HAND_OVER_SECONDS)

    def _successor(self) -> NodeId | None:
        """Who can lead when this node stops: the voter with most of the log; None when nobody else can."""
        host = self._host
        if not host.meta_leads or host.alone:
            return None
        voters = [
            (match, node)
            for node, match in host.meta.followers().items()
            if node in host.meta.members.voters and node != host.node
        ]
        return max(voters)[1] if voters else None

    async def stop(self) -> None:
        """End the tenure, for good."""
        await self.leading.stop()
        await self.following.stop()
