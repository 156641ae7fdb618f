"""A scan of a shard that another node leads: only rows that pass its condition are sent, and answers are the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from shardforge.config import Config
from shardforge.ids import NodeId, ShardId
from shardforge.shard.remote.calls import Answer, Call, Scanned
from shardforge.shard.remote.service import ShardService
from shardforge.testing import Cluster, cluster

pytestmark = pytest.mark.e2e

ROWS = 10_000
STREAM_BYTES = 64 << 10
"""Of writes that a transaction keeps in memory."""
DATA = ShardId(1)
SETTLED_SECONDS_MAX = 60.0
Connection = psycopg.Connection[Any]


class Sent:
    """What nodes answer to scans of shards that they lead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = self.pages = self.bytes = 0
        answer = ShardService.answer

        async def counted(service: ShardService, call: Call) -> Answer:
            found = await answer(service, call)
            if isinstance(found, Scanned) and call.head.shard == DATA:
                self.pages += 1
                self.rows += len(found.rows)
                self.bytes += sum(len(key) + len(value) for key, _, value in found.rows)
            return found

        monkeypatch.setattr(ShardService, "answer", counted)

    def clear(self) -> None:
        self.rows = self.pages = self.bytes = 0


def off_the_serving_node(made: Cluster) -> None:
    """Move the data's shard so that the serving node has no voter of it, and another node leads it."""
    node = made._running[made.serving]
    assert node.operations is not None
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while True:
        status = made._do(node.operations.status())
        serving = status["serving_node"]
        [shard] = [one for one in status["shards"] if one["id"] == DATA]
        if len(shard["voters"]) == 3 and shard["leader"]:
            if serving not in shard["voters"] and shard["leader"] != serving:
                return
            [spare] = {1, 2, 3, 4} - set(shard["voters"])
            made._do(node.operations.move(DATA, NodeId(serving), NodeId(spare)))
        assert time.monotonic() < deadline, status


@pytest.fixture(scope="module")
def far() -> Iterator[Cluster]:
    config = replace(
        Config(),
        sharding=replace(Config().sharding, initial_shard_count=1),
        sql=replace(Config().sql, transaction_stream_size=STREAM_BYTES),
    )
    with cluster(nodes=4, config=config) as made:
        with psycopg.connect(made.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, a int, s text, n numeric)")
            connection.execute(
                "CREATE TABLE g (tenant int, id int, a int, PRIMARY KEY (tenant, id)) WITH (shard_key = 'tenant')"
            )
            connection.execute(
                "CREATE TABLE h (tenant int, id int, PRIMARY KEY (tenant, id)) WITH (shard_key = 'tenant')"
            )
            connection.execute(
                f"INSERT INTO t SELECT i, i % 1000, repeat('x', 100), i FROM generate_series(1, {ROWS}) i"
            )
            connection.execute(
                "INSERT INTO g SELECT i % 10, i, i % 100 FROM generate_series(1, 3000) i"
            )
            connection.execute("INSERT INTO h SELECT i % 10, i FROM generate_series(1, 3000) i")
            connection.execute("ALTER TABLE t ADD COLUMN late int DEFAULT 5, DROP COLUMN n")
        off_the_serving_node(made)
        yield made


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    return Sent(monkeypatch)


