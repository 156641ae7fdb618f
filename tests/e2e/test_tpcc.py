"""TPC-C on three real nodes whose serving node is lost: no error but a lost connection, and the books balance."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from bench.tpcc.consistency import CONDITIONS, broken_conditions
from bench.tpcc.loading import load
from bench.tpcc.results import Results
from bench.tpcc.schema import Scale
from bench.tpcc.terminals import Load, run
from tests.e2e.clusters import ClusterProcesses
from tests.e2e.partitions import partitionable, read_only

pytestmark = pytest.mark.e2e

SCALE = Scale(warehouses=2, items=150, customers=12)
SETTINGS = {"SHARDFORGE_SHARDING_INITIAL_SHARD_COUNT": "3"}
SEED = 11
TERMINALS = 6
BEFORE_SECONDS = 2.5
LOAD_SECONDS = 9.0
CONNECT_SECONDS_MAX = 2.0
ANSWER_SECONDS_MAX = 20.0
"""A statement that takes as long hangs: that is an error, as a terminal sees it."""
AGAIN_SECONDS = 0.1

Connect = Callable[[], Awaitable[Any]]


@pytest.mark.parametrize("isolation", ["read_committed", "serializable"])
def test_killing_the_serving_node_leaves_all_twelve_conditions(
    tmp_path: Path, isolation: str
) -> None:
    cluster = ClusterProcesses(tmp_path, settings=SETTINGS)

    def kill() -> None:
        serving = cluster.nodes[cluster.serving()]
        serving.kill()
        serving.start()

    _check(cluster, kill, isolation)


def test_cutting_the_serving_node_off_leaves_all_twelve_conditions(tmp_path: Path) -> None:
    with partitionable() as network:
        cluster = ClusterProcesses(
            tmp_path, network=network, settings=SETTINGS | {"SHARDFORGE_SECURITY_AUTHENTICATION": "trust"}
        )  # fmt: skip

        def cut() -> None:
            serving = cluster.serving()
            network.cut_off(serving, set(cluster.nodes) - {serving})
            read_only(cluster.nodes[serving]).close()
            network.heal()

        _check(cluster, cut, "read_committed")


def _check(cluster: ClusterProcesses, disturb: Callable[[], None], isolation: str) -> None:
    try:
        cluster.grow(3)
        results, broken = asyncio.run(_survive(_connector(cluster), disturb, isolation))
        assert not results.errors, results.lines()
        assert results.lost_connections, "it was felt"
        assert results.transactions > 50, results.lines()
        assert not broken, broken
        cluster.settle()
        cluster.verify()
    finally:
        cluster.kill()


def _connector(cluster: ClusterProcesses) -> Connect:
    hosts = [node.host for node in cluster.nodes.values()]
    ports = [node.port for node in cluster.nodes.values()]

    async def connect() -> Any:
        return await asyncpg.connect(
            host=hosts, port=ports, user="shardforge", database="shardforge", timeout=CONNECT_SECONDS_MAX,
            command_timeout=ANSWER_SECONDS_MAX, target_session_attrs="read-write",
        )  # fmt: skip

    return connect


async def _survive(
    connect: Connect, disturb: Callable[[], None], isolation: str
) -> tuple[Results, dict[int, str]]:
    connection = await connect()
    constant = await load(connection, SCALE, Random(SEED), foreign_keys=True)
    assert not await broken_conditions(connection, SCALE), "as loaded"
    await connection.close()
    how = Load(LOAD_SECONDS, TERMINALS, isolation=isolation, seed=SEED, survives=True)
    running = asyncio.create_task(run(connect, SCALE, how, constant))
    await asyncio.sleep(BEFORE_SECONDS)
    await asyncio.to_thread(disturb)
    results = await running
    return results, await _judge(connect)


async def _judge(connect: Connect) -> dict[int, str]:
    """The conditions that do not hold; a node that comes back may take the lead once more meanwhile."""
    while True:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
            connection = await connect()
            try:
                return await broken_conditions(connection, SCALE)
            finally:
                connection.terminate()
        await asyncio.sleep(AGAIN_SECONDS)


def test_there_are_twelve_conditions() -> None:
    assert list(CONDITIONS) == list(range(1, 13))
