"""TPC-C on ShardForge (one node, three nodes) and PostgreSQL (alone, with two synchronous standbys), in one run.

    python -m bench.tpcc [--warehouses 2] [--items 100000] [--customers 3000] [--seconds 60] [--terminals 16]
                         [--thinking] [--isolation read_committed] [--servers postgres,shardforge,...] [--dsn URL]

Each server is loaded, warmed up, measured, and asked for the twelve consistency conditions, one after the other, all
other servers stopped. Without `--thinking` the terminals never pause, which the specification does not allow of a
published result: figures are for comparison only. `--dsn` measures a server that runs already, and has no such tables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import asyncpg

from bench.clusters import three_postgres, three_shardforge
from bench.load import results_folder
from bench.servers import Running, postgres_folder, start_postgres, start_shardforge
from bench.tpcc.consistency import broken_conditions
from bench.tpcc.loading import load
from bench.tpcc.results import KINDS, Results
from bench.tpcc.schema import Connection, Scale
from bench.tpcc.terminals import TERMINALS_A_WAREHOUSE, Load, run

try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop

SERVERS = ("postgres", "shardforge", "postgres-sync", "shardforge-three")
PEER_OF = {"shardforge": "postgres", "shardforge-three": "postgres-sync"}


@dataclass
class Measured:
    """One server's figures."""

    results: Results
    load_seconds: float
    server_cpu_seconds: float | None
    broken: dict[int, str]

    @property
    def tpmc_a_core(self) -> float | None:
        """tpmC for each processor that the servers kept busy, all nodes counted."""
        if not self.server_cpu_seconds:
            return None
        return self.results.tpmc / (self.server_cpu_seconds / self.results.seconds)

    def figures(self) -> dict[str, object]:
        """For a file."""
        results = self.results
        return {
            "tpmC": round(results.tpmc, 1),
            "tpmC per core": self.tpmc_a_core and round(self.tpmc_a_core, 1),
            "90th percentile, ms": {kind: round(results.percentile_ms(kind), 1) for kind in KINDS},
            "transactions": results.transactions,
            "rolled back": results.rolled_back,
            "repeated": dict(results.retries),
            "errors": dict(results.errors),
            "conditions broken": self.broken,
            "load, s": round(self.load_seconds, 1),
            "client CPU, s": round(results.client_cpu_seconds, 1),
        }


def main() -> None:
    """Run the comparison and print ratios."""
    options = _options()
    scale = Scale(options.warehouses, options.items, options.customers)
    terminals = options.terminals or scale.warehouses * TERMINALS_A_WAREHOUSE
    load_ = Load(
        options.seconds, terminals, options.warmup, options.thinking, options.isolation, options.seed
    )  # fmt: skip
    measured: dict[str, Measured] = {}
    if options.dsn:
        measured["server"] = _measure(options.dsn, [], scale, load_, options.foreign_keys)
        _print("server", measured["server"])
    else:
        for name in options.servers.split(","):
            if name.startswith("postgres") and postgres_folder() is None:
                print("PostgreSQL's server programs are not installed: left out")
                continue
            measured[name] = _on(name, scale, load_, foreign_keys=options.foreign_keys)
            _print(name, measured[name])
    _print_ratios(measured)
    document = {"scale": str(scale), "load": str(load_)} | {
        name: found.figures() for name, found in measured.items()
    }
    path = results_folder() / "tpcc.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if any(found.broken or found.results.errors for found in measured.values()):
        sys.exit("a condition is broken, or there were errors")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.tpcc", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--warehouses", type=int, default=2)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--customers", type=int, default=3_000, help="a district")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warmup", type=float, default=5)
    parser.add_argument("--terminals", type=int, default=0, help="default: ten a warehouse")
    parser.add_argument("--thinking", action="store_true", help="keying and thinking times")
    parser.add_argument(
        "--isolation", default="read_committed",
        choices=("read_committed", "repeatable_read", "serializable"),
    )  # fmt: skip
    parser.add_argument(
        "--foreign-keys", action="store_true", help="have the server check references"
    )
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--dsn", help="postgresql://user@host:port/database")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _on(name: str, scale: Scale, load_: Load, *, foreign_keys: bool) -> Measured:
    """Start a server, or several, measure, and stop."""
    if name in ("postgres", "shardforge"):
        alone = start_postgres() if name == "postgres" else start_shardforge()
        try:
            return _measure(_url(alone), [alone], scale, load_, foreign_keys)
        finally:
            alone.stop()
    three = three_postgres() if name == "postgres-sync" else three_shardforge()
    try:
        return _measure(_url(three.front), three.members, scale, load_, foreign_keys)
    finally:
        three.stop()


def _url(server: Running) -> str:
    return f"postgresql://{server.user}@127.0.0.1:{server.port}/shardforge"


def _measure(
    url: str, members: Sequence[Running], scale: Scale, load_: Load, foreign_keys: bool
) -> Measured:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_measured(url, members, scale, load_, foreign_keys))


async def _measured(
    url: str, members: Sequence[Running], scale: Scale, load_: Load, foreign_keys: bool
) -> Measured:
    async def connect() -> Connection:
        return await asyncpg.connect(url)

    def cpu_seconds() -> float:
        return sum(member.cpu_seconds() for member in members)

    connection = await connect()
    begun = time.monotonic()
    constant = await load(connection, scale, Random(load_.seed), foreign_keys=foreign_keys)
    load_seconds = time.monotonic() - begun
    loaded_broken = await broken_conditions(connection, scale)
    if loaded_broken:
        sys.exit(f"the rows that were loaded are not right: {loaded_broken}")
    running = asyncio.create_task(run(connect, scale, load_, constant))
    await asyncio.sleep(load_.warmup_seconds)
    before = await asyncio.to_thread(cpu_seconds)
    await asyncio.sleep(load_.seconds)
    used = await asyncio.to_thread(cpu_seconds) - before
    results = await running
    broken = await broken_conditions(connection, scale)
    await connection.close()
    return Measured(results, load_seconds, used or None, broken)


def _print(name: str, measured: Measured) -> None:
    print(f"{name}: loaded in {measured.load_seconds:.0f} s")
    print("\n".join(measured.results.lines()))
    if measured.tpmc_a_core is not None:
        print(
            f"  servers {measured.server_cpu_seconds:.1f} CPU s; tpmC per core {measured.tpmc_a_core:,.0f}"
        )
    if measured.broken:
        print(f"  CONDITIONS BROKEN: {measured.broken}", flush=True)
    else:
        print("  all 12 consistency conditions hold", flush=True)


def _print_ratios(measured: dict[str, Measured]) -> None:
    for name, peer in PEER_OF.items():
        if name not in measured or peer not in measured:
            continue
        ours, theirs = measured[name], measured[peer]
        ratios = [f"tpmC {ours.results.tpmc / theirs.results.tpmc:.2f}"]
        if ours.tpmc_a_core and theirs.tpmc_a_core:
            ratios.append(f"tpmC per core {ours.tpmc_a_core / theirs.tpmc_a_core:.2f}")
        ratios += [
            f"{kind} {ours.results.percentile_ms(kind) / theirs.results.percentile_ms(kind):.2f}"
            for kind in KINDS
            if theirs.results.percentile_ms(kind)
        ]
        print(f"{name} / {peer}: {', '.join(ratios)}")


if __name__ == "__main__":
    main()
