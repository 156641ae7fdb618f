"""The Raft node of a replica, reduced to what the host does with it.

PURE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shardforge.ids import NodeId
from shardforge.shard.log import HardState, LogEntry, ShardLog


class Work(NamedTuple):
    """What must be written to the log before anything depends on it."""

    entries: Sequence[LogEntry]
    hard_state: HardState | None
    must_sync: bool


class Consensus:
    """One voter alone."""

    def __init__(self, node: NodeId, voters: Sequence[NodeId], log: ShardLog, applied: int) -> None:
        assert list(voters) == [node], "one voter"
        self._node = node
        self._hard, entries = log.recovered()
        self._last = log.last_index
        self._committed = [entry for entry in entries if entry.index > applied]
        self._unstable: list[LogEntry] = []
        self._leader = False

    @property
    def term(self) -> int:
        return self._hard.term

    def leads_in(self, term: int) -> bool:
        return self._leader and self._hard.term == term

    def campaign(self) -> None:
        self._hard = HardState(self._hard.term + 1, self._node, self._hard.commit)
        self._leader = True
        self.propose(b"")

    def propose(self, data: bytes) -> int | None:
        self._last += 1
        self._unstable.append(LogEntry(self._last, self._hard.term, data))
        return self._last

    def ready(self) -> Work | None:
        if not self._unstable:
            return None
        entries, self._unstable = self._unstable, []
        return Work(entries, self._hard, must_sync=True)

    def persisted(self, work: Work) -> list[LogEntry]:
        committed, self._committed = [*self._committed, *work.entries], []
        return committed

    def compact(self, index: int) -> None:
        return None
