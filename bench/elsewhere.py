"""A scan of a shard that another node leads, with a condition that is evaluated there and with one that is not.

    python -m bench.elsewhere [--rows 100000] [--rounds 5]

Four nodes with defaults; the shard with the rows is moved off the serving node. Two conditions that one row in a
thousand passes: a comparison, which the shard's node evaluates, and a cast to text, for which all rows are sent.
Printed are the median time of a count, and the processor time that it takes of the serving node and of the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import psycopg

from bench.clusters import await_holds, status_of
from bench.report import Report
from bench.servers import Running, start_shardforge

NODES = 4
SHARD = 1
CONDITIONS = {"all rows are sent": "a::text = '5'", "those that pass": "a = 5"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    nodes = [start_shardforge()]
    try:
        _load(nodes[0], options.rows)
        for _ in range(NODES - 1):
            nodes.append(start_shardforge(joins=[f"127.0.0.1:{nodes[0].port}"]))
        await_holds("every shard on three nodes", lambda: _whole(status_of(nodes[0])))
        _move(nodes)
        _compare(nodes, options)
    finally:
        for node in reversed(nodes):
            node.stop()


def _load(node: Running, rows: int) -> None:
    with psycopg.connect(node.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, a int, s text)")
        connection.execute(
            f"INSERT INTO t SELECT i, i % 1000, repeat('x', 100) FROM generate_series(1, {rows}) i"
        )


def _whole(status: dict[str, Any]) -> bool:
    return len(status["nodes"]) == NODES and all(
        len(shard["voters"]) == 3 and shard["leader"] for shard in status["shards"]
    )


def _move(nodes: list[Running]) -> None:
    """Have another node than the serving one lead the shard."""
    status = status_of(nodes[0])
    [shard] = [one for one in status["shards"] if one["id"] == SHARD]
    serving = status["serving_node"]
    if serving in shard["voters"]:
        [spare] = {node["id"] for node in status["nodes"]} - set(shard["voters"])
        command = [sys.executable, "-m", "shardforge", "shard", "move", "--host", f"127.0.0.1:{nodes[0].port}",
                   "--shard", str(SHARD), "--from", str(serving), "--to", str(spare)]  # fmt: skip
        subprocess.run(command, check=True, timeout=120)
    await_holds("the shard is led elsewhere", lambda: _leader(nodes) not in (0, serving))


def _leader(nodes: list[Running]) -> int:
    status = status_of(nodes[0])
    return next(int(one["leader"] or 0) for one in status["shards"] if one["id"] == SHARD)


def _compare(nodes: list[Running], options: argparse.Namespace) -> None:
    report = Report("elsewhere", list(CONDITIONS))
    serving, leader = status_of(nodes[0])["serving_node"], _leader(nodes)
    if serving == leader:
        sys.exit("the leaders changed: measure again")
    rounds = [
        [_counted(nodes, serving - 1, condition, options.rows) for condition in CONDITIONS.values()]
        for _ in range(options.rounds)
    ]
    for at, name in enumerate(("ms", "CPU ms of the serving node", "CPU ms of the others")):
        report.rounds(name, [[figures[at] for figures in one] for one in rounds])
    report.save()


def _counted(nodes: list[Running], serving: int, condition: str, rows: int) -> list[float]:
    """Milliseconds of a count, of the serving node's processor time and of the other nodes'."""
    before = [node.cpu_seconds() for node in nodes]
    with psycopg.connect(nodes[serving].dsn, autocommit=True) as connection:
        began = time.perf_counter()
        [(found,)] = connection.execute(f"SELECT count(*) FROM t WHERE {condition}").fetchall()
        elapsed = time.perf_counter() - began
    assert found == rows // 1000, found
    spent = [node.cpu_seconds() - was for node, was in zip(nodes, before, strict=True)]
    return [1000 * figure for figure in (elapsed, spent[serving], sum(spent) - spent[serving])]


if __name__ == "__main__":
    main()
