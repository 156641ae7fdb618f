"""The timestamp oracle at work: `timestamps` decides, this makes its windows durable in the meta shard.

It gives numbers only under the lease, and never one above the durable window, so a draw waits only when the lease or
the window ran out; the next window is prepared in the background well before. Draws of one wait share one proposal.
"""

from __future__ import annotations

import asyncio

from shardforge.errors import ConsensusError
from shardforge.ids import Timestamp
from shardforge.keys import meta_key
from shardforge.ports import Clock
from shardforge.shard.command import WINDOW_RECORD, Outcome, Window, record_of
from shardforge.shard.replica import Replica
from shardforge.txn.lease import Lease
from shardforge.txn.timestamps import TimestampOracle

WINDOW_ANCHOR = meta_key("oracle", "window")


class OracleService:
    """Draws timestamps at the leader of the meta shard."""

    def __init__(self, meta: Replica, clock: Clock, lease: Lease) -> None:
        self._meta = meta
        self._lease = lease
        self._lease_held = lease.held
        self._wall_us = clock.wall_us
        found = record_of(meta.engine, WINDOW_ANCHOR, WINDOW_RECORD)
        self._oracle = TimestampOracle(Timestamp(0) if found is None else found.timestamp)
        self._extending = False
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def last(self) -> Timestamp:
        """No timestamp above it has been given."""
        return self._oracle.last

    def try_next(self) -> Timestamp | None:
        """A timestamp above all given before; None if `next` must be awaited."""
        if not self._lease_held():
            return None
        wall_us = self._wall_us()
        if self._oracle.is_low(wall_us) and not self._extending:
            self._extend(wall_us)
        return self._oracle.try_next(wall_us)

    async def next(self) -> Timestamp:
        """A timestamp above all given before."""
        while (drawn := self.try_next()) is None:
            if not self._lease_held():
                await self._lease.wait()
                continue
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return drawn

    def _extend(self, wall_us: int) -> None:
        self._extending = True
        bound = self._oracle.proposed_window(wall_us)
        self._meta.propose(
            Window(WINDOW_ANCHOR, bound), lambda outcome: self._extended(bound, outcome)
        )

    def _extended(self, bound: Timestamp, outcome: Outcome) -> None:
        self._extending = False
        waiters, self._waiters = self._waiters, []
        if outcome is Outcome.APPLIED:
            self._oracle.extend(bound)
        for waiter in waiters:
            if waiter.done():
                continue
            if outcome is Outcome.UNKNOWN:
                waiter.set_exception(ConsensusError("the timestamp oracle is not available"))
            else:
                waiter.set_result(None)
