"""PostgreSQL and ShardForge in turn, in one run: pgbench's three workloads, start-up, memory, COPY.

    python -m bench.versus_postgres [--seconds 20] [--rounds 3] [--scale 10] [--clients 1,8,32] [--mode prepared]

Rates are pgbench's transactions a second, without connecting; each round runs both servers, and the median of the
rounds' ratios is what counts. Results also go to bench/results/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from bench.servers import Running, postgres_folder, start_postgres, start_shardforge

WORKLOADS = {"select-only": ["-S"], "simple-update": ["-N"], "tpc-b": []}
COPY_ROWS = 200_000
RESULTS = Path(__file__).parent / "results"


def pgbench(server: Running, *arguments: str) -> str:
    """pgbench's output; raises CalledProcessError when it fails."""
    command = [
        "pgbench",
        "-h",
        "127.0.0.1",
        "-p",
        str(server.port),
        "-U",
        server.user,
        *arguments,
        "shardforge",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{server.name}: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def rate(
    server: Running, workload: str, clients: int, seconds: int, mode: str
) -> tuple[float, float]:
    """(transactions a second, average latency in ms)."""
    output = pgbench(
        server,
        "-n",
        "-c",
        str(clients),
        "-j",
        "1",
        "-T",
        str(seconds),
        "-M",
        mode,
        *WORKLOADS[workload],
    )
    tps = re.search(r"tps = ([0-9.]+)", output)
    latency = re.search(r"latency average = ([0-9.]+)", output)
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if tps is None or latency is None or failed is None or failed[1] != "0":
        raise SystemExit(f"{server.name}: unexpected output of pgbench:\n{output}")
    return float(tps[1]), float(latency[1])


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


def main() -> None:
    """Run the comparison and print ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--mode", default="prepared")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    options = parser.parse_args()
    if shutil.which("pgbench") is None:
        sys.exit("pgbench is needed (Debian: postgresql-contrib)")
    ours = start_shardforge()
    peer = start_postgres() if postgres_folder() is not None else None
    servers = [server for server in (peer, ours) if server is not None]
    report: dict[str, object] = {
        "machine": platform.platform(),
        "python": platform.python_version(),
    }
    try:
        _measure(servers, options, report)
    finally:
        for server in servers:
            server.stop()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "versus_postgres.json").write_text(json.dumps(report, indent=2), encoding="utf-8")


def _measure(
    servers: list[Running], options: argparse.Namespace, report: dict[str, object]
) -> None:
    _row("", *(server.name for server in servers), "ratio")
    _figures(report, "start-up, s", servers, [server.start_seconds for server in servers])
    _figures(report, "memory idle, MB", servers, [server.resident_mb() for server in servers])
    _figures(report, "COPY, rows/s", servers, [copy_rate(server) for server in servers])
    loads = []
    for server in servers:
        begun = time.monotonic()
        pgbench(server, "-i", "-q", "-s", str(options.scale))
        loads.append(time.monotonic() - begun)
    _figures(report, f"pgbench -i -s {options.scale}, s", servers, loads)
    for workload in options.workloads.split(","):
        for clients in (int(n) for n in options.clients.split(",")):
            rounds = [
                [
                    rate(server, workload, clients, options.seconds, options.mode)[0]
                    for server in servers
                ]
                for _ in range(options.rounds)
            ]
            medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
            ratio = statistics.median(r[-1] / r[0] for r in rounds)
            _figures(report, f"{workload}, {clients} clients, tx/s", servers, medians, ratio)
    for server in servers:
        print(f"{server.name}: branches = tellers, accounts = history: {consistent(server)}")
    _figures(report, "memory after, MB", servers, [server.resident_mb() for server in servers])


def _figures(
    report: dict[str, object],
    name: str,
    servers: list[Running],
    values: list[float],
    ratio: float | None = None,
) -> None:
    if ratio is None:
        ratio = values[-1] / values[0] if len(values) == 2 else 1.0
    report[name] = {
        **{s.name: round(v, 3) for s, v in zip(servers, values, strict=True)},
        "ratio": round(ratio, 3),
    }
    _row(name, *(f"{value:,.2f}" for value in values), f"{ratio:.2f}")


def _row(name: str, *cells: str) -> None:
    print(f"{name:<34}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
