"""What several shards cost, and DDL: transactions over two shards, CREATE TABLE, an index built beside writers.

    python -m bench.shards [--seconds 15] [--rounds 3] [--clients 8] [--rows 1000000] [--tables 30]

Two rows of one shard and two rows of two shards are updated in one transaction, on one node and on three. Then, on
three nodes and on PostgreSQL with two synchronous standbys: the median of CREATE TABLE, and a CREATE INDEX
CONCURRENTLY of a large table while clients write to it, after which the index is compared with the table.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time

import psycopg

from bench.clusters import three_postgres, three_shardforge
from bench.load import script_rate
from bench.report import Report
from bench.servers import Running, postgres_folder, start_shardforge

KEYS = 60_000
NEAR, FAR = KEYS // 6, KEYS - KEYS // 6
"""Apart by the first, two keys from the first sixth are in one shard; by the second, they are in two."""
WRITERS = 4
BATCH = 50_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tables", type=int, default=30)
    options = parser.parse_args()
    report = Report("shards", ["one shard", "two shards"])
    one = start_shardforge()
    try:
        _across("one node", one, options, report)
    finally:
        one.stop()
    three = three_shardforge()
    try:
        _across("three nodes", three.front, options, report)
        _ddl(three.front, options, report)
    finally:
        three.stop()
    if postgres_folder() is None:
        print("PostgreSQL's server programs are not installed: left out")
    else:
        peer = three_postgres()
        try:
            _ddl(peer.front, options, report)
        finally:
            peer.stop()
    report.save()


# ---- transactions over two shards ----------------------------------------------------------------


def _across(where: str, node: Running, options: argparse.Namespace, report: Report) -> None:
    _divided_table(node)
    rounds = [
        [
            script_rate(node, _two_updates(apart), options.clients, options.seconds, "prepared")
            for apart in (NEAR, FAR)
        ]
        for _ in range(options.rounds)
    ]
    report.rounds(f"{where}, {options.clients} clients, tx/s", rounds)


def _divided_table(node: Running) -> None:
    """A table in key order, the halves of which are two shards."""
    with psycopg.connect(node.dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bench_pairs (id int PRIMARY KEY, n int) WITH (sharding = 'range')"
        )
        connection.execute(f"INSERT INTO bench_pairs SELECT i, 0 FROM generate_series(1, {KEYS}) i")
        before = connection.execute("SHOW SHARDS FROM TABLE bench_pairs").fetchall()
        command = [
            sys.executable, "-m", "shardforge", "shard", "split", "--shard", str(before[0][0]),
            "--host", f"127.0.0.1:{node.port}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        after = connection.execute("SHOW SHARDS FROM TABLE bench_pairs").fetchall()
    if len(after) != len(before) + 1:
        sys.exit(f"the table is in {len(after)} shards")


def _two_updates(apart: int) -> str:
    return (
        f"\\set a random(1, {KEYS // 6})\n\\set b :a + {apart}\nBEGIN;\n"
        "UPDATE bench_pairs SET n = n + 1 WHERE id = :a;\n"
        "UPDATE bench_pairs SET n = n + 1 WHERE id = :b;\nEND;\n"
    )


# ---- DDL -----------------------------------------------------------------------------------------


class Writers:
    """Clients that insert, update and delete rows of the large table until they are stopped."""

    def __init__(self, server: Running, rows: int) -> None:
        self.statements = 0
        self.slowest = 0.0
        self.failures: list[str] = []
        self._server, self._rows = server, rows
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(WRITERS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        key = self._rows + number
        with psycopg.connect(self._server.dsn, autocommit=True) as connection:
            while not self._over.is_set():
                key += WRITERS
                for sql in (
                    f"INSERT INTO bench_large VALUES ({key}, {key % 1000})",
                    f"UPDATE bench_large SET n = n + 1 WHERE id = {key % self._rows}",
                    f"DELETE FROM bench_large WHERE id = {(key * 7) % self._rows}",
                ):
                    begun = time.monotonic()
                    try:
                        connection.execute(sql)
                    except psycopg.Error as error:
                        self.failures.append(str(error))
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    self.statements += 1

    def stop(self) -> None:
        """Stop and wait."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def _ddl(server: Running, options: argparse.Namespace, report: Report) -> None:
    name = server.name
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        times = []
        for number in range(options.tables):
            begun = time.monotonic()
            connection.execute(f"CREATE TABLE bench_t{number} (id int PRIMARY KEY, a text, b int)")
            times.append(1000 * (time.monotonic() - begun))
        median = round(statistics.median(times), 1)
        report.note(f"{name}: CREATE TABLE, median and slowest, ms", [median, round(max(times), 1)])
        connection.execute("CREATE TABLE bench_large (id bigint PRIMARY KEY, n int)")
        begun = time.monotonic()
        for start in range(0, options.rows, BATCH):
            rows = range(start, min(start + BATCH, options.rows))
            with connection.cursor() as cursor, cursor.copy("COPY bench_large FROM STDIN") as copy:
                copy.write("".join(f"{row}\t{row % 1000}\n" for row in rows))
        report.note(
            f"{name}: COPY of {options.rows} rows in parts, s", round(time.monotonic() - begun, 1)
        )
        writers = Writers(server, options.rows)
        try:
            begun = time.monotonic()
            connection.execute("CREATE INDEX CONCURRENTLY bench_large_n ON bench_large (n)")
            seconds = time.monotonic() - begun
        finally:
            writers.stop()
        report.note(
            f"{name}: CREATE INDEX CONCURRENTLY beside {WRITERS} writers, s", round(seconds, 1)
        )
        report.note(
            f"{name}: statements beside it, slowest in s, failures",
            [writers.statements, round(writers.slowest, 2), len(writers.failures)],
        )
        report.note(
            f"{name}: values whose count by index and table differ", _differences(connection)
        )


def _differences(connection: psycopg.Connection[tuple[int]]) -> int:
    """By the index for each value, and by a scan of the table that no index can serve."""
    counted = connection.execute("SELECT n + 0, count(*) FROM bench_large GROUP BY n + 0")
    by_table = {int(row[0]): int(row[1]) for row in counted.fetchall()}  # type: ignore[misc]
    wrong = 0
    for n in range(1002):
        (found,) = connection.execute(
            "SELECT count(*) FROM bench_large WHERE n = %s", (n,)
        ).fetchone() or (0,)
        wrong += found != by_table.get(n, 0)
    return wrong


if __name__ == "__main__":
    main()
