"""The gRPC API of a node in this process: statements, transactions, errors, limits, cancellation, hostile bytes."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from shardforge.client import AsyncClient, connect_async
from shardforge.config import Config
from shardforge.errors import DatabaseError, NetworkError, QueryError, TransactionError
from shardforge.node import Node
from shardforge.server.grpc.gateway import FOLDER, SOCKET, Gateway
from shardforge.v1 import database_pb2 as pb
from shardforge.v1 import database_pb2_grpc as pb_grpc
from shardforge.v1.details import DETAILS, error_of
from tests.inprocess import MEMORY, running_node
from tests.peers import LOOPS, Authority, run, until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


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


# ---- statements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_rows_have_types(loop: str) -> None:
    async def whole() -> None:
        async with served() as (_, client):
            result = await client.execute(
                "SELECT 1 AS a, 2::bigint b, 1.5::float8 c, 1.50 d, 'x' e, true f, '\\x01ff'::bytea g, NULL h,"
                " date '2024-02-29' i, '{1,2}'::int[] j, '{\"k\": 1}'::jsonb k, 'abc'::varchar(5) l, 7::oid m,"
                " '3e2c9d6a-0000-4000-8000-000000000001'::uuid n, interval '1 day' o, 'NaN'::float4 p"
            )
            assert result.rows[0][:-1] == (
                1, 2, 1.5, Decimal("1.50"), "x", True, b"\x01\xff", None, dt.date(2024, 2, 29), [1, 2], {"k": 1},
                "abc", 7, UUID("3e2c9d6a-0000-4000-8000-000000000001"), "1 day",
            )  # fmt: skip
            assert str(result.rows[0][-1]) == "nan"
            assert result.tag == "SELECT 1"
            assert [c.name for c in result.columns] == list("abcdefghijklmnop")
            assert [c.type for c in result.columns][:4] == [
                "integer",
                "bigint",
                "double precision",
                "numeric",
            ]
            assert (result.columns[11].type, result.columns[11].type_oid) == (
                "character varying(5)",
                1043,
            )

    run(loop, whole)


def test_parameters_come_back_as_they_went() -> None:
    given = [
        1, 1 << 40, 1 << 70, 0.1, Decimal("-1.20"), True, "\u00e4'\\", b"\0\xff", dt.date(1, 1, 1),
        dt.datetime.fromisoformat("2024-01-02 03:04:05.000006"), dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
        UUID(int=5), {"a": [None]},
    ]  # fmt: skip

    async def body(_: Node, client: AsyncClient) -> None:
        marks = ", ".join(f"${n}" for n in range(1, len(given) + 1))
        more = [[1, 2], ["a", 'b"'], None]
        result = await client.execute(
            f"SELECT {marks}, $14::int[], $15::text[], $16::int", [*given, *more]
        )
        assert list(result.rows[0]) == [*given, *more]

    check(body)


def test_a_string_takes_the_type_that_is_wanted() -> None:
    async def body(_: Node, client: AsyncClient) -> None:
        await client.execute(
            "CREATE TABLE t (id smallint PRIMARY KEY, at timestamptz, n numeric(5,2))"
        )
        done = await client.execute(
            "INSERT INTO t VALUES ($1, $2, $3)", [1, "2024-01-01 00:00+00", "1.239"]
        )
        assert (done.tag, done.rows_affected, done.rows) == ("INSERT 0 1", 1, [])
        result = await client.execute("SELECT * FROM t WHERE id = ANY($1)", [[1, 2]])
        assert result.rows == [(1, dt.datetime(2024, 1, 1, tzinfo=dt.UTC), Decimal("1.24"))]
        error = await failure(client.execute("INSERT INTO t VALUES ($1, $2)", [2, "no"]))
        assert error.sqlstate == "22007"
        assert error.message == 'invalid input syntax for type timestamp with time zone: "no"'
        assert (await failure(client.execute("SELECT $1", []))).sqlstate == "08P01"
        assert (await failure(client.execute("SELECT $1::text", ["\0"]))).sqlstate == "22021"

    check(body)


def test_every_kind_of_statement_or_a_refusal() -> None:
    async def body(_: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE t (id int PRIMARY KEY)")
        result = await client.execute("INSERT INTO t SELECT generate_series(1, 5) RETURNING id")
        assert (result.tag, len(result.rows)) == ("INSERT 0 5", 5)
        assert (await client.execute("UPDATE t SET id = id + 10 WHERE id > 3")).rows_affected == 2
        assert (await client.execute("EXPLAIN SELECT * FROM t")).columns[0].name == "QUERY PLAN"
        assert (await client.execute("")).tag == ""
        assert (await client.execute("SHOW server_version")).rows
        for refused in ("BEGIN", "COMMIT", "SAVEPOINT a", "COPY t TO STDOUT", "COPY t FROM STDIN"):
            assert (await failure(client.execute(refused))).sqlstate == "0A000", refused
        assert (await failure(client.execute("SELECT 1; SELECT 2"))).sqlstate == "42601"
        result = await client.execute("DROP TABLE IF EXISTS u")
        assert result.notices == ['NOTICE: table "u" does not exist, skipping']

    check(body)


def test_settings_are_of_one_call() -> None:
    async def body(_: Node, client: AsyncClient) -> None:
        found = await client.execute("SHOW application_name", settings={"application_name": "me"})
        assert found.rows == [("me",)]
        assert (await client.execute("SHOW application_name")).rows == [("",)]
        for name, sqlstate in (
            ("nosuch", "42704"),
            ("user", "42704"),
            ("statement_timeout", "22023"),
        ):
            error = await failure(client.execute("SELECT 1", settings={name: "x"}))
            assert error.sqlstate == sqlstate, name

    check(body)


def test_errors_have_all_their_fields() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n > 0))")
        error = await failure(client.execute("INSERT INTO t VALUES (1, 0)"))
        assert (type(error), error.sqlstate, error.table, error.constraint) == (
            QueryError,
            "23514",
            "t",
            "t_n_check",
        )
        assert str(error).startswith("Query error: new row for relation")
        error = await failure(client.execute("SELECT nosuch FROM t"))
        assert (error.sqlstate, error.position) == ("42703", 8)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{node.address[1]}") as channel:
            stub = pb_grpc.DatabaseServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await stub.ExecuteQuery(pb.ExecuteQueryRequest(sql="SELECT * FROM nosuch"))
        trailing = dict(raw.value.trailing_metadata())
        assert (raw.value.code(), trailing["sqlstate"]) == (grpc.StatusCode.NOT_FOUND, "42P01")
        assert error_of(trailing[DETAILS]) is not None

    check(body)


# ---- transactions ------------------------------------------------------------------------------------


def test_a_transaction_is_all_or_nothing() -> None:
    async def body(_: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE t (id int PRIMARY KEY)")
        done = await client.transaction(
            [("INSERT INTO t VALUES ($1)", [1]), "SELECT count(*) FROM t"], isolation="serializable"
        )
        assert [r.tag for r in done.results] == ["INSERT 0 1", "SELECT 1"]
        assert done.results[1].rows == [(1,)]
        error = await failure(
            client.transaction(["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)", "SELECT 1"])
        )
        assert error.sqlstate == "23505"
        assert (await client.execute("SELECT count(*) FROM t")).rows == [(1,)]
        error = await failure(client.transaction(["INSERT INTO t VALUES (3)"], read_only=True))
        assert error.sqlstate == "25006"
        assert (await failure(client.transaction(["COMMIT"]))).sqlstate == "0A000"
        assert (await failure(client.transaction([], isolation="chaos"))).sqlstate == "22023"
        assert (await client.transaction([])).results == []
        shown = await client.transaction(
            ["SHOW transaction_isolation"], isolation="repeatable read"
        )
        assert shown.results[0].rows == [("repeatable read",)]

    check(body)


def test_a_transaction_tells_which_statement_failed() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{node.address[1]}") as channel:
            stub = pb_grpc.DatabaseServiceStub(channel)
            wanted = [pb.Statement(sql="SELECT 1"), pb.Statement(sql="SELECT 1/0")]
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await stub.ExecuteTransaction(pb.ExecuteTransactionRequest(statements=wanted))
        from google.rpc import status_pb2

        status = status_pb2.Status.FromString(dict(raw.value.trailing_metadata())[DETAILS])
        ours = pb.DatabaseError()
        assert status.details[0].Unpack(ours)
        assert (ours.statement, ours.sqlstate, ours.reaction) == (
            2,
            "22012",
            pb.REACTION_FIX_STATEMENT,
        )

    check(body)


def test_a_deferred_constraint_fails_the_commit() -> None:
    async def body(_: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE p (id int PRIMARY KEY)")
        await client.execute("CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
        error = await failure(client.transaction(["INSERT INTO c VALUES (1)"]))
        assert error.sqlstate == "23503"
        assert (await client.execute("SELECT * FROM c")).rows == []

    check(body)


def test_a_commit_key_commits_once() -> None:
    async def body(_: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
        await client.execute("CREATE TABLE u (id int PRIMARY KEY)")
        await client.execute("INSERT INTO t VALUES (1, 0)")
        adding: list[Any] = ["UPDATE t SET n = n + 1 RETURNING n", "INSERT INTO t VALUES (2, 0)"]
        first = await client.transaction(adding, commit_key="it's 1")
        assert (first.committed_before, first.results[0].rows) == (False, [(1,)])
        again = await client.transaction(adding, commit_key="it's 1")
        assert (again.committed_before, again.results) == (True, [])
        simple = await client.transaction(["UPDATE t SET n = n + 1"], commit_key="it's 1")
        assert simple.committed_before
        assert (await client.execute("SELECT sum(n) FROM t")).rows == [(1,)]
        for other in ("INSERT INTO u VALUES (1)", "INSERT INTO u SELECT 1/0"):
            error = await failure(client.transaction([other], commit_key="it's 1"))
            assert error.sqlstate == "22023", other
        assert (await client.execute("SELECT * FROM u")).rows == []

    check(body)


def test_conflicts_are_retried_here() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE counter (n int)")
        await client.execute("INSERT INTO counter VALUES (0)")
        adding = ["SELECT n FROM counter", "UPDATE t SET n = n + 1", "UPDATE counter SET n = n + 1"]
        for retries in (0, 5):
            async with row_locked(node, client):
                work = client.transaction(adding, isolation="serializable", retries=retries)
                task = asyncio.create_task(work)
                await until(lambda: waiting(node))
                await client.execute("UPDATE counter SET n = n + 10")
            if retries:
                assert (await task).retries == 1
            else:
                assert (await failure(task)).sqlstate == "40001"
            await client.execute("DROP TABLE t")
        assert (await client.execute("SELECT n FROM counter")).rows == [(21,)]
        assert (await failure(client.transaction(adding, retries=101))).sqlstate == "22023"

    check(body)


# ---- limits, timeouts, cancellation ------------------------------------------------------------------


def test_too_large_a_result_changes_nothing() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{node.address[1]}") as channel:
            stub = pb_grpc.DatabaseServiceStub(channel)
            sql = "INSERT INTO t SELECT i, repeat('x', 1000000) FROM generate_series(1, 5) i RETURNING *"
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await stub.ExecuteQuery(pb.ExecuteQueryRequest(sql=sql))
            assert raw.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (
                "max_result_bytes"
                in (
                    error_of(dict(raw.value.trailing_metadata())[DETAILS]) or DatabaseError("")
                ).hint
            )
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await stub.ExecuteQuery(pb.ExecuteQueryRequest(sql=sql, max_result_bytes=1 << 40))
            assert raw.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await client.execute("SELECT count(*) FROM t")).rows == [(0,)]
        assert len((await client.execute(sql)).rows) == 5
        error = await failure(client.execute("SELECT $1::text", ["x" * (17 << 20)]))
        assert error.sqlstate == "54000", "a request too large"
        assert (await client.execute("SELECT 1")).rows == [(1,)]

    check(body)


async def blocked(client: AsyncClient, **options: Any) -> asyncio.Task[Any]:
    """A statement that waits for a lock."""
    return asyncio.create_task(client.execute("UPDATE t SET n = 5", **options))


@asynccontextmanager
async def row_locked(node: Node, client: AsyncClient) -> AsyncIterator[None]:
    """A row that another session has locked."""
    from tests.inprocess import run as run_sql
    from tests.inprocess import session_of

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


def test_a_cancelled_call_is_rolled_back() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        assert node.server is not None
        calls = node.server.calls
        async with row_locked(node, client):
            for end in ("cancel", "timeout", "close", "statement_timeout"):
                other = connect_async(f"127.0.0.1:{node.address[1]}")
                options: dict[str, Any] = {}
                if end == "timeout":
                    options["timeout"] = 0.2
                elif end == "statement_timeout":
                    options["settings"] = {"statement_timeout": "50ms"}
                task = await blocked(other, **options)
                await until(lambda: waiting(node))
                if end == "cancel":
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                elif end == "close":
                    await other.close()
                    await asyncio.gather(task, return_exceptions=True)
                else:
                    error = await failure(task)
                    assert error.sqlstate == ("08007" if end == "timeout" else "57014"), end
                await until(lambda: not calls)
                await other.close()
        assert (await client.execute("SELECT n FROM t")).rows == [(0,)]
        assert (await client.execute("UPDATE t SET n = 7")).rows_affected == 1

    check(body)


def test_calls_cancelled_at_any_moment_leave_nothing() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        await client.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
        await client.execute("INSERT INTO t VALUES (1, 0)")
        for moment in range(60):
            tasks = [
                asyncio.create_task(client.execute("UPDATE t SET n = n + 1")) for _ in range(3)
            ]
            for _ in range(moment):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert (await client.execute("UPDATE t SET n = n + 1")).rows_affected == 1

    check(body)


def test_every_call_is_answered_when_a_node_ceases_to_serve() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        assert node.server is not None
        server, instance = node.server, node.server.instance
        await client.execute("CREATE TABLE t (id serial PRIMARY KEY, n int)")
        server.serving_seconds = 0.01
        committed = 0
        for moment in range(60):
            tasks = [
                asyncio.create_task(client.execute("INSERT INTO t (n) VALUES (0)"))
                for _ in range(3)
            ]
            for _ in range(moment * 2):
                await asyncio.sleep(0)
            await server.end_tenure(TransactionError("another node leads", "57P01"))
            assert not server.calls
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for one in done:
                assert not isinstance(one, BaseException) or (
                    isinstance(one, DatabaseError) and one.sqlstate in ("57P01", "57P03", "40003")
                ), one
            committed += sum(not isinstance(one, BaseException) for one in done)
            doubtful = any(
                isinstance(one, DatabaseError) and one.sqlstate == "40003" for one in done
            )
            assert instance is not None
            server.serve(instance)
            count = (await client.execute("SELECT count(*) FROM t")).rows[0][0]
            assert count == committed or doubtful
            committed = count
        assert committed

    check(body)


def test_a_session_can_be_cancelled_and_terminated_by_its_number() -> None:
    async def body(node: Node, client: AsyncClient) -> None:
        async with row_locked(node, client):
            for function, sqlstate in (
                ("pg_cancel_backend", "57014"),
                ("pg_terminate_backend", "57P01"),
            ):
                task = await blocked(client)
                await until(lambda: waiting(node))
                found = await client.execute(
                    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'UPDATE t SET n = 5%'"
                )
                await client.execute(f"SELECT {function}($1)", [found.rows[0][0]])
                error = await failure(task)
                assert error.sqlstate == sqlstate

    check(body)


def test_a_stop_lets_calls_end_or_ends_them() -> None:
    async def whole() -> None:
        async with running_node() as node:
            client = connect_async(f"127.0.0.1:{node.address[1]}")
            async with row_locked(node, client):
                task = await blocked(client)
                await until(lambda: waiting(node))
                folder = gateway_of(node)._folder
                assert folder is not None
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
                assert [path.name for path in folder.iterdir()] == ["s"], (
                    "nothing but the server's socket"
                )
                await gateway_of(node).stop(0.05)
                with pytest.raises(DatabaseError):
                    await task
                assert not folder.exists()
            await client.close()

    run("uvloop", whole)


def test_sessions_are_limited_as_all_are() -> None:
    few = replace(MEMORY, sql=replace(MEMORY.sql, max_connections=3))

    async def body(node: Node, client: AsyncClient) -> None:
        async with row_locked(node, client):
            tasks = [await blocked(client) for _ in range(2)]
            assert node.instance is not None
            sessions = node.instance.sessions
            await until(lambda: len(sessions) == 3)
            error = await failure(client.execute("SELECT 1"))
            assert (type(error), error.sqlstate) == (NetworkError, "53300")
        assert [result.rows_affected for result in await asyncio.gather(*tasks)] == [1, 1]

    check(body, few)


# ---- who may -----------------------------------------------------------------------------------------


def test_users_prove_themselves_as_over_postgresql() -> None:
    strict = replace(MEMORY, security=replace(MEMORY.security, authentication="scram-sha-256"))

    async def whole() -> None:
        async with running_node(strict) as node:
            from tests.inprocess import run as run_sql
            from tests.inprocess import session_of

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
