"""Shards that became small are merged while a client writes, also when nodes die in the midst of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardforge.cli.cluster import ask_node
from shardforge.errors import DatabaseError
from tests.e2e.clusters import ClusterProcesses
from tests.e2e.test_split import Writer, make_tables, shards_of

pytestmark = pytest.mark.e2e

SETTINGS = {
    "SHARDFORGE_SECURITY_AUTHENTICATION": "trust",
    "SHARDFORGE_SHARDING_MAX_SHARD_SIZE": "10MB",
    "SHARDFORGE_SHARDING_MERGE_AFTER_SEC": "2",
    "SHARDFORGE_STORAGE_GC_RETENTION_SEC": "1",
}

SECONDS_MAX = 60.0
SHARDS = ["shard_000", "shard_001"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    made = ClusterProcesses(tmp_path_factory.mktemp("merge"), settings=SETTINGS)
    try:
        made.grow(3)
        make_tables(made)
        yield made
    finally:
        made.kill()


def _load(cluster: ClusterProcesses) -> None:
    with cluster.connect() as connection:
        for start in range(1, 30_000, 500):
            connection.execute(
                "INSERT INTO big SELECT g, (SELECT string_agg(md5((g * 100 + k)::text), '')"
                f" FROM generate_series(1, 12) k) FROM generate_series({start}, {start + 499}) g"
                " ON CONFLICT DO NOTHING"
            )


def _until(cluster: ClusterProcesses, count: int, *, more: bool) -> None:
    end = time.monotonic() + SECONDS_MAX
    while (found := len(shards_of(cluster))) != count and not (more and found > count):
        assert time.monotonic() < end, shards_of(cluster)
        time.sleep(0.2)


def _check(cluster: ClusterProcesses, writer: Writer) -> None:
    with cluster.connect() as connection:
        there = {row[0] for row in connection.execute("SELECT id FROM trickle")}
    assert there >= set(writer.acknowledged)
    cluster.verify()


def test_a_truncated_table_leaves_one_shard(cluster: ClusterProcesses) -> None:
    writer = Writer(cluster)
    try:
        _load(cluster)
        _until(cluster, 2, more=True)
        with cluster.connect() as connection:
            connection.execute("TRUNCATE big")
        _until(cluster, 1, more=False)
    finally:
        writer.stop()
    assert writer.slowest < 5
    _check(cluster, writer)


def _ask(cluster: ClusterProcesses, serving: int, method: str, body: object) -> Any:
    """What `shardforge shard split` and `merge` do; the node that is asked may die before it answers."""
    node = cluster.nodes[serving]
    with suppress(DatabaseError):
        return msgspec.msgpack.decode(
            ask_node(f"{node.host}:{node.port}", method, msgspec.msgpack.encode(body))
        )
    return None


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_the_serving_node_dies_in_mid_merge(cluster: ClusterProcesses, delay: float) -> None:
    """The two shards are one afterwards, or two, and can be merged; what was acknowledged is there."""
    writer = Writer(cluster)
    try:
        serving, (first, *_) = cluster.serving(), shards_of(cluster)
        made = _ask(cluster, serving, "shard.split", (first["id"], bytes.fromhex("680020")))
        assert made, "one shard was left"
        asking = threading.Thread(target=_ask, args=(cluster, serving, "shard.merge", first["id"]))
        asking.start()
        time.sleep(delay)
        cluster.nodes[serving].kill()
        asking.join()
        time.sleep(1)
        cluster.nodes[serving].start()
        cluster.settle()
        _merge_by_hand(cluster, first["id"])
    finally:
        writer.stop()
    _check(cluster, writer)


def _merge_by_hand(cluster: ClusterProcesses, first: int) -> None:
    """What was split by hand is not merged by itself."""
    end = time.monotonic() + SECONDS_MAX
    while len(shards_of(cluster)) != 1:
        assert time.monotonic() < end, shards_of(cluster)
        _ask(cluster, cluster.serving(), "shard.merge", first)
        time.sleep(0.2)


def test_what_was_merged_is_one_after_a_restart_of_everything(cluster: ClusterProcesses) -> None:
    cluster.kill()
    for node in cluster.nodes.values():
        node.start()
    cluster.settle()
    assert [(shard["start"], shard["end"]) for shard in shards_of(cluster)] == [("", "73")]
    end = time.monotonic() + SECONDS_MAX
    while (found := [_folders(node.data) for node in cluster.nodes.values()]) != [SHARDS] * 3:
        assert time.monotonic() < end, found
        time.sleep(0.1)


def _folders(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "shards").iterdir())
