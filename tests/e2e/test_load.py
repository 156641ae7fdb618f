"""A shard that another node leads is split when it is asked much, and only such a one: real nodes, real clients."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.e2e.clusters import ClusterProcesses

pytestmark = pytest.mark.e2e

ROWS = 20_000
CHANGED = 2_000
"""By each statement."""
SECONDS_MAX = 120.0
SETTINGS = {
    "SHARDFORGE_SECURITY_AUTHENTICATION": "trust",
    "SHARDFORGE_SHARDING_INITIAL_SHARD_COUNT": "2",
    "SHARDFORGE_SHARDING_MAX_SHARD_LOAD": "100",
    "SHARDFORGE_SHARDING_REBALANCE_THRESHOLD": "1.0",
}


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    made = ClusterProcesses(tmp_path_factory.mktemp("load"), settings=SETTINGS)
    try:
        made.grow(4)
        yield made
    finally:
        made.kill()


def moved(cluster: ClusterProcesses, status: dict[str, Any]) -> int:
    """The shard that is moved off the serving node, so that another leads it."""
    serving = status["serving_node"]
    shard = next(one for one in status["shards"] if one["id"] and serving in one["voters"])
    [spare] = {node["id"] for node in status["nodes"]} - set(shard["voters"])
    node = next(iter(cluster.nodes.values()))
    arguments = ("--shard", shard["id"], "--from", serving, "--to", spare)
    command = [sys.executable, "-m", "shardforge", "shard", "move", *map(str, arguments)]
    subprocess.run([*command, "--host", f"{node.host}:{node.port}"], check=True, timeout=60)
    return int(shard["id"])


def loads_split(status: dict[str, Any]) -> list[str]:
    return [one["event"] for one in status["events"] if "for its load" in one["event"]]


def test_a_shard_that_is_asked_much_elsewhere_is_split(cluster: ClusterProcesses) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE big (id int PRIMARY KEY, amount int)")
        rows = f"SELECT g, 0 FROM generate_series(1, {ROWS}) g"
        connection.execute(f"INSERT INTO big {rows}")
    busy = moved(cluster, cluster.settle())
    numbers, end = random.Random(1), time.monotonic() + SECONDS_MAX
    acknowledged = tried = 0
    while not (split := loads_split(cluster.status())):
        assert time.monotonic() < end, cluster.status()["shards"]
        chosen = numbers.sample(range(1, ROWS + 1), CHANGED)
        tried += CHANGED
        try:
            with cluster.connect() as connection:
                connection.execute(
                    "UPDATE big SET amount = amount + 1 WHERE id = ANY(%s)", (chosen,)
                )
        except psycopg.OperationalError:  # the outcome is unknown
            continue
        acknowledged += CHANGED
    assert split[0].startswith(f"shard {busy} is split for its load, "), split
    cluster.settle()
    cluster.until(lambda status: len(status["shards"]) == 4)
    with cluster.connect() as connection:
        count, total = connection.execute("SELECT count(*), sum(amount) FROM big").fetchone() or ()
    assert count == ROWS
    assert acknowledged <= total <= tried
    cluster.verify()
