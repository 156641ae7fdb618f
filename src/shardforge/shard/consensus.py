"""The Raft node of a replica, reduced to what the host does with it.

PURE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shardforge.ids import NodeId
from shardforge.shard.log import Entry, ShardLog


class Work(NamedTuple):
    """What must be written to the log before anything depends on it."""

    entries: Sequence[Entry]
    hard_state: tuple[int, int, int] | None
    must_sync: bool


class Consensus:
    """One voter alone."""

    def __init__(self, node: NodeId, voters: Sequence[NodeId], log: ShardLog, applied: int) -> None:
        assert list(voters) == [node], "one voter"
        self._node = node
        self._term = log.hard_state.term
        self._last = log.last_index
        self._committed = log.read(applied + 1, log.last_index + 1)
        self._unstable: list[Entry] = []
        self._leader = False

    @property
    def term(self) -> int:
        return self._term

    def leads_in(self, term: int) -> bool:
        return self._leader and self._term == term

    def campaign(self) -> None:
        self._term += 1
        self._leader = True
        self.propose(b"")

    def propose(self, data: bytes) -> int | None:
        self._last += 1
        self._unstable.append((self._last, self._term, data))
        return self._last

    def ready(self) -> Work | None:
        if not self._unstable:
            return None
        entries, self._unstable = self._unstable, []
        first = entries[0][2] == b""
        return Work(entries, (self._term, self._node, 0) if first else None, must_sync=True)

    def persisted(self, work: Work) -> list[Entry]:
        committed, self._committed = [*self._committed, *work.entries], []
        return committed
