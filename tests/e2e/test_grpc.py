"""The gRPC API as its users meet it: real nodes, the Python client, any node, failovers, restarts."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shardforge.client import Client, connect
from shardforge.errors import DatabaseError, Reaction
from shardforge.testing import Cluster, cluster
from tests.e2e.clusters import ClusterProcesses
from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

SETTLE_SECONDS_MAX = 30.0


def address(server: ServerProcess) -> str:
    return f"{server.host}:{server.port}"


def health(target: str) -> int:
    """What a load balancer is told."""
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status)


def until(holds: Callable[[], object]) -> None:
    """Return once a condition holds, which may fail meanwhile."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"


def again(work: Callable[[], Any]) -> Any:
    """What `work` gives, tried again as errors allow."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while True:
        try:
            return work()
        except DatabaseError as error:
            if error.reaction is Reaction.FIX_STATEMENT or time.monotonic() > deadline:
                raise


SCRIPT = """
import sys
import shardforge.client

with shardforge.client.connect(sys.argv[1]) as database:
    database.execute("CREATE TABLE note (id int PRIMARY KEY, body text)")
    database.execute("INSERT INTO note VALUES ($1, $2)", [1, "hello"])
    print(database.execute("SELECT * FROM note").rows)
"""


def test_as_a_user_does_and_again_after_a_restart(fresh: ServerProcess) -> None:
    fresh.start()
    command = [sys.executable, "-c", SCRIPT, address(fresh)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"[(1, 'hello')]\n"
    with connect(address(fresh)) as client:
        for end in (fresh.stop, fresh.kill):
            assert client.execute("SELECT body FROM note").rows == [("hello",)]
            end()
            with pytest.raises(DatabaseError) as caught:
                client.execute("SELECT 1")
            assert caught.value.sqlstate in ("08001", "08007")
            fresh.start()
            again(lambda: client.execute("SELECT 1"))
    assert fresh.stop() == 0
    assert "Traceback" not in (fresh.folder / "stderr").read_text()


def test_idle_memory_is_not_spent_on_grpc(fresh: ServerProcess) -> None:
    fresh.start()
    assert fresh.process is not None
    maps = Path(f"/proc/{fresh.process.pid}/maps")
    assert "cygrpc" not in maps.read_text()
    with connect(address(fresh)) as client:
        client.execute("SELECT 1")
    assert "cygrpc" in maps.read_text()


def test_many_clients_at_once(server: ServerProcess) -> None:
    with connect(address(server)) as client:
        client.execute("CREATE TABLE IF NOT EXISTS grpc_counter (id int PRIMARY KEY, n int)")
        client.execute("INSERT INTO grpc_counter VALUES (1, 0)")
        failures: list[Exception] = []

        def add() -> None:
            try:
                for _ in range(25):
                    client.transaction(
                        ["UPDATE grpc_counter SET n = n + 1"], isolation="serializable", retries=100
                    )
            except DatabaseError as error:
                failures.append(error)

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert client.execute("SELECT n FROM grpc_counter").rows == [(200,)]


# ---- several nodes -----------------------------------------------------------------------------------


@pytest.fixture
def three() -> Iterator[tuple[Cluster, dict[int, Client]]]:
    with cluster(nodes=3) as running:
        clients = {n: connect(running.node_address(n)) for n in running.nodes}
        yield running, clients
        for client in clients.values():
            client.close()


def test_any_node_takes_any_call(three: tuple[Cluster, dict[int, Client]]) -> None:
    running, clients = three
    serving = running.serving
    others = [n for n in running.nodes if n != serving]
    clients[others[0]].execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    done = clients[others[1]].transaction([("INSERT INTO t VALUES ($1, $2)", [1, "x"]), "TABLE t"])
    assert done.results[1].rows == [(1, "x")]
    large = clients[others[0]].execute("SELECT repeat('x', 100000) FROM generate_series(1, 200)")
    assert sum(len(row[0]) for row in large.rows) == 20_000_000
    for node, client in clients.items():
        assert client.execute("SELECT * FROM t").rows == [(1, "x")]
        assert client.status()["serving_node"] == serving
        assert "shardforge_build_info" in client.metrics()
        with pytest.raises(DatabaseError) as caught:
            client.execute("INSERT INTO t VALUES (1, 'again')")
        assert (caught.value.sqlstate, caught.value.constraint) == ("23505", "t_pkey")
        assert health(running.node_address(node)) == health_pb2.HealthCheckResponse.SERVING


def test_a_call_given_up_far_away_is_rolled_back(three: tuple[Cluster, dict[int, Client]]) -> None:
    running, clients = three
    serving = running.serving
    client = clients[next(n for n in running.nodes if n != serving)]
    client.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    client.execute("INSERT INTO t VALUES (1, 0)")
    with psycopg.connect(running.node_dsn(serving)) as connection:
        connection.execute("UPDATE t SET n = 1")
        with pytest.raises(DatabaseError) as caught:
            client.execute("UPDATE t SET n = 2", timeout=0.3)
        assert caught.value.sqlstate == "08007"
        sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'UPDATE t SET n = 2'"
        until(lambda: connection.execute(sql).fetchall() == [(0,)])
    assert client.execute("SELECT n FROM t").rows == [(1,)]


def test_clients_outlive_their_serving_node(three: tuple[Cluster, dict[int, Client]]) -> None:
    running, clients = three
    clients[1].execute("CREATE TABLE t (id int PRIMARY KEY)")
    everywhere = connect(",".join(running.node_address(n) for n in running.nodes))
    for round_, end in enumerate((running.kill, running.stop)):
        serving = running.serving
        for node, client in clients.items():
            again(
                lambda n=node, c=client, r=round_: c.execute(
                    "INSERT INTO t VALUES ($1)", [10 * r + n]
                )
            )  # type: ignore[misc]
        end(serving)
        assert again(lambda: everywhere.execute("SELECT 1")).rows == [(1,)]
        survivor = clients[running.nodes[0]]
        assert again(lambda c=survivor: c.execute("SELECT count(*) FROM t")).rows == [  # type: ignore[misc]
            (3 * (round_ + 1),)
        ]
        running.restart(serving)
    everywhere.close()


def test_a_minority_says_so(three: tuple[Cluster, dict[int, Client]]) -> None:
    running, clients = three
    clients[1].execute("CREATE TABLE t (id int PRIMARY KEY)")
    left = running.serving
    for node in list(running.nodes):
        if node != left:
            running.kill(node)
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    until(lambda: health(running.node_address(left)) == not_serving)
    client = clients[left]

    def refused(sql: str) -> str:
        with pytest.raises(DatabaseError) as caught:
            client.execute(sql)
        return caught.value.sqlstate

    until(lambda: refused("INSERT INTO t VALUES (1)") == "25006")
    assert refused("SELECT * FROM t") == "57P03"
    eventual = {"shardforge.consistency_level": "eventual"}
    assert client.execute("SELECT count(*) FROM t", settings=eventual).rows == [(0,)]
    assert client.status()["read_only"]


def test_real_nodes_and_one_that_leaves(tmp_path: Path) -> None:
    made = ClusterProcesses(tmp_path)
    try:
        made.grow(3)
        serving = made.serving()
        number = next(n for n in made.nodes if n != serving)
        with connect(address(made.nodes[number])) as client:
            client.execute("CREATE TABLE t (id int PRIMARY KEY)")
            assert client.execute("INSERT INTO t VALUES (1)").tag == "INSERT 0 1"
            with pytest.raises(DatabaseError, match="there is no node 9"):
                client.leave(9)
            made.leave(serving).ended()
            assert again(lambda: client.execute("SELECT * FROM t")).rows == [(1,)]
    finally:
        made.kill()
