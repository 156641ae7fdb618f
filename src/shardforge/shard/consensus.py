"""A replica's Raft node over its log: what is durable goes in, what is to be done comes out.

`LogReader` is the core's view of the log (`raft.log_storage`). An entry's kind is the first byte of its
data in the log. Entries that are written and not yet applied are kept in memory, so that a replica which
keeps up never reads its log.
PURE, but for what reading the log costs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from shardforge.errors import StorageError
from shardforge.ids import NodeId
from shardforge.raft.config import Config
from shardforge.raft.messages import ConfState, Entry, EntryKind, HardState, Snapshot
from shardforge.raft.rawnode import RawNode
from shardforge.shard.command import Applied, applied_of, encode_applied
from shardforge.shard.log import ShardLog
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine, Reader

_encoder = msgspec.msgpack.Encoder()
_conf_decoder = msgspec.msgpack.Decoder(ConfState)

FIRST = 1
"""The log of a group's first voters begins after this index: a newcomer cannot replay it, and gets the membership with
a snapshot."""


def encode_membership(members: ConfState) -> bytes:
    """A membership as the engine keeps it."""
    return _encoder.encode(members)


def membership_of(reader: Reader) -> ConfState:
    """The membership that a replica's engine holds; nobody in a newcomer's."""
    data = mvcc.membership(reader)
    return ConfState() if data is None else _conf_decoder.decode(data)


def found(engine: Engine, log: ShardLog, voters: Sequence[NodeId]) -> Applied:
    """The state that a replica continues from. One of a group's first voters begins at `FIRST`, by `voters`.

    Raises: StorageError XX001 when engine and log do not fit each other.
    """
    state = applied_of(engine)
    if not state.index and voters and log.base_index in (0, FIRST):
        if not log.last_index:
            log.reset(FIRST, FIRST)
        state = Applied(log.base_index, log.base_index)
        members = ConfState(voters=tuple(sorted(voters)))
        engine.write([
            mvcc.put_applied(encode_applied(state)),
            mvcc.put_membership(encode_membership(members)),
        ])  # fmt: skip
    if not log.base_index <= state.index <= log.last_index:
        raise StorageError(
            f"the log holds entries {log.base_index + 1} to {log.last_index},"
            f" but the data was applied up to {state.index}",
            "XX001",
            detail="Entries between them are lost.",
        )
    return state


_KIND = {kind: bytes((kind,)) for kind in EntryKind}


STRETCH = 3
"""Elections begin this many times later than leases end: a loop may be busy with one long step (a commit of a hundred
thousand rows), and an election costs every session."""
INFLIGHT_BYTES_MAX = 4 << 20
"""Entries on the way to one follower: heartbeats share the connection, and must not wait behind much."""


class Timing(NamedTuple):
    """Raft's clockwork: how long a tick is, and what happens after how many."""

    tick_ms: int
    election_ticks: int
    heartbeat_ticks: int

    @property
    def election_timeout_us(self) -> int:
        """How long a follower that heard the leader helps nobody else, on which the lease rests."""
        return self.tick_ms * self.election_ticks * 1000 // STRETCH

    @classmethod
    def of(cls, election_ms: int, heartbeat_ms: int) -> Timing:
        """Ticks of half a heartbeat, so that a late one costs little."""
        tick = max(1, heartbeat_ms // 2)
        heartbeat = max(1, round(heartbeat_ms / tick))
        return cls(tick, STRETCH * max(heartbeat, -(-election_ms // tick)), heartbeat)


class LogReader:
    """`raft.LogStorage` over a shard's log, with the entries still to be applied in memory."""

    __slots__ = ("_log", "_pin", "_recent", "_state", "members")

    def __init__(
        self, log: ShardLog, members: ConfState, state: Applied, pin: Callable[[], bytes]
    ) -> None:
        """`pin` keeps the engine's present state for a follower, and names it."""
        self._log = log
        self._state = state
        self._pin = pin
        self._recent: dict[int, Entry] = {}
        self.members = members
        """The membership at the last applied entry."""

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

    def applied(self, state: Applied) -> None:
        """An entry is applied: it will not be asked for here any more."""
        self._state = state
        self._recent.pop(state.index, None)

    def restored(self, snapshot: Snapshot) -> None:
        """A snapshot took the place of log and state."""
        self._state = Applied(snapshot.index, snapshot.term)
        self.members = snapshot.conf_state
        self._recent.clear()

    def initial_state(self) -> tuple[HardState, ConfState]:
        """What the voter knew, and its group."""
        hard = self._log.hard_state
        # What is applied was committed, also where the commit index was not written down in time.
        state = self._state
        known = HardState(max(hard.term, state.term), hard.vote, max(hard.commit, state.index))
        return known, self.members

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
        """The applied state, pinned for a follower that lags behind."""
        state = self._state
        return Snapshot(state.index, state.term, self.members, self._pin())


def _within(entries: list[Entry], bytes_max: int) -> list[Entry]:
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data)
        if count and size > bytes_max:
            return entries[:count]
    return entries


def make_node(
    node: NodeId,
    reader: LogReader,
    applied: int,
    timing: Timing,
    randomness: random.Random,
    now_us: int,
) -> RawNode:
    """The voter that continues from what `reader` holds."""
    return RawNode(
        Config(
            node_id=node,
            storage=reader,
            random=randomness,
            applied=applied,
            election_ticks=timing.election_ticks,
            heartbeat_ticks=timing.heartbeat_ticks,
            election_timeout_us=timing.election_timeout_us,
            now_us=now_us,
            inflight_bytes_max=INFLIGHT_BYTES_MAX,
        )
    )
