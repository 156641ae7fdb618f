"""A node in this process and a gRPC client of it: what the tests of the gRPC API begin with."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shardforge.client import AsyncClient, connect_async
from shardforge.config import Config
from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.server.grpc.gateway import Gateway
from tests.inprocess import MEMORY, running_node, session_of
from tests.inprocess import run as run_sql
from tests.peers import run, until


def gateway_of(node: Node) -> Gateway:
    assert node.server is not None
    assert isinstance(node.server.grpc, Gateway)
    return node.server.grpc


@asynccontextmanager
async def served(
    config: Config = MEMORY, **options: Any
) -> AsyncIterator[tuple[Node, AsyncClient]]:
    """A node and a client of it; nothing of the two is left at the end."""
    async with running_node(config) as node:
        async with connect_async(f"127.0.0.1:{node.address[1]}", **options) as client:
            yield node, client
        folder = gateway_of(node)._folder
        gateway = gateway_of(node)
        assert node.server is not None
        assert not node.server.calls
        assert node.instance is not None
        assert not node.instance.sessions
        gc.collect()  # errors of gRPC keep their connections alive
        await until(lambda: not gateway._clients and not gateway._pipes)
    assert folder is None or not folder.exists()


Body = Callable[[Node, AsyncClient], Coroutine[Any, Any, None]]


def check(body: Body, config: Config = MEMORY, **options: Any) -> None:
    """Run a test's body beside a node."""

    async def whole() -> None:
        async with served(config, **options) as (node, client):
            await body(node, client)

    run("uvloop", whole)


async def failure(work: Awaitable[Any]) -> DatabaseError:
    """The error that `work` ends with."""
    with pytest.raises(DatabaseError) as caught:
        await work
    return caught.value


async def blocked(client: AsyncClient, **options: Any) -> asyncio.Task[Any]:
    """A statement that waits for a lock."""
    return asyncio.create_task(client.execute("UPDATE t SET n = 5", **options))


@asynccontextmanager
async def row_locked(node: Node, client: AsyncClient) -> AsyncIterator[None]:
    """A row that another session has locked."""
    await client.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    await client.execute("INSERT INTO t VALUES (1, 0)")
    session = session_of(node)
    session.begin_block()
    await run_sql(session, "UPDATE t SET n = 1")
    try:
        yield
    finally:
        await session.close()


def waiting(node: Node) -> bool:
    assert node.server is not None
    return any(
        call.session.state == "active" and call.session.query.startswith("UPDATE")
        for call in node.server.calls
    )
