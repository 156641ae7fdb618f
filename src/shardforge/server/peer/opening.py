"""The beginning of a connection between nodes, from both sides: magic, TLS, and who is there.

Until it is over, little is read and nothing is believed. Then `Doorstep.hand_over` puts the connection's real
protocol in its place, with whatever has arrived behind the opening.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import cast

from shardforge.config import split_address
from shardforge.errors import DatabaseError, NetworkError
from shardforge.server.peer import codec
from shardforge.server.peer.codec import Frame, Hello

DIAL_SECONDS = 2.0
"""How long a dialled node may take until it has said who it is."""
ACCEPT_SECONDS = 5.0
USER_TIMEOUT_MS = 5000
"""A connection whose bytes nobody confirms for so long is lost: a cut wire must not stall a node for minutes."""
UNREAD_BYTES_MAX = 256 * 1024


class Doorstep(asyncio.Protocol):
    """Reads a connection's opening piece by piece."""

    def __init__(self, opened: Callable[[Doorstep], None] | None = None) -> None:
        self.transport: asyncio.Transport
        self._opened = opened
        self._unread = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._lost = False
        self._reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection, or its TLS is up."""
        self.transport = cast("asyncio.Transport", transport)
        opened, self._opened = self._opened, None
        if opened is not None:
            opened(self)

    def data_received(self, data: bytes) -> None:
        """Keep what has come; not too much of it."""
        self._unread += data
        if len(self._unread) > UNREAD_BYTES_MAX:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._lost = True
        self._reason = f": {exc}" if exc is not None else ""
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises NetworkError 08006 when the connection ends before."""
        while len(self._unread) < count:
            if self._lost:
                raise self._closed()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = bytes(self._unread[:count])
        del self._unread[:count]
        return data

    def _closed(self) -> NetworkError:
        return NetworkError(f"the connection was closed{self._reason}", "08006")

    async def frame(self) -> Frame:
        """The next frame, a small one. Raises NetworkError."""
        head = codec.read_header(await self.exactly(codec.HEADER_BYTES), 0, codec.HELLO_BYTES_MAX)
        return head.frame(await self.exactly(head.length))

    async def start_tls(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """Go on encrypted; `server_name` is whom we dialled."""
        if self._unread:
            raise NetworkError("received unencrypted data after the request for TLS", "08P01")
        hostname = server_name if context.check_hostname else None
        transport = await asyncio.get_running_loop().start_tls(
            self.transport, self, context, server_side=server_name is None, server_hostname=hostname
        )
        if transport is None:
            raise self._closed()
        self.transport = transport

    def hand_over(self, make: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Let the protocol of `make` go on with the connection. Raises NetworkError 08006 when it is closed."""
        if self._lost or self.transport.is_closing():
            raise self._closed()
        protocol = make()
        if self._paused:
            self.transport.resume_reading()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._unread:
            protocol.data_received(bytes(self._unread))
            self._unread.clear()
        return self.transport


def tune(transport: asyncio.BaseTransport) -> None:
    """Small messages leave at once, and a silent loss of the other side is noticed."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it may be closed already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", 2),
            ("TCP_KEEPINTVL", 1),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
        ):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def authenticated(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side proved with a certificate that it is a node."""
    return bool(transport.get_extra_info("peercert"))


def trusted(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side may be believed: it proved that it is a node, or it is on this machine."""
    if authenticated(transport):
        return True
    peer = transport.get_extra_info("peername")
    return bool(peer) and ipaddress.ip_address(str(peer[0]).split("%")[0]).is_loopback


# ---- whoever dials -----------------------------------------------------------------------------------


async def dial(address: str, hello: Hello, tls: ssl.SSLContext | None) -> tuple[Doorstep, Hello]:
    """A connection to the node at `address`, and who it says it is. Raises NetworkError, its own refusal included."""
    host, port = split_address(address)
    doorstep: Doorstep | None = None
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, doorstep = await asyncio.get_running_loop().create_connection(Doorstep, host, port)
            tune(doorstep.transport)
            theirs = await _introduce(doorstep, host, hello, tls)
    except BaseException as error:
        if doorstep is not None:
            doorstep.transport.abort()
        if isinstance(error, TimeoutError):
            raise NetworkError(f"{address} does not answer", "08006") from error
        if isinstance(error, OSError):  # TLS's errors among them
            reason = error.strerror or error
            raise NetworkError(f"{address} cannot be reached: {reason}", "08006") from error
        raise
    return doorstep, theirs


async def _introduce(
    doorstep: Doorstep, host: str, hello: Hello, tls: ssl.SSLContext | None
) -> Hello:
    wanted = codec.CLEAR if tls is None else codec.TLS
    doorstep.transport.write(codec.MAGIC + wanted)
    agreed = await doorstep.exactly(1)
    if agreed == codec.REFUSED:
        raise codec.read_refusal(await doorstep.frame())
    if agreed != wanted:
        raise codec.malformed("an answer to the magic")
    if tls is not None:
        await doorstep.start_tls(tls, host)
    doorstep.transport.write(codec.hello_frame(hello))
    frame = await doorstep.frame()
    if frame.kind != codec.HELLO:
        raise codec.read_refusal(frame)
    theirs = codec.read_hello(frame.payload)
    codec.check_versions(hello, theirs)
    return theirs


# ---- whoever is dialled ------------------------------------------------------------------------------


async def answer(
    doorstep: Doorstep, tls: ssl.SSLContext | None, judge: Callable[[Hello], Hello]
) -> Hello:
    """Who dialled us, once `judge` has said whom to answer as. It refuses by raising DatabaseError.

    Raises what went wrong, as DatabaseError; the dialler has been told, and the connection is closing.
    """
    try:
        async with asyncio.timeout(ACCEPT_SECONDS):
            tune(doorstep.transport)
            await _agree_on_tls(doorstep, tls)
            frame = await doorstep.frame()
            if frame.kind != codec.HELLO:
                raise codec.malformed("no hello")
            theirs = codec.read_hello(frame.payload)
        try:
            mine = judge(theirs)
        except DatabaseError as error:
            doorstep.transport.write(codec.refusal_frame(error))
            raise
    except BaseException as error:
        doorstep.transport.close()
        if isinstance(error, OSError):  # a timeout among them
            raise NetworkError(f"a node did not introduce itself: {error!r}", "08006") from error
        raise
    doorstep.transport.write(codec.hello_frame(mine))
    return theirs


async def _agree_on_tls(doorstep: Doorstep, tls: ssl.SSLContext | None) -> None:
    opening = await doorstep.exactly(codec.OPENING_BYTES)
    wanted = opening[-1:]
    if opening[:-1] != codec.MAGIC or wanted not in (codec.TLS, codec.CLEAR):
        raise codec.malformed("an opening")
    if wanted != (codec.CLEAR if tls is None else codec.TLS):
        with_tls, without = ("this node", "the other") if tls else ("the other", "this node")
        error = NetworkError(
            f"{with_tls} demands TLS between nodes, {without} does not use it",
            "08P01",
            hint="Configure the certificates of all nodes alike.",
        )
        doorstep.transport.write(codec.REFUSED + codec.refusal_frame(error))
        raise error
    doorstep.transport.write(wanted)
    if tls is not None:
        await doorstep.start_tls(tls, None)
