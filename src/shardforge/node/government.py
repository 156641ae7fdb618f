"""The government of a cluster during one tenure: who governs, splits and merges is made here, and works until the end.

A mistake of ours ends all of them together, and they begin again from what the nodes say then.
Invariant: once `stop` has returned nothing of it works any more, though it failed in the moment that it was stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from shardforge import __version__
from shardforge.cluster.plan import Settings
from shardforge.config import Config
from shardforge.errors import DatabaseError
from shardforge.ids import NodeId
from shardforge.node.changing import Changing
from shardforge.node.cutting import Cutting
from shardforge.node.governing import ROUND_SECONDS, Governing
from shardforge.node.merging import Merging
from shardforge.node.peering import Peering
from shardforge.node.splitting import Splitting
from shardforge.ports import Blocking, Clock
from shardforge.shard.host import Host
from shardforge.txn.store import Store

AGAIN_SECONDS = 1.0
"""How long a government that ended on a mistake of ours is not begun again."""

log = logging.getLogger("shardforge.node")


class Founders(NamedTuple):
    """The members of a cluster that has no record of any yet."""

    addresses: Mapping[NodeId, str]
    observers: Collection[NodeId] = ()


class Government:
    """One tenure's government."""

    def __init__(
        self, config: Config, host: Host, peering: Peering, store: Store, clock: Clock, blocking: Blocking,
        cutting: Cutting, changing: Changing, settings: Settings, founders: Founders,
        give_way: Callable[[NodeId], None],
    ) -> None:  # fmt: skip
        """`settings` bound what is moved; `give_way` lets another node lead."""
        self.governing: Governing | None = None
        """Who governs, from the moment that it knows the members."""
        self._config = config
        self._host = host
        self._peering = peering
        self._store = store
        self._clock = clock
        self._blocking = blocking
        self._cutting = cutting
        self._changing = changing
        self._settings = settings
        self._founders = founders
        self._give_way = give_way
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look after the cluster."""
        self._task = asyncio.create_task(self._run(), name="government")

    async def stop(self) -> None:
        """End with the tenure."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        # Not until it is cancelled: a group of tasks that fails meanwhile tells the failure alone (CPython 3.11).
        while not self._stopped:
            try:
                await self._govern()
            except Exception:  # our own mistake: a tenure must not go on without a government
                log.exception("the government of the cluster ended, and begins again")
                await self._clock.sleep(AGAIN_SECONDS)

    async def _govern(self) -> None:
        replication = self._config.replication
        governing = Governing(
            self._host, self._peering.network, self._peering, self._store, self._clock, self._changing,
            replication.factor, self._settings, replication.down_after_sec, self._give_way,
        )  # fmt: skip
        try:
            await self._begin(governing)
            governing.splitting = splitting = self._splitting(governing)
            governing.merging = self._merging(governing)
            async with asyncio.TaskGroup() as group:
                group.create_task(governing.run())
                group.create_task(splitting.run())
        finally:
            self.governing = None
            await governing.close()

    async def _begin(self, governing: Governing) -> None:
        founders, address = self._founders, self._peering.address()
        while self.governing is None:
            try:
                await governing.begin(founders.addresses, address, __version__, founders.observers)
                self.governing = governing
            except DatabaseError as error:
                log.warning("the cluster is not looked after yet: %s", error)
                await self._clock.sleep(ROUND_SECONDS)

    def _splitting(self, governing: Governing) -> Splitting:
        sharding = self._config.sharding
        return Splitting(
            self._host, self._store, self._clock, self._cutting, sharding.max_shard_size,
            sharding.max_shard_load, governing.event, governing.rest,
        )  # fmt: skip

    def _merging(self, governing: Governing) -> Merging:
        return Merging(
            self._host, self._store, self._clock, self._blocking, self._cutting, self._config.sharding,
            governing.event, governing.rest,
        )  # fmt: skip
