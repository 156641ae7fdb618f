"""How a session ends in the midst of a COPY FROM STDIN: with the messages that PostgreSQL 15 sends, and no others."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shardforge.node import Node
from tests.inprocess import MEMORY, running_node, session_of
from tests.inprocess import run as run_sql
from tests.peers import run

TRUSTING = replace(MEMORY, security=replace(MEMORY.security, authentication="trust"))
SYNC_LOST = "FATAL 08P01 terminating connection because protocol synchronization was lost"
SHUT_DOWN = "FATAL 57P01 terminating connection due to administrator command"


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


COPY = {
    "simple": message(b"Q", b"COPY t FROM STDIN\0"),
    "extended": message(b"P", b"\0COPY t FROM STDIN\0\0\0")
    + message(b"B", bytes(8))
    + message(b"E", bytes(5))
    + message(b"H"),
}
ROW = message(b"d", b"1\n")


class Client:
    """A client that speaks the protocol byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, node: Node) -> Client:
        client = cls(*await asyncio.open_connection(*node.address))
        body = struct.pack("!I", 3 << 16) + b"user\0shardforge\0database\0shardforge\0\0"
        client.writer.write(struct.pack("!I", len(body) + 4) + body)
        await client.until(b"Z")
        return client

    async def read(self) -> tuple[bytes, bytes]:
        kind, size = struct.unpack("!cI", await self._reader.readexactly(5))
        return kind, await self._reader.readexactly(size - 4)

    async def until(self, kind: bytes) -> None:
        while (await self.read())[0] != kind:
            pass

    async def rest(self) -> list[str]:
        """What comes until the end of the connection: errors in words, other messages by their kind."""
        found = []
        while True:
            try:
                kind, body = await self.read()
            except asyncio.IncompleteReadError:
                self.writer.close()
                return found
            if kind == b"E":
                fields = {part[:1]: part[1:].decode() for part in body.split(b"\0")}
                found.append(f"{fields[b'S']} {fields[b'C']} {fields[b'M']}")
            else:
                found.append(kind.decode())

    async def begin(self, way: str, *, block: bool) -> None:
        """Begin a COPY, in a transaction block or by itself, and send a row."""
        if block:
            self.writer.write(message(b"Q", b"BEGIN\0"))
            await self.until(b"Z")
        self.writer.write(COPY[way])
        await self.until(b"G")
        self.writer.write(ROW)


def with_table(test: Callable[[Node], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with running_node(TRUSTING) as node:
            session = session_of(node)
            await run_sql(session, "CREATE TABLE t (a int)")
            await session.close()
            await test(node)

    run("uvloop", whole)


async def rows(node: Node) -> int:
    session = session_of(node)
    ((count,),) = await run_sql(session, "SELECT count(*) FROM t")
    await session.close()
    return int(count)


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("way", ["simple", "extended"])
@pytest.mark.parametrize(
    "sent", [message(b"X"), message(b"X") + message(b"S"), message(b"Q", b"SELECT 1\0")]
)
def test_what_does_not_belong_to_a_copy_ends_the_connection(
    sent: bytes, way: str, block: bool
) -> None:
    async def test(node: Node) -> None:
        client = await Client.connect(node)
        await client.begin(way, block=block)
        client.writer.write(sent)
        assert await client.rest() == [
            f"ERROR 08P01 unexpected message type 0x{sent[0]:02X} during COPY from stdin",
            SYNC_LOST,
        ]
        assert await rows(node) == 0

    with_table(test)


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("way", ["simple", "extended"])
def test_a_shutdown_is_told_once(way: str, block: bool) -> None:
    async def test(node: Node) -> None:
        client = await Client.connect(node)
        await client.begin(way, block=block)
        assert node.server is not None
        draining = asyncio.create_task(node.server.drain(0.2))
        assert await client.rest() == [SHUT_DOWN]
        await draining

    with_table(test)


@pytest.mark.parametrize("way", ["simple", "extended"])
def test_a_copy_that_waits_for_rows_is_not_idle(way: str) -> None:
    async def test(node: Node) -> None:
        client = await Client.connect(node)
        for setting in (b"idle_session_timeout", b"idle_in_transaction_session_timeout"):
            client.writer.write(message(b"Q", b"SET " + setting + b" = 60000\0"))
            await client.until(b"Z")
        assert node.server is not None
        (connection,) = node.server.connections
        conversation = connection.conversation
        assert conversation is not None
        assert conversation._timeout is not None
        await client.begin(way, block=True)
        assert conversation._timeout is None
        client.writer.write(message(b"c") + (message(b"S") if way == "extended" else b""))
        await client.until(b"Z")
        assert conversation._timeout is not None
        client.writer.write(message(b"Q", b"COMMIT\0") + message(b"X"))
        assert await client.rest() == ["C", "Z"]
        assert await rows(node) == 1

    with_table(test)
