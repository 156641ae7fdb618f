"""Three nodes at rest, then under full load: processor time, memory, and whether an election came without a fault.

    python -m bench.steady [--seconds 600] [--clients 32] [--idle 60]

A node that is only busy must not cost an election: each node's metrics are read before, between and after, and the
terms of all shards. Ends with 1 when one came, or when the cluster at rest takes more than it may.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from urllib.request import urlopen

from bench.clusters import Three, status_of, three_shardforge
from bench.load import loaded, rate
from bench.report import Report

SLICE_SECONDS = 30
SETTLE_SECONDS = 2
SCALE = 10
IDLE_PERCENT_MAX = 3.0
"""Of one core, all nodes together."""
IDLE_MB_MAX = 450.0
_COUNTED = ("elections_started_total", "elections_won_total", "leader_changes_total")
_SAMPLE = re.compile(rf"^shardforge_({'|'.join(_COUNTED)}) ([0-9.e+]+)$", re.MULTILINE)


def main() -> None:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--idle", type=int, default=60)
    options = parser.parse_args()
    report = Report("steady", ["ShardForge"])
    three = three_shardforge(metrics=True)
    try:
        faults = [*_at_rest(three, options.idle, report)]
        faults += _under_load(three, options.seconds, options.clients, report)
    finally:
        three.stop()
    report.note("failures", faults)
    report.save()
    sys.exit("; ".join(faults) or None)


def _at_rest(three: Three, seconds: int, report: Report) -> list[str]:
    """What is too much."""
    time.sleep(SETTLE_SECONDS)
    before = three.cpu_seconds()
    time.sleep(seconds)
    shares = [
        100 * (after - begun) / seconds
        for begun, after in zip(before, three.cpu_seconds(), strict=True)
    ]
    share, memory = sum(shares), three.resident_mb()
    report.figures("at rest, % of a core", [share])
    report.note("at rest, % of a core, by node", [round(each, 2) for each in shares])
    report.figures("at rest, MB", [memory])
    faults = []
    if share > IDLE_PERCENT_MAX:
        faults.append(f"{share:.2f} % of a core at rest, more than {IDLE_PERCENT_MAX}")
    if memory > IDLE_MB_MAX:
        faults.append(f"{memory:.0f} MB at rest, more than {IDLE_MB_MAX}")
    return faults


def elections(three: Three) -> dict[str, float]:
    """What the nodes count of elections, added up, and the sum of all terms."""
    found = dict.fromkeys(_COUNTED, 0.0)
    for node in three.members:
        with urlopen(f"http://127.0.0.1:{node.metrics_port}/metrics", timeout=10) as answer:
            for name, value in _SAMPLE.findall(answer.read().decode()):
                found[name] += float(value)
    found["terms"] = sum(shard["term"] for shard in status_of(three.front)["shards"])
    return found


def _under_load(three: Three, seconds: int, clients: int, report: Report) -> list[str]:
    """Which elections there were."""
    loaded(three.front, SCALE)
    before = elections(three)
    left = seconds
    rates = []
    while left > 0:
        part = min(SLICE_SECONDS, left)
        rates.append(rate(three.front, "simple-update", clients, part, "prepared"))
        left -= part
        print(f"{seconds - left:5} s: {rates[-1]:,.0f} tx/s", flush=True)
    after = elections(three)
    report.rounds(f"simple-update, {clients} clients, tx/s", [[each] for each in rates])
    report.note("slowest and fastest of the slices, tx/s", [min(rates), max(rates)])
    report.figures("memory after, MB", [three.resident_mb()])
    report.note("counted before the load", before)
    report.note(f"counted after {seconds} s", after)
    return [
        f"{name} rose from {before[name]:.0f} to {count:.0f} without a fault"
        for name, count in after.items()
        if count != before[name]
    ]


if __name__ == "__main__":
    main()
