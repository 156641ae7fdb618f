"""Real processes whose network is cut: the minority reads the past only, the rest goes on, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardforge.cli.cluster import ask_status
from tests.e2e.clusters import ClusterProcesses
from tests.e2e.load import load
from tests.e2e.partitions import PATIENCE_SECONDS, Network, partitionable, read_only
from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e


@pytest.fixture
def network() -> Iterator[Network]:
    with partitionable() as made:
        yield made


@pytest.fixture
def cluster(tmp_path: Path, network: Network) -> Iterator[ClusterProcesses]:
    trust = {"SHARDFORGE_SECURITY_AUTHENTICATION": "trust"}
    made = ClusterProcesses(tmp_path, network=network, settings=trust)
    yield made
    made.kill()


def refused(connection: psycopg.Connection[tuple[object, ...]], sql: str) -> str | None:
    """The SQLSTATE that a statement is refused with, at once."""
    began = time.monotonic()
    with pytest.raises(psycopg.Error) as error:
        connection.execute(sql)
    assert time.monotonic() - began < PATIENCE_SECONDS / 3, "it does not hang"
    return error.value.sqlstate


def check_minority(server: ServerProcess, table: str) -> None:
    """It answers, with the past, and says so everywhere."""
    with read_only(server) as past:
        assert ask_status(f"{server.host}:{server.port}")["read_only"]
        assert refused(past, f"INSERT INTO {table} VALUES (-1, -1)") == "25006"
        assert refused(past, "CREATE TABLE never (a int)") == "25006"
        assert refused(past, f"SELECT count(*) FROM {table}") == "57P03"
        past.execute("SET shardforge.consistency_level = 'eventual'")
        past.execute(f"SELECT count(*) FROM {table}")


def test_a_minority_reads_only_and_comes_back_by_itself(
    cluster: ClusterProcesses, network: Network
) -> None:
    cluster.grow(3)
    with load(cluster, movers=1, appenders=2) as clients:
        for led in (True, False):  # the serving node is cut off, and then another
            clients.go_on()
            serving = cluster.serving()
            cut = serving if led else serving % 3 + 1
            time.sleep(
                1
            )  # the past that is read is a second old at the most: let there be rows in it
            network.cut_off(cut, {1, 2, 3} - {cut})
            clients.go_on()
            check_minority(cluster.nodes[cut], "kept")
            clients.go_on()
            network.heal()
            cluster.until(
                lambda found: (
                    found["serving_node"]
                    and not found["under_replicated_shards"]
                    and all(node["alive"] for node in found["nodes"])
                )
            )
            deadline = time.monotonic() + PATIENCE_SECONDS
            healed = cluster.nodes[cut]
            while ask_status(f"{healed.host}:{healed.port}")["read_only"]:
                assert time.monotonic() < deadline, "the node does not come back"
            with healed.connect() as connection:
                assert connection.info.parameter_status("in_hot_standby") == "off"
                connection.execute(f"CREATE TABLE healed_{led} (a int)")
        clients.check()
    cluster.verify()
