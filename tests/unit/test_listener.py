"""One address for several kinds of callers: each reaches whom it means, and nobody holds a socket in silence."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shardforge.server.listener import ALPN, Callers, Listener
from tests.peers import LOOPS, Authority, run

pytestmark = pytest.mark.parametrize("loop", LOOPS)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Named(asyncio.Protocol):
    """Answers everything with its name and what it was sent."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.name + b":" + data)


@asynccontextmanager
async def listening(
    tls: ssl.SSLContext | None = None,
    *,
    peers: bool = True,
    grpc: bool = True,
    silence: float = 60,
) -> AsyncIterator[int]:
    """A listener; its port."""
    callers = Callers(
        lambda tls: Named(b"postgres" + b"+tls" * tls),
        (lambda: Named(b"peer")) if peers else None,
        (lambda tls: Named(b"grpc" + b"+tls" * tls)) if grpc else None,
        tls,
    )
    listener = Listener(callers, silence)
    _, port = await listener.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        listener.close()
        await listener.abort()


async def ask(port: int, data: bytes, **options: Any) -> bytes:
    """What comes back for `data`; nothing when the connection is closed."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
        writer.write(data)
        answer = await reader.read(100)
    except ConnectionError:
        return b""
    writer.close()
    return answer


def test_the_first_byte_decides(loop: str) -> None:
    async def body() -> None:
        async with listening() as port:
            startup = b"\0\0\0\x08\x04\xd2\x16\x2f"
            assert await ask(port, startup) == b"postgres:" + startup
            assert await ask(port, b"SFPEER1\n") == b"peer:SFPEER1\n"
            assert await ask(port, b"GET / HTTP/1.1") == b"postgres:GET / HTTP/1.1", (
                "it knows how to refuse"
            )
            assert await ask(port, b"\x16\x03\x01") == b"postgres:\x16\x03\x01", "no TLS here"
            assert await ask(port, PREFACE) == b"grpc:" + PREFACE
        async with listening(peers=False, grpc=False) as port:
            assert await ask(port, b"SFPEER1\n") == b""
            assert await ask(port, PREFACE) == b"", "no gRPC here"

    run(loop, body)


def test_bytes_may_come_one_by_one(loop: str) -> None:
    async def body() -> None:
        async with listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in b"SFPEER1\n":
                writer.write(bytes([byte]))
                assert await reader.readexactly(6) == b"peer:" + bytes([byte])
            writer.close()

    run(loop, body)


def test_tls_at_once_is_told_apart_by_alpn(loop: str, tmp_path: Path) -> None:
    async def body() -> None:
        authority = Authority(tmp_path)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*authority.certificate("server"))
        server.set_alpn_protocols(list(ALPN))

        def client(*names: str) -> ssl.SSLContext:
            context = ssl.create_default_context(cafile=str(authority.path))
            if names:
                context.set_alpn_protocols(list(names))
            return context

        async with listening(server) as port:
            assert await ask(port, b"hello", ssl=client("postgresql")) == b"postgres+tls:hello"
            assert await ask(port, PREFACE, ssl=client("h2")) == b"grpc+tls:" + PREFACE
            assert await ask(port, b"hello", ssl=client()) == b"", "nobody was asked for"
            assert await ask(port, b"\0\0\0\x08") == b"postgres:\0\0\0\x08"
            assert await ask(port, b"\x16not TLS at all") != b"postgres"

    run(loop, body)


def test_a_silent_client_is_closed(loop: str) -> None:
    async def body() -> None:
        async with listening(silence=0.01) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()

    run(loop, body)


def test_one_that_leaves_in_silence_is_forgotten(loop: str) -> None:
    async def body() -> None:
        listener = Listener(Callers(lambda _: Named(b"postgres")), 60)
        _, port = await listener.listen("127.0.0.1", 0)
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
        assert (await ask(port, b"\0")).startswith(b"postgres"), "all were looked at by now"
        assert len(listener._silent) == 0
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        listener.close()
        silent.close()
        assert not listener._silent

    run(loop, body)


def test_an_address_in_use_is_refused(loop: str) -> None:
    async def body() -> None:
        async with listening() as port:
            with pytest.raises(OSError, match="in use"):
                await Listener(Callers(lambda _: Named(b"")), 60).listen("127.0.0.1", port)

    run(loop, body)
