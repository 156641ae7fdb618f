"""Where a node's time goes under load: shares of packages and functions, as py-spy samples its main thread."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from bench.load import pgbench_command, timed
from bench.servers import Running

CLIENTS = 32
SAMPLES_A_SECOND = 250
SHOWN = 20
_ROOT = "shardforge/"


def profile(node: Running, seconds: int) -> None:
    """Print the shares of a simple-update load."""
    if shutil.which("py-spy") is None:
        print("py-spy is not installed: no profile")
        return
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
        _show(stacks.read_text(encoding="utf-8"))


def _show(stacks: str) -> None:
    packages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not any("Runner.run" in frame for frame in frames):
            continue  # a thread that syncs, or waits for work
        total += int(count)
        leaf = frames[-1].rpartition(":")[0]
        functions[leaf] += int(count)
        packages[_package(frames)] += int(count)
    for title, shares in (("package", packages), ("function", functions)):
        print(f"{title + ', share of the main thread':<70}")
        for name, count in shares.most_common(SHOWN):
            print(f"  {100 * count / max(1, total):5.1f} %  {name}")


def _package(frames: list[str]) -> str:
    """The innermost package of ours that a sample is in."""
    for frame in reversed(frames):
        _, found, path = frame.partition(_ROOT)
        if found:
            return "/".join(path.split("/")[:-1]) or "shardforge"
    return "the event loop"
