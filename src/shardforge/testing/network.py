"""A network between nodes of one process: immediate, in order, and cut where a test cuts it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shardforge.errors import NetworkError
from shardforge.ids import NodeId

Handler = Callable[[NodeId, bytes], Awaitable[bytes]]


class Fabric:
    """All nodes' networks."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, LocalNetwork] = {}
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.frames = 0

    def network(self, node: NodeId) -> LocalNetwork:
        """The network as `node` sees it; a node that comes back gets a new one."""
        self.nodes[node] = LocalNetwork(self, node)
        return self.nodes[node]

    def remove(self, node: NodeId) -> None:
        """Nothing reaches the node any more."""
        del self.nodes[node]

    def isolate(self, node: NodeId) -> None:
        """Cut a node off from all others."""
        others = [other for other in self.nodes if other != node]
        self.cut |= {(node, other) for other in others} | {(other, node) for other in others}

    def reach(self, sender: NodeId, receiver: NodeId) -> LocalNetwork | None:
        """The receiver's network, if there is a way to it."""
        if (sender, receiver) in self.cut or sender not in self.nodes:
            return None
        return self.nodes.get(receiver)


class LocalNetwork:
    """`ports.Network` over a fabric."""

    def __init__(self, fabric: Fabric, node: NodeId) -> None:
        self._fabric = fabric
        self._node = node
        self._take: Callable[[NodeId, bytes], None] = lambda _sender, _frame: None
        self._answer: dict[str, Handler] = {}

    def set_address(self, node: NodeId, address: str) -> None:
        """Nodes are found by their ids."""

    def forget(self, node: NodeId) -> None:
        """Nothing is kept of a node."""

    def send(self, node: NodeId, frame: bytes) -> None:
        """Deliver the frame in the next turn of the loop."""
        self._fabric.frames += 1
        asyncio.get_running_loop().call_soon(self._deliver, node, frame)

    def _deliver(self, node: NodeId, frame: bytes) -> None:
        to = self._fabric.reach(self._node, node)
        if to is not None:
            to._take(self._node, frame)

    async def call(self, node: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        """Let the node's handler answer."""
        to = self._fabric.reach(self._node, node)
        if to is None:
            raise NetworkError(f"node {node} cannot be reached", "08006")
        answering = asyncio.ensure_future(to._answer[method](self._node, body))
        try:  # not by asyncio.wait_for, which loses a cancellation that comes with the answer (CPython 3.11)
            await asyncio.wait({answering}, timeout=timeout)
            if not answering.done():
                raise NetworkError(f"node {node} does not answer", "08006")
            return answering.result()
        finally:
            answering.cancel()

    def on_frame(self, handler: Callable[[NodeId, bytes], None]) -> None:
        """Who takes frames."""
        self._take = handler

    def on_call(self, method: str, handler: Handler) -> None:
        """Who answers calls of a method."""
        self._answer[method] = handler
