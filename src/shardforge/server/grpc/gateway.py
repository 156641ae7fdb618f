"""gRPC's connections, in and out: joined byte for byte to a gRPC server of this process on a Unix socket.

grpcio cannot adopt a connection, so each one is joined (`Pipe`) to another, over a socket in a private folder. That one
is bound to a name of its own, which the server sees as its peer: that is how it knows whose call it answers.
Calls that another node has to answer leave the same way round: a gRPC channel to a socket here, joined to that node.

The server starts with the first connection, and only then is gRPC loaded: 12 MB that most nodes do without.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId
from shardforge.ports import Blocking
from shardforge.server.grpc.access import Client
from shardforge.server.peer.forward import GRPC, Origin, pack_origin
from shardforge.server.peer.opening import trusted
from shardforge.server.peer.pipe import End, Pipe

if TYPE_CHECKING:
    from shardforge.server.grpc.service import Service
    from shardforge.server.pgwire.server import Server

FOLDER = "shardforge-grpc-"
SOCKET = "s"

log = logging.getLogger("shardforge.grpc")


class Joined(NamedTuple):
    """What a node that has joined has to know."""

    node: NodeId
    cluster_id: str
    cluster_name: str
    nodes: Sequence[tuple[NodeId, str]]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a node does for whoever asks it about the cluster. They raise DatabaseError."""

    status: Callable[[], Awaitable[dict[str, Any]]]
    leave: Callable[[NodeId], Awaitable[None]]
    join: Callable[[str, str, str, int], Awaitable[Joined]]
    """Given a newcomer's token, address, version and the id that it wants."""
    metrics: Callable[[], str]


class _Arriving(End):
    """A connection that is joined to the server as soon as it is there."""

    def __init__(self, pipe: Pipe, begin: Callable[[asyncio.BaseTransport], None]) -> None:
        super().__init__(pipe)
        self._begin = begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin(transport)


