"""Calls over gRPC: statements and their values, transactions, errors, limits, time-outs and cancellation."""

from __future__ import annotations

import asyncio
import datetime as dt
import stat
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import grpc
import pytest

from shardforge.client import AsyncClient, connect_async
from shardforge.errors import DatabaseError, NetworkError, QueryError, TransactionError
from shardforge.node import Node
from shardforge.v1 import database_pb2 as pb
from shardforge.v1 import database_pb2_grpc as pb_grpc
from shardforge.v1.details import DETAILS, error_of
from tests.grpc_node import blocked, check, failure, gateway_of, row_locked, served, waiting
from tests.inprocess import MEMORY, running_node
from tests.peers import LOOPS, run, until

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
