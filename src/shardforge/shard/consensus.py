"""A replica's Raft node over its log: what is durable goes in, what is to be done comes out.

`LogReader` is the core's view of the log (`raft.log_storage`). An entry's kind is the first byte of its
data in the log. Entries that are written and not yet applied are kept in memory, so that a replica which
keeps up never reads its log.
PURE, but for what reading the log costs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from shardforge.ids import NodeId
from shardforge.raft.config import Config
from shardforge.raft.messages import ConfState, Entry, EntryKind, HardState, Snapshot
from shardforge.raft.rawnode import RawNode
from shardforge.shard.log import ShardLog

_KIND = {kind: bytes((kind,)) for kind in EntryKind}


class LogReader:
    """`raft.LogStorage` over a shard's log, with the entries still to be applied in memory."""

    __slots__ = ("_applied", "_log", "_recent", "_voters")

    def __init__(self, log: ShardLog, voters: Sequence[NodeId], applied: int) -> None:
        self._log = log
        self._voters = tuple(sorted(voters))
        self._applied = applied
        self._recent: dict[int, Entry] = {}

    def append(self, entries: Sequence[Entry]) -> int:
        """Hand entries to the log, to be written by its next sync; the bytes of their data."""
        recent = self._recent
        size = 0
        written = []
        for entry in entries:
            recent[entry.index] = entry
            data = _KIND[entry.kind] + entry.data
            size += len(data)
            written.append((entry.index, entry.term, data))
        self._log.append(written)
        return size

    def applied(self, index: int) -> None:
        """The entry is applied: it will not be asked for here any more."""
        self._recent.pop(index, None)

    def initial_state(self) -> tuple[HardState, ConfState]:
        """What the voter knew, and its group."""
        hard = self._log.hard_state
        # What is applied was committed, also where the commit index was not written down in time.
        known = HardState(hard.term, hard.vote, max(hard.commit, self._applied))
        return known, ConfState(voters=self._voters)

    def first_index(self) -> int:
        """The oldest entry kept."""
        return self._log.base_index + 1

    def last_index(self) -> int:
        """The newest entry."""
        return self._log.last_index

    def term(self, index: int) -> int | None:
        """The term of an entry or of the base."""
        entry = self._recent.get(index)
        return self._log.term(index) if entry is None else entry.term

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """The entries with low <= index < high, at least one, then up to `bytes_max` of data."""
        recent = self._recent
        if all(index in recent for index in range(low, high)):
            return _within([recent[index] for index in range(low, high)], bytes_max)
        return [
            Entry(index, term, data[1:], EntryKind(data[0]))
            for index, term, data in self._log.read(low, high, bytes_max=bytes_max)
        ]

    def snapshot(self) -> Snapshot | None:
        """None yet: a lagging follower is sent a checkpoint of the engine."""
        return None


def _within(entries: list[Entry], bytes_max: int) -> list[Entry]:
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data)
        if count and size > bytes_max:
            return entries[:count]
    return entries


def make_node(node: NodeId, reader: LogReader, applied: int, seed: int) -> RawNode:
    """The voter that continues from what `reader` holds."""
    return RawNode(
        Config(node_id=node, storage=reader, random=random.Random(seed), applied=applied)
    )
