"""How fast a node takes what is copied to it, so that copies leave room for clients. PURE."""

from __future__ import annotations


class Pace:
    """Bytes a second on the average, for all who share it. Times are seconds of a monotonic clock."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free = 0.0
        """When what was taken so far is paid for."""

    def wait(self, now: float) -> float:
        """For how many seconds the next one is to wait."""
        return max(0.0, self._free - now)

    def took(self, size: int, now: float) -> None:
        """So many bytes were taken. What was not used before is not saved up."""
        self._free = max(self._free, now) + size / self._rate
