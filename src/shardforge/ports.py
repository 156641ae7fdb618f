"""The doors to the world: what waiting code may ask for, and nothing else.

Each port has two implementations: the real one in `adapters/`, and the simulator's. Pure code takes no
port; it takes time and randomness as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Time, in two kinds that must not be mixed."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary start, suspend included; never goes back."""
        ...

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC; for people and now(), never for ordering."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""
        ...


class Blocking(Protocol):
    """Runs calls that block (fdatasync, long scans, checkpoints) away from the event loop."""

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()`, made on a thread; raises what it raises."""
        ...
