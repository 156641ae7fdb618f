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
from tests.e2e.load import RETRIABLE, load
from tests.e2e.servers import free_port

pytestmark = pytest.mark.e2e

ATTEMPTS = 3
SPIN_SECONDS = 0.5
STARVED_SHARE = 0.8


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


def test_a_large_statement_costs_no_election(cluster: ClusterProcesses) -> None:
    """A machine that has no time for its nodes may cost one by itself, though not each time."""
    cluster.grow(3)
    for attempt in range(ATTEMPTS):
        before = terms(cluster)
        try:
            change_many_rows(cluster, f"t{attempt}")
        except psycopg.OperationalError as error:
            if error.sqlstate is not None and error.sqlstate not in RETRIABLE:
                raise
        if terms(cluster) == before:
            return
        if starved():
            pytest.skip("others use this machine: its nodes get no time when they need it")
    pytest.fail(f"an election in each of {ATTEMPTS} attempts")


def starved() -> bool:
    """Whether a process that only computes gets much less than a core, while the cluster is at rest."""
    wall, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < SPIN_SECONDS:
        pass
    return time.process_time() - used < STARVED_SHARE * SPIN_SECONDS


def terms(cluster: ClusterProcesses) -> dict[int, int]:
    return {shard["id"]: shard["term"] for shard in cluster.settle()["shards"]}


def change_many_rows(cluster: ClusterProcesses, table: str) -> None:
    with cluster.connect() as connection:
        connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)".encode())
        for statement in (
            f"INSERT INTO {table} SELECT i, i FROM generate_series(1, 60000) i",
            f"UPDATE {table} SET v = v + 1",
            f"DELETE FROM {table}",
            f"INSERT INTO {table} SELECT i, i FROM generate_series(1, 60000) i",
        ):
            connection.execute(statement.encode())
        found = connection.execute(f"SELECT count(*), sum(v) FROM {table}".encode()).fetchone()
        assert found == (60000, 1800030000)


def test_kills_of_the_serving_node_lose_nothing_acknowledged(tmp_path: Path) -> None:
    pauses = failover_harness.run(tmp_path, kills=3, writers=3, nodes=3)
    assert len(pauses) == 3


def test_a_cluster_grows_to_five_and_shrinks_to_one_under_load(cluster: ClusterProcesses) -> None:
    cluster.settings["SHARDFORGE_REPLICATION_FACTOR"] = "5"
    cluster.grow(1)
    with load(cluster) as clients:
        for count in (3, 5):
            cluster.grow(count)
            clients.knows(cluster.dsn)
            clients.go_on()
        status = cluster.status()
        assert all(shard["voters"] == [1, 2, 3, 4, 5] for shard in status["shards"])
        cluster.verify()  # under load
        for count in (4, 3, 2, 1):
            cluster.leave(cluster.serving() if count % 2 else max(cluster.nodes))
            clients.knows(cluster.dsn)
            clients.go_on()
            assert len(cluster.settle()["nodes"]) == count
            if count == 3:
                cluster.verify()
        clients.check()
    assert [node.ended() for node in cluster.left] == [0, 0, 0, 0]


def test_a_rolling_restart_costs_no_more_than_a_reconnect(cluster: ClusterProcesses) -> None:
    cluster.grow(3)
    with load(cluster) as clients:
        for node in list(cluster.nodes.values()):
            clients.go_on()
            assert node.stop(signal.SIGTERM) == 0
            clients.go_on()
            node.start()
            cluster.settle()
        clients.check()
    cluster.verify()


def test_all_nodes_killed_come_back_and_one_at_another_port(cluster: ClusterProcesses) -> None:
    cluster.grow(3)
    before = cluster.status()
    with load(cluster) as clients:
        clients.go_on()
        cluster.kill()
        moved = cluster.nodes[2]
        moved.port = free_port()
        clients.knows(cluster.dsn)
        for node in cluster.nodes.values():
            node.start()
        clients.go_on()
        address = f"127.0.0.1:{moved.port}"
        status = cluster.until(
            lambda found: (
                any((node["id"], node["address"]) == (2, address) for node in found["nodes"])
                and all(node["alive"] for node in found["nodes"])
                and not found["under_replicated_shards"]
            )
        )
        clients.check()
    assert status["cluster_id"] == before["cluster_id"]
    assert [node["id"] for node in status["nodes"]] == [1, 2, 3]
    cluster.verify()


def test_a_node_that_was_given_up_stops_when_it_comes_back(cluster: ClusterProcesses) -> None:
    cluster.grow(3)
    lost = cluster.serving() % 3 + 1
    cluster.nodes[lost].kill()
    other = next(node for node in cluster.nodes.values() if node.process is not None)
    cluster.until(lambda found: max(node["silent_seconds"] for node in found["nodes"]) > 2.5)
    run("cluster", "decommission", "--node", str(lost), "--host", f"127.0.0.1:{other.port}")
    back = cluster.nodes.pop(lost)
    back.start()
    assert back.ended() == 0


def test_a_stranger_is_refused(cluster: ClusterProcesses, tmp_path: Path) -> None:
    cluster.grow(1)
    port = cluster.nodes[1].port
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run("cluster", "leave", "--node", "7", "--host", f"127.0.0.1:{port}")
    assert "there is no node 7" in refused.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as last:
        run("cluster", "leave", "--node", "1", "--host", f"127.0.0.1:{port}")
    assert "is the last one" in last.value.stderr
