"""Which nodes answer: alive, silent, or down for so long that others take their place.

Silence is what the serving node did not hear while it listened. A node that was never heard counts from the moment
at which listening began, so a new serving node takes nobody for lost; time in which this process stood still is not
held against the others either. Only a node that was heard lately is alive: in between it is neither.
PURE: the caller tells the time. Source: the failure detector of Raft's check-quorum, stretched to `down_after`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shardforge.ids import NodeId


class Sight(NamedTuple):
    """The nodes at one moment. `down` are `silent` too; who is in none is not known."""

    alive: frozenset[NodeId]
    silent: frozenset[NodeId] = frozenset()
    down: frozenset[NodeId] = frozenset()


class Liveness:
    """When each node was last heard; all times in seconds of one monotonic clock."""

    def __init__(self, own: NodeId, now: float, *, silent_after: float, down_after: float) -> None:
        self.heard_at: dict[NodeId, float] = {}
        self._own = own
        self._listening_since = now
        self._listened_at = now
        self._silent_after = silent_after
        self._down_after = down_after

    def listen(self, now: float) -> None:
        """Say that this process runs; to be called every round. A long pause starts the count of silence anew."""
        if now - self._listened_at > self._silent_after:
            self._listening_since = now
        self._listened_at = now

    def hear(self, node: NodeId, now: float) -> None:
        """The node has answered."""
        self.heard_at[node] = now

    def forget(self, node: NodeId) -> None:
        """The node is no member any more."""
        self.heard_at.pop(node, None)

    def silence(self, node: NodeId, now: float) -> float:
        """For how many seconds the node was listened to in vain."""
        if node == self._own:
            return 0.0
        return now - max(self.heard_at.get(node, self._listening_since), self._listening_since)

    def sight(self, nodes: Iterable[NodeId], now: float) -> Sight:
        """How these nodes are now."""
        silences = {node: self.silence(node, now) for node in nodes}
        return Sight(
            frozenset(node for node in silences if self._alive(node, now)),
            frozenset(node for node, seconds in silences.items() if seconds > self._silent_after),
            frozenset(node for node, seconds in silences.items() if seconds > self._down_after),
        )

    def _alive(self, node: NodeId, now: float) -> bool:
        heard = now if node == self._own else self.heard_at.get(node)
        return heard is not None and now - heard <= self._silent_after