@pytest.fixture(params=["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def connection(far: Cluster, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A transaction that is rolled back at the end."""
    with psycopg.connect(far.dsn) as made:
        made.isolation_level = psycopg.IsolationLevel[request.param.replace(" ", "_")]
        yield made
        made.rollback()


def test_only_rows_that_pass_are_sent(connection: Connection, sent: Sent) -> None:
    found = connection.execute(
        "SELECT id FROM t WHERE a = 7 AND s LIKE 'x%' ORDER BY id"
    ).fetchall()
    assert found == [(7 + 1000 * n,) for n in range(10)]
    assert sent.rows == 10
    assert sent.bytes < 10 * 200
    assert (
        sent.pages <= ROWS // 2048 + 1
        or connection.isolation_level is psycopg.IsolationLevel.SERIALIZABLE
    )
    sent.clear()
    assert connection.execute("SELECT count(*) FROM t WHERE a = %s", (7,)).fetchone() == (10,)
    assert connection.execute("SELECT count(*) FROM t WHERE late = 6").fetchone() == (0,)
    assert sent.rows == 10, "parameters too, and what a column was added with"
    sent.clear()
    assert connection.execute("SELECT count(*) FROM t WHERE s ~ 'y'").fetchone() == (0,)
    assert sent.rows == ROWS, "a regular expression is not on the list"


def test_own_writes_are_seen(connection: Connection, sent: Sent) -> None:
    connection.execute("DELETE FROM t WHERE id = 7")
    connection.execute("UPDATE t SET a = 7 WHERE id = 8")
    connection.execute("UPDATE t SET a = 8 WHERE id = 1007")
    connection.execute("INSERT INTO t VALUES (-1, 7, 'new')")
    sent.clear()
    found = connection.execute("SELECT id FROM t WHERE a = 7 ORDER BY id").fetchall()
    assert found == [(-1,), (8,), *((7 + 1000 * n,) for n in range(2, 10))]
    assert sent.rows == 10, "what the shard has, as far as it passes there"


def test_own_writes_that_wait_in_the_shard_are_seen(connection: Connection, sent: Sent) -> None:
    many = 2 * STREAM_BYTES // 100
    connection.execute("UPDATE t SET a = 3000 WHERE id <= %s", (many,))
    sent.clear()
    assert connection.execute("SELECT count(*) FROM t WHERE a = 3000").fetchone() == (many,)
    assert sent.rows == 0, "the committed rows do not pass, and the others are no rows yet"
    left = sum(n % 1000 == 7 for n in range(many + 1, ROWS + 1))
    assert connection.execute("SELECT count(*) FROM t WHERE a = 7").fetchone() == (left,)
    assert sent.rows == 10


def test_a_limit_counts_rows_that_pass(connection: Connection, sent: Sent) -> None:
    assert len(connection.execute("SELECT id FROM t WHERE a >= 990 LIMIT 5").fetchall()) == 5
    assert 5 <= sent.rows < 5 + 4 * 5 + 64
    sent.clear()
    assert len(connection.execute("SELECT id FROM t WHERE a = 7 LIMIT 50").fetchall()) == 10
    assert sent.rows == 10
    ordered = connection.execute("SELECT id FROM t WHERE a = 7 ORDER BY id DESC LIMIT 3").fetchall()
    assert ordered == [(9007,), (8007,), (7007,)]
    all_ordered = connection.execute(
        "SELECT id FROM t WHERE a < 50 ORDER BY id LIMIT 70"
    ).fetchall()
    assert all_ordered == [(n,) for n in range(1, ROWS) if n % 1000 < 50][:70]


def test_changes_find_their_rows_there(connection: Connection, sent: Sent) -> None:
    assert connection.execute("UPDATE t SET s = 'changed' WHERE a = 9").rowcount == 10
    assert sent.rows == 10
    assert connection.execute("DELETE FROM t WHERE a = 9 AND s = 'changed'").rowcount == 10
    sent.clear()
    locked = connection.execute("SELECT id FROM t WHERE a = 11 FOR UPDATE").fetchall()
    assert len(locked) == 10
    assert sent.rows == 10


def test_an_error_is_the_same(connection: Connection, sent: Sent) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
        connection.execute("SELECT id FROM t WHERE 1 / (a - 5) > 0")
    sent.clear()
    connection.execute("UPDATE t SET a = 6 WHERE a = 5")
    found = connection.execute("SELECT count(*) FROM t WHERE 1 / (a - 5) = 1").fetchone()
    assert found == (20,), "what an own write hides raises nothing"


def test_tables_that_share_a_span_are_told_apart_there(connection: Connection, sent: Sent) -> None:
    assert connection.execute("SELECT count(*) FROM h").fetchone() == (3000,)
    assert sent.rows == 3000, "none of g"
    sent.clear()
    assert connection.execute("SELECT count(*) FROM g WHERE a = 5").fetchone() == (30,)
    assert sent.rows == 30
    assert len(connection.execute("SELECT id FROM g LIMIT 100").fetchall()) == 100


def test_a_join_reads_what_passes(connection: Connection, sent: Sent) -> None:
    sql = "SELECT count(*) FROM g JOIN t ON t.id = g.id WHERE g.a = 5 AND t.a < 500"
    expected = sum(n % 100 == 5 and n % 1000 < 500 for n in range(1, 3001))
    assert connection.execute(sql).fetchone() == (expected,)
    assert sent.rows <= 60 or sent.rows == 30 + ROWS // 2, "by key, or hashed"


def test_a_serializable_reader_conflicts_with_what_would_have_passed(
    far: Cluster, sent: Sent
) -> None:
    """A row that was left out is in the span that was read: who changes it so that it passes is in conflict."""
    with psycopg.connect(far.dsn) as one, psycopg.connect(far.dsn) as other:
        for each in (one, other):
            each.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        assert one.execute("SELECT count(*) FROM t WHERE a = 2000").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM t WHERE a = 2000").fetchone() == (0,)
        one.execute("UPDATE t SET a = 2000 WHERE id = 1")
        other.execute("UPDATE t SET a = 2000 WHERE id = 2")
        one.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.commit()
    with psycopg.connect(far.dsn, autocommit=True) as connection:
        connection.execute("UPDATE t SET a = 1 WHERE id = 1")
