"""Three nodes at rest, then under full load: processor time, memory, and whether a leadership moved without a fault.

    python -m bench.steady [--seconds 600] [--clients 32] [--idle 60]

Ends with 1 when a term rose under load: a node that is only busy must not cost an election.
"""

from __future__ import annotations

import argparse
import sys
import time

from bench.clusters import Three, status_of, three_shardforge
from bench.load import loaded, rate

SLICE_SECONDS = 30


def main() -> None:
    """Measure, print, and judge the elections."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--idle", type=int, default=60)
    options = parser.parse_args()
    three = three_shardforge()
    try:
        _at_rest(three, options.idle)
        moved = _under_load(three, options.seconds, options.clients)
    finally:
        three.stop()
    sys.exit(1 if moved else 0)


def _at_rest(three: Three, seconds: int) -> None:
    before = three.cpu_seconds()
    time.sleep(seconds)
    shares = [
        100 * (after - begun) / seconds
        for begun, after in zip(before, three.cpu_seconds(), strict=True)
    ]
    each = " + ".join(f"{share:.2f}" for share in shares)
    print(f"idle: {sum(shares):.2f} % of a core ({each}), {three.resident_mb():.0f} MB", flush=True)


def _terms(three: Three) -> dict[int, int]:
    return {shard["id"]: shard["term"] for shard in status_of(three.front)["shards"]}


def _under_load(three: Three, seconds: int, clients: int) -> bool:
    """Whether a term rose."""
    loaded(three.front, 10)
    before = _terms(three)
    left = seconds
    while left > 0:
        part = min(SLICE_SECONDS, left)
        found = rate(three.front, "simple-update", clients, part, "prepared")
        left -= part
        print(f"{seconds - left:5} s: {found:,.0f} tx/s, {three.resident_mb():.0f} MB", flush=True)
    after = _terms(three)
    moved = {shard: (term, after[shard]) for shard, term in before.items() if after[shard] != term}
    print(f"elections without a fault: {moved or 'none'}", flush=True)
    return bool(moved)


if __name__ == "__main__":
    main()
