"""kill -9 of the node that serves, under load, again and again: how long writes pause, and that nothing is lost.

    python -m tests.e2e.failover_harness [--kills 50] [--writers 4] [--nodes 3]

Each writer inserts its own numbers over a multi-host connection string and connects again whenever it must. A number
whose INSERT was acknowledged has to be there at the end; one whose outcome was unknown may be. The pause of a kill is
the time from the kill to the first acknowledgement of any writer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.e2e.clusters import ClusterProcesses


@dataclass
class Writer:
    """One client thread; `unknown` are the numbers whose INSERT got no answer."""

    number: int
    dsn: str
    stop: threading.Event
    acknowledged: list[int] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    last: float = 0.0
    """When the last acknowledgement came, by time.monotonic()."""

    def run(self) -> None:
        """Insert until told to stop."""
        value = 0
        while not self.stop.is_set():
            try:
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    while not self.stop.is_set():
                        value += 1
                        self.unknown.add(value)
                        connection.execute(
                            "INSERT INTO kept (writer, value) VALUES (%s, %s)", (self.number, value)
                        )
                        self.unknown.discard(value)
                        self.acknowledged.append(value)
                        self.last = time.monotonic()
            except psycopg.OperationalError:
                time.sleep(0.02)
            except psycopg.Error as error:
                self.refused.append(f"{error.sqlstate}: {error}")


def first_after(writers: list[Writer], moment: float) -> float:
    """The seconds from a moment to the first acknowledgement after it."""
    deadline = moment + 60
    while time.monotonic() < deadline:
        later = [w.last for w in writers if w.last > moment]
        if later:
            return min(later) - moment
        time.sleep(0.002)
    raise AssertionError("no write succeeded within a minute of a kill")


def run(folder: Path, *, kills: int, writers: int, nodes: int, report: bool = False) -> list[float]:
    """The pauses of all kills. Raises AssertionError when something acknowledged is lost, or anything is made up."""
    cluster = ClusterProcesses(folder)
    stop = threading.Event()
    threads: list[threading.Thread] = []
    try:
        cluster.grow(nodes)
        with cluster.connect() as connection:
            connection.execute(
                "CREATE TABLE kept (writer int, value int, PRIMARY KEY (writer, value))"
            )
        clients = [Writer(number, cluster.dsn, stop) for number in range(writers)]
        threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        pauses: list[float] = []
        for kill in range(1, kills + 1):
            first_after(clients, time.monotonic())
            serving = cluster.nodes[cluster.serving()]
            moment = time.monotonic()
            serving.kill()
            dead = time.monotonic()
            pauses.append(dead - moment + first_after(clients, dead))
            serving.start()
            if report:
                print(f"kill {kill}: {pauses[-1]:.2f} s, median {statistics.median(pauses):.2f} s, "
                      f"worst {max(pauses):.2f} s", flush=True)  # fmt: skip
        stop.set()
        for thread in threads:
            thread.join(30)
        cluster.settle()
        check(cluster, clients)
        return pauses
    finally:
        stop.set()
        cluster.kill()


def check(cluster: ClusterProcesses, writers: list[Writer]) -> None:
    """Compare what is there with what the writers were told."""
    with cluster.connect() as connection:
        for writer in writers:
            assert not writer.refused, writer.refused[:3]
            found = {v for (v,) in connection.execute(
                "SELECT value FROM kept WHERE writer = %s", (writer.number,)
            )}  # fmt: skip
            lost = set(writer.acknowledged) - found
            assert not lost, f"writer {writer.number}: acknowledged and lost: {sorted(lost)[:5]}"
            made_up = found - set(writer.acknowledged) - writer.unknown
            assert not made_up, f"writer {writer.number}: refused and there: {sorted(made_up)[:5]}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardforge-failover-") as folder:
        pauses = sorted(run(Path(folder), kills=options.kills, writers=options.writers,
                            nodes=options.nodes, report=True))  # fmt: skip
    high = pauses[min(len(pauses) - 1, int(len(pauses) * 0.99))]
    print(f"{len(pauses)} kills: median {statistics.median(pauses):.2f} s, p99 {high:.2f} s, "
          f"worst {pauses[-1]:.2f} s; nothing lost")  # fmt: skip
    sys.exit(0)


if __name__ == "__main__":
    main()
