"""A pipe passes on what it gets, no faster than it is taken, and ends with either of its ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shardforge.server.peer.pipe import Pipe
from tests.peers import LOOPS, run, until

pytestmark = pytest.mark.parametrize("loop", LOOPS)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def piped() -> AsyncIterator[tuple[Pipe, Streams, Streams]]:
    """A pipe, its near client and its far server."""
    loop = asyncio.get_running_loop()
    pipe = Pipe()
    arrived: asyncio.Future[Streams] = loop.create_future()
    far = await asyncio.start_server(lambda r, w: arrived.set_result((r, w)), "127.0.0.1", 0)
    near = await loop.create_server(lambda: pipe.near, "127.0.0.1", 0)
    client = await asyncio.open_connection(*near.sockets[0].getsockname())
    client[1].write(b"early ")
    await until(lambda: pipe.near.transport is not None)
    await loop.create_connection(lambda: pipe.far, *far.sockets[0].getsockname())
    server = await arrived
    try:
        yield pipe, client, server
    finally:
        for _, writer in (client, server):
            writer.close()
        near.close()
        far.close()


def test_bytes_pass_both_ways(loop: str) -> None:
    async def body() -> None:
        async with piped() as (_, client, server):
            client[1].write(b"there")
            assert await server[0].readexactly(11) == b"early there"
            server[1].write(b"back" * 500_000)
            assert await client[0].readexactly(2_000_000) == b"back" * 500_000

    run(loop, body)


def test_a_slow_reader_slows_the_writer_down(loop: str) -> None:
    async def body() -> None:
        async with piped() as (pipe, client, server):
            await server[0].readexactly(6)
            size = 64 * 1024 * 1024  # more than the sockets of one machine take up
            client[1].write(bytes(size))
            near, far = pipe.near.transport, pipe.far.transport
            assert near is not None
            assert far is not None
            await until(lambda: not near.is_reading())
            assert far.get_write_buffer_size() < 2 * 1024 * 1024
            assert await server[0].readexactly(size) == bytes(size)
            assert near.is_reading()

    run(loop, body)


@pytest.mark.parametrize("leaving", ["client", "server"])
def test_when_one_end_leaves_the_other_gets_the_rest_and_is_closed(loop: str, leaving: str) -> None:
    async def body() -> None:
        async with piped() as (pipe, client, server):
            await server[0].readexactly(6)
            goes, stays = (client, server) if leaving == "client" else (server, client)
            goes[1].write(bytes(100_000))
            goes[1].close()
            assert await stays[0].read() == bytes(100_000)
            await pipe.wait_closed()

    run(loop, body)


def test_abort_closes_both(loop: str) -> None:
    async def body() -> None:
        async with piped() as (pipe, client, server):
            await server[0].readexactly(6)
            pipe.abort()
            for reader, _ in (client, server):
                assert await reader.read() == b""

    run(loop, body)
