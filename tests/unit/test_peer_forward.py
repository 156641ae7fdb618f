"""Clients of a node that does not serve: passed on to the one that does, as if they had connected there."""

from __future__ import annotations

import asyncio
import random
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psycopg
import pytest

from shardforge.adapters.clock import SystemClock
from shardforge.config import Config
from shardforge.errors import NetworkError
from shardforge.ids import NodeId
from shardforge.node import Node
from shardforge.server.peer.forward import Origin, read_origin
from shardforge.server.peer.network import PeerNetwork
from shardforge.server.pgwire.server import Server
from shardforge.telemetry import Telemetry
from tests.inprocess import MEMORY, running_node
from tests.peers import LOOPS, Authority, Member, run, until

FIRST, SECOND = NodeId(1), NodeId(2)

pytestmark = pytest.mark.parametrize("loop", LOOPS)


class Pair:
    """A node that serves, and another that forwards to it."""

    def __init__(self, node: Node, far: Member, server: Server) -> None:
        self.node = node
        self.far = far
        self.server = server
        self.port = 0

    @property
    def serving(self) -> Server:
        """The node's that serves."""
        assert self.node.server is not None
        return self.node.server

    async def connect(self, **options: Any) -> Any:
        """A client of the node that forwards."""
        return await asyncpg.connect(
            host="127.0.0.1", port=self.port, user="shardforge", database="shardforge", **options
        )


@asynccontextmanager
async def pair(config: Config = MEMORY) -> AsyncIterator[Pair]:
    """Two nodes over loopback."""
    async with running_node(MEMORY) as node:
        far = Member(PeerNetwork(FIRST, "c", random.Random(1)))
        await far.listen()
        assert node.server is not None
        far.network.on_splice(node.server._take_forwarded)
        server = Server(config, Telemetry(), SystemClock())
        server.peers = PeerNetwork(SECOND, "c", random.Random(2))
        server.peers.set_address(FIRST, far.address)
        server.forward_to = lambda: FIRST
        both = Pair(node, far, server)
        _, both.port = await server.listen()
        try:
            yield both
        finally:
            await server.drain(1)
            await server.peers.close()
            await far.stop()


