"""Several real ShardForge processes that form one cluster, on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from shardforge.cli.cluster import ask_status
from shardforge.errors import DatabaseError
from tests.e2e.partitions import Network
from tests.e2e.servers import ServerProcess

SETTLE_SECONDS_MAX = 60.0
VERIFY_SECONDS = 30.0


class ClusterProcesses:
    """Nodes by number, counted from 1 in the order in which they were added."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: dict[str, str] | None = None,
        network: Network | None = None,
    ) -> None:
        """`network`: where nodes are put, so that they can be cut off."""
        self.folder = folder
        self._network = network
        self.settings = {"SHARDFORGE_REPLICATION_FACTOR": "3", **(settings or {})}
        self.nodes: dict[int, ServerProcess] = {}
        self.left: list[ServerProcess] = []
        self._added = 0

    def add(self, *arguments: str) -> ServerProcess:
        """Start one more node, with these arguments besides; it joins those that there are."""
        self._added += 1
        number = self._added
        joins: tuple[str, ...] = ()
        if self.nodes:
            joins = ("--join", next(iter(self.nodes.values())).advertised)
        server = ServerProcess(
            self.folder / f"n{number}", settings=self.settings, arguments=(*joins, *arguments)
        )
        if self._network is not None:
            self._network.place(number, server)
        server.start()
        self.nodes[number] = server
        return server

    def grow(self, count: int) -> None:
        """Add nodes until there are `count`, and wait until every shard has its replicas."""
        while len(self.nodes) < count:
            self.add()
        self.settle()

    @property
    def dsn(self) -> str:
        """A connection string with every node."""
        hosts = ",".join(node.host for node in self.nodes.values())
        ports = ",".join(str(node.port) for node in self.nodes.values())
        return (
            f"host={hosts} port={ports} user=shardforge dbname=shardforge"
            " connect_timeout=2 target_session_attrs=read-write"
        )

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection to whichever node answers."""
        return psycopg.connect(self.dsn, autocommit=True)

    def status(self) -> dict[str, Any]:
        """What the first node that answers says of the cluster."""
        said = ""
        for node in self.nodes.values():
            if node.process is None:
                continue
            try:
                return ask_status(f"{node.host}:{node.port}")
            except DatabaseError as error:
                said = str(error)
        raise AssertionError(f"no node tells the status: {said}")

    def verify(self) -> dict[str, Any]:
        """Have all replicas compared, which must be equal; again while leaderships are on their way."""
        end = time.monotonic() + VERIFY_SECONDS
        node = next(node for node in self.nodes.values() if node.process is not None)
        command = [*node.prefix, sys.executable, "-m", "shardforge", "cluster", "verify", "--json",
                   "--host", f"127.0.0.1:{node.port}"]  # fmt: skip
        while True:
            found = subprocess.run(command, capture_output=True, check=False, timeout=120)
            if b"Try again" not in found.stderr or time.monotonic() > end:
                break
        assert found.returncode == 0, (found.returncode, found.stdout, found.stderr)
        verified: dict[str, Any] = json.loads(found.stdout)
        return verified

    def leave(self, number: int) -> ServerProcess:
        """Have a node leave, asked of another one; it will stop by itself."""
        other = next(
            node for n, node in self.nodes.items() if n != number and node.process is not None
        )
        command = [*other.prefix, sys.executable, "-m", "shardforge", "cluster", "leave", "--node",
                   str(number), "--host", f"127.0.0.1:{other.port}"]  # fmt: skip
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            asked = subprocess.run(command, capture_output=True, check=False, timeout=90, text=True)
            if not asked.returncode or "there is no node" in asked.stderr:
                break
            assert time.monotonic() < deadline, asked.stderr
        self.left.append(self.nodes.pop(number))
        return self.left[-1]

    def settle(self) -> dict[str, Any]:
        """Return the status once every shard has a leader and all of its replicas."""
        return self.until(
            lambda status: (
                not status["under_replicated_shards"]
                and not status["unavailable_shards"]
                and status["serving_node"]
            )
        )

    def until(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the first status that is as wanted."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            status = self.status()
            if wanted(status):
                return status
            assert time.monotonic() < deadline, f"the cluster does not settle: {status}"
            time.sleep(0.1)

    def serving(self) -> int:
        """The number of the node that serves now."""
        return int(self.settle()["serving_node"])

    def kill(self) -> None:
        """kill -9 all of them."""
        for node in (*self.nodes.values(), *self.left):
            node.kill()
