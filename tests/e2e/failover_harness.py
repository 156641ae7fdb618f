"""kill -9 of the node that serves, under load, again and again: how long writes pause, and that nothing is lost.

    python -m tests.e2e.failover_harness [--kills 50] [--writers 4] [--nodes 3]

The clients (`load`) connect again over a multi-host connection string whenever they must. The pause of a kill is the
time from the kill to the first acknowledgement of any writer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.clusters import ClusterProcesses
from tests.e2e.load import load


def run(folder: Path, *, kills: int, writers: int, nodes: int, report: bool = False) -> list[float]:
    """The pauses of all kills. Raises AssertionError when something acknowledged is lost, or anything is made up."""
    cluster = ClusterProcesses(folder)
    try:
        cluster.grow(nodes)
        pauses: list[float] = []
        with load(cluster, writers=writers) as clients:
            for kill in range(1, kills + 1):
                clients.go_on()
                serving = cluster.nodes[cluster.serving()]
                moment = time.monotonic()
                serving.kill()
                dead = time.monotonic()
                pauses.append(dead - moment + clients.first_after(dead))
                serving.start()
                if report:
                    print(f"kill {kill}: {pauses[-1]:.2f} s, median {statistics.median(pauses):.2f} s, "
                          f"worst {max(pauses):.2f} s", flush=True)  # fmt: skip
            clients.end()
            cluster.settle()
            clients.check()
            if report:
                print(f"clients were told: {dict(clients.told)}")
        cluster.verify()
        return pauses
    finally:
        cluster.kill()


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
