"""Running nodes in this process, reached by any PostgreSQL driver: for tests of applications, and of what they survive.

    with shardforge.testing.cluster(nodes=3) as cluster:
        with psycopg.connect(cluster.dsn) as connection: ...
        cluster.kill(cluster.serving)

The nodes run on an event loop in a thread of their own, over the memory engine and real sockets on loopback. A killed
node loses what it had not made durable, as a crash does, and finds the rest when it is started again.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from shardforge.config import Config
from shardforge.ids import ShardId
from shardforge.node import Founding, Node
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.files import MemoryFiles, ShardFiles, Shelf
from shardforge.testing.partitions import Cuts, CuttableNetwork

T = TypeVar("T")

READY_SECONDS = 30.0
POLL_SECONDS = 0.01


class Cluster:
    """Nodes by id, counted from 1. Made by `cluster`."""

    def __init__(self, nodes: int, config: Config) -> None:
        self._config = config
        self._cuts = Cuts()
        self._files: dict[tuple[int, ShardId], MemoryFiles] = {}
        self._forked: dict[int, Shelf] = {number: {} for number in range(1, nodes + 1)}
        self._cluster_id = str(uuid.uuid4())
        self._ports = dict(zip(range(1, nodes + 1), _free_ports(nodes), strict=True))
        self._running: dict[int, Node] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster", daemon=True)
        self._thread.start()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(READY_SECONDS)

    # ---- where it is -----------------------------------------------------------------------------

    @property
    def dsn(self) -> str:
        """A connection string with every node: the driver takes the first that answers."""
        hosts = ",".join("127.0.0.1" for _ in self._ports)
        ports = ",".join(map(str, self._ports.values()))
        return (
            f"host={hosts} port={ports} user=shardforge dbname=shardforge connect_timeout=5"
            " target_session_attrs=read-write"
        )

    def node_dsn(self, node: int) -> str:
        """A connection string with one node."""
        return f"host=127.0.0.1 port={self._ports[node]} user=shardforge dbname=shardforge"

    def node_address(self, node: int) -> str:
        """Where one node is, as "host:port", for `shardforge.client`."""
        return f"127.0.0.1:{self._ports[node]}"

    @property
    def nodes(self) -> list[int]:
        """The ids of the nodes that run."""
        return sorted(self._running)

    @property
    def serving(self) -> int:
        """The id of the node that serves, awaited: never one that a partition cut off. Raises TimeoutError."""
        return self._do(self._serving())

    async def _serving(self) -> int:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                for number, node in self._running.items():
                    if (
                        node.instance is not None
                        and not node.instance.standby
                        and _holds_lease(node)
                    ):
                        return number
                await asyncio.sleep(POLL_SECONDS)

    # ---- what happens to it ----------------------------------------------------------------------

    def start(self, node: int) -> None:
        """Start a node, or start one again that was killed or stopped."""
        self._do(self._start(node))

    restart = start

    async def _start(self, number: int) -> None:
        port = self._ports[number]
        config = replace(
            self._config,
            cluster=replace(self._config.cluster, node_id=number, bind_address=f"127.0.0.1:{port}"),
            storage=replace(self._config.storage, engine="memory"),
        )
        nodes = {n: f"127.0.0.1:{p}" for n, p in self._ports.items()}
        founding = Founding(
            self._cluster_id,
            nodes,
            self._files_of(number),
            None,
            self._network_maker(),
            self._forked[number],
        )
        node = Node(config, founding=founding)
        await node.start()
        self._running[number] = node

    def _files_of(self, number: int) -> Callable[[ShardDescriptor], ShardFiles]:
        shelf = self._forked[number]

        def files_of(shard: ShardDescriptor) -> ShardFiles:
            if shard.id in shelf:
                return shelf[shard.id][1]
            return self._files.setdefault((number, shard.id), MemoryFiles(shelf=shelf))

        return files_of

    def _network_maker(self) -> Callable[..., CuttableNetwork]:
        return lambda *arguments: CuttableNetwork(self._cuts, *arguments)

    def stop(self, node: int) -> None:
        """Stop a node as SIGTERM does: it hands its leadership over."""
        self._do(self._running.pop(node).stop())

    def kill(self, node: int) -> None:
        """Stop a node as kill -9 does: what it had not made durable is lost."""
        self._do(self._running.pop(node).kill())
        for (owner, shard), files in list(self._files.items()):
            if owner == node:
                self._files[owner, shard] = _crashed(files, self._forked[node])
        for shard, (made, files) in list(self._forked[node].items()):
            self._forked[node][shard] = (made, _crashed(files, self._forked[node]))

    def partition(self, *sides: set[int]) -> None:
        """Let no node talk to one of another side; those not named are one more. Clients reach all of them."""
        rest = set(self._ports) - set().union(*sides)
        self._loop.call_soon_threadsafe(self._cuts.partition, [*sides, rest])

    def heal(self) -> None:
        """Let all nodes talk again."""
        self._loop.call_soon_threadsafe(self._cuts.heal)

    def close(self) -> None:
        """Stop everything."""
        for node in self.nodes:
            self.stop(node)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def cluster(nodes: int = 3, config: Config | None = None) -> Iterator[Cluster]:
    """A new cluster of so many nodes, serving; stopped at the end. Raises DatabaseError, TimeoutError."""
    made = Cluster(nodes, config or Config())
    try:
        made._do(_all(made, nodes))
        assert made.serving, "awaited"
        yield made
    finally:
        made.close()


def _holds_lease(node: Node) -> bool:
    """Whether no other node can serve: one that was cut off takes a moment longer to find that out."""
    now_us = node.clock.monotonic_ns() // 1000
    return node.host is not None and now_us < node.host.lease_until_us(now_us)


def _crashed(files: MemoryFiles, shelf: Shelf) -> MemoryFiles:
    return MemoryFiles(files.engine.crash(), files.log.crash(), shelf)


async def _all(made: Cluster, nodes: int) -> None:
    await asyncio.gather(*(made._start(number) for number in range(1, nodes + 1)))


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
