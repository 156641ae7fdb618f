"""The machine's clocks behind the Clock port."""

from __future__ import annotations

import asyncio
import time

# CLOCK_BOOTTIME counts suspended time, which a lease must; elsewhere the monotonic clock has to do.
_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """`ports.Clock` by the operating system."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since boot, suspend included."""
        return time.clock_gettime_ns(_MONOTONIC)

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
