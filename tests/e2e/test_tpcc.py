"""TPC-C on three real nodes whose serving node is killed: no error but a lost connection, and the books balance."""

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
from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

SCALE = Scale(warehouses=2, items=150, customers=12)
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
    cluster = ClusterProcesses(tmp_path, settings={"SHARDFORGE_SHARDING_INITIAL_SHARD_COUNT": "3"})
    try:
        cluster.grow(3)
        serving = cluster.nodes[cluster.serving()]
        results, broken = asyncio.run(_survive(_connector(cluster), serving, isolation))
        assert not results.errors, results.lines()
        assert results.lost_connections, "the kill was felt"
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
    connect: Connect, serving: ServerProcess, isolation: str
) -> tuple[Results, dict[int, str]]:
    connection = await connect()
    constant = await load(connection, SCALE, Random(SEED), foreign_keys=True)
    assert not await broken_conditions(connection, SCALE), "as loaded"
    await connection.close()
    how = Load(LOAD_SECONDS, TERMINALS, isolation=isolation, seed=SEED, survives=True)
    running = asyncio.create_task(run(connect, SCALE, how, constant))
    await asyncio.sleep(BEFORE_SECONDS)
    await asyncio.to_thread(serving.kill)
    await asyncio.to_thread(serving.start)
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