class _Held(asyncio.Protocol):
    """A connection that waits for its protocol: uvloop loses a socket that is closed while it is being made."""

    def __init__(self) -> None:
        self._early: list[bytes] = []
        self._lost = False

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    def let_go(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """Let `protocol` go on, with what has come."""
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in self._early:
            protocol.data_received(data)
        if self._lost:
            protocol.connection_lost(None)


async def _nothing() -> None:
    """What is done for a connection that is to be closed once it has been made."""


class Gateway:
    """One node's door for gRPC."""

    def __init__(self, server: Server, blocking: Blocking, cluster: Cluster) -> None:
        self.server = server
        self.blocking = blocking
        self.cluster = cluster
        self._service: Service | None = None
        self._starting: asyncio.Task[str] | None = None
        self._folder: Path | None = None
        self._clients: dict[str, Client] = {}
        """By the name of their connection's other half."""
        self._made = 0
        self._pipes: set[Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._doors: dict[NodeId, asyncio.Server] = {}
        self._stopping = False

    # ---- coming in -------------------------------------------------------------------------------

    def accept(self, tls: bool) -> asyncio.Protocol:
        """The protocol for a client's connection; its first bytes are HTTP/2's preface."""
        return self._arriving(lambda _, host, port: Client(host, port, tls, host))

    def accept_node(self) -> asyncio.Protocol:
        """The protocol for a connection on which another node passes on calls."""
        return self._arriving(
            lambda link, host, port: Client(
                host, port, True, "" if trusted(link) else host, node=True
            )
        )

    def client(self, peer: str) -> Client | None:
        """Who is behind the peer that gRPC names; None: it is gone."""
        return self._clients.get(peer.rpartition("/")[2])

    def _arriving(
        self, client: Callable[[asyncio.BaseTransport, str, int], Client]
    ) -> asyncio.Protocol:
        pipe = Pipe()

        def begin(transport: asyncio.BaseTransport) -> None:
            address = transport.get_extra_info("peername")
            if self._stopping or address is None:  # stopped meanwhile, or gone already
                self._spawn(_nothing(), pipe)
            else:
                self._spawn(self._join(pipe, client(transport, *address[:2])), pipe)

        pipe.near = _Arriving(pipe, begin)
        pipe.near.other, pipe.far.other = pipe.far, pipe.near
        return pipe.near

    async def _join(self, pipe: Pipe, client: Client) -> None:
        self._made += 1
        name = f"c{self._made}"
        try:
            path = await self._started()
            self._clients[name] = client
            own = await self._connected(name, path)
            loop = asyncio.get_running_loop()
            transport, held = await loop.create_unix_connection(_Held, sock=own)
            held.let_go(transport, pipe.far)
            await pipe.wait_closed()
        except (OSError, DatabaseError) as error:
            log.error("gRPC cannot be served: %s", error)
        finally:
            self._clients.pop(name, None)

    async def _connected(self, name: str, path: str) -> socket.socket:
        """A connection to the server that it knows by a name."""
        assert self._folder is not None, "made at the start"
        own = self._folder / name
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(str(own))
            try:
                await asyncio.get_running_loop().sock_connect(sock, path)
            finally:
                own.unlink()
        except BaseException:
            sock.close()
            raise
        return sock

    def _spawn(self, work: Any, pipe: Pipe) -> None:
        """Let `work` join a pipe, which ends with it."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._pipes.discard(pipe)
            if task.cancelled() or not pipe.closed:
                pipe.abort()
            if not task.cancelled() and task.exception() is not None:
                log.error("a gRPC connection ended on an internal error", exc_info=task.exception())

        self._pipes.add(pipe)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    # ---- going out -------------------------------------------------------------------------------

    async def door_to(self, node: NodeId) -> str:
        """The path of a socket whose connections are joined to the gRPC server of another node."""
        assert self._folder is not None, "asked by the server, which has been started"
        path = str(self._folder / f"n{node}")
        if node not in self._doors:
            self._doors[node] = await asyncio.get_running_loop().create_unix_server(
                lambda: self._leaving(node), path
            )
        return path

    def _leaving(self, node: NodeId) -> asyncio.Protocol:
        pipe = Pipe()
        self._spawn(self._leave(pipe, node), pipe)
        return pipe.near

    async def _leave(self, pipe: Pipe, node: NodeId) -> None:
        peers = self.server.peers
        assert peers is not None, "another node serves"
        try:
            preamble = pack_origin(Origin("", 0, True, GRPC))
            await peers.open_splice(node, preamble, lambda: pipe.far)
        except DatabaseError as error:
            log.info("node %d cannot be reached for a gRPC call: %s", node, error.message)
            return
        await pipe.wait_closed()

    # ---- starting, stopping ----------------------------------------------------------------------

    async def _started(self) -> str:
        """The server's address, once it listens."""
        if self._starting is None or (self._starting.done() and self._service is None):
            self._starting = asyncio.create_task(self._start(), name="grpc")
        return await asyncio.shield(self._starting)

    async def _start(self) -> str:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=FOLDER))  # mode 0700
        path = str(self._folder / SOCKET)
        service = await self.blocking.run(_load_service)
        made = service(self)
        await made.start(path)
        self._service = made
        return path

    async def stop(self, seconds: float) -> None:
        """Take no more calls, let those that run end, and end all connections."""
        self._stopping = True
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._service is not None:
            await self._service.stop(seconds)
        for door in self._doors.values():
            door.close()
        for pipe in list(self._pipes):
            pipe.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _load_service() -> type[Service]:
    """Load gRPC, which takes a while, and remove what killed nodes have left: on a thread."""
    os.environ.setdefault(
        "GRPC_VERBOSITY", "ERROR"
    )  # or it writes to stderr whenever another node stops
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER}*/{SOCKET}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                shutil.rmtree(path.parent, ignore_errors=True)
            except OSError:
                continue  # another user's
    from shardforge.server.grpc.service import Service

    return Service
