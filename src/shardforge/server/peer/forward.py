"""Clients' connections that are served by another node: passed on byte for byte once their start-up packet is read.

TLS ends at the node that the client connected to. Where the client really is, and whether it came over TLS, travels
ahead of its start-up packet, and the serving node judges it by that. A node that does not serve refuses what is
forwarded to it, so nothing is forwarded twice; the first node then looks again who serves, for a while.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

import msgspec

from shardforge.errors import ConsensusError, DatabaseError, TransactionError
from shardforge.ids import NodeId
from shardforge.server.peer.codec import malformed
from shardforge.server.peer.network import authenticated
from shardforge.server.peer.pipe import End, Pipe
from shardforge.server.pgwire import backend

if TYPE_CHECKING:
    from shardforge.server.pgwire.connection import Connection

PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 1.0

_IDLE = backend.READY["I"]


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """A client at the node it connected to, and its first packet, length included; `GRPC` for a pipe of gRPC calls."""

    host: str
    port: int
    tls: bool
    packet: bytes


GRPC = b"PRI"
"""Instead of a client's first packet: what follows are the gRPC calls of any number of clients."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Origin)


def pack_origin(origin: Origin) -> bytes:
    """A preamble."""
    return _encoder.encode(origin)


def unpack_origin(preamble: bytes) -> Origin:
    """The client in a preamble. Raises NetworkError 08P01."""
    try:
        origin = _decoder.decode(preamble)
        if origin.packet != GRPC:
            ipaddress.ip_address(origin.host.split("%")[0])
    except (msgspec.MsgspecError, ValueError) as error:
        raise malformed(f"a forwarded client: {error}") from None
    return origin


def read_origin(preamble: bytes, transport: asyncio.BaseTransport) -> tuple[Origin, str]:
    """The client in a preamble, and the address by which trust in it is judged. Raises NetworkError 08P01.

    That is the client's own, unless nothing proves that whoever says so is a node: then it is theirs.
    """
    origin = unpack_origin(preamble)
    link_host = str(transport.get_extra_info("peername")[0])
    if authenticated(transport) or ipaddress.ip_address(link_host.split("%")[0]).is_loopback:
        return origin, origin.host
    return origin, link_host


class Forwarded(Pipe):
    """A client here, joined to the node that serves it."""

    def __init__(self, registry: set[Forwarded]) -> None:
        super().__init__()
        self._registry = registry
        self._tail = b""
        """The last bytes that the client was sent, none when it has said something since."""
        self._ending = False
        registry.add(self)

    def passed(self, end: End, data: bytes) -> None:
        """Remember whether the client waits for an answer."""
        if end is self.near:
            self._tail = b""
        elif self._tail != _IDLE or not backend.only_notifications(data):
            size = len(_IDLE)
            self._tail = data[-size:] if len(data) >= size else (self._tail + data)[-size:]
            if self._ending:
                self.shut_down()

    def shut_down(self) -> None:
        """End the connection, telling the client why, as soon as it is idle."""
        self._ending = True
        transport = self.near.transport
        if self._tail == _IDLE and transport is not None and not transport.is_closing():
            reason = TransactionError(
                "terminating connection due to administrator command", "57P01"
            )
            transport.write(backend.error_response(reason, severity="FATAL"))
            transport.close()

    def lost(self) -> None:
        """One of the two is gone."""
        super().lost()
        self._registry.discard(self)


async def forward_session(connection: Connection, body: bytes) -> bool:
    """Pass a client that wants a session on to the node that serves. False when that is this node.

    Raises ConsensusError 57P03 when no node serves for a while.
    """
    server = connection.server
    if connection.origin is not None or server.peers is None:
        return False
    loop = asyncio.get_running_loop()
    deadline = loop.time() + server.serving_seconds
    pause = PAUSE_SECONDS_MIN
    while True:
        detail = ""
        target = server.forward_to()
        if target is None and server.instance is not None:
            return False
        if target is not None:
            try:
                pipe = await _open(connection, target, body)
            except DatabaseError as error:
                detail = error.message
            else:
                _join(connection, pipe)
                return True
        remaining = deadline - loop.time()
        if remaining <= 0:
            raise ConsensusError(
                "no node serves the cluster at present",
                detail=detail,
                hint="Try again in a moment, or look at it with: shardforge cluster status",
            )
        await server.wait_serving(min(pause, remaining))
        pause = min(pause * 2, PAUSE_SECONDS_MAX)


async def forward_cancel(connection: Connection, body: bytes) -> bool:
    """Pass a cancel request on, if another node serves; like any, it may come to nothing without a word."""
    server = connection.server
    target = server.forward_to()
    if connection.origin is not None or server.peers is None or target is None:
        return False
    try:
        pipe = await _open(connection, target, body)
    except DatabaseError as error:
        server.log_error(error, None)
    else:
        _join(connection, pipe)
    return True


async def _open(connection: Connection, target: NodeId, body: bytes) -> Forwarded:
    """A pipe to `target` that waits for its near end. Raises DatabaseError."""
    server = connection.server
    assert server.peers is not None, "asked by callers"
    host, port = connection.address
    packet = (len(body) + 4).to_bytes(4, "big") + body
    preamble = pack_origin(Origin(host, port, connection.tls, packet))
    pipe = Forwarded(server.forwarded)
    opening = server.peers.open_splice(target, preamble, lambda: pipe.far)
    try:
        await asyncio.ensure_future(opening)  # a task: a connection's flow has no timeouts
    except BaseException:
        pipe.abort()
        raise
    return pipe


def _join(connection: Connection, pipe: Forwarded) -> None:
    try:
        connection.hand_over(pipe.near)
    except BaseException:
        pipe.abort()
        raise
