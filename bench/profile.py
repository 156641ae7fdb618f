"""Where the time goes under load: each process's processor time for one transaction, by thread, and then the shares of
packages and functions in the serving node's main thread, as py-spy samples it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from bench.clusters import Three
from bench.load import pgbench_command, rate, timed
from bench.report import Report
from bench.servers import Running, cpu_ticks

CLIENTS = 32
SAMPLES_A_SECOND = 250
SHOWN = 20
_ROOT = "shardforge/"


def profile(cluster: Three, seconds: int) -> None:
    """Print and keep where a simple-update load spends its time."""
    report = Report("cluster_profile", [cluster.front.name])
    _threads(cluster, seconds, report)
    if shutil.which("py-spy") is None:
        print("py-spy is not installed: no shares of functions")
    else:
        _functions(cluster.front, seconds, report)
    report.save()


def pgbench_cpu_seconds() -> float:
    """Processor time of the programs that were run and have ended, which under load is pgbench alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _thread_seconds(node: Running) -> tuple[float, float]:
    """(the main thread, all others), so far."""
    pid = node.process.pid
    main = others = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        ticks = cpu_ticks((task / "stat").read_text(encoding="ascii"))
        if task.name == str(pid):
            main = ticks
        else:
            others += ticks
    hertz = os.sysconf("SC_CLK_TCK")
    return main / hertz, others / hertz


def _threads(cluster: Three, seconds: int, report: Report) -> None:
    before, client = [_thread_seconds(node) for node in cluster.members], pgbench_cpu_seconds()
    found = rate(cluster.front, "simple-update", CLIENTS, seconds, "prepared")
    client = pgbench_cpu_seconds() - client
    after = [_thread_seconds(node) for node in cluster.members]
    each = 1e6 / (found * seconds)
    report.figures(f"simple-update, {CLIENTS} clients, tx/s", [found])
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        name = f"follower {number}" if number else "serving node"
        report.figures(f"{name}, main thread, us/tx", [(new[0] - old[0]) * each])
        report.figures(f"{name}, other threads, us/tx", [(new[1] - old[1]) * each])
    report.figures("pgbench, us/tx", [client * each])


def _functions(node: Running, seconds: int, report: Report) -> None:
    command = pgbench_command(node, *timed(CLIENTS, seconds + 2), "-N")
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        record = [
            "py-spy", "record", "--pid", str(node.process.pid), "--duration", str(seconds),
            "--rate", str(SAMPLES_A_SECOND), "--format", "raw", "--output", str(stacks),
        ]  # fmt: skip
        load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            subprocess.run(record, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            load.wait()
        _shares(stacks.read_text(encoding="utf-8"), report)


def _shares(stacks: str, report: Report) -> None:
    packages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not any("Runner.run" in frame for frame in frames):
            continue  # a thread that syncs, or waits for work
        functions[frames[-1].rpartition(":")[0]] += int(count)
        packages[_package(frames)] += int(count)
    total = max(1, packages.total())
    for kind, shares in (("package", packages), ("function", functions)):
        for name, samples in shares.most_common(SHOWN):
            report.note(f"% of the main thread, {kind} {name}", round(100 * samples / total, 1))


def _package(frames: list[str]) -> str:
    """The innermost package of ours that a sample is in."""
    for frame in reversed(frames):
        _, found, path = frame.partition(_ROOT)
        if found:
            return "/".join(path.split("/")[:-1]) or "shardforge"
    return "the event loop"
