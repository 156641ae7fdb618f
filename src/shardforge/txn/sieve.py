"""What the reader of a scan will throw away, told to shards elsewhere so that they need not send it.

A transaction does not know what a row is: to it a sieve is bytes, which a node with a replica understands. What does
not pass may be left out of a scan, and need not be: shards that are led here, own writes and what is committed but not
yet resolved come as they are. So a scan with a sieve is for a reader who looks at all that comes.
"""

from __future__ import annotations

from collections.abc import Callable


class Sieve:
    """One scan's. `make` gives the bytes, empty when all rows pass; it is asked once, if a shard elsewhere is read."""

    __slots__ = ("_data", "_make", "_rows_wanted")

    def __init__(self, make: Callable[[], bytes], rows_wanted: int | None = None) -> None:
        """`rows_wanted`: about so many rows that pass will be taken; None: all."""
        self._make = make
        self._data: bytes | None = None
        self._rows_wanted = rows_wanted

    @property
    def data(self) -> bytes:
        """The bytes."""
        if self._data is None:
            self._data = self._make()
        return self._data

    def first_page(self, rows_max: int) -> int:
        """How many rows to ask for first, at most `rows_max`: no more than are wanted, if only such are sent."""
        if self._rows_wanted is None or not self.data:
            return rows_max
        return max(1, min(rows_max, self._rows_wanted))
