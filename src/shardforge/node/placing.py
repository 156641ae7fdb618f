"""The serving node's part in what people ask of placement: `shardforge shard move` and `shardforge shard scatter`.

Moves that were asked for begin in the rounds of the government, as many at a time as others do. They are forgotten with
the tenure, as others are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from shardforge.cluster.byhand import check_move, scattering
from shardforge.cluster.placement import Move
from shardforge.errors import ConsensusError
from shardforge.ids import NodeId, ShardId
from shardforge.node.overview import ShardSight

if TYPE_CHECKING:
    from shardforge.node.governing import Governing

PASSES_MAX = 5


class Placing:
    """One tenure's moves by hand."""

    def __init__(self, governing: Governing, node: NodeId, moves_max: int) -> None:
        self._governing = governing
        self._node = node
        self._moves_max = moves_max
        self._asked: deque[Move] = deque()
        self._waiting: dict[Move, asyncio.Future[bool]] = {}
        self._scattered: frozenset[ShardId] = frozenset()
        """Shards that are looked at once more when all that was asked for has moved."""
        self._passes_left = 0

    async def move(self, shard: ShardId, source: NodeId, target: NodeId) -> None:
        """Give a replica another home; return when it has. Raises QueryError, ConsensusError."""
        governing, move = self._governing, Move(shard, source, target)
        state = governing.sight_of(shard).state
        busy = {*governing.history.under_way, *(asked.shard for asked in self._asked)}
        check_move(governing.view(), state, move, self._node, busy)
        over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[move] = over
        self._asked.append(move)
        governing.wake()
        if not await asyncio.shield(over):
            raise ConsensusError(
                f"shard {shard} did not move: its nodes or the serving node changed meanwhile", "55000",
                hint="See cluster events and cluster shards.",
            )  # fmt: skip

    def scatter(self, only: Collection[ShardId] | None) -> tuple[int, int]:
        """Begin to make shards even, all of them or some; how many replicas move at first, and leaderships.

        Of each shard one replica moves at a time. When all have, it is looked at again, until no move helps; a few
        times at most, because sizes change meanwhile.
        """
        sights = {sight.descriptor.id: sight for sight in self._governing.shards()}
        self._scattered = frozenset(sights if only is None else only)
        self._passes_left = PASSES_MAX
        moves, transfers = self._scatter(sights)
        self._governing.event(
            f"replicas are scattered: {moves} move, {transfers} leaderships are handed over"
        )
        self._governing.wake()
        return moves, transfers

    def _scatter(self, sights: Mapping[ShardId, ShardSight]) -> tuple[int, int]:
        governing = self._governing
        chosen = [sight.state for shard, sight in sights.items() if shard in self._scattered]
        under_way = {move.shard: move for move in self._asked} | governing.history.under_way
        found = scattering(governing.view(), chosen, under_way, self._node)
        self._asked.extend(found.moves)
        for transfer in found.transfers:
            governing.history.hand_over(transfer.shard, governing.now())
            governing.relocation.hand_over(transfer)
        return len(found.moves), len(found.transfers)

    def begin(self) -> None:
        """Begin as many of the moves that were asked for as there is room for."""
        governing = self._governing
        history, now = governing.history, governing.now()
        for move in self._asked:
            history.touch(move.shard, now)  # the plan leaves it alone
        while self._asked and len(history.under_way) < self._moves_max:
            move = self._asked.popleft()
            history.begin([move], now)
            governing.event(
                f"shard {move.shard}: moves from node {move.source} to node {move.target}, as asked"
            )

    def look(self, sights: Mapping[ShardId, ShardSight]) -> None:
        """Tell those who wait what has ended; go on with scattering when all has."""
        history = self._governing.history
        open_ = {*history.under_way, *(move.shard for move in self._asked)}
        for move in [move for move in self._waiting if move.shard not in open_]:
            sight = sights.get(move.shard)
            done = sight is not None and move.target in sight.members.voters
            self._waiting.pop(move).set_result(done)
        if self._scattered and not open_:
            moves, _ = self._scatter(sights)
            self._passes_left -= 1
            if not moves or not self._passes_left:
                self._scattered = frozenset()

    def close(self) -> None:
        """The tenure has ended."""
        while self._waiting:
            self._waiting.popitem()[1].set_result(False)
