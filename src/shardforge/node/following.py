"""What a node does for sessions that it answers by itself while another one serves: reads at closed timestamps.

While somebody reads, it asks the serving node again and again what is closed (`CLOSED`), and so knows for certain how
old its answers are; while nobody does, it asks nothing. The instance that such sessions share is made for the first
of them, and ends when this node does not hold every shard any more. It goes on when this node begins to serve, or
reaches nobody.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from shardforge.config import Config
from shardforge.errors import DatabaseError, TransactionError
from shardforge.ids import NodeId, Timestamp
from shardforge.node.reports import pack, unpack
from shardforge.ports import Clock, Network
from shardforge.shard.host import Host
from shardforge.sql.catalog.following import FollowerCatalog
from shardforge.sql.session.instance import FOLLOWER_PROCESS_IDS, Instance, PlanCache
from shardforge.telemetry import Telemetry
from shardforge.txn.closed import Closed, ClosedTimestamps, closed_now
from shardforge.txn.followed import holds_all
from shardforge.txn.following import FollowerStore
from shardforge.txn.standby import StandbyStore
from shardforge.txn.store import Store

CLOSED = "closed"
"""Asks the serving node for what is closed now; the answer is a `Closed`."""
INTERVAL_SECONDS = 0.1
"""How often it is asked while somebody reads."""
ANSWER_SECONDS = 1.0

log = logging.getLogger("shardforge.node")


def closing(store: Store | StandbyStore | None) -> Closed:
    """What the node with this store closes now: nothing where it does not serve.

    Without its lease it cannot tell whether another has served since: then nothing is said of how new it is.
    """
    if not isinstance(store, Store):
        return Closed(Timestamp(0), {})
    closed = closed_now(store.oracle.last, store.participants)
    return closed if store.lease.held() else Closed(closed.timestamp, closed.applied)


class Following:
    """One node's reads at closed timestamps."""

    def __init__(
        self, config: Config, host: Host, network: Network, clock: Clock, telemetry: Telemetry,
        randomness: random.Random, set_log_level: Callable[[str], None], started_us: int, closed: ClosedTimestamps,
        serving_node: Callable[[], NodeId | None], store: Callable[[], Store | StandbyStore | None],
        end_sessions: Callable[[Instance, TransactionError], Awaitable[None]],
    ) -> None:  # fmt: skip
        """`store` is the serving tenure's, here; `end_sessions` ends those of an instance."""
        self.instance: Instance | None = None
        """What sessions run on, once there were some."""
        self._config = config
        self._host = host
        self._network = network
        self._clock = clock
        self._telemetry = telemetry
        self._random = randomness
        self._set_log_level = set_log_level
        self._started_us = started_us
        self._closed = closed
        self._serving_node = serving_node
        self._store = store
        self._end_sessions = end_sessions
        self._follower: FollowerStore | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        network.on_call(CLOSED, self._on_closed)

    async def _on_closed(self, _sender: NodeId, _body: bytes) -> bytes:
        return pack(closing(self._store()))

    def start(self) -> None:
        """Begin to ask, whenever somebody reads."""
        self._task = asyncio.create_task(self._run(), name="following")

    async def stop(self) -> None:
        """Ask no more. Sessions have been ended before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._leave()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._ask()
            await self._check()
            await self._clock.sleep(INTERVAL_SECONDS)

    async def _ask(self) -> None:
        asked_us = self._clock.monotonic_ns() // 1000
        serving = self._serving_node()
        if serving is None:
            return
        try:
            if serving == self._host.node:
                closed = closing(self._store())
            else:
                closed = unpack(
                    await self._network.call(serving, CLOSED, b"", ANSWER_SECONDS), Closed
                )
        except DatabaseError as error:
            log.debug("node %d does not say what is closed: %s", serving, error)
            return
        self._closed.offer(closed, self._clock.monotonic_ns() // 1000, asked_us)

    async def _check(self) -> None:
        """End the sessions when this node cannot answer them any more."""
        instance = self.instance
        if self._follower is None or self._follower.whole:
            return
        await self._leave()
        if instance is None:
            return
        log.info("this node does not hold all shards any more: it reads for nobody")
        await self._end_sessions(
            instance,
            TransactionError(
                "terminating connection because this node does not hold all shards any more", "57P01",
                hint="Connect again: another node answers.",
            ),
        )  # fmt: skip

    async def _leave(self) -> None:
        follower, self._follower, self.instance = self._follower, None, None
        if follower is not None:
            await follower.end()

    def figures(self) -> dict[str, int | float]:
        """Figures for monitoring; none before there was a session."""
        instance, follower = self.instance, self._follower
        if instance is None or follower is None:
            return {}
        return {
            "follower_sessions": len(instance.sessions),
            "follower_staleness_seconds": follower.age_us / 1e6,
        }

    # ---- who is answered here --------------------------------------------------------------------

    def known(self) -> Instance | None:
        """The instance as far as it can be had without waiting; None where nothing is known to be closed."""
        follower = self._followed()
        if follower is not None and follower.ready(None) and self.instance is None:
            self.instance = self._made(follower)
        return self.instance

    async def ready(self, level: str) -> Instance | None:
        """The instance for a session of that level, "bounded" or "eventual"; None where there is none."""
        follower = self._followed()
        if follower is None:
            return None
        age_us_max = self._config.replication.max_staleness_ms * 1000
        if not await follower.wait_ready(None if level == "eventual" else age_us_max):
            return None
        return self.known() if self._follower is follower else None

    def _followed(self) -> FollowerStore | None:
        if self._follower is None and self._host.replicas and holds_all(self._host):
            follower = FollowerStore(self._host, self._host.node, self._closed, self._clock)
            follower.wanted = self._wanted.set
            self._follower = follower
        return self._follower

    def _made(self, follower: FollowerStore) -> Instance:
        return Instance(
            config=self._config, store=follower, catalog=FollowerCatalog(follower), clock=self._clock,
            telemetry=self._telemetry, random=self._random,
            plans=PlanCache(self._config.sql.statement_cache_size), set_log_level=self._set_log_level,
            started_us=self._started_us, follower=follower, next_process_id=FOLLOWER_PROCESS_IDS,
        )  # fmt: skip
