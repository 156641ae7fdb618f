"""Clusters of three on this machine: ShardForge's nodes, and a PostgreSQL with two synchronous standbys."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from bench.servers import Running, start_postgres, start_shardforge, start_standby

READY_SECONDS_MAX = 60


@dataclass
class Three:
    """Three servers, the first of which takes the load."""

    members: list[Running]

    @property
    def front(self) -> Running:
        """The one that takes the load."""
        return self.members[0]

    def cpu_seconds(self) -> list[float]:
        """Processor time of each so far."""
        return [member.cpu_seconds() for member in self.members]

    def resident_mb(self) -> float:
        """Proportional memory of all."""
        return sum(member.resident_mb() for member in self.members)

    def stop(self) -> None:
        """Stop all, the first one last."""
        for member in reversed(self.members):
            member.stop()


def await_holds(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not in {READY_SECONDS_MAX} s")
        time.sleep(0.1)


def status_of(node: Running) -> dict[str, Any]:
    """The document of `shardforge cluster status --json`."""
    command = [
        sys.executable, "-m", "shardforge", "cluster", "status", "--json",
        "--host", f"127.0.0.1:{node.port}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def three_shardforge(*, metrics: bool = False) -> Three:
    """Three nodes with defaults, every shard on all of them."""
    nodes = [start_shardforge(metrics=metrics)]
    three = Three(nodes)
    try:
        for _ in range(2):
            nodes.append(start_shardforge(joins=[f"127.0.0.1:{nodes[0].port}"], metrics=metrics))

        def whole() -> bool:
            status = status_of(nodes[0])
            return len(status["nodes"]) == 3 and all(
                len(shard["voters"]) == 3 for shard in status["shards"]
            )

        await_holds("three nodes, every shard on all", whole)
    except BaseException:
        three.stop()
        raise
    return three


def three_postgres() -> Three:
    """A primary whose commits wait for any one of two synchronous standbys."""
    members = [start_postgres()]
    three = Three(members)
    try:
        for name in ("s1", "s2"):
            members.append(start_standby(members[0], name))
        with psycopg.connect(members[0].dsn, autocommit=True) as primary:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (s1, s2)'")
            primary.execute("SELECT pg_reload_conf()")

            def both() -> bool:
                rows = primary.execute(
                    "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"
                ).fetchone()
                return rows == (2,)

            await_holds("two synchronous standbys", both)
    except BaseException:
        three.stop()
        raise
    return three
