"""Who may call over gRPC, by what way; what a node tells of itself; clients that are hostile, or break off."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from shardforge.client import AsyncClient, connect_async
from shardforge.errors import TransactionError
from shardforge.node import Node
from shardforge.server.grpc.gateway import FOLDER, SOCKET
from shardforge.v1 import database_pb2 as pb
from shardforge.v1 import database_pb2_grpc as pb_grpc
from tests.grpc_node import blocked, check, failure, gateway_of, row_locked, served, waiting
from tests.inprocess import MEMORY, running_node, session_of
from tests.inprocess import run as run_sql
from tests.peers import Authority, run, until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


# ---- who may -----------------------------------------------------------------------------------------


def test_users_prove_themselves_as_over_postgresql() -> None:
    strict = replace(MEMORY, security=replace(MEMORY.security, authentication="scram-sha-256"))

    async def whole() -> None:
        async with running_node(strict) as node:
            session = session_of(node)
            await run_sql(session, "ALTER ROLE shardforge PASSWORD 'geheim\u00e4'")
            await run_sql(session, "CREATE ROLE ann LOGIN PASSWORD 'a:b'")
            await run_sql(session, "CREATE ROLE nologin PASSWORD 'x'")
            await session.close()
            address = f"127.0.0.1:{node.address[1]}"

            async def who(user: str, password: str | None) -> Any:
                async with connect_async(
                    address, user=user, password=password, database="shardforge"
                ) as client:
                    return (await client.execute("SELECT current_user")).rows[0][0]

            for _ in range(2):
                assert await who("shardforge", "geheim\u00e4") == "shardforge"
                assert await who("ann", "a:b") == "ann"
                for user, password in (
                    ("shardforge", "no"),
                    ("shardforge", None),
                    ("nosuch", "x"),
                    ("ann", ""),
                ):
                    error = await failure(who(user, password))
                    assert error.message == f'password authentication failed for user "{user}"'
                    assert error.sqlstate == "28P01"
            assert (await failure(who("nologin", "x"))).sqlstate == "28000"
            async with connect_async(
                address, user="ann", password="a:b", database="shardforge"
            ) as client:
                assert (await failure(client.leave(1))).sqlstate == "42501"
                assert (await client.status())["serving_node"] == 1, "open to everyone"
                await client.metrics()

    run("uvloop", whole)


def test_what_a_killed_node_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, alive = tmp_path / f"{FOLDER}left", tmp_path / f"{FOLDER}alive"
    for folder in (left, alive):
        folder.mkdir()
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as living:
        dead.bind(str(left / SOCKET))
        living.bind(str(alive / SOCKET))
        living.listen()
        dead.close()

        def names() -> list[Path]:
            return sorted(tmp_path.iterdir())

        async def body(node: Node, client: AsyncClient) -> None:
            await client.execute("SELECT 1")
            assert names() == sorted([alive, gateway_of(node)._folder or left])

        check(body)
        assert names() == [alive]


def test_a_request_that_is_none_is_refused() -> None:
    async def body(node: Node, _: AsyncClient) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{node.address[1]}") as channel:
            for method in ("ExecuteQuery", "ExecuteTransaction", "JoinCluster", "LeaveCluster"):
                with pytest.raises(grpc.aio.AioRpcError) as raw:
                    await channel.unary_unary(f"/shardforge.v1.DatabaseService/{method}")(
                        b"\xff" * 9
                    )
                assert raw.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await channel.unary_unary("/shardforge.v1.DatabaseService/Nosuch")(b"")
            assert raw.value.code() is grpc.StatusCode.UNIMPLEMENTED

    check(body)


def test_tls_by_alpn(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.certificate("server")
    security = replace(
        MEMORY.security, tls_certificate=str(certificate), tls_key=str(key), tls_required=True
    )

    async def whole() -> None:
        async with running_node(replace(MEMORY, security=security)) as node:
            address = f"127.0.0.1:{node.address[1]}"
            async with connect_async(address, tls=authority.path) as client:
                assert (await client.execute("SELECT 1")).rows == [(1,)]
            async with connect_async(address) as client:
                error = await failure(client.execute("SELECT 1"))
                assert (error.sqlstate, error.message) == ("28000", "connection requires TLS")

    run("uvloop", whole)


# ---- the cluster, health, reflection -----------------------------------------------------------------


def test_the_cluster_is_told_and_changed() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        assert node.operations is not None
        assert (await client.status())["cluster_id"] == (await node.operations.status())[
            "cluster_id"
        ]
        assert "shardforge_build_info{" in await client.metrics()
        assert (await failure(client.leave(9))).message == "there is no node 9 in the cluster"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{node.address[1]}") as channel:
            stub = pb_grpc.DatabaseServiceStub(channel)
            request = pb.JoinClusterRequest(token="t", address="127.0.0.1:1", version="0.1.0")
            joined = await stub.JoinCluster(request)
            assert (joined.node_id, joined.cluster_name) == (2, "shardforge")
            assert (await stub.JoinCluster(request)).node_id == 2, "asked again"
            assert [n.node_id for n in joined.nodes] == [1, 2]
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await stub.JoinCluster(pb.JoinClusterRequest())
            assert raw.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def whole() -> None:
        async with served() as (node, client):
            until_governed = asyncio.create_task(_governed(node))
            await until_governed
            await body(node, client)

    run("uvloop", whole)


async def _governed(node: Node) -> None:
    await until(lambda: node.governing is not None)


def test_health_and_reflection() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{node.address[1]}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            for name in ("", "shardforge.v1.DatabaseService"):
                assert (
                    await health.Check(health_pb2.HealthCheckRequest(service=name))
                ).status == serving
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await health.Check(health_pb2.HealthCheckRequest(service="other"))
            assert raw.value.code() is grpc.StatusCode.NOT_FOUND
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == serving
            assert node.server is not None
            instance, node.server.instance = node.server.instance, None
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            node.server.instance = instance
            assert (await watch.read()).status == serving
            watch.cancel()
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            answers = [answer async for answer in stub.ServerReflectionInfo(iter([asked]))]
            names = {service.name for service in answers[0].list_services_response.service}
            assert names == {
                "shardforge.v1.DatabaseService", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
            }  # fmt: skip

    check(body)


def test_a_node_that_serves_no_more_says_so() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        await client.execute("SELECT 1")
        assert node.server is not None
        node.server.serving_seconds = 0.1
        async with row_locked(node, client):
            task = await blocked(client)
            await until(lambda: waiting(node))
            instance = node.server.instance
            await node.server.end_tenure(TransactionError("another node leads", "57P01"))
            assert (await failure(task)).sqlstate == "57P01"
            assert (await failure(client.execute("SELECT 1"))).sqlstate == "57P03"
            assert (await client.status())["nodes"]
            node.server.instance = instance

    check(body)


def descriptors() -> int:
    """How many files and sockets are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# ---- hostile and broken clients ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"P", b"PRI", b"POST / HTTP/1.1\r\n\r\n", PREFACE + b"\xff" * 1000, PREFACE + os.urandom(100_000),
        PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(20_000_000),
        PREFACE + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x08\x06\0\0\0\0\0" + bytes(7),
    ],
    ids=["one byte", "part", "http/1", "ones", "random", "huge", "cut"],
)  # fmt: skip
def test_garbage_leaks_nothing(sent: bytes) -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        await client.execute("SELECT 1")
        gateway, before = gateway_of(node), descriptors()
        for abrupt in (False, True):
            reader, writer = await asyncio.open_connection(*node.address)
            if abrupt:
                linger = b"\1\0\0\0\0\0\0\0"
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            writer.write(sent)
            try:
                await writer.drain()
                if not abrupt and sent[:3] != b"PRI"[: len(sent)]:
                    await reader.read()
            except ConnectionError:
                assert len(sent) > 1000, "only what is too much is refused"
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        await until(lambda: len(gateway._pipes) == 1)
        await until(lambda: descriptors() <= before)
        assert (await client.execute("SELECT 1")).rows == [(1,)]

    check(body)


def test_a_client_that_leaves_at_once_starts_nothing_twice() -> None:
    async def whole() -> None:
        async with running_node() as node:
            for _ in range(20):
                _, writer = await asyncio.open_connection(*node.address)
                writer.write(PREFACE)
                writer.close()
            async with connect_async(f"127.0.0.1:{node.address[1]}") as client:
                assert (await client.execute("SELECT 1")).rows == [(1,)]
            gateway = gateway_of(node)
            await until(lambda: not gateway._pipes)
        assert gateway._folder is None

    run("uvloop", whole)
