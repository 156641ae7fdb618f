"""`ports.Network` over TCP, and pipes of raw bytes to other nodes.

Each node dials each other it has something to say to, so between two nodes there are up to two connections, and what
arrives from a node comes on the one it dialled. A node says in its first frame who it is; whoever belongs to another
cluster, or speaks no version of the protocol in common, is told so and sent away. With certificates configured both
sides prove with them that they are nodes; without, the network between the nodes must be trusted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from shardforge.errors import DatabaseError, NetworkError
from shardforge.ids import NodeId
from shardforge.server.peer import codec
from shardforge.server.peer.codec import Hello
from shardforge.server.peer.incoming import CallHandler, Incoming
from shardforge.server.peer.opening import Doorstep, answer, authenticated, dial, tune
from shardforge.server.peer.outgoing import QUEUE_BYTES_MAX, Peer

SpliceHandler = Callable[[NodeId, bytes, asyncio.Transport], Callable[[], asyncio.Protocol]]
"""Given the dialling node, its preamble and the connection: who makes the protocol for it. Raises to refuse."""

log = logging.getLogger("shardforge.peer")

__all__ = ["PeerNetwork", "SpliceHandler", "authenticated", "tune"]


class PeerNetwork:
    """This node's connections to all others. `tls` holds the contexts for accepting and for dialling."""

    def __init__(
        self,
        node: NodeId,
        cluster_id: str,
        rng: random.Random,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self.node = node
        self.cluster_id = cluster_id
        """Empty until this node belongs to a cluster; it may then only `ask`."""
        self.frames_received = 0
        self._accepting = None if tls is None else tls[0]
        self._dialling = None if tls is None else tls[1]
        self._random = rng
        self._queue_bytes_max = queue_bytes_max
        self._peers: dict[NodeId, Peer] = {}
        self._unknown_dropped = 0
        self._gone_sent = 0
        self._gone_reconnects = 0
        self._incoming: dict[NodeId, Incoming] = {}
        self._strangers: set[Incoming] = set()
        self._open_methods: dict[str, bool] = {}
        self._handlers: dict[str, CallHandler] = {}
        self._take: Callable[[NodeId, bytes], None] | None = None
        self._splice: SpliceHandler | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # ---- ports.Network ---------------------------------------------------------------------------

    def set_address(self, node: NodeId, address: str) -> None:
        """Where `node` is reached from now on, as "host:port"."""
        peer = self._peers.get(node)
        if peer is not None:
            peer.set_address(address)
        elif node != self.node and not self._closed:
            self._peers[node] = Peer(node, address, self._dial, self._random, self._queue_bytes_max)

    def forget(self, node: NodeId) -> None:
        """Close what is open to a node that left."""
        peer = self._peers.pop(node, None)
        if peer is not None:
            self._unknown_dropped += peer.frames_dropped
            self._gone_sent += peer.frames_sent
            self._gone_reconnects += max(0, peer.links - 1)
            peer.close()
        link = self._incoming.pop(node, None)
        if link is not None:
            link.transport.abort()

    def send(self, node: NodeId, frame: bytes) -> None:
        """Send one frame, which may be lost."""
        peer = self._peers.get(node)
        if peer is not None and not self._closed:
            peer.send(frame)
        else:
            self._unknown_dropped += 1

    async def call(self, node: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        """The answer of the node's handler. Raises DatabaseError."""
        return await self._peer(node).call(method, body, timeout)

    def on_frame(self, handler: Callable[[NodeId, bytes], None]) -> None:
        """Who takes the frames that arrive."""
        self._take = handler

    def on_call(self, method: str, handler: Callable[[NodeId, bytes], Awaitable[bytes]]) -> None:
        """Who answers the calls of one method."""
        self._handlers[method] = handler

    # ---- nodes that belong to no cluster yet -----------------------------------------------------

    def open_to_strangers(self, method: str, *, trusted: bool = False) -> None:
        """Answer `method` also for whoever belongs to no cluster; `trusted`: only here, or with a certificate."""
        self._open_methods[method] = trusted

    async def ask(self, address: str, method: str, body: bytes, timeout: float) -> bytes:
        """Call a method that is open to strangers, of whichever node is at `address`. Raises DatabaseError."""

        async def dial_anybody(_: NodeId, address: str) -> Doorstep:
            doorstep, _theirs = await dial(address, Hello("", self.node), self._dialling)
            return doorstep

        peer = Peer(NodeId(0), address, dial_anybody, self._random)
        try:
            return await peer.call(method, body, timeout)
        finally:
            peer.close()

    # ---- pipes -----------------------------------------------------------------------------------

    async def open_splice(
        self, node: NodeId, preamble: bytes, make: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        """A new connection to `node` as a pipe, with the protocol of `make` on it. Raises DatabaseError."""
        peer = self._peer(node)
        doorstep = await self._dial(node, peer.address, splice=preamble)
        return doorstep.hand_over(make)

    def on_splice(self, handler: SpliceHandler) -> None:
        """Who takes the pipes that other nodes open."""
        self._splice = handler

    # ---- figures ---------------------------------------------------------------------------------

    @property
    def frames_dropped(self) -> int:
        """Frames that were never sent: nobody to send them to, or too much waiting."""
        return self._unknown_dropped + sum(peer.frames_dropped for peer in self._peers.values())

    @property
    def frames_sent(self) -> int:
        """Frames handed to connections."""
        return self._gone_sent + sum(peer.frames_sent for peer in self._peers.values())

    @property
    def reconnects(self) -> int:
        """Connections to other nodes that were made again."""
        again = sum(max(0, peer.links - 1) for peer in self._peers.values())
        return self._gone_reconnects + again

    def connected(self, node: NodeId) -> bool:
        """Whether there is a connection for what we say to `node`."""
        return node in self._peers and self._peers[node].connected

    def failure(self, node: NodeId) -> DatabaseError | None:
        """Why `node` was not reached the last time; None when it was, or was not tried."""
        return self._peers[node].failure if node in self._peers else None

    async def close(self) -> None:
        """Close every connection, and end the calls being answered."""
        self._closed = True
        for node in list(self._peers):
            self.forget(node)
        for link in [*self._incoming.values(), *self._strangers]:
            link.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- dialling --------------------------------------------------------------------------------

    def _peer(self, node: NodeId) -> Peer:
        peer = self._peers.get(node)
        if peer is None:
            raise NetworkError(f"the address of node {node} is not known", "08006")
        return peer

    async def _dial(self, node: NodeId, address: str, splice: bytes | None = None) -> Doorstep:
        hello = Hello(self.cluster_id, self.node, splice=splice)
        doorstep, theirs = await dial(address, hello, self._dialling)
        if theirs.node != node or theirs.cluster_id != self.cluster_id:
            doorstep.transport.abort()
            raise NetworkError(
                f'at {address} there is node {theirs.node} of cluster "{theirs.cluster_id}", not node {node} of '
                f'cluster "{self.cluster_id}"',
                "08006",
            )
        return doorstep

    # ---- accepting -------------------------------------------------------------------------------

    def accept(self) -> asyncio.Protocol:
        """The protocol for a connection that another node opens; its first byte is the magic's."""
        return Doorstep(lambda doorstep: self.spawn(self._greet(doorstep)))

    async def _greet(self, doorstep: Doorstep) -> None:
        making: list[Callable[[], asyncio.Protocol]] = []

        def judge(hello: Hello) -> Hello:
            self._judge(hello)
            making.append(self._maker(hello, doorstep.transport))
            return Hello(self.cluster_id, self.node)

        try:
            theirs = await answer(doorstep, self._accepting, judge)
            doorstep.hand_over(making[0])
        except DatabaseError as error:
            address = doorstep.transport.get_extra_info("peername")
            log.warning("a connection from %s was refused: %s", address, error.message)
            return
        if theirs.cluster_id and theirs.splice is None and theirs.node in self._peers:
            self._peers[NodeId(theirs.node)].hurry()

    def _judge(self, hello: Hello) -> None:
        codec.check_versions(Hello(self.cluster_id, self.node), hello)
        if self._closed:
            raise NetworkError(f"node {self.node} is stopping", "57P01")
        if hello.cluster_id != self.cluster_id and (hello.cluster_id or hello.splice is not None):
            raise NetworkError(
                f'node {hello.node} belongs to cluster "{hello.cluster_id}", node {self.node} to cluster '
                f'"{self.cluster_id}"',
                "08P01",
                hint="Check the addresses of the nodes.",
            )
        if hello.node == self.node and hello.cluster_id:
            raise NetworkError(
                f"node {self.node} was dialled by a node of the same id",
                "08P01",
                hint="Give each node its own node_id, and each its own address.",
            )

    def _maker(self, hello: Hello, transport: asyncio.Transport) -> Callable[[], asyncio.Protocol]:
        node = NodeId(hello.node)
        if hello.splice is None:
            return lambda: self._link(node, stranger=not hello.cluster_id)
        if self._splice is None:
            raise NetworkError(f"node {self.node} takes no connections of clients", "57P03")
        return self._splice(node, hello.splice, transport)

    def _link(self, node: NodeId, stranger: bool) -> Incoming:
        link = Incoming(self, node, stranger)
        if stranger:
            self._strangers.add(link)
            return link
        earlier = self._incoming.get(node)
        if earlier is not None:
            earlier.transport.abort()  # so that nothing older arrives behind what is newer
        self._incoming[node] = link
        return link

    # ---- what connections report -----------------------------------------------------------------

    def take_frame(self, node: NodeId, frame: bytes) -> None:
        """A frame has come."""
        self.frames_received += 1
        if self._take is not None:
            self._take(node, frame)

    def handler_of(self, method: str, stranger: bool, trusted: bool) -> CallHandler:
        """Who answers `method`. Raises NetworkError when nobody does."""
        handler = self._handlers.get(method)
        if handler is None:
            raise NetworkError(f'node {self.node} does not answer "{method}"', "08P01")
        if stranger and method not in self._open_methods:
            raise NetworkError(f'"{method}" is only for nodes of the cluster', "42501")
        if stranger and self._open_methods[method] and not trusted:
            raise NetworkError(
                f'"{method}" is not taken from other machines',
                "42501",
                hint="Run the command on the machine of a node.",
            )
        return handler

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background, until it ends or the network is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("work for another node ended on an internal error", exc_info=task.exception())

    def link_lost(self, link: Incoming) -> None:
        """A connection has ended."""
        self._strangers.discard(link)
        if self._incoming.get(link.node) is link:
            del self._incoming[link.node]
