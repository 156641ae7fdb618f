"""The follower's side of a snapshot: pull a leader's pinned state piece by piece into a staged engine."""

from __future__ import annotations

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId, ShardId
from shardforge.ports import Blocking, Clock, Network
from shardforge.shard.counters import SnapshotCounters
from shardforge.shard.pace import Pace
from shardforge.shard.snapshot import METHOD, Pull, encode_pull, unpack_piece
from shardforge.storage.engine import Engine

TIMEOUT_SECONDS = 5.0
ATTEMPTS = 4
"""Of one piece, with a pause between them; after the last the leader begins anew with a newer state."""
PAUSE_SECONDS = 0.25


class Fetch:
    """Pulls snapshots for the replicas of one node."""

    def __init__(
        self,
        network: Network,
        blocking: Blocking,
        clock: Clock,
        counters: SnapshotCounters,
        pace: Pace,
    ) -> None:
        """`pace`: of all of them together."""
        self._pace = pace
        self._counters = counters
        self._network = network
        self._blocking = blocking
        self._clock = clock

    async def pull(self, node: NodeId, shard: ShardId, pin: int, staged: Engine) -> None:
        """Fill `staged` with the state that `node` keeps as `pin`. Raises DatabaseError when it could not be had."""
        self._counters.receiving += 1
        try:
            await self._pull(node, shard, pin, staged)
        finally:
            self._counters.receiving -= 1
        self._counters.received += 1

    async def _pull(self, node: NodeId, shard: ShardId, pin: int, staged: Engine) -> None:
        after, last = b"", False
        while not last:
            pairs, last = await self._piece(node, Pull(shard, pin, after))
            if pairs:
                after = pairs[-1][0]
                await self._blocking.run(lambda batch=pairs: staged.write(batch))  # type: ignore[misc]

    async def _piece(self, node: NodeId, pull: Pull) -> tuple[list[tuple[bytes, bytes]], bool]:
        body = encode_pull(pull)
        for attempt in range(ATTEMPTS):
            await self._clock.sleep(self._pace.wait(self._now()))
            try:
                answer = await self._network.call(node, METHOD, body, TIMEOUT_SECONDS)
                self._counters.received_bytes += len(answer)
                self._pace.took(len(answer), self._now())
                return unpack_piece(answer)
            except DatabaseError as error:
                if error.sqlstate == "55000" or attempt + 1 == ATTEMPTS:
                    raise
                await self._clock.sleep(PAUSE_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9
