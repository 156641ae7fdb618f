"""Three ShardForge nodes beside PostgreSQL with two synchronous standbys and an etcd of three, in turn, in one run.

    python -m bench.cluster [--seconds 15] [--rounds 3] [--scale 10] [--clients 1,8,32] [--quick] [--profile SECONDS]

pgbench's simple-update and TPC-B, then puts and linearizable gets of single keys (at 1, 8 and 64 clients), and the
processor time that each member of a cluster, and pgbench, takes for one transaction. What is not installed is left out,
and said.
`--profile` ends with where ShardForge's time goes at 32 clients: threads, and functions of the serving node (py-spy).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from bench import etcd
from bench.clusters import Three, three_postgres, three_shardforge
from bench.load import consistent, loaded, make_keys, rate
from bench.profile import pgbench_cpu_seconds, profile
from bench.report import Report
from bench.servers import postgres_folder

KEY_CLIENTS = (1, 8, 64)


def main() -> None:
    """Run the comparison and print ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    parser.add_argument("--profile", type=int, default=0, metavar="SECONDS")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.scale = 4, 1, 2
    if shutil.which("pgbench") is None:
        sys.exit("pgbench is needed (Debian: postgresql-contrib)")
    clusters: list[Three] = []
    members: list[etcd.Etcd] = []
    try:
        if postgres_folder() is None:
            print("PostgreSQL's server programs are not installed: left out")
        else:
            clusters.append(three_postgres())
        clusters.append(three_shardforge())
        _transactions(clusters, options)
        if etcd.available():
            members.append(etcd.Etcd())
        else:
            print("etcd is not installed (Debian: etcd-server): left out")
        _keys(clusters, members, options)
        if options.profile:
            profile(clusters[-1], options.profile)
    finally:
        for member in members:
            member.stop()
        for cluster in clusters:
            cluster.stop()


def _transactions(clusters: Sequence[Three], options: argparse.Namespace) -> None:
    report = Report("cluster", [cluster.front.name for cluster in clusters])
    report.figures("memory idle, MB", [cluster.resident_mb() for cluster in clusters])
    loads = [loaded(cluster.front, options.scale) for cluster in clusters]
    report.figures(f"pgbench -i -s {options.scale}, s", loads)
    for workload in ("simple-update", "tpc-b"):
        for clients in (int(n) for n in options.clients.split(",")):
            costs: list[list[float]] = []
            rounds = []
            for _ in range(options.rounds):
                figures = [_costed(c, workload, clients, options.seconds) for c in clusters]
                rounds.append([rate for rate, _ in figures])
                costs = [cost for _, cost in figures]
            report.rounds(f"{workload}, {clients} clients, tx/s", rounds)
            for cluster, cost in zip(clusters, costs, strict=True):
                *servers, client = (f"{microseconds:.0f}" for microseconds in cost)
                text = f"{' + '.join(servers)}, pgbench {client}"
                report.note(f"    {cluster.front.name}, {workload}, {clients}: CPU us/tx", text)
    for cluster in clusters:
        name = cluster.front.name
        report.note(f"{name}: branches = tellers, accounts = history", consistent(cluster.front))
    report.figures("memory after, MB", [cluster.resident_mb() for cluster in clusters])
    report.save()


def _costed(cluster: Three, workload: str, clients: int, seconds: int) -> tuple[float, list[float]]:
    """(transactions a second, microseconds of each member's processor for one, and pgbench's)."""
    before, client = cluster.cpu_seconds(), pgbench_cpu_seconds()
    found = rate(cluster.front, workload, clients, seconds, "prepared")
    client = pgbench_cpu_seconds() - client
    after = [*cluster.cpu_seconds(), client]
    before.append(0.0)
    count = found * seconds
    return found, [(b - a) * 1e6 / count for a, b in zip(before, after, strict=True)]


def _keys(
    clusters: Sequence[Three], members: Sequence[etcd.Etcd], options: argparse.Namespace
) -> None:
    for cluster in clusters:
        make_keys(cluster.front)
    *peers, ours = [cluster.front for cluster in clusters]
    names = [*(peer.name for peer in peers), *(member.name for member in members), ours.name]
    report = Report("cluster_keys", names)
    for kind in ("put", "get"):
        for clients in KEY_CLIENTS:
            rounds = [
                [
                    *(rate(peer, kind, clients, options.seconds, "prepared") for peer in peers),
                    *(member.rate(kind, clients, options.seconds) for member in members),
                    rate(ours, kind, clients, options.seconds, "prepared"),
                ]
                for _ in range(options.rounds)
            ]
            report.rounds(f"{kind}, {clients} clients, 1/s", rounds)
    report.save()


if __name__ == "__main__":
    main()