def test_a_session_is_served_elsewhere(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            client = await both.connect()
            await client.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
            rows = [(n, "x" * 200) for n in range(5000)]
            await client.copy_records_to_table("t", records=rows)
            assert [tuple(r) for r in await client.fetch("TABLE t ORDER BY a")] == rows
            with pytest.raises(asyncpg.DivisionByZeroError):
                await client.fetch("SELECT 1 / 0")
            assert not both.server.connections
            [session] = both.serving.instance.sessions.values()  # type: ignore[union-attr]
            assert session.client == "127.0.0.1"
            await client.close()
            await until(lambda: not both.serving.connections and not both.server.forwarded)

    run(loop, body)


def test_a_cancel_request_follows(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            dsn = f"host=127.0.0.1 port={both.port} user=shardforge dbname=shardforge"
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as client:
                blocker = await both.connect()
                await blocker.execute("CREATE TABLE t (a int)")
                await blocker.execute("BEGIN; LOCK TABLE t")
                running = asyncio.ensure_future(client.execute("SELECT a FROM t"))
                sessions = both.serving.instance.sessions  # type: ignore[union-attr]
                await until(lambda: any("FROM t" in session.query for session in sessions.values()))
                await client.cancel_safe()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    await running
                await blocker.close()

    run(loop, body)


def test_tls_ends_where_the_client_connected(loop: str, tmp_path: Path) -> None:
    async def body() -> None:
        authority = Authority(tmp_path)
        certificate, key = authority.certificate("server")
        security = replace(MEMORY.security, tls_certificate=str(certificate), tls_key=str(key))
        async with pair(replace(MEMORY, security=security)) as both:
            trusting = ssl.create_default_context(cafile=str(authority.path))
            client = await both.connect(ssl=trusting)
            assert await client.fetchval("SELECT length(repeat('x', 3000000))") == 3_000_000
            assert len(await client.fetchval("SELECT repeat('x', 3000000)")) == 3_000_000
            [connection] = both.serving.connections
            assert connection.tls
            plain = await both.connect(ssl=False)
            assert sorted(c.tls for c in both.serving.connections) == [False, True]
            await plain.close()
            await client.close()
            if psycopg.pq.version() >= 170000:
                dsn = f"host=127.0.0.1 port={both.port} user=shardforge dbname=shardforge sslmode=verify-full"
                dsn += f" sslnegotiation=direct sslrootcert={authority.path}"
                async with await psycopg.AsyncConnection.connect(dsn) as direct:
                    assert direct.pgconn.ssl_in_use

    run(loop, body)


def startup(user: str = "shardforge") -> bytes:
    """A start-up packet."""
    parameters = b"".join(
        text.encode() + b"\0" for text in ("user", user, "database", "shardforge", "")
    )
    return struct.pack("!II", 8 + len(parameters), 196608) + parameters


@pytest.mark.parametrize("cut", [0, 3, 14])
def test_what_a_client_sends_ahead_is_passed_on(loop: str, cut: int) -> None:
    async def body() -> None:
        async with pair() as both:
            reader, writer = await asyncio.open_connection("127.0.0.1", both.port)
            query = b"Q" + struct.pack("!I", 14) + b"SELECT 42\0"
            terminate = b"X\0\0\0\4"
            writer.write(startup() + query + query[:cut])
            await reader.readuntil(b"SELECT 1\0")
            writer.write(query[cut:] + terminate)
            assert (await reader.read()).count(b"SELECT 1\0") == 1
            writer.close()

    run(loop, body)


class Collected(asyncio.Protocol):
    """What came, until the end."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize(
    ("host", "code"), [("127.0.0.1", 0), ("::1", 0), ("10.1.2.3", 10), ("2001:db8::1", 10)]
)
def test_trust_is_for_where_the_client_is(loop: str, host: str, code: int) -> None:
    async def body() -> None:
        async with pair() as both:
            assert both.server.peers is not None
            preamble = msgspec.msgpack.encode(Origin(host, 1234, False, startup()))
            got = Collected()
            transport = await both.server.peers.open_splice(FIRST, preamble, lambda: got)
            await until(lambda: len(got.data) >= 9)
            assert struct.unpack("!cII", got.data[:9]) == (b"R", 23 if code else 8, code)
            transport.abort()

    run(loop, body)


@pytest.mark.parametrize(
    "preamble",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(Origin("", 1, False, b"")),
        msgspec.msgpack.encode(Origin("a host", 1, False, b"")),
        msgspec.msgpack.encode(("127.0.0.1", "port", False, b"")),
    ],
)
def test_a_preamble_that_is_none_is_refused(loop: str, preamble: bytes) -> None:
    async def body() -> None:
        async with pair() as both:
            assert both.server.peers is not None
            with pytest.raises(NetworkError) as caught:
                await both.server.peers.open_splice(FIRST, preamble, Collected)
            assert caught.value.sqlstate == "08P01"
            assert not both.serving.connections

    run(loop, body)


@pytest.mark.parametrize(
    ("link", "certificate", "judged"),
    [
        ("10.9.9.9", None, "10.9.9.9"),
        ("10.9.9.9", {"subject": ()}, "127.0.0.1"),
        ("127.0.0.1", None, "127.0.0.1"),
    ],
)
def test_only_a_node_is_believed_where_a_client_is(
    loop: str, link: str, certificate: Any, judged: str
) -> None:
    class Transport(asyncio.BaseTransport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return {"peername": (link, 1), "peercert": certificate}[name]

    preamble = msgspec.msgpack.encode(Origin("127.0.0.1", 1, False, b""))
    assert read_origin(preamble, Transport())[1] == judged


def test_when_the_serving_node_dies_its_clients_are_closed(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            client = await both.connect()
            for connection in list(both.serving.connections):
                connection.abort()
            await until(client.is_closed)
            assert not both.server.forwarded

    run(loop, body)


def test_when_nobody_serves_the_client_is_told_to_try_again(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            both.server.serving_seconds = 0.05
            await both.far.stop()
            with pytest.raises(asyncpg.CannotConnectNowError) as caught:
                await both.connect()
            assert "Try again" in (caught.value.hint or "")
            assert "cannot be reached" in (caught.value.detail or "")
            both.server.forward_to = lambda: None
            with pytest.raises(asyncpg.CannotConnectNowError):
                await both.connect()

    run(loop, body)


def test_a_node_that_reads_the_past_takes_no_clients_of_others(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            both.server.serving_seconds = 0
            assert both.serving.instance is not None
            both.serving.instance.standby = 1
            with pytest.raises(asyncpg.CannotConnectNowError, match="no node serves"):
                await both.connect()
            both.serving.instance.standby = 0

    run(loop, body)


def test_a_client_is_kept_until_somebody_serves(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            instance, both.serving.instance = both.serving.instance, None
            asked = 0

            def forward_to() -> NodeId | None:
                nonlocal asked
                asked += 1
                if asked == 3:
                    both.serving.instance = instance
                return None if asked == 1 else FIRST

            both.server.forward_to = forward_to
            client = await both.connect()
            assert asked == 3
            assert await client.fetchval("SELECT 1") == 1
            await client.close()

    run(loop, body)


def test_a_stop_lets_statements_end_and_tells_who_is_idle(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            idle, busy = await both.connect(), await both.connect()
            blocker = await both.connect()
            await busy.execute("CREATE TABLE t (a int)")
            await blocker.execute("BEGIN; LOCK TABLE t")
            waiting = asyncio.ensure_future(busy.fetch("SELECT 1 FROM t"))
            sessions = both.serving.instance.sessions  # type: ignore[union-attr]
            await until(lambda: any("FROM t" in session.query for session in sessions.values()))
            draining = asyncio.ensure_future(both.server.drain(10))
            await until(idle.is_closed)
            assert not waiting.done()
            await blocker.execute("COMMIT")
            assert await waiting == []
            await draining
            assert busy.is_closed()
            assert not both.server.forwarded

    run(loop, body)


def test_a_listener_is_told_through_another_node_and_stays_idle(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            listener, sender = await both.connect(), await both.connect()
            told: asyncio.Queue[str] = asyncio.Queue()
            await listener.add_listener("news", lambda *of: told.put_nowait(of[3]))
            for payload in ("first", "x" * 7999):
                await sender.execute(f"NOTIFY news, '{payload}'")
                assert await told.get() == payload
            draining = asyncio.ensure_future(both.server.drain(10))
            await until(listener.is_closed)
            await draining
            assert not both.server.forwarded

    run(loop, body)


def test_a_client_that_leaves_meanwhile_leaves_nothing(loop: str) -> None:
    async def body() -> None:
        async with pair() as both:
            both.server.forward_to = lambda: None
            _, writer = await asyncio.open_connection("127.0.0.1", both.port)
            writer.write(startup())
            await until(lambda: bool(both.server._waiting))
            writer.close()
            await until(lambda: not both.server.connections)
            assert not both.server.forwarded
            assert not both.server._waiting

    run(loop, body)
