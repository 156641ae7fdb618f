"""What a node's replicas were sent, and sent, as whole states."""

from __future__ import annotations


class SnapshotCounters:
    """Snapshots since the node started. One is sent when its last piece is, and received when that is written."""

    __slots__ = ("received", "received_bytes", "receiving", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.received = 0
        self.received_bytes = 0
        self.receiving = 0
        """How many are on their way here now."""
        self.sent = 0
        self.sent_bytes = 0
