"""The timestamp oracle: strictly growing numbers, never given twice, also across restarts.

It lives at the leader of the meta shard. Numbers below a *window* that is durable in the meta shard may be
given at once (`try_next`); above it the caller waits until a higher window is durable. A new leader, or a
restart, begins above the window that it finds, so no safety rests on a clock.

Numbers follow the wall clock in microseconds where it allows: a version's age is then its timestamp, which
is all that retention needs. The clock only ever pushes them up, and never past the window.
PURE (time is an argument); `OracleService` in `oracle` makes windows durable.
"""

from __future__ import annotations

from shardforge.ids import Timestamp

WINDOW_US = 10_000_000
"""How far above the last number a new window reaches."""


class TimestampOracle:
    """Allocation inside a durable window."""

    __slots__ = ("_last", "_window")

    def __init__(self, window: Timestamp) -> None:
        self._last = window
        self._window = window

    @property
    def last(self) -> Timestamp:
        """The highest number given, or the bound below which none will be given again."""
        return self._last

    @property
    def window(self) -> Timestamp:
        """The durable bound: no number above it was ever given."""
        return self._window

    def try_next(self, wall_us: int) -> Timestamp | None:
        """The next number, or None when the window must grow first."""
        drawn = self._last + 1
        if drawn > self._window:
            return None
        if wall_us > drawn:
            drawn = min(wall_us, self._window)
        self._last = Timestamp(drawn)
        return self._last

    def is_low(self, wall_us: int) -> bool:
        """Whether a window should be prepared now, so that nobody has to wait for it."""
        return max(self._last, wall_us) > self._window - WINDOW_US // 2

    def proposed_window(self, wall_us: int) -> Timestamp:
        """The window to make durable next."""
        return Timestamp(max(self._last, wall_us) + WINDOW_US)

    def extend(self, window: Timestamp) -> None:
        """A higher window is durable now."""
        assert window >= self._window, "a window never shrinks"
        self._window = window
