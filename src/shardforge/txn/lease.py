"""Whether this node is the one that serves: the lease of the meta shard's leader, on which strong reads rest.

A read is linearizable when the lease is held at some moment after it began: until then no other node can have begun to
serve, and nobody else commits, whoever leads the other shards. So it is asked once a read without a timestamp, and once
a timestamp drawn, and what was found is kept until it ends. Whatever may end it early (a transfer, a new member, a
lost leadership) drops what is kept.
Source: design section 5; Ongaro's thesis, section 6.4.1.
"""

from __future__ import annotations

from shardforge.errors import ConsensusError
from shardforge.ports import Clock
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica


class Lease:
    """The lease of the node that serves."""

    __slots__ = ("_host", "_now_ns", "_until_us")

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._now_ns = clock.monotonic_ns
        self._until_us = 0
        host.listen(self._drop)

    def close(self) -> None:
        """The node leads no more."""
        self._host.unlisten(self._drop)
        self._until_us = 0

    def _drop(self, _replica: Replica) -> None:
        self._until_us = 0

    def held(self) -> bool:
        """Whether the lease is held now."""
        now_us = self._now_ns() // 1000
        if now_us < self._until_us:
            return True
        self._until_us = self._host.lease_until_us(now_us)
        return now_us < self._until_us

    async def wait(self) -> None:
        """Return when the lease is held. Raises ConsensusError 57P03 when another node may lead."""
        while not self.held():
            if not self._host.meta_leads:
                raise ConsensusError(
                    "this node does not lead the cluster any more",
                    hint="Connect again: the connection will be served by the node that leads.",
                )
            await self._host.heard()
