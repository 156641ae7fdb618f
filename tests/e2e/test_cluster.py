"""A cluster of real processes: it grows, serves on every node, survives its serving node, and shrinks."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.e2e import failover_harness
from tests.e2e.clusters import ClusterProcesses

pytestmark = pytest.mark.e2e


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    made = ClusterProcesses(tmp_path)
    yield made
    made.kill()


def run(*arguments: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "shardforge", *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout


def test_any_node_takes_any_statement(cluster: ClusterProcesses) -> None:
    cluster.grow(3)
    for number, node in cluster.nodes.items():
        with node.connect() as connection:
            connection.execute(f"CREATE TABLE t{number} (a int PRIMARY KEY)")
            connection.execute(f"INSERT INTO t{number} VALUES ({number})")
    for node in cluster.nodes.values():
        with node.connect() as connection:
            rows = connection.execute(
                "SELECT a FROM t1 UNION SELECT a FROM t2 UNION SELECT a FROM t3"
            )
            assert sorted(rows) == [(1,), (2,), (3,)]
    status = cluster.status()
    assert [node["alive"] for node in status["nodes"]] == [True, True, True]
    assert all(shard["voters"] == [1, 2, 3] for shard in status["shards"])
    port = cluster.nodes[3].port
    assert "node 1 serves" in run("cluster", "events", "--host", f"127.0.0.1:{port}")


def test_kills_of_the_serving_node_lose_nothing_acknowledged(tmp_path: Path) -> None:
    pauses = failover_harness.run(tmp_path, kills=3, writers=3, nodes=3)
    assert len(pauses) == 3


def test_a_cluster_grows_and_shrinks_under_load(cluster: ClusterProcesses) -> None:
    cluster.grow(1)
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
        connection.execute("INSERT INTO t SELECT generate_series(1, 1000)")
    cluster.grow(4)
    leaving = cluster.serving()
    asked = cluster.nodes[leaving % 4 + 1]
    said = run("cluster", "leave", "--node", str(leaving), "--host", f"127.0.0.1:{asked.port}")
    assert f"node {leaving} has left" in said
    cluster.nodes[leaving].kill()
    status = cluster.settle()
    assert leaving not in [node["id"] for node in status["nodes"]]
    assert all(len(shard["voters"]) == 3 for shard in status["shards"])
    with asked.connect() as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        connection.execute("INSERT INTO t VALUES (1001)")


def test_a_rolling_restart_costs_no_more_than_a_reconnect(cluster: ClusterProcesses) -> None:
    cluster.grow(3)
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
    written = 0
    for node in list(cluster.nodes.values()):
        assert node.stop(signal.SIGTERM) == 0
        deadline = time.monotonic() + 20
        while True:
            try:
                with cluster.connect() as connection:
                    connection.execute("INSERT INTO t VALUES (%s)", (written,))
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "writes did not go on"
        written += 1
        node.start()
        cluster.settle()
    with cluster.connect() as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (written,)


def test_a_stranger_is_refused(cluster: ClusterProcesses, tmp_path: Path) -> None:
    cluster.grow(1)
    port = cluster.nodes[1].port
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run("cluster", "leave", "--node", "7", "--host", f"127.0.0.1:{port}")
    assert "there is no node 7" in refused.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as last:
        run("cluster", "leave", "--node", "1", "--host", f"127.0.0.1:{port}")
    assert "is the last one" in last.value.stderr
