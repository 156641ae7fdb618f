"""One voter as exhaustive exploration sees it: a value that an action turns into another value and messages.

The real core runs over a log with a durable and an unsynced part, driven as the replica drives it: messages leave at
once, a write is under way or not, and nothing more is taken from the core before it ends. A voter is kept pickled, and
known by a fingerprint of everything that can make a difference to what it does later.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shardforge.raft.config import Config
from shardforge.raft.memory_log import MemoryLogStorage
from shardforge.raft.messages import ConfState, EntryKind, Message, Snapshot
from shardforge.raft.rawnode import RawNode
from shardforge.raft.ready import Ready
from shardforge.raft.state import Role

BASE = 1
NEVER = 1 << 20
Names = Mapping[int, int]
"""What each node is called, under one of the renamings that make no difference."""


class SmallestDraw:
    """Stands in for the random numbers of election timeouts: there are no timeouts here."""

    def randrange(self, _stop: int) -> int:
        return 0


class Voter:
    """One node: its core, its log, what of it is durable, and the write under way."""

    def __init__(self, node: int, voters: Sequence[int], options: Mapping[str, Any]) -> None:
        self.id = node
        self.options = options
        state = ConfState(tuple(voters))
        self.durable = MemoryLogStorage(state, index=BASE, term=BASE)
        self.flushed = Snapshot(BASE, BASE, state)
        self.restart()

    def restart(self) -> None:
        """Begin from what is durable."""
        self.storage = self.durable.copy()
        self.applied = self.flushed
        self.storage.conf_state = self.flushed.conf_state
        self.storage.latest_snapshot = self.flushed
        self.writing: Ready | None = None
        self.raw = RawNode(
            Config(
                self.id,
                self.storage,
                SmallestDraw(),  # type: ignore[arg-type]
                applied=self.flushed.index,
                election_ticks=NEVER,
                check_quorum=False,
                **self.options,
            )
        )

    def settle(self, *, sync: bool) -> list[Message]:
        """Do what the core asks for, up to a write that must be durable, or all of it. What leaves meanwhile."""
        left: list[Message] = []
        if sync and self.writing is not None:
            self._finish(left)
        while True:
            left += self.raw.take_messages()
            if self.writing is not None or not self.raw.has_ready():
                return [_frozen(message) for message in left]
            self.writing = ready = self.raw.ready()
            left += ready.messages
            if sync or (not ready.must_sync and ready.snapshot is None):
                self._finish(left)

    def _finish(self, left: list[Message]) -> None:
        """End the write under way, then apply what its ready holds."""
        ready, self.writing = self.writing, None
        assert ready is not None
        append, apply = ready.storage_append, ready.storage_apply
        if append is not None:
            if ready.must_sync or ready.snapshot is not None:
                self.storage.write(append)
                self.durable = self.storage.copy()
            if append.snapshot is not None:
                self.applied = self.flushed = append.snapshot
            left += self.raw.stored(append)
        if apply is not None:
            for entry in apply.entries:
                state = self.applied.conf_state
                if entry.kind is EntryKind.CONF_CHANGE:
                    state = self.raw.apply_conf_change(entry)
                self.applied = Snapshot(entry.index, entry.term, state)
            self.storage.latest_snapshot = self.applied
            self.raw.applied(apply)

    def compact(self) -> bool:
        """Make the state machine durable and drop the log that it covers."""
        index = self.applied.index
        if index < self.storage.first_index() or index > self.durable.last_index():
            return False
        self.flushed = self.applied
        self.storage.compact(index)
        self.durable.compact(index)
        return True

    def pickled(self) -> bytes:
        """The voter, to be brought back for each thing that may happen to it."""
        self.raw.raft.election_elapsed = self.raw.raft.heartbeat_elapsed = 0
        return pickle.dumps(self, protocol=5)

    # What it is, under a renaming of the nodes.

    def fingerprint(self, names: Names) -> tuple[object, ...]:
        """Equal for voters that will always behave alike."""
        raft = self.raw.raft
        log = raft.log
        leads = raft.role is Role.LEADER
        return (
            names[self.id], raft.term, names[raft.vote], names[raft.lead], raft.role, names[raft.transferee],
            self.log, log.first_index, log.committed, log.applied, log.has_unstable, raft.conf_index,
            raft.pending_conf_index, _renamed_state(raft.tracker.configuration.conf_state(), names),
            _progress(self, names) if leads else
            tuple(sorted((names[node], vote) for node, vote in raft.tracker.votes.items())),
            _durable(self.durable, names), self.flushed.index, self.applied.index,
            tuple(renamed(_frozen(message), names) for message in raft.after_append),
            self.writing is not None and _writing(self.writing, names),
        )  # fmt: skip

    @property
    def log(self) -> tuple[tuple[int, int, bytes], ...]:
        """The entries that can be read, durable or not."""
        log = self.raw.raft.log
        entries = log.entries_from(log.first_index, NEVER)
        return tuple((entry.index, entry.term, entry.data) for entry in entries)


def _frozen(message: Message) -> Message:
    """The message with contents that can be hashed."""
    return msgspec.structs.replace(
        message,
        entries=tuple(message.entries),
        responses=tuple(_frozen(response) for response in message.responses),
    )


def renamed(message: Message, names: Names) -> Message:
    """The message among nodes of other names."""
    snapshot = message.snapshot
    return msgspec.structs.replace(
        message,
        to=names.get(message.to, message.to),
        sender=names.get(message.sender, message.sender),
        vote=names[message.vote],
        snapshot=snapshot
        and msgspec.structs.replace(
            snapshot, conf_state=_renamed_state(snapshot.conf_state, names)
        ),
        responses=tuple(renamed(response, names) for response in message.responses),
    )


def _renamed_state(state: ConfState, names: Names) -> ConfState:
    def rename(nodes: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(names[node] for node in nodes))

    return ConfState(
        rename(state.voters), rename(state.voters_outgoing), rename(state.learners),
        rename(state.learners_next), state.auto_leave,
    )  # fmt: skip


def _progress(voter: Voter, names: Names) -> tuple[object, ...]:
    return tuple(
        sorted(
            (
                names[node], known.match, known.next, known.state.value, known.pending_snapshot, known.sent_commit,
                known.recently_active, known.flow_paused, len(known.inflights),
            )
            for node, known in voter.raw.raft.tracker.progress.items()
        )
    )  # fmt: skip


def _durable(storage: MemoryLogStorage, names: Names) -> tuple[object, ...]:
    first, last = storage.first_index(), storage.last_index()
    hard = storage.hard_state
    return (
        hard.term, names[hard.vote], hard.commit, first, storage.term(first - 1),
        tuple(storage.entries(first, last + 1, NEVER)) if last >= first else (),
    )  # fmt: skip


def _writing(ready: Ready, names: Names) -> tuple[object, ...]:
    append, apply = ready.storage_append, ready.storage_apply
    return (
        append and renamed(_frozen(append), names),
        tuple(apply.entries) if apply is not None else (),
    )
