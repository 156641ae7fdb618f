"""Three real processes: sessions that nodes answer by themselves, at closed timestamps, while another one serves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest

import shardforge.client
from tests.e2e.clusters import ClusterProcesses
from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 20.0
BOUNDED = "-c shardforge.consistency_level=bounded"
Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    trust = {"SHARDFORGE_SECURITY_AUTHENTICATION": "trust"}
    made = ClusterProcesses(tmp_path_factory.mktemp("followers"), settings=trust)
    made.grow(3)
    yield made
    made.kill()


def other_than(cluster: ClusterProcesses, number: int) -> ServerProcess:
    """A node that runs, and is not that one."""
    return next(n for i, n in cluster.nodes.items() if i != number and n.process is not None)


def follower(server: ServerProcess, options: str = BOUNDED) -> Connection:
    """A connection that the node answers by itself."""
    made: Connection = psycopg.connect(
        server.dsn, autocommit=True, options=options, connect_timeout=5
    )
    assert made.info.parameter_status("in_hot_standby") == "on"
    return made


def until(seen: Callable[[], object]) -> None:
    """Return once a follower sees what it will see before long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not seen():
        assert time.monotonic() < deadline, "it is not seen"


def exists(connection: Connection, table: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,)


def test_a_follower_reads_and_refuses_to_write(cluster: ClusterProcesses) -> None:
    serving = cluster.serving()
    with cluster.connect() as writer, follower(other_than(cluster, serving)) as reader:
        writer.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
        writer.execute("INSERT INTO t SELECT g, 'b' || g FROM generate_series(1, 100) g")
        until(lambda: exists(reader, "t"))
        until(lambda: reader.execute("SELECT count(*) FROM t").fetchone() == (100,))
        assert reader.execute("SELECT b FROM t WHERE a = %s", (7,)).fetchone() == ("b7",)
        assert reader.execute("SHOW transaction_read_only").fetchone() == ("on",)
        assert reader.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        for sql, state in (
            ("INSERT INTO t VALUES (0, '')", "25006"),
            ("CREATE TABLE never (a int)", "25006"),
            ("SELECT * FROM t FOR UPDATE", "25006"),
            ("COPY t FROM STDIN", "25006"),
            ("LISTEN a", "25006"),
            ("NOTIFY a", "25006"),
            ("SELECT pg_notify('a', '')", "25006"),
            ("SET shardforge.consistency_level = 'strong'", "0A000"),
            ("SELECT set_config('shardforge.consistency_level', 'strong', false)", "0A000"),
            ("BEGIN READ WRITE", "0A000"),
        ):
            with pytest.raises(psycopg.Error) as refused:
                reader.execute(sql)  # type: ignore[call-overload]
            assert refused.value.sqlstate == state, sql
            assert "Connect without" in (refused.value.diag.message_hint or ""), sql
            reader.execute("ROLLBACK")
        # Moved on, and never back.
        for number in range(200, 220):
            writer.execute("INSERT INTO t VALUES (%s, 'new')", (number,))
            until(lambda n=number: reader.execute("SELECT 1 FROM t WHERE a = %s", (n,)).fetchone())
        # One transaction, one state; a cancel request finds the session where it is.
        with psycopg.connect(other_than(cluster, serving).dsn, options=BOUNDED) as repeated:
            repeated.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            before = repeated.execute("SELECT count(*) FROM t").fetchone()
            writer.execute("DELETE FROM t")
            until(lambda: reader.execute("SELECT count(*) FROM t").fetchone() == (0,))
            assert repeated.execute("SELECT count(*) FROM t").fetchone() == before
        reader.cancel()
        assert reader.execute("SELECT 1").fetchone() == (1,)


def test_drivers_find_followers_and_the_serving_node(cluster: ClusterProcesses) -> None:
    serving = cluster.serving()
    every = cluster.dsn.replace("read-write", "{}")
    with psycopg.connect(every.format("standby"), options=BOUNDED) as found:
        assert found.info.port != cluster.nodes[serving].port
    with psycopg.connect(every.format("read-write"), options=BOUNDED) as found:
        assert found.info.port == cluster.nodes[serving].port
        found.execute("CREATE TABLE written (a int)")
    with psycopg.connect(other_than(cluster, serving).dsn) as passed_on:
        assert passed_on.info.parameter_status("in_hot_standby") == "off"
        passed_on.execute("CREATE TABLE written_too (a int)")
    says_that_it_writes = BOUNDED + " -c default_transaction_read_only=off"
    with psycopg.connect(other_than(cluster, serving).dsn, options=says_that_it_writes) as writes:
        assert writes.info.parameter_status("in_hot_standby") == "off"

    async def with_asyncpg() -> None:
        node = other_than(cluster, serving)
        for level in ("bounded", "eventual"):
            connection = await asyncpg.connect(
                host=node.host, port=node.port, user="shardforge", database="shardforge",
                server_settings={"shardforge.consistency_level": level},
            )  # fmt: skip
            try:
                assert connection.get_settings().in_hot_standby == "on"
                assert await connection.fetchval("SELECT $1::int + 1", 1) == 2
                async with connection.transaction():
                    [*rows] = [row async for row in connection.cursor("SELECT 1 AS one")]
                    assert len(rows) == 1
                with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                    await connection.execute("CREATE TABLE never (a int)")
            finally:
                await connection.close()

    asyncio.run(with_asyncpg())


