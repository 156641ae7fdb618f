"""The in-process cluster and its pytest plugin, as a user's tests would use them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardforge.testing import Cluster, cluster

pytestmark = pytest.mark.e2e

REMEMBER_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    with cluster(nodes=3) as running:
        with psycopg.connect(running.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
        yield running


def insert(dsn: str, value: int) -> None:
    """Insert, connecting again until it is taken."""
    for _ in range(50):
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("INSERT INTO t VALUES (%s) ON CONFLICT DO NOTHING", (value,))
            return
        except psycopg.OperationalError as error:
            last = error
    raise last


def values(dsn: str) -> list[int]:
    """What is there, by a node that may still be finding out who leads."""
    for _ in range(50):
        try:
            with psycopg.connect(dsn) as connection:
                return [a for (a,) in connection.execute("SELECT a FROM t ORDER BY a")]
        except psycopg.OperationalError as error:
            last = error
    raise last


def remember(made: Cluster, node: int) -> None:
    """Return when what is committed now is in the past that the node could read alone."""
    running = made._running[node]
    assert running.host is not None
    since_us = running.clock.monotonic_ns() // 1000
    deadline = time.monotonic() + REMEMBER_SECONDS_MAX
    while running.closed.closed_us <= since_us:
        assert time.monotonic() < deadline, "no timestamp is closed"
        running.closed.usable({replica.id: replica.applied for replica in running.host.replicas})
        time.sleep(0.01)


def test_a_killed_node_comes_back(made: Cluster) -> None:
    insert(made.dsn, 1)
    lost = made.serving
    made.kill(lost)
    assert lost not in made.nodes
    insert(made.dsn, 2)
    made.restart(lost)
    assert all(values(made.node_dsn(node))[:2] == [1, 2] for node in made.nodes)


def test_nodes_that_were_all_stopped_or_killed_come_back_with_everything() -> None:
    with cluster(nodes=3) as running:
        with psycopg.connect(running.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
        for number, end in enumerate((running.stop, running.kill)):
            insert(running.dsn, number)
            nodes = running.nodes
            for node in nodes:
                end(node)
            for node in nodes:
                running.restart(node)
            assert running.serving
            insert(running.dsn, 10 + number)
            with psycopg.connect(running.dsn) as connection:
                found = connection.execute("SELECT a FROM t ORDER BY a").fetchall()
            assert [row[0] for row in found] == sorted(
                [*range(number + 1), *range(10, 11 + number)]
            )


def test_a_partition_is_survived_by_the_majority_and_declared_by_the_minority(
    made: Cluster,
) -> None:
    insert(made.dsn, 3)
    alone = made.serving
    others = [node for node in made.nodes if node != alone]
    remember(made, alone)
    made.partition({alone})
    insert(made.node_dsn(others[0]), 4)
    assert made.serving in others
    # A node that was cut off goes on for a moment after the others elected one of them. It answers no read then, and
    # its sessions end: the error comes when it knows.
    with (
        pytest.raises(psycopg.OperationalError),
        psycopg.connect(made.node_dsn(alone), autocommit=True) as early,
    ):
        early.execute("SELECT count(*) FROM t")
    with psycopg.connect(made.node_dsn(alone), autocommit=True) as connection:
        assert connection.execute("SHOW in_hot_standby").fetchone() == ("on",)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO t VALUES (5)")
        with pytest.raises(psycopg.errors.CannotConnectNow, match="majority"):
            connection.execute("SELECT count(*) FROM t")
        connection.execute("SET shardforge.consistency_level = 'eventual'")
        assert connection.execute("SELECT max(a) FROM t").fetchone() == (3,)
    made.heal()
    insert(made.dsn, 5)
    assert values(made.node_dsn(alone))[-3:] == [3, 4, 5]


PLUGIN_TEST = """
import psycopg

pytest_plugins = ["shardforge.testing.plugin"]

def test_one(shardforge_db):
    with psycopg.connect(shardforge_db) as connection:
        connection.execute("CREATE TABLE t (a int)")

def test_another(shardforge_db, shardforge_cluster):
    assert len(shardforge_cluster.nodes) == 3
    with psycopg.connect(shardforge_db) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)
"""


def test_the_plugin_gives_a_fresh_database_to_each_test(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(PLUGIN_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
