"""PostgreSQL and ShardForge in turn, in one run: pgbench's three workloads, start-up, memory, COPY.

    python -m bench.versus_postgres [--seconds 20] [--rounds 3] [--scale 10] [--clients 1,8,32] [--mode prepared]

Rates are pgbench's transactions a second, without connecting; each round runs both servers, and the median of the
rounds' ratios is what counts. Results also go to bench/results/ as JSON.
"""

from __future__ import annotations

import argparse
import shutil
import sys

from bench.load import WORKLOADS, consistent, copy_rate, loaded, rate
from bench.report import Report
from bench.servers import Running, postgres_folder, start_postgres, start_shardforge


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
    try:
        _measure(servers, options)
    finally:
        for server in servers:
            server.stop()


def _measure(servers: list[Running], options: argparse.Namespace) -> None:
    report = Report("versus_postgres", [server.name for server in servers])
    report.figures("start-up, s", [server.start_seconds for server in servers])
    report.figures("memory idle, MB", [server.resident_mb() for server in servers])
    report.figures("COPY, rows/s", [copy_rate(server) for server in servers])
    loads = [loaded(server, options.scale) for server in servers]
    report.figures(f"pgbench -i -s {options.scale}, s", loads)
    for workload in options.workloads.split(","):
        for clients in (int(n) for n in options.clients.split(",")):
            rounds = [
                [
                    rate(server, workload, clients, options.seconds, options.mode)
                    for server in servers
                ]
                for _ in range(options.rounds)
            ]
            report.rounds(f"{workload}, {clients} clients, tx/s", rounds)
    for server in servers:
        report.note(f"{server.name}: branches = tellers, accounts = history", consistent(server))
    report.figures("memory after, MB", [server.resident_mb() for server in servers])
    report.save()


if __name__ == "__main__":
    main()
