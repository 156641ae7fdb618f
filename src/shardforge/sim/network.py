"""`ports.Network` between simulated nodes: frames are lost, doubled, delayed and overtaken, calls go unanswered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shardforge.errors import NetworkError
from shardforge.ids import NodeId
from shardforge.sim.world import World

Handler = Callable[[NodeId, bytes], Awaitable[bytes]]


class SimNetwork:
    """The network as one running node sees it."""

    def __init__(self, world: World, node: NodeId) -> None:
        self._world = world
        self._node = node
        self._known: set[NodeId] = set()
        self._take: Callable[[NodeId, bytes], None] = lambda _sender, _frame: None
        self._answer: dict[str, Handler] = {}
        self._waiting: list[tuple[NodeId, bytes]] = []
        """What came while the node stood still."""
        world.networks[node] = self

    def close(self) -> None:
        """The node is gone: nothing reaches it, and it says nothing more."""
        if self._world.networks.get(self._node) is self:
            del self._world.networks[self._node]

    @property
    def _closed(self) -> bool:
        return self._world.networks.get(self._node) is not self

    def set_address(self, node: NodeId, address: str) -> None:
        """Speak to a node from now on."""
        self._known.add(node)

    def forget(self, node: NodeId) -> None:
        """Speak to it no more."""
        self._known.discard(node)

    def on_frame(self, handler: Callable[[NodeId, bytes], None]) -> None:
        """Who takes frames."""
        self._take = handler

    def on_call(self, method: str, handler: Handler) -> None:
        """Who answers calls of a method."""
        self._answer[method] = handler

    # ---- frames ----------------------------------------------------------------------------------

    def send(self, node: NodeId, frame: bytes) -> None:
        """Send a frame, once or twice."""
        world = self._world
        if self._closed or node not in self._known:
            return
        copies = 1
        if world.weather.duplicates and world.random.random() < world.weather.duplicates:
            copies = 2
        for _ in range(copies):
            loop = asyncio.get_running_loop()
            loop.call_later(world.delay(), self._deliver, node, frame)

    def _deliver(self, node: NodeId, frame: bytes) -> None:
        world = self._world
        to = world.networks.get(node)
        if to is None or not world.arrives(self._node, node):
            return
        if world.paused(node):
            to._waiting.append((self._node, frame))
            return
        world.deliveries += 1
        world.note(b"%d>%d %s" % (self._node, node, frame))
        to._take(self._node, frame)

    def wake(self) -> None:
        """Take what came while the node stood still; other work of it may come before."""
        waiting, self._waiting = self._waiting, []
        asyncio.get_running_loop().call_later(self._world.delay(), self._take_all, waiting)

    def _take_all(self, waiting: list[tuple[NodeId, bytes]]) -> None:
        if self._closed:
            return
        for sender, frame in waiting:
            self._world.note(b"%d>%d %s" % (sender, self._node, frame))
            self._take(sender, frame)

    # ---- calls -----------------------------------------------------------------------------------

    async def call(self, node: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        """Ask another node. Raises DatabaseError as it answers, NetworkError 08006 when no answer came in time."""
        if node not in self._known:
            raise NetworkError(f"the address of node {node} is not known", "08006")
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(node, method, body)
        except TimeoutError:
            raise NetworkError(f"node {node} does not answer", "08006") from None

    async def _exchange(self, node: NodeId, method: str, body: bytes) -> bytes:
        world = self._world
        never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        await asyncio.sleep(world.delay())
        to = world.networks.get(node)
        if self._closed or to is None or not world.arrives(self._node, node):
            return await never
        await world.while_paused(node)
        handler = to._answer.get(method)
        if handler is None:
            raise NetworkError(f'node {node} does not answer "{method}"', "08P01")
        answer = await handler(self._node, body)
        await asyncio.sleep(world.delay())
        if to._closed or not world.arrives(node, self._node):
            return await never
        await world.while_paused(self._node)
        return answer
