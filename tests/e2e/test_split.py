"""Shards that outgrow `sharding.max_shard_size` split while clients write, also when nodes die in the midst of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import psycopg
import pytest

from shardforge.cli.cluster import ask_node
from shardforge.errors import DatabaseError
from tests.e2e.clusters import ClusterProcesses

pytestmark = pytest.mark.e2e

SETTINGS = {
    "SHARDFORGE_SECURITY_AUTHENTICATION": "trust",
    "SHARDFORGE_SHARDING_MAX_SHARD_SIZE": "4MB",
}
ROWS = 16_000
BATCH = 500
SHARDS_MIN = 3
SECONDS_MAX = 30.0
ATTEMPTS = 10


class Writer:
    """Inserts rows one by one, each once, by a client that tries again; `acknowledged` is what it was told."""

    def __init__(self, cluster: ClusterProcesses) -> None:
        self.acknowledged: list[int] = []
        self.slowest = 0.0
        self._cluster = cluster
        with cluster.connect() as connection:
            found = connection.execute("SELECT coalesce(max(id), 0) FROM trickle").fetchone()
        assert found is not None
        self._after = int(str(found[0]))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = self._after
        while not self._over.is_set():
            try:
                with self._cluster.connect() as connection:
                    while not self._over.is_set():
                        number += 1
                        began = time.monotonic()
                        connection.execute("INSERT INTO trickle VALUES (%s, 'x')", (number,))
                        self.slowest = max(self.slowest, time.monotonic() - began)
                        self.acknowledged.append(number)
            except psycopg.Error:
                time.sleep(0.05)

    def stop(self) -> None:
        """End, and wait for it."""
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    made = ClusterProcesses(tmp_path_factory.mktemp("split"), settings=SETTINGS)
    try:
        made.grow(3)
        make_tables(made)
        yield made
    finally:
        made.kill()


def make_tables(cluster: ClusterProcesses) -> None:
    """Begin again where the serving node changes meanwhile, as on a busy machine."""
    for left in reversed(range(ATTEMPTS)):
        try:
            with cluster.connect() as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS trickle (id int PRIMARY KEY, note text)"
                )
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS big (id int PRIMARY KEY, filler text)"
                )
                connection.execute(
                    "CREATE INDEX IF NOT EXISTS big_filler ON big (substr(filler, 1, 8))"
                )
        except psycopg.OperationalError:
            if not left:
                raise
        else:
            return


def _load(cluster: ClusterProcesses, first: int, last: int) -> None:
    """Insert rows, each batch whole or not at all, until every one is there."""
    start = first
    while start < last:
        try:
            with cluster.connect() as connection:
                while start < last:
                    rows = (
                        "SELECT g, (SELECT string_agg(md5((g * 100 + k)::text), '') FROM generate_series(1, 12) k)"
                        f" FROM generate_series({start}, {start + BATCH - 1}) g"
                    )
                    connection.execute(f"INSERT INTO big {rows} ON CONFLICT DO NOTHING")
                    start += BATCH
        except psycopg.Error:
            time.sleep(0.1)


def shards_of(cluster: ClusterProcesses) -> list[dict[str, Any]]:
    return [shard for shard in cluster.status()["shards"] if shard["id"]]


def _check(cluster: ClusterProcesses, writer: Writer | None = None, loaded: int = ROWS) -> None:
    with cluster.connect() as connection:
        found = connection.execute("SELECT count(*), count(DISTINCT id) FROM big").fetchone()
        assert found == (loaded, loaded)
        there = {row[0] for row in connection.execute("SELECT id FROM trickle")}
    assert there >= (set() if writer is None else set(writer.acknowledged))
    cluster.verify()


def test_shards_split_under_load_and_survive_kills(cluster: ClusterProcesses) -> None:
    writer = Writer(cluster)
    try:
        _load(cluster, 1, ROWS)
        end = time.monotonic() + SECONDS_MAX
        while len(shards_of(cluster)) < SHARDS_MIN and time.monotonic() < end:
            time.sleep(0.2)
    finally:
        writer.stop()
    assert len(shards_of(cluster)) >= SHARDS_MIN
    _check(cluster, writer, ROWS)


def _ask_for_split(cluster: ClusterProcesses, serving: int, shard: int) -> None:
    """What `shardforge shard split` does; the node that is asked may die before it answers."""
    node = cluster.nodes[serving]
    with suppress(DatabaseError):
        ask_node(f"{node.host}:{node.port}", "shard.split", msgspec.msgpack.encode((shard, b"")))


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.12])
def test_the_serving_node_dies_in_mid_split(cluster: ClusterProcesses, delay: float) -> None:
    before = max(shard["id"] for shard in shards_of(cluster))
    writer = Writer(cluster)
    try:
        serving = cluster.serving()
        largest = max(shards_of(cluster), key=lambda shard: shard["bytes"])["id"]
        asking = threading.Thread(target=_ask_for_split, args=(cluster, serving, largest))
        asking.start()
        time.sleep(delay)
        cluster.nodes[serving].kill()
        asking.join()
        time.sleep(1)
        cluster.nodes[serving].start()
        cluster.settle()
    finally:
        writer.stop()
    _check(cluster, writer)
    assert max(shard["id"] for shard in shards_of(cluster)) in (before, before + 1, before + 2)


def test_what_was_split_is_there_after_a_restart_of_everything(cluster: ClusterProcesses) -> None:
    before = sorted((shard["id"], shard["start"], shard["end"]) for shard in shards_of(cluster))
    cluster.kill()
    for node in cluster.nodes.values():
        node.start()
    cluster.settle()
    after = sorted((shard["id"], shard["start"], shard["end"]) for shard in shards_of(cluster))
    assert after == before
    _check(cluster)
