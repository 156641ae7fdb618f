"""What this node does while it serves: its tenures, and the government of the cluster that goes with each.

`leading` says when; here a tenure is made, opened to sessions, governed, and ended.
Invariant: nothing of a tenure outlives it: its sessions end with it, and so does its government.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable
from typing import Protocol

from shardforge.adapters import logs
from shardforge.cluster.plan import Settings
from shardforge.config import Config
from shardforge.errors import TransactionError
from shardforge.ids import NodeId
from shardforge.node.changing import Changing
from shardforge.node.cutting import Cutting
from shardforge.node.following import Following
from shardforge.node.governing import Governing
from shardforge.node.government import Founders, Government
from shardforge.node.leading import Leading
from shardforge.node.neighbours import neighbours
from shardforge.node.peering import Peering
from shardforge.ports import Blocking, Clock
from shardforge.shard.host import Host
from shardforge.shard.remote.service import ShardService
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.tenure import Tenure
from shardforge.sql.sieve.reading import read_sieve
from shardforge.telemetry import Telemetry
from shardforge.txn.standby import StandbyStore
from shardforge.txn.store import NeighboursOf, Store

HAND_OVER_SECONDS = 3.0

log = logging.getLogger("shardforge.node")


class Sessions(Protocol):
    """What clients talk to."""

    def serve(self, instance: Instance) -> None:
        """Let sessions of a tenure begin."""
        ...

    async def end_tenure(self, reason: TransactionError) -> None:
        """End all of them, and let none begin."""
        ...

    async def end_sessions(self, instance: Instance, reason: TransactionError) -> None:
        """End those of another instance: readers of the past."""
        ...


class Serving:
    """One node's tenures."""

    def __init__(
        self, config: Config, host: Host, peering: Peering, sessions: Sessions, clock: Clock, blocking: Blocking,
        telemetry: Telemetry, randomness: random.Random, settings: Settings, founders: Founders,
        started_us: int,
    ) -> None:  # fmt: skip
        """`settings` bound what its governments move."""
        self._config = config
        self._host = host
        self._peering = peering
        self._sessions = sessions
        self._clock = clock
        self._blocking = blocking
        self._telemetry = telemetry
        self._random = randomness
        self._settings = settings
        self._founders = founders
        self._started_us = started_us
        self._service = ShardService(host, peering.network, blocking, read_sieve)
        self._cutting = Cutting(host, peering.network, blocking)
        self._changing = Changing(host, peering.network)
        self._government: Government | None = None
        self._giving_way: asyncio.Task[None] | None = None
        self.following = Following(
            config, host, peering.network, clock, telemetry, randomness, logs.set_level, started_us,
            peering.closed, peering.serving_node, self._store, sessions.end_sessions,
        )  # fmt: skip
        self.leading: Leading[Tenure] = Leading(
            host, self._begin, self._began, self._ends, self._stand_by
        )

    @property
    def governing(self) -> Governing | None:
        """Who governs the cluster, while this node serves."""
        return None if self._government is None else self._government.governing

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
            self._host, self._service, peering.network, peering, self._clock, lambda: self.governing
        )

    def _stand_by(self) -> Awaitable[Tenure] | None:
        applied = {replica.id: replica.applied for replica in self._host.replicas}
        closed = self._peering.closed
        timestamp = closed.usable(applied)
        if not timestamp:
            return None
        return Tenure.stand_by(
            self._host, timestamp, closed.closed_us, self._config, self._clock, self._telemetry,
            self._random, logs.set_level, self._started_us,
        )  # fmt: skip

    def _began(self, tenure: Tenure) -> None:
        self._sessions.serve(tenure.instance)
        store = tenure.store
        if isinstance(store, Store):
            self._government = government = Government(
                self._config, self._host, self._peering, store, self._clock, self._blocking, self._cutting,
                self._changing, self._settings, self._founders, self._yield_to,
            )  # fmt: skip
            government.start()

    async def _ends(self, _tenure: Tenure) -> None:
        government, self._government = self._government, None
        if government is not None:
            await government.stop()
        await self._sessions.end_tenure(
            TransactionError(
                "terminating connection because another node leads the cluster now", "57P01",
                hint="Connect again: the connection will be served by the node that leads.",
            )
        )  # fmt: skip

    # ---- giving way -------------------------------------------------------------------------------

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
        if self._giving_way is not None:
            self._giving_way.cancel()
            await asyncio.gather(self._giving_way, return_exceptions=True)
        await self.following.stop()
