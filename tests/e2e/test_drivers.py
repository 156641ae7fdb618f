"""psycopg and asyncpg, unchanged, against a real server: types both ways, COPY, cursors, cancel, errors."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import uuid
from decimal import Decimal
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import sql

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

VALUES: list[tuple[str, Any]] = [
    ("boolean", True),
    ("smallint", -3),
    ("integer", 2**31 - 1),
    ("bigint", -(2**63)),
    ("numeric", Decimal("12345678901234567890.123456789")),
    ("real", 1.5),
    ("double precision", 0.1),
    ("text", "naïve 'quoted' ✓"),
    ("varchar(10)", "ten"),
    ("bytea", b"\x00\xff\x01"),
    ("date", dt.date(2024, 2, 29)),
    ("time", dt.time(23, 59, 59, 999999)),
    ("timestamp", dt.datetime(1999, 12, 31, 23, 59, 59, 1)),  # noqa: DTZ001  # a timestamp without time zone
    ("timestamptz", dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)),
    ("interval", dt.timedelta(days=3, seconds=4, microseconds=5)),
    ("uuid", uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")),
    ("integer[]", [1, None, 3]),
    ("text[]", ["a", 'b "c"', "d,e"]),
]


@pytest.mark.parametrize(("type_name", "value"), VALUES, ids=[name for name, _ in VALUES])
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_psycopg_round_trip(
    server: ServerProcess, type_name: str, value: Any, binary: bool
) -> None:
    with server.connect() as connection, connection.cursor(binary=binary) as cursor:
        mark = "%b" if binary else "%t"
        cursor.execute(f"SELECT CAST({mark} AS {type_name})", (value,))  # type: ignore[arg-type]
        assert cursor.fetchone() == (value,)


def test_asyncpg_round_trip(server: ServerProcess) -> None:
    async def go() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="shardforge", database="shardforge"
        )
        try:
            for type_name, value in VALUES:
                assert await connection.fetchval(f"SELECT $1::{type_name}", value) == value
            async with connection.transaction():
                rows = [
                    r["g"]
                    async for r in connection.cursor("SELECT g FROM generate_series(1, 250) g")
                ]
            assert rows == list(range(1, 251))
        finally:
            await connection.close()

    asyncio.run(go())


def test_copy_both_ways(server: ServerProcess) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copied (id int PRIMARY KEY, name text)")
        rows = [(n, None if n % 3 == 0 else f"name\t{n}\\") for n in range(500)]
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        with cursor.copy("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == rows
        cursor.execute("DROP TABLE copied")


def test_a_failed_copy_leaves_nothing(server: ServerProcess) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE copy_fails (id int PRIMARY KEY)")
        with (
            pytest.raises(psycopg.errors.InvalidTextRepresentation),
            cursor.copy("COPY copy_fails FROM STDIN") as copy,
        ):
            copy.write("1\n2\nthree\n")
        assert cursor.execute("SELECT count(*) FROM copy_fails").fetchone() == (0,)
        cursor.execute("DROP TABLE copy_fails")


def test_pipeline_and_named_statements(server: ServerProcess) -> None:
    with server.connect(autocommit=False) as connection, connection.pipeline():
        cursors = [connection.execute("SELECT %s::int + 1", (n,), prepare=True) for n in range(20)]
        assert [cursor.fetchone() for cursor in cursors] == [(n + 1,) for n in range(20)]


def test_cancel_ends_a_lock_wait(server: ServerProcess) -> None:
    with server.connect(autocommit=False) as holder, server.connect(autocommit=False) as waiter:
        holder.execute("CREATE TABLE held (id int PRIMARY KEY, n int)")
        holder.execute("INSERT INTO held VALUES (1, 0)")
        holder.commit()
        holder.execute("UPDATE held SET n = 1")
        timer = threading.Timer(0.3, waiter.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiter.execute("UPDATE held SET n = 2")
        timer.join()
        waiter.rollback()
        holder.commit()
        assert waiter.execute("SELECT n FROM held").fetchone() == (1,)


def test_a_statement_that_only_computes_is_cancelled_and_timed_out(server: ServerProcess) -> None:
    busy = "SELECT count(*) FROM generate_series(1, 1000000000)"
    with server.connect() as connection:
        connection.execute("SET statement_timeout = '100ms'")
        for _ in range(2):
            with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
                connection.execute(busy)
        connection.execute("SET statement_timeout = 0")
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
            connection.execute(busy)
        timer.join()
        with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
            connection.execute(f"{busy} WHERE pg_cancel_backend(pg_backend_pid())")
        connection.execute("SELECT pg_cancel_backend(pg_backend_pid())")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_errors_carry_their_fields(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TABLE parent (id int PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE child (id int PRIMARY KEY, parent_id int NOT NULL REFERENCES parent)"
        )
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as caught:
            connection.execute("INSERT INTO child VALUES (1, 7)")
        diagnostic = caught.value.diag
        assert diagnostic.constraint_name == "child_parent_id_fkey"
        assert diagnostic.table_name == "child"
        assert diagnostic.message_detail == 'Key (parent_id)=(7) is not present in table "parent".'
        with pytest.raises(psycopg.errors.NotNullViolation) as null:
            connection.execute("INSERT INTO child VALUES (1, NULL)")
        assert null.value.diag.column_name == "parent_id"
        with pytest.raises(psycopg.errors.SyntaxError) as syntax:
            connection.execute("SELEC 1")
        assert syntax.value.diag.statement_position == "1"
        connection.execute("DROP TABLE child, parent")


def test_a_failed_block_takes_only_rollback(server: ServerProcess) -> None:
    with server.connect(autocommit=False) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.rollback()
        with connection.transaction():
            with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
                connection.execute("SELECT 1/0")
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_server_side_cursor(server: ServerProcess) -> None:
    with server.connect(autocommit=False) as connection, connection.cursor("named") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT g FROM generate_series(1, 50) g")
        assert [row[0] for row in cursor] == list(range(1, 51))


def test_parameters_of_a_server_side_cursor(server: ServerProcess) -> None:
    with (
        server.connect() as connection,
        connection.transaction(),
        connection.cursor(name="numbers") as cursor,
    ):
        # The driver leaves the types of strings to the server.
        query = "SELECT n, %s FROM generate_series(1, 9) n WHERE n > %s AND 'n' || n = %s"
        cursor.execute(query, ("x", 3, "n5"))
        assert cursor.fetchall() == [(5, "x")]


def test_parameters_of_statements_that_carry_a_query(server: ServerProcess) -> None:
    # What PostgreSQL 15 answers: their types are those of the query's parameters.
    async def go() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="shardforge", database="shardforge"
        )
        try:
            await connection.execute(
                "CREATE TABLE carried AS SELECT a, $1::int AS b, $2 AS c FROM generate_series(1, $3) a",
                5, "x", 3,
            )  # fmt: skip
            await connection.execute(
                "SELECT a, $1 AS w INTO chosen FROM carried WHERE a > $2", "w", 2
            )
            assert await connection.fetch("TABLE chosen") == [(3, "w")]
            assert len(await connection.fetch("EXPLAIN SELECT FROM carried WHERE a = $1", 2)) > 0
            async with connection.transaction():
                declared = (
                    "DECLARE k CURSOR FOR SELECT a, b, c FROM carried WHERE a > $1 AND c = $2"
                )
                statement = await connection.prepare(declared)
                assert [one.name for one in statement.get_parameters()] == ["int4", "text"]
                await connection.execute(declared, 2, "x")
                assert await connection.fetch("FETCH ALL k") == [(3, 5, "x")]
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.prepare("DECLARE k CURSOR FOR SELECT FROM nothing WHERE a = $1")
        finally:
            await connection.close()

    asyncio.run(go())


def test_identifiers_are_quoted_as_psycopg_quotes_them(server: ServerProcess) -> None:
    name = sql.Identifier('Odd "name"')
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE TABLE {} (id int)").format(name))
        connection.execute(sql.SQL("INSERT INTO {} VALUES (1)").format(name))
        assert connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone() == (
            1,
        )
        connection.execute(sql.SQL("DROP TABLE {}").format(name))
