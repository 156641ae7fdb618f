"""What runs while this node leads every shard: the store, the catalog and the instance that sessions belong to.

While nobody leads, a node that holds all shards may run a lesser one, which reads the past only (`txn.standby`).

All of it is made anew when leadership is won and dropped when it is lost, so nothing of an older leadership (locks,
caches, reserved numbers, plans) can outlive it: what is durable is in the shards' logs, and nothing else counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from shardforge.config import Config
from shardforge.ids import Timestamp
from shardforge.ports import Blocking, Clock
from shardforge.shard.host import Host
from shardforge.sql.catalog.store import CatalogStore
from shardforge.sql.session.instance import FOLLOWER_PROCESS_IDS, Instance, PlanCache
from shardforge.telemetry import Telemetry
from shardforge.txn.standby import StandbyStore
from shardforge.txn.store import NeighboursOf, Store, store_of


class Tenure:
    """One leadership. Made by `begin`."""

    def __init__(
        self,
        store: Store | StandbyStore,
        instance: Instance,
        work: Coroutine[Any, Any, None] | None,
    ) -> None:
        self.store = store
        self.instance = instance
        self._work = None if work is None else asyncio.create_task(work, name="purge")

    @property
    def standby(self) -> bool:
        """Whether nobody leads, and only the past is read."""
        return bool(self.instance.standby)

    @property
    def stands(self) -> bool:
        """Whether what it rests on is still so."""
        return isinstance(self.store, StandbyStore) or self.store.stands

    @classmethod
    async def begin(
        cls, host: Host, config: Config, clock: Clock, blocking: Blocking, telemetry: Telemetry,
        randomness: random.Random, set_log_level: Callable[[str], None], started_us: int,
        neighbours: NeighboursOf | None = None,
    ) -> Tenure:  # fmt: skip
        """Load the catalog from the meta shard, which leads here. May be cancelled when it does not any more."""
        store = await store_of(host, config, clock, blocking, neighbours)
        try:
            catalog = await CatalogStore.open(store, default_sharding=config.sharding.strategy)
        except BaseException:
            await store.end()
            raise
        instance = Instance(
            config=config, store=store, catalog=catalog, clock=clock, telemetry=telemetry, random=randomness,
            plans=PlanCache(config.sql.statement_cache_size), set_log_level=set_log_level, started_us=started_us,
        )  # fmt: skip
        return cls(store, instance, catalog.purge_forever(clock))

    @classmethod
    async def stand_by(
        cls, host: Host, timestamp: Timestamp, closed_us: int, config: Config, clock: Clock, telemetry: Telemetry,
        randomness: random.Random, set_log_level: Callable[[str], None], started_us: int,
    ) -> Tenure:  # fmt: skip
        """Read what this node holds as of a closed timestamp, while nobody leads."""
        store = StandbyStore(host, host.node, timestamp)
        instance = Instance(
            config=config, store=store, catalog=await CatalogStore.open_standby(store), clock=clock,
            telemetry=telemetry, random=randomness, plans=PlanCache(config.sql.statement_cache_size),
            set_log_level=set_log_level, started_us=started_us, standby=timestamp, standby_us=closed_us,
            next_process_id=FOLLOWER_PROCESS_IDS,
        )  # fmt: skip
        return cls(store, instance, None)

    async def end(self) -> None:
        """Stop what works in the background. Sessions have been ended before."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        await self.store.end()
