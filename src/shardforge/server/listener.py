"""One address for three kinds of callers: PostgreSQL's clients, gRPC's, and other nodes, told apart by a first byte.

The byte is looked at in the socket's own buffer and stays there, so that whoever is meant reads its connection from
the beginning:

    0x00    a start-up packet's or SSLRequest's length (they are short)     PostgreSQL
    P       "PRI * HTTP/2.0", HTTP/2's preface                               gRPC
    S       "SFPEER1", the nodes' magic                                      another node
    0x16    TLS at once; ALPN says for whom: "postgresql" or "h2"            PostgreSQL or gRPC, decrypted here
    other   nobody we know; PostgreSQL's side says so                        PostgreSQL
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

BACKLOG = 1024
EXHAUSTED_SECONDS = 1.0
"""How long no connection is accepted once the process has no file descriptor left."""
ALPN = ("postgresql", "h2")

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger("shardforge.listener")


@dataclass(slots=True)
class Callers:
    """Who serves whom. What is None is not there: other nodes, gRPC, TLS."""

    postgres: Callable[[bool], asyncio.Protocol]
    """Given whether TLS is up already."""
    peer: Callable[[], asyncio.Protocol] | None = None
    grpc: Callable[[bool], asyncio.Protocol] | None = None
    """Given whether TLS is up already."""
    tls: ssl.SSLContext | None = None


class _ByAlpn(asyncio.Protocol):
    """A connection whose TLS is up: handed to whom the client asked for by ALPN."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        protocol = self._listener.protocol_by_alpn(name)
        if protocol is None:
            transport.abort()
        else:
            transport.set_protocol(protocol)
            protocol.connection_made(transport)


class Listener:
    """Accepts connections on one address. `silence_seconds` is what a client has for its first byte."""

    def __init__(self, callers: Callers, silence_seconds: float) -> None:
        self._callers = callers
        self._silence_seconds = silence_seconds
        self._sockets: list[socket.socket] = []
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._adoptions: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept from now on; returns the address. Raises OSError when it cannot be had."""
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, address in dict.fromkeys(infos):
                self._sockets.append(_listening(family, kind, protocol, address))
        except OSError:
            self.close()
            raise
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)
        name = self._sockets[0].getsockname()
        return name[0], name[1]

    def close(self) -> None:
        """Accept no more. What has been handed on goes on."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        for sock in list(self._silent):
            self._drop(sock)

    async def abort(self) -> None:
        """End what is being handed on."""
        for task in list(self._adoptions):
            task.cancel()
        await asyncio.gather(*self._adoptions, return_exceptions=True)

    # ---- accepting -------------------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BACKLOG):
            try:
                sock, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("connections cannot be accepted: %s", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(EXHAUSTED_SECONDS, self._accept_again, listening)
                return
            sock.setblocking(False)
            self._wait(sock)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _wait(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._silent[sock] = loop.call_later(self._silence_seconds, self._drop, sock)
        loop.add_reader(sock, self._look, sock)

    def _heard(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(sock)
        self._silent.pop(sock).cancel()

    def _drop(self, sock: socket.socket) -> None:
        self._heard(sock)
        sock.close()

    def _look(self, sock: socket.socket) -> None:
        try:
            first = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first:
            self._drop(sock)
            return
        self._heard(sock)
        protocol, tls = self._protocol(first)
        if protocol is None:
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._adopt(sock, protocol, tls))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    # ---- handing on ------------------------------------------------------------------------------

    def _protocol(
        self, first: bytes
    ) -> tuple[Callable[[], asyncio.Protocol] | None, ssl.SSLContext | None]:
        callers = self._callers
        if first == b"S":
            return callers.peer, None
        if first == b"P":
            grpc = callers.grpc
            return (None if grpc is None else lambda: grpc(False)), None
        if first == b"\x16" and callers.tls is not None:
            return (lambda: _ByAlpn(self)), callers.tls
        return (lambda: callers.postgres(False)), None

    async def _adopt(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = (
            {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": self._silence_seconds}
        )
        try:
            await loop.connect_accepted_socket(protocol, sock, **options)
        except OSError as error:  # TLS's errors among them
            log.info("a connection failed at its beginning: %s", error)
            sock.close()
        except BaseException:
            sock.close()
            raise

    def protocol_by_alpn(self, name: str | None) -> asyncio.Protocol | None:
        """Who serves a client that asked for `name` while TLS was set up; None: nobody."""
        if name == "postgresql":
            return self._callers.postgres(True)
        if name == "h2" and self._callers.grpc is not None:
            return self._callers.grpc(True)
        return None


def _listening(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
