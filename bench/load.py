"""What is put on a server: pgbench's workloads, single-key puts and gets, COPY; and pgbench's own invariants."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from bench.servers import Running

WORKLOADS = {"select-only": ["-S"], "simple-update": ["-N"], "tpc-b": []}
COPY_ROWS = 200_000
KEYS = 100_000

SCRIPTS = {
    "put": (
        f"\\set id random(1, {KEYS})\n\\set v random(1, 1000000000)\n"
        "INSERT INTO bench_kv VALUES (:id, :v) ON CONFLICT (id) DO UPDATE SET v = excluded.v;\n"
    ),
    "get": f"\\set id random(1, {KEYS})\nSELECT v FROM bench_kv WHERE id = :id;\n",
}
"""One key a transaction; a get is a strong read."""


def pgbench_command(server: Running, *arguments: str) -> list[str]:
    """pgbench on the server."""
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", server.user]
    return ["pgbench", *where, *arguments, "shardforge"]


def pgbench(server: Running, *arguments: str) -> str:
    """pgbench's output; ends the program when it fails."""
    command = pgbench_command(server, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{server.name}: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def timed(clients: int, seconds: int, mode: str = "prepared") -> list[str]:
    """pgbench's arguments for a load of some time."""
    return ["-n", "-c", str(clients), "-j", "1", "-T", str(seconds), "-M", mode]


def rate(server: Running, workload: str, clients: int, seconds: int, mode: str) -> float:
    """Transactions a second, without connecting. A failed transaction ends the program."""
    if workload in SCRIPTS:
        return script_rate(server, SCRIPTS[workload], clients, seconds, mode)
    return _rate_in(server, pgbench(server, *timed(clients, seconds, mode), *WORKLOADS[workload]))


def script_rate(server: Running, text: str, clients: int, seconds: int, mode: str) -> float:
    """As `rate`, of a script of pgbench's."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql", encoding="ascii") as script:
        script.write(text)
        script.flush()
        arguments = [*timed(clients, seconds, mode), "-f", script.name]
        return _rate_in(server, pgbench(server, *arguments))


def _rate_in(server: Running, output: str) -> float:
    tps = re.search(r"tps = ([0-9.]+)", output)
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if tps is None or failed is None or failed[1] != "0":
        sys.exit(f"{server.name}: unexpected output of pgbench:\n{output}")
    return float(tps[1])


def make_keys(server: Running) -> None:
    """The table of puts and gets, every key in it."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE bench_kv (id int PRIMARY KEY, v bigint)")
        connection.execute(f"INSERT INTO bench_kv SELECT i, 0 FROM generate_series(1, {KEYS}) i")


def copy_rate(server: Running) -> float:
    """Rows a second of COPY FROM STDIN into a table with a primary key."""
    with psycopg.connect(server.dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bench_copy (id bigint PRIMARY KEY, name text, amount numeric, at timestamptz)"
        )
        begun = time.monotonic()
        with cursor.copy("COPY bench_copy FROM STDIN") as copy:
            for start in range(0, COPY_ROWS, 1000):
                copy.write(
                    "".join(
                        f"{n}\tname {n}\t{n}.25\t2024-01-01 00:00:00+00\n"
                        for n in range(start, start + 1000)
                    )
                )
        connection.commit()
        seconds = time.monotonic() - begun
        cursor.execute("DROP TABLE bench_copy")
    return COPY_ROWS / seconds


def consistent(server: Running) -> bool:
    """pgbench's own invariants: accounts = history; branches = tellers (simple-update changes neither)."""
    with psycopg.connect(server.dsn) as connection:
        sums = [
            connection.execute(f"SELECT coalesce(sum({column}), 0) FROM {table}").fetchone()
            for column, table in (
                ("bbalance", "pgbench_branches"),
                ("tbalance", "pgbench_tellers"),
                ("abalance", "pgbench_accounts"),
                ("delta", "pgbench_history"),
            )
        ]
    branches, tellers, accounts, history = sums
    return branches == tellers and accounts == history


def loaded(server: Running, scale: int) -> float:
    """pgbench's tables made and filled; how many seconds that took."""
    begun = time.monotonic()
    pgbench(server, "-i", "-q", "-s", str(scale))
    return time.monotonic() - begun


def results_folder() -> Path:
    """Where reports are kept."""
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    return folder
