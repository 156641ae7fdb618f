"""What runs while this node leads every shard: the store, the catalog and the instance that sessions belong to.

All of it is made anew when leadership is won and dropped when it is lost, so nothing of an older leadership (locks,
caches, reserved numbers, plans) can outlive it: what is durable is in the shards' logs, and nothing else counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from shardforge.config import Config
from shardforge.ports import Blocking, Clock
from shardforge.shard.host import Host
from shardforge.sql.catalog.store import CatalogStore
from shardforge.sql.session.instance import Instance, PlanCache
from shardforge.telemetry import Telemetry
from shardforge.txn.store import Store, store_of


class Tenure:
    """One leadership. Made by `begin`."""

    def __init__(self, store: Store, catalog: CatalogStore, instance: Instance) -> None:
        self.store = store
        self.instance = instance
        self._purge = asyncio.create_task(catalog.purge_forever(), name="purge")

    @classmethod
    async def begin(
        cls, host: Host, config: Config, clock: Clock, blocking: Blocking, telemetry: Telemetry,
        randomness: random.Random, set_log_level: Callable[[str], None], started_us: int,
    ) -> Tenure:  # fmt: skip
        """Load the catalog from shards that all lead here. May be cancelled when they do not any more."""
        store = store_of(host, config, clock, blocking)
        try:
            catalog = await CatalogStore.open(store, default_sharding=config.sharding.strategy)
        except BaseException:
            await store.end()
            raise
        plans = PlanCache(config.sql.statement_cache_size)
        instance = Instance(
            config=config, store=store, catalog=catalog, clock=clock, telemetry=telemetry, random=randomness,
            plans=plans, set_log_level=set_log_level, started_us=started_us,
        )  # fmt: skip
        return cls(store, catalog, instance)

    async def end(self) -> None:
        """Stop what works in the background. Sessions have been ended before."""
        self._purge.cancel()
        await asyncio.gather(self._purge, return_exceptions=True)
        await self.store.end()
