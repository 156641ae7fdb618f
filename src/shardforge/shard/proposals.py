"""Commands on their way into a shard's log: queued while a sync is under way, then one entry together.

Invariant: `done` of each proposal is called exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from shardforge.shard.command import Command, Outcome, Split
from shardforge.shard.weights import COMMAND_BYTES_MAX, weight

Done = Callable[[Outcome], None]

ENTRY_BYTES_MAX = 2 * COMMAND_BYTES_MAX


class Proposal(NamedTuple):
    """A command, and who is told what became of it."""

    command: Command
    done: Done
    stored: Callable[[], None] | None = None
    """Called when the entry is durable in the leader's own log, before a majority has it; may never be called."""


class Proposed(NamedTuple):
    """The proposals of one entry of the log, and the term in which it was appended."""

    term: int
    proposals: list[Proposal]


class Proposals:
    """What is queued, deferred, or in the log and not applied."""

    __slots__ = ("_deferred", "_logged", "queued")

    def __init__(self) -> None:
        self.queued: list[Proposal] = []
        self._deferred: list[Proposal] = []
        self._logged: dict[int, Proposed] = {}

    def add(self, proposal: Proposal) -> None:
        """Queue a proposal, after what was deferred."""
        if self._deferred:
            self.undefer()
        self.queued.append(proposal)

    def defer(self, proposal: Proposal) -> None:
        """Keep a proposal until the next one, or `undefer`."""
        self._deferred.append(proposal)

    def undefer(self) -> bool:
        """Queue what was deferred; whether there was any."""
        found = bool(self._deferred)
        self.queued += self._deferred
        self._deferred.clear()
        return found

    def take(self) -> list[Proposal]:
        """What goes into the next entry: everything queued, up to a size, and a Split alone."""
        queued = self.queued
        size = 0
        for count, proposal in enumerate(queued):
            size += weight(proposal.command)
            alone = isinstance(proposal.command, Split) or isinstance(queued[0].command, Split)
            if (size > ENTRY_BYTES_MAX or alone) and count:
                self.queued = queued[count:]
                return queued[:count]
        self.queued = []
        return queued

    def logged(self, index: int, proposed: Proposed) -> None:
        """The proposals are in the log at an index."""
        self._logged[index] = proposed

    def stored(self, index: int, term: int) -> None:
        """The leader of a term has its entry at an index durable in its own log."""
        proposed = self._logged.get(index)
        if proposed is not None and proposed.term == term:
            for proposal in proposed.proposals:
                if proposal.stored is not None:
                    proposal.stored()

    def applied(self, index: int) -> Proposed | None:
        """The proposals whose entry was to be at an index that is being applied."""
        return self._logged.pop(index, None)

    def lose(self, *, queued: bool) -> None:
        """Nobody here will learn what becomes of what is in the log, nor, if so, order what is queued."""
        lost = [proposal for proposed in self._logged.values() for proposal in proposed.proposals]
        self._logged.clear()
        if queued:
            self.undefer()
            lost += self.queued
            self.queued = []
        for proposal in lost:
            proposal.done(Outcome.UNKNOWN)