def test_a_role_that_reads_only_is_answered_by_followers(cluster: ClusterProcesses) -> None:
    node = other_than(cluster, cluster.serving())
    with cluster.connect() as writer:
        writer.execute("CREATE ROLE reports LOGIN")
        writer.execute("ALTER ROLE reports SET shardforge.consistency_level = 'eventual'")

    def hot_standby() -> str | None:
        dsn = node.dsn.replace("user=shardforge", "user=reports")
        with psycopg.connect(dsn) as connection:
            return connection.info.parameter_status("in_hot_standby")

    assert hot_standby() == "off", "it may write"
    with cluster.connect() as writer:
        writer.execute("ALTER ROLE reports SET default_transaction_read_only = on")
    until(lambda: hot_standby() == "on")


def test_calls_are_answered_by_followers(cluster: ClusterProcesses) -> None:
    node = other_than(cluster, cluster.serving())
    bounded = {"shardforge.consistency_level": "bounded"}
    with shardforge.client.connect(f"{node.host}:{node.port}") as client:
        client.execute("CREATE TABLE called (a int PRIMARY KEY)")
        assert client.execute("SELECT pg_is_in_recovery()").rows == [(False,)]
        assert client.execute("SELECT pg_is_in_recovery()", settings=bounded).rows == [(True,)]
        client.execute("INSERT INTO called VALUES (1)")
        until(
            lambda: (
                client.execute("SELECT to_regclass('called')::text", settings=bounded).rows
                == [("called",)]
            )
        )
        until(lambda: client.execute("SELECT a FROM called", settings=bounded).rows == [(1,)])


def test_ddl_beside_followers(cluster: ClusterProcesses) -> None:
    """A table that is replaced, truncated and altered, each time in one transaction, always has its five rows."""
    serving = cluster.serving()
    with cluster.connect() as writer, follower(other_than(cluster, serving)) as reader:
        writer.execute("CREATE TABLE five (a int PRIMARY KEY)")
        writer.execute("INSERT INTO five SELECT generate_series(1, 5)")
        until(lambda: exists(reader, "five"))
        until(lambda: reader.execute("SELECT count(*) FROM five").fetchone() == (5,))
        changes = (
            "TRUNCATE five",
            "DROP TABLE five; CREATE TABLE five (b text, a int PRIMARY KEY)",
            "ALTER TABLE five ADD COLUMN c int DEFAULT 7; DELETE FROM five",
            "DROP TABLE five; CREATE TABLE five (a int PRIMARY KEY, d int)",
        )
        for number in range(12):
            writer.execute(
                f"BEGIN; {changes[number % 4]};"  # type: ignore[arg-type]
                " INSERT INTO five (a) SELECT generate_series(1, 5); COMMIT"
            )
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                rows = reader.execute("SELECT * FROM five", prepare=False).fetchall()
                assert len(rows) == 5, changes[number % 4]
        reader.execute("BEGIN")
        reader.execute("DECLARE c CURSOR FOR SELECT * FROM five")
        writer.execute("DROP TABLE five")
        end = time.monotonic() + 2  # the rows are removed a second after the commit
        while time.monotonic() < end:
            reader.execute("SELECT 1")
        assert fetched(reader) in (5, "72000"), "all of it, or an error"


def fetched(connection: Connection) -> int | str | None:
    """How many rows a cursor gives, or the SQLSTATE with which it is refused."""
    try:
        return len(connection.execute("FETCH ALL FROM c").fetchall())
    except psycopg.Error as error:
        connection.execute("ROLLBACK")
        return error.sqlstate


def test_a_follower_knows_enums_as_of_what_it_reads(cluster: ClusterProcesses) -> None:
    serving = cluster.serving()
    with cluster.connect() as writer, follower(other_than(cluster, serving)) as reader:
        writer.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
        writer.execute("CREATE TABLE moods (m mood PRIMARY KEY)")
        writer.execute("INSERT INTO moods VALUES ('happy'), ('sad')")
        until(lambda: exists(reader, "moods"))
        ask = "SELECT m FROM moods WHERE m >= %s ORDER BY m"
        until(lambda: reader.execute(ask, ("sad",)).fetchall() == [("sad",), ("happy",)])
        writer.execute("ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy'")
        writer.execute("INSERT INTO moods VALUES ('ok')")
        writer.execute("ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'")
        all_of_them = [("sad",), ("ok",), ("glad",)]
        until(lambda: reader.execute(ask, ("sad",)).fetchall() == all_of_them)
        found = reader.execute("SELECT max(m) FROM moods", binary=True).fetchone()
        assert found == (b"glad",)


def test_followers_go_on_when_the_serving_node_dies(cluster: ClusterProcesses) -> None:
    serving = cluster.serving()
    rest = [n for i, n in cluster.nodes.items() if i != serving]
    with cluster.connect() as writer:
        writer.execute("CREATE TABLE kept (a int PRIMARY KEY)")
        writer.execute("INSERT INTO kept SELECT generate_series(1, 10)")
    readers = [follower(node, "-c shardforge.consistency_level=eventual") for node in rest]
    for reader in readers:
        until(lambda r=reader: exists(r, "kept"))
        until(lambda r=reader: r.execute("SELECT count(*) FROM kept").fetchone() == (10,))
    cluster.nodes[serving].kill()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for reader in readers:
            assert reader.execute("SELECT count(*) FROM kept").fetchone() == (10,)

    def written() -> bool:
        try:
            with cluster.connect() as writer:
                writer.execute("INSERT INTO kept VALUES (11) ON CONFLICT DO NOTHING")
        except psycopg.OperationalError:
            return False
        return True

    until(written)
    for reader in readers:
        until(lambda r=reader: r.execute("SELECT count(*) FROM kept").fetchone() == (11,))
        reader.close()
