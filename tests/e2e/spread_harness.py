"""Shards that split and spread over nodes that join, on real processes, while clients read and write.

    python -m tests.e2e.spread_harness [--rows 2000000] [--joining 2] [--kills 2] [--lose]

Three nodes are filled by COPY, then others join: shards must spread until each node holds about as many bytes as any
other, with three voters each. A client moves amounts between rows of many shards and counts what was acknowledged,
another sums them up: nothing acknowledged is lost, and the sum is ever the same. Then nodes are killed in the midst of
moves and come back, and with --lose one does not: it has to end the same.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.clusters import ClusterProcesses

SETTINGS = {
    "SHARDFORGE_SECURITY_AUTHENTICATION": "trust",
    "SHARDFORGE_REPLICATION_DOWN_AFTER_SEC": "20",
}
SIZE = "SHARDFORGE_SHARDING_MAX_SHARD_SIZE"
VOTERS = 3
THRESHOLD = "SHARDFORGE_SHARDING_REBALANCE_THRESHOLD"
BATCH = 5_000
LOADERS = 2
ACCOUNTS = 200
"""Rows, spread over all shards, between which amounts move."""
PAUSE_SECONDS = 0.05
POLL_SECONDS = 0.2
AWAY_SECONDS = (1.0, 5.0)
TELL_SECONDS = 10.0
LASTING_SECONDS = 12.0
"""When nothing is split or moved for so long, it has come to its end."""
PAD = 80


class Clients:
    """One that moves amounts between rows, and one that sums them up; both try again whatever breaks."""

    def __init__(self, cluster: ClusterProcesses, rows: int, seed: int = 1) -> None:
        self.acknowledged: list[int] = []
        self.reads = 0
        self.pause = 0.0
        """The longest time between two acknowledgements."""
        self.wrong: list[str] = []
        self.errors: dict[str, int] = {}
        self._cluster = cluster
        self._accounts = [1 + i * rows // ACCOUNTS for i in range(ACCOUNTS)]
        self._random = random.Random(seed)
        self._number = 0
        self._dsn = cluster.dsn
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,)) for work in (self._move, self._sum)
        ]
        self._told_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    def knows(self) -> None:
        """Nodes came or went."""
        self._dsn = self._cluster.dsn

    def _repeat(self, work: Callable[[psycopg.Connection[tuple[Any, ...]]], None]) -> None:
        while not self._over.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    while not self._over.is_set():
                        work(connection)
            except psycopg.Error as error:
                code = error.sqlstate or type(error).__name__
                self.errors[code] = self.errors.get(code, 0) + 1
                time.sleep(PAUSE_SECONDS)

    def _move(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._number += 1
        number = self._number
        source, target = sorted(self._random.sample(self._accounts, 2))
        with connection.transaction():
            connection.execute("UPDATE big SET amount = amount - 1 WHERE id = %s", (source,))
            connection.execute("UPDATE big SET amount = amount + 1 WHERE id = %s", (target,))
            connection.execute("INSERT INTO trickle VALUES (%s)", (number,))
        now = time.monotonic()
        self.pause = max(self.pause, now - self._told_at)
        self._told_at = now
        self.acknowledged.append(number)

    def _sum(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        acknowledged = len(self.acknowledged)
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found = connection.execute(
                "SELECT count(*), sum(amount) FROM big WHERE id = ANY(%s)", (self._accounts,)
            ).fetchone()
            moved = connection.execute("SELECT count(*) FROM trickle").fetchone()
        assert moved is not None
        if found != (ACCOUNTS, 0):
            self.wrong.append(f"of the accounts there were {found}")
        if not acknowledged <= moved[0] <= self._number:
            self.wrong.append(f"{moved[0]} moves seen, {acknowledged} acknowledged before")
        self.reads += 1

    def take_pause(self) -> float:
        """The longest time between two acknowledgements since the last time that this was asked."""
        now = time.monotonic()
        pause, self.pause = max(self.pause, now - self._told_at), 0.0
        return pause

    def stop(self) -> None:
        """End, and wait for it."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def make_tables(cluster: ClusterProcesses) -> None:
    """The tables."""
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE trickle (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE big (id int PRIMARY KEY, amount int, pad text)")


def fill(cluster: ClusterProcesses, rows: int) -> None:
    """COPY the rows in batches, each whole or not at all, by several clients."""
    starts = iter(range(1, rows + 1, BATCH))
    failed: list[psycopg.Error] = []
    lock = threading.Lock()

    def copy(start: int) -> None:
        choice = random.Random(start)
        lines = "".join(
            f"{number}\t0\t{choice.getrandbits(PAD * 4):0{PAD}x}\n"
            for number in range(start, min(start + BATCH, rows + 1))
        )
        end = time.monotonic() + 120
        while True:
            try:
                with (
                    cluster.connect() as connection,
                    connection.cursor() as cursor,
                    cursor.copy("COPY big FROM STDIN") as sink,
                ):
                    sink.write(lines)
            except psycopg.errors.UniqueViolation:
                return  # it was committed, though the answer was lost
            except (psycopg.Error, ValueError):
                if time.monotonic() > end:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                return

    def load() -> None:
        try:
            while True:
                with lock:
                    start = next(starts, None)
                if start is None:
                    return
                copy(start)
        except psycopg.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(LOADERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def held(status: dict[str, Any]) -> dict[int, int]:
    """The bytes on each node that is alive."""
    bytes_on = {node["id"]: 0 for node in status["nodes"] if node["alive"]}
    for shard in status["shards"]:
        for node in {*shard["voters"], *shard["voters_outgoing"], *shard["learners"]}:
            if node in bytes_on:
                bytes_on[node] += shard["bytes"]
    return bytes_on


def apart(status: dict[str, Any]) -> float:
    """How far the fullest or the emptiest node is from the mean, as a share of it."""
    bytes_on = held(status).values()
    mean = sum(bytes_on) / len(bytes_on)
    return max(abs(one - mean) for one in bytes_on) / mean if mean else 0.0


def is_spread(status: dict[str, Any], threshold: float) -> bool:
    """Whether every shard has its three voters and nothing else, and no node's bytes are farther from the mean."""
    return (
        bool(status["serving_node"])
        and not status["under_replicated_shards"]
        and not status["unavailable_shards"]
        and all(
            len(shard["voters"]) == VOTERS
            and not shard["learners"]
            and not shard["voters_outgoing"]
            for shard in status["shards"]
        )
        and apart(status) <= threshold
    )


class Lasting:
    """Whether it is so, and has been for so many seconds with the same shards in the same places."""

    def __init__(self, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> None:
        self._wanted = wanted
        self._seconds = seconds
        self._shards: list[object] = []
        self._since = time.monotonic()

    def __call__(self, status: dict[str, Any]) -> bool:
        """Look once more."""
        now = time.monotonic()
        shards: list[object] = [(s["id"], s["voters"]) for s in status["shards"]]
        if shards != self._shards or not self._wanted(status):
            self._shards, self._since = shards, now
        return now - self._since > self._seconds


def moving(status: dict[str, Any]) -> bool:
    """Whether a shard has more or other replicas now than its voters."""
    return any(shard["voters_outgoing"] or shard["learners"] for shard in status["shards"])


def told(status: dict[str, Any]) -> str:
    """A status in one line."""
    sizes = ", ".join(f"{node}: {size / 1e6:.1f} MB" for node, size in sorted(held(status).items()))
    leaders = ", ".join(f"{node['id']}: {node['leaders']}" for node in status["nodes"])
    return (
        f"{len(status['shards'])} shards; bytes {sizes} (up to {apart(status):.0%} from the mean); leaders {leaders}; "
        f"{status['under_replicated_shards']} under-replicated, {status['unavailable_shards']} unavailable"
    )


def check(cluster: ClusterProcesses, clients: Clients, rows: int) -> None:
    """Raises AssertionError unless every row is there, whatever was acknowledged too, and replicas are equal."""
    assert not clients.wrong, clients.wrong[:10]
    with cluster.connect() as connection:
        found = connection.execute("SELECT count(*), sum(id), sum(amount) FROM big").fetchone()
        there = {row[0] for row in connection.execute("SELECT id FROM trickle")}
    assert found == (rows, rows * (rows + 1) // 2, 0), found
    lost = set(clients.acknowledged) - there
    assert not lost, f"{len(lost)} lost: {sorted(lost)[:10]}"
    cluster.verify()


class Spread:
    """A cluster that is filled and grows; what happens is told with the time since the beginning."""

    def __init__(
        self, folder: Path, *, rows: int, size: str, threshold: float, seconds: float, seed: int = 1
    ) -> None:
        """`size`: when a shard is split; `threshold`: of balance; `seconds`: how long each step may take."""
        settings = {**SETTINGS, SIZE: size, THRESHOLD: str(threshold)}
        self.cluster = ClusterProcesses(folder, settings=settings)
        self._threshold = threshold
        self.clients: Clients | None = None
        self._rows = rows
        self._seconds = seconds
        self._seed = seed
        self._random = random.Random(seed)
        self._began = self._said_at = time.monotonic()

    def say(self, text: str) -> None:
        """A line."""
        self._said_at = time.monotonic()
        print(f"{self._said_at - self._began:7.1f} s  {text}", flush=True)

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status that is as wanted. Raises AssertionError when it takes too long."""
        end = time.monotonic() + self._seconds
        while True:
            status = self.cluster.status()
            if wanted(status):
                return status
            assert time.monotonic() < end, f"the cluster is not as wanted: {told(status)}"
            if time.monotonic() - self._said_at > TELL_SECONDS:
                self.say(told(status))
            time.sleep(POLL_SECONDS)

    def load(self, nodes: int) -> None:
        """Start so many nodes, fill them, and begin to read and write."""
        self.cluster.grow(nodes)
        make_tables(self.cluster)
        began = time.monotonic()
        fill(self.cluster, self._rows)
        self.say(
            f"{self._rows} rows loaded in {time.monotonic() - began:.1f} s; {told(self.cluster.status())}"
        )
        self.clients = Clients(self.cluster, self._rows, self._seed)

    def join(self, count: int) -> None:
        """More nodes."""
        for _ in range(count):
            self.cluster.add()
        self._working.knows()
        self.say(f"{count} nodes joined")

    def kill(self, *, for_good: bool = False) -> int:
        """kill -9 any node in the midst of a move, and start it again after a moment, unless it is lost."""
        self.until(moving)
        number = self._random.choice(sorted(self.cluster.nodes))
        self.cluster.nodes[number].kill()
        self.say(
            f"node {number} is killed; until then writes paused for {self._working.take_pause():.2f} s"
        )
        if not for_good:
            time.sleep(self._random.uniform(*AWAY_SECONDS))
            self.cluster.nodes[number].start()
            self.say(f"node {number} is back")
        return number

    def spread(self, lasting: float) -> None:
        """Return when everything is where it belongs, and stays there for so many seconds."""
        began = time.monotonic()
        status = self.until(Lasting(lambda status: is_spread(status, self._threshold), lasting))
        took = time.monotonic() - began - lasting
        clients = self._working
        self.say(f"spread after {took:.1f} s; {told(status)}")
        self.say(
            f"writes paused for {clients.take_pause():.2f} s at most; {len(clients.acknowledged)} writes,"
            f" {clients.reads} reads, none wrong; errors {clients.errors}"
        )

    def check(self) -> None:
        """End the clients; raise AssertionError when anything is wrong."""
        self._working.stop()
        check(self.cluster, self._working, self._rows)
        self.say("nothing acknowledged is lost; all replicas are equal")

    @property
    def _working(self) -> Clients:
        assert self.clients is not None, "loaded"
        return self.clients

    def close(self) -> None:
        """Stop everything."""
        if self.clients is not None:
            self.clients.stop()
        self.cluster.kill()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--size", default="4MB", help="When a shard is split.")
    parser.add_argument(
        "--threshold", type=float, default=0.1,
        help="How far from the mean the bytes of a node may be; of each other, twice as far.",
    )  # fmt: skip
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--joining", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--lose", action="store_true", help="Kill one node more, for good.")
    parser.add_argument("--seconds", type=float, default=600.0, help="How long each step may take.")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="shardforge-spread-")
    print(f"in {folder}")
    run = Spread(
        Path(folder), rows=options.rows, size=options.size, threshold=options.threshold,
        seconds=options.seconds, seed=options.seed,
    )  # fmt: skip
    try:
        run.load(options.nodes)
        run.join(options.joining)
        for _ in range(options.kills):
            run.kill()
        if options.lose:
            run.kill(for_good=True)
        run.spread(LASTING_SECONDS)
        run.check()
    finally:
        run.close()


if __name__ == "__main__":
    main()
