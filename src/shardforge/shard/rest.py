"""When a node is at rest. PURE."""

from __future__ import annotations


class Rest:
    """Tells from counts of what was done so far whether anything was done of late."""

    __slots__ = ("_after_ns", "_counts", "_since_ns")

    def __init__(self, after_ns: int) -> None:
        self._after_ns = after_ns
        self._counts: tuple[int, ...] = ()
        self._since_ns = 0

    def seen(self, now_ns: int, *counts: int) -> bool:
        """Whether these counts, as of now, have been the same for `after_ns`."""
        if counts != self._counts:
            self._counts, self._since_ns = counts, now_ns
        return now_ns - self._since_ns >= self._after_ns
