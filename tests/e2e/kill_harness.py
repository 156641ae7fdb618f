"""kill -9 under concurrent writers, again and again: what was acknowledged is there, and nothing is there by halves.

    python -m tests.e2e.kill_harness [--kills 200] [--writers 6] [--seed 1]

Each writer numbers its transactions. A transaction writes the same number into two rows of `pair` (on different
shards, as their keys hash) and appends it to `log`; so a half would show as a pair that differs or a pair without
its log. After each kill the server starts again over the same folder and everything is compared with what the
writers were told.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.e2e.servers import ServerProcess


@dataclass
class Writer:
    """One client thread: `acknowledged` is the last number whose COMMIT was answered, `tried` the last one sent."""

    number: int
    server: ServerProcess
    acknowledged: int = 0
    tried: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Write until told to stop or the server is gone."""
        try:
            with psycopg.connect(self.server.dsn) as connection:
                while not self.stop.is_set():
                    self._one(connection)
        except psycopg.OperationalError:
            return

    def _one(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self.tried += 1
        value, left, right = self.tried, self.number * 2, self.number * 2 + 1
        with connection.cursor() as cursor:
            cursor.execute("UPDATE pair SET value = %s WHERE id = %s", (value, left))
            cursor.execute("INSERT INTO log (writer, value) VALUES (%s, %s)", (self.number, value))
            cursor.execute("UPDATE pair SET value = %s WHERE id = %s", (value, right))
        connection.commit()
        self.acknowledged = value


def prepare(server: ServerProcess, writers: int) -> None:
    """The tables, one pair of rows a writer."""
    with server.connect() as connection:
        connection.execute("CREATE TABLE pair (id int PRIMARY KEY, value bigint NOT NULL)")
        connection.execute(
            "CREATE TABLE log (writer int, value bigint, PRIMARY KEY (writer, value))"
        )
        connection.execute(
            "INSERT INTO pair SELECT n, 0 FROM generate_series(0, %s) n", (writers * 2 - 1,)
        )


def verify(server: ServerProcess, writers: list[Writer]) -> list[str]:
    """What is wrong after a restart; empty when nothing is. Writers go on from what the database holds."""
    wrong: list[str] = []
    with server.connect() as connection:
        pairs = dict(connection.execute("SELECT id, value FROM pair").fetchall())
        for writer in writers:
            left, right = pairs[writer.number * 2], pairs[writer.number * 2 + 1]
            values = [v for (v,) in connection.execute(
                "SELECT value FROM log WHERE writer = %s ORDER BY value", (writer.number,)
            )]  # fmt: skip
            assert isinstance(left, int), "bigint"
            if left != right:
                wrong.append(f"writer {writer.number}: half a transaction: {left} and {right}")
            if values != list(range(1, left + 1)):
                wrong.append(f"writer {writer.number}: log has {len(values)} of {left} values")
            if left < writer.acknowledged:
                wrong.append(
                    f"writer {writer.number}: acknowledged {writer.acknowledged}, found {left}"
                )
            if left > writer.tried:
                wrong.append(
                    f"writer {writer.number}: found {left}, never sent more than {writer.tried}"
                )
            writer.acknowledged = writer.tried = left
    return wrong


def run(folder: Path, *, kills: int, writers: int, seed: int, report: bool = False) -> list[str]:
    """Kill and check `kills` times; returns the violations found (and stops at the first)."""
    chance = random.Random(seed)
    server = ServerProcess(folder)
    starts = [server.start()]
    prepare(server, writers)
    clients = [Writer(number, server) for number in range(writers)]
    total = 0
    try:
        for kill in range(1, kills + 1):
            threads = []
            before = sum(c.acknowledged for c in clients)
            for client in clients:
                client.stop = threading.Event()
                threads.append(threading.Thread(target=client.run, daemon=True))
                threads[-1].start()
            _let_them_write(clients, before, chance)
            server.kill()
            for thread in threads:
                thread.join(30)
            total += sum(c.acknowledged for c in clients) - before
            starts.append(server.start())
            wrong = verify(server, clients)
            if wrong:
                return [f"kill {kill}, seed {seed}: {line}" for line in wrong]
            if report and kill % 10 == 0:
                print(f"{kill} kills, {total} acknowledged commits, restart median {statistics.median(starts):.2f} s, "
                      f"worst {max(starts):.2f} s", flush=True)  # fmt: skip
    finally:
        server.kill()
    return []


def _let_them_write(clients: list[Writer], before: int, chance: random.Random) -> None:
    """Return after a random number of commits, plus a random moment: the kill falls anywhere in the protocol."""
    target = before + chance.randrange(1, 200)
    deadline = time.monotonic() + 30
    while sum(c.acknowledged for c in clients) < target and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(chance.random() * 0.01)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardforge-kill-") as folder:
        wrong = run(
            Path(folder),
            kills=options.kills,
            writers=options.writers,
            seed=options.seed,
            report=True,
        )
    print("\n".join(wrong) or f"{options.kills} kills: nothing lost, nothing by halves")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
