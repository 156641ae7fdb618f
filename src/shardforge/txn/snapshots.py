"""Which timestamps are still being read at: what collection of old versions must respect.

A pin is counted, so that a transaction and its open scans may hold the same one.
PURE.
"""

from __future__ import annotations

from shardforge.ids import Timestamp


class Snapshots:
    """The read timestamps in use on this node."""

    __slots__ = ("_pins",)

    def __init__(self) -> None:
        self._pins: dict[Timestamp, int] = {}

    def __len__(self) -> int:
        """How many different timestamps are in use."""
        return len(self._pins)

    def pin(self, timestamp: Timestamp) -> None:
        """Keep every version that a reader at `timestamp` sees."""
        pins = self._pins
        pins[timestamp] = pins.get(timestamp, 0) + 1

    def unpin(self, timestamp: Timestamp) -> None:
        """Undo one `pin`."""
        pins = self._pins
        count = pins[timestamp]
        if count == 1:
            del pins[timestamp]
        else:
            pins[timestamp] = count - 1

    def oldest(self, otherwise: Timestamp) -> Timestamp:
        """The smallest timestamp in use, or `otherwise`."""
        return min(self._pins, default=otherwise)
