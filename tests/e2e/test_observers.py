"""Three voters and an observer as real processes: it holds everything, serves nobody by itself, and is not missed."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.clusters import ClusterProcesses
from tests.e2e.servers import ServerProcess, free_port

pytestmark = pytest.mark.e2e

OBSERVER = 4


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    made = ClusterProcesses(tmp_path)
    yield made
    made.kill()


def figures(port: int) -> dict[str, float]:
    """What a node's metrics port tells."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def learns_everything(status: dict[str, Any]) -> bool:
    return all(
        shard["voters"] == [1, 2, 3] and shard["learners"] == [OBSERVER] and not shard["lag"][str(OBSERVER)]
        for shard in status["shards"]
    )  # fmt: skip


def known(status: dict[str, Any], number: int) -> dict[str, Any]:
    found: dict[str, Any] = next(node for node in status["nodes"] if node["id"] == number)
    return found


def terms(status: dict[str, Any]) -> dict[int, int]:
    return {shard["id"]: shard["term"] for shard in status["shards"]}


def shown(cluster: ClusterProcesses, part: str) -> str:
    command = [
        sys.executable,
        "-m",
        "shardforge",
        "cluster",
        part,
        "--host",
        cluster.nodes[OBSERVER].advertised,
    ]
    return subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout


def test_an_observer_holds_everything_and_is_not_missed(cluster: ClusterProcesses) -> None:
    cluster.grow(3)
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        connection.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 5000) i")
    port = free_port()
    observer = cluster.add("--observer", "--metrics-port", str(port))
    status = cluster.until(learns_everything)
    assert [node["observer"] for node in status["nodes"]] == [False, False, False, True]
    assert not status["under_replicated_shards"]
    assert "never" in shown(cluster, "nodes")
    assert str(OBSERVER) in shown(cluster, "shards")

    with observer.connect() as connection:  # passed on
        connection.execute("UPDATE t SET v = v + 1")
        assert connection.execute("SELECT sum(v) FROM t").fetchone() == (12507500,)
    verified = cluster.verify()
    assert all(
        {r["node"] for r in shard["replicas"]} == {1, 2, 3, OBSERVER}
        for shard in verified["shards"]
    )

    told = figures(port)
    assert told["shardforge_read_only"] == told["shardforge_unavailable_shards"] == 0
    assert told["shardforge_under_replicated_shards"] == 0
    assert told["shardforge_elections_started_total"] == told["shardforge_elections_won_total"] == 0
    assert told["shardforge_snapshots_received_total"] == len(status["shards"])
    assert told["shardforge_snapshot_bytes_received_total"] > 0
    assert told["shardforge_peer_frames_received_total"] > 0
    for shard in status["shards"]:
        assert told[f'shardforge_shard_leader{{shard="{shard["id"]}"}}'] == shard["leader"]

    before = terms(cluster.status())
    observer.kill()
    with cluster.connect() as connection:
        connection.execute("UPDATE t SET v = v + 1")
    lost = cluster.until(lambda status: not known(status, OBSERVER)["alive"])
    assert not lost["under_replicated_shards"]
    assert not lost["unavailable_shards"]
    assert terms(lost) == before

    observer.arguments = ("--metrics-port", str(port))  # its record says what it is
    observer.start()
    back = cluster.until(lambda s: known(s, OBSERVER)["alive"] and learns_everything(s))
    assert known(back, OBSERVER)["observer"]
    cluster.verify()


def test_voters_decide_alone(cluster: ClusterProcesses) -> None:
    cluster.grow(3)
    port = free_port()
    observer = cluster.add("--observer", "--metrics-port", str(port))
    cluster.until(learns_everything)
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES (1)")
    cluster.until(learns_everything)
    serving = cluster.serving()
    gone = [cluster.nodes[n] for n in (1, 2, 3) if n != serving]
    for node in gone:
        node.kill()
    cluster.until(lambda status: status["read_only"])
    # It passes clients on to the node that served for as long as it believes in it, and then reads by itself.
    cluster.until(lambda _: figures(port)["shardforge_read_only"])
    assert read_of_the_past(observer) == [(1,)]
    gone[0].arguments = ("--observer",)  # too late
    for node in gone:
        node.start()
    cluster.settle()
    cluster.until(learns_everything)
    assert "did not join as an observer" in (gone[0].data / "logs/system.log").read_text()
    assert figures(port)["shardforge_elections_started_total"] == 0
    left = cluster.leave(OBSERVER)
    assert left.ended() == 0
    status = cluster.until(lambda status: all(not shard["learners"] for shard in status["shards"]))
    assert [node["id"] for node in status["nodes"]] == [1, 2, 3]


def read_of_the_past(node: ServerProcess) -> list[tuple[object, ...]]:
    """What the node reads while nobody serves, as soon as it has given up waiting for somebody who does."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with node.connect() as connection:
                connection.execute("SET shardforge.consistency_level = 'eventual'")
                return connection.execute("SELECT id FROM t").fetchall()
        except psycopg.Error:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_an_observer_founds_no_cluster(fresh: ServerProcess) -> None:
    command = [
        sys.executable,
        "-m",
        "shardforge",
        "start",
        "--data-dir",
        str(fresh.data),
        "--observer",
    ]
    refused = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)
    assert refused.returncode == 2
    assert "an observer cannot be the first node" in refused.stderr
    assert not fresh.data.exists()
