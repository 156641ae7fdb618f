"""What the machine has, as far as this process may use it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_bytes(limits: Iterable[Path] = _CGROUP_LIMITS) -> int:
    """The machine's memory, or the container's where that has less: `limits` are files that may say so."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in limits:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max": none
            memory = min(memory, int(text))
    return memory
