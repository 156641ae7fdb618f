"""The nodes' real network, with cuts: what a partition between them loses is lost here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from shardforge.errors import NetworkError
from shardforge.ids import NodeId
from shardforge.server.peer.network import PeerNetwork


class Cuts:
    """Which nodes cannot reach each other."""

    def __init__(self) -> None:
        self._side: dict[int, int] = {}

    def partition(self, sides: Sequence[set[int]]) -> None:
        """Put nodes on sides that do not reach each other."""
        self._side = {node: number for number, side in enumerate(sides) for node in side}

    def heal(self) -> None:
        """Let all reach all."""
        self._side = {}

    def apart(self, one: NodeId, other: NodeId) -> bool:
        """Whether two nodes cannot reach each other."""
        return bool(self._side) and self._side.get(one) != self._side.get(other)


class CuttableNetwork(PeerNetwork):
    """A node's network under the cuts of its cluster."""

    def __init__(self, cuts: Cuts, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._cuts = cuts

    def send(self, node: NodeId, frame: bytes) -> None:
        """Send a frame, unless there is a cut."""
        if not self._cuts.apart(self.node, node):
            super().send(node, frame)

    def take_frame(self, node: NodeId, frame: bytes) -> None:
        """Take a frame, unless there is a cut by now."""
        if not self._cuts.apart(self.node, node):
            super().take_frame(node, frame)

    async def call(self, node: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        """Call, unless there is a cut."""
        self._check(node)
        return await super().call(node, method, body, timeout)

    async def open_splice(
        self, node: NodeId, preamble: bytes, make: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        """Pass a client on, unless there is a cut."""
        self._check(node)
        return await super().open_splice(node, preamble, make)

    def _check(self, node: NodeId) -> None:
        if self._cuts.apart(self.node, node):
            raise NetworkError(f"node {node} cannot be reached", "08006")
