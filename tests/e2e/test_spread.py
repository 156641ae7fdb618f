"""Shards spread over nodes that join while clients work, also when a node dies; moves and scattering by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.spread_harness import Spread

pytestmark = pytest.mark.e2e

ROWS = 100_000
SECONDS_MAX = 180.0
"""What was split rests for a minute before it moves."""
LASTING_SECONDS = 4.0


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    folder = tmp_path_factory.mktemp("spread")
    made = Spread(folder, rows=ROWS, size="1MB", threshold=0.2, seconds=SECONDS_MAX)
    try:
        made.load(3)
        made.join(2)
        yield made
    finally:
        made.close()


def shard_command(grown: Spread, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `shardforge shard` says, asked of any node."""
    node = next(reversed(grown.cluster.nodes.values()))
    command = [
        sys.executable,
        "-m",
        "shardforge",
        "shard",
        *arguments,
        "--host",
        f"{node.host}:{node.port}",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def shard_of(grown: Spread, number: int) -> dict[str, Any]:
    [found] = [one for one in grown.cluster.status()["shards"] if one["id"] == number]
    return dict(found)


def test_shards_spread_over_nodes_that_join_although_one_dies_in_mid_move(grown: Spread) -> None:
    grown.kill()
    grown.spread(LASTING_SECONDS)
    shards = grown.cluster.status()["shards"]
    assert len(shards) > 8, "they were split"


def test_a_replica_is_moved_by_hand_while_clients_work(grown: Spread) -> None:
    status = grown.cluster.settle()
    shard = max((one for one in status["shards"] if one["id"]), key=lambda one: one["bytes"])
    nodes = {node["id"] for node in status["nodes"]}
    source, target = shard["leader"], min(nodes - set(shard["voters"]))
    move = ("move", "--shard", str(shard["id"]), "--from", str(source), "--to", str(target))
    done = shard_command(grown, *move)
    assert done.returncode == 0, done.stderr
    assert f"shard {shard['id']} is on node {target}" in done.stdout
    after = shard_of(grown, shard["id"])
    assert set(after["voters"]) == set(shard["voters"]) - {source} | {target}
    again = shard_command(grown, *move)
    assert again.returncode == 2
    assert f"node {source} has no vote in shard {shard['id']}" in again.stderr
    assert (
        "there is no shard 9999"
        in shard_command(grown, "move", "--shard", "9999", "--from", "1", "--to", "2").stderr
    )


def test_shards_are_scattered_by_hand_and_nothing_is_lost(grown: Spread) -> None:
    refused = shard_command(grown, "scatter", "--table", "none")
    assert refused.returncode == 2
    assert 'relation "public.none" does not exist' in refused.stderr
    done = shard_command(grown, "scatter", "--table", "big")
    assert done.returncode == 0, done.stderr
    assert "replicas move" in done.stdout
    done = shard_command(grown, "scatter")
    assert done.returncode == 0, done.stderr
    grown.spread(LASTING_SECONDS)
    grown.check()
