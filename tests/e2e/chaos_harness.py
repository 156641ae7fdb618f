"""Random disturbances of real processes under load: kills, pauses, cuts, restarts; replicas are compared after each.

    python -m tests.e2e.chaos_harness [--nodes 3] [--rounds 50] [--seed 1] [--only replace]

Clients insert, count, move money between accounts of several shards, and append to lists; `load` and `lists` say what
is checked. A node that was paused believes for a moment that it still leads: what it answers then must not be of the
past.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.clusters import ClusterProcesses
from tests.e2e.load import load
from tests.e2e.partitions import Network, partitionable

SETTINGS = {
    "SHARDFORGE_SECURITY_AUTHENTICATION": "trust",
    "SHARDFORGE_SHARDING_INITIAL_SHARD_COUNT": "4",
    "SHARDFORGE_REPLICATION_DOWN_AFTER_SEC": "3",
    "SHARDFORGE_RAFT_MAX_LOG_ENTRIES": "1000",
    "SHARDFORGE_RAFT_SNAPSHOT_INTERVAL_ENTRIES": "200",
}
"""Logs so short that a node which was away needs a snapshot; spare nodes soon take the place of a silent one."""
PAUSE_SECONDS = (0.1, 4.0)
SPLITTING_SECONDS = (0.3, 1.5)
"""When a command that was just begun asks the cluster, and is answered."""


class Chaos:
    """What can be done to a cluster; each ends with everything running and reachable again."""

    def __init__(self, cluster: ClusterProcesses, network: Network, choice: random.Random) -> None:
        self._cluster = cluster
        self._network = network
        self._random = choice
        self.kinds: dict[str, Callable[[], None]] = {
            "kill the serving node": lambda: self._kill([self._cluster.serving()]),
            "kill any node": lambda: self._kill([self._any()]),
            "kill two nodes": lambda: self._kill(self._random.sample(self._all, 2)),
            "kill all nodes": lambda: self._kill(self._all),
            "pause the serving node": lambda: self._hold([self._cluster.serving()]),
            "pause any node": lambda: self._hold([self._any()]),
            "pause two nodes": lambda: self._hold(self._random.sample(self._all, 2)),
            "cut the serving node off": lambda: self._cut(self._cluster.serving()),
            "cut any node off": lambda: self._cut(self._any()),
            "cut all nodes off": self._cut_all,
            "restart the serving node": lambda: self._restart(self._cluster.serving()),
            "restart any node": lambda: self._restart(self._any()),
            "replace the serving node": lambda: self._replace(self._cluster.serving()),
            "replace any node": lambda: self._replace(self._any()),
            "split a shard": lambda: self._split([]),
            "split a shard and kill the serving node": lambda: self._split(
                [self._cluster.serving()]
            ),
            "split a shard and kill any node": lambda: self._split([self._any()]),
            "split a shard and kill all nodes": lambda: self._split(self._all),
        }

    @property
    def _all(self) -> list[int]:
        return sorted(self._cluster.nodes)

    def _any(self) -> int:
        return self._random.choice(self._all)

    def _while(self) -> None:
        time.sleep(self._random.uniform(*PAUSE_SECONDS))

    def _kill(self, numbers: list[int]) -> None:
        for number in numbers:
            self._cluster.nodes[number].kill()
        self._while()
        for number in numbers:
            self._cluster.nodes[number].start()

    def _hold(self, numbers: list[int]) -> None:
        for number in numbers:
            self._cluster.nodes[number].send(signal.SIGSTOP)
        self._while()
        for number in numbers:
            self._cluster.nodes[number].send(signal.SIGCONT)

    def _cut(self, number: int) -> None:
        self._network.cut_off(number, set(self._all) - {number})
        self._while()
        self._network.heal()

    def _cut_all(self) -> None:
        for number in self._all:
            self._network.cut_off(number, {other for other in self._all if other > number})
        self._while()
        self._network.heal()

    def _restart(self, number: int) -> None:
        node = self._cluster.nodes[number]
        assert node.stop() == 0
        self._while()
        node.start()

    def _replace(self, number: int) -> None:
        """A new node joins, and one leaves while another is killed."""
        self._cluster.add()
        lost = self._random.choice([n for n in self._all if n != number])
        if self._random.random() < 0.5:
            self._cluster.nodes[lost].kill()
            self._cluster.nodes[lost].start()
        left = self._cluster.leave(number)
        assert left.ended() == 0

    def _split(self, killed: list[int]) -> None:
        """Have a shard split where it balances, and kill nodes in the midst of it; one with a single key is left."""
        node = self._cluster.nodes[self._any()]
        status = self._cluster.status()
        shard = self._random.choice([one["id"] for one in status["shards"] if one["id"]])
        command = [*node.prefix, sys.executable, "-m", "shardforge", "shard", "split", "--shard", str(shard),
                   "--host", f"127.0.0.1:{node.port}"]  # fmt: skip
        asked = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if killed:
            time.sleep(self._random.uniform(*SPLITTING_SECONDS))
            self._kill(killed)
        asked.wait(timeout=90)


def run(
    folder: Path, network: Network, *, nodes: int, rounds: int, seed: int, only: str = ""
) -> None:
    """Disturb a cluster again and again. Raises AssertionError when anything is wrong."""
    cluster = ClusterProcesses(folder, settings=SETTINGS, network=network)
    choice = random.Random(seed)
    try:
        cluster.grow(nodes)
        chaos = Chaos(cluster, network, choice)
        with load(cluster, writers=2, readers=1, movers=2, appenders=3) as clients:
            for number in range(1, rounds + 1):
                what = choice.choice(sorted(kind for kind in chaos.kinds if only in kind))
                chaos.kinds[what]()
                clients.knows(cluster.dsn)
                began = time.monotonic()
                clients.go_on()
                resumed = time.monotonic() - began
                cluster.settle()
                settled = time.monotonic() - began
                verified = cluster.verify()
                entries = sum(shard["index"] for shard in verified["shards"])
                print(f"round {number}: {what}: served after {resumed:.1f} s, settled after {settled:.1f} s, "
                      f"equal at {entries} entries in {len(verified['shards'])} shards", flush=True)  # fmt: skip
                clients.check_so_far()
            clients.end()
            cluster.settle()
            clients.check()
            transactions = sum(len(one.transactions) for one in clients.appenders)
            print(f"nothing wrong with {transactions} transactions over lists and all else;"
                  f" clients were told {dict(clients.told)}")  # fmt: skip
    finally:
        cluster.kill()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument(
        "--only", default="", help="What the disturbances are to have in their names."
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="shardforge-chaos-")
    print(f"in {folder}")
    with partitionable() as network:
        run(
            Path(folder),
            network,
            nodes=options.nodes,
            rounds=options.rounds,
            seed=options.seed,
            only=options.only,
        )


if __name__ == "__main__":
    main()
