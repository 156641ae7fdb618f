"""When deferrable constraints are checked in a transaction, and the checks that are still due.

A constraint says how it begins (INITIALLY DEFERRED or not); SET CONSTRAINTS changes that for the transaction, and a
rollback to a savepoint brings back both the timing and the checks that were due then.
Invariant: a list of checks is only appended to; taking some away makes a new one, so that a mark is its length.
Source: PostgreSQL 15, AfterTriggerSetState and AfterTriggerEndSubXact in src/backend/commands/trigger.c.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from shardforge.sql.catalog.descriptors import ForeignKey

if TYPE_CHECKING:
    from shardforge.sql.execute.context import Run

DeferredCheck = Callable[["Run"], Awaitable[None]]


class DeferralMark(NamedTuple):
    """What a savepoint brings back."""

    checks: list[tuple[int, DeferredCheck]]
    length: int
    everything: bool | None
    single: dict[int, bool]


class Deferral:
    """One transaction's timing of deferrable constraints, by their oids."""

    __slots__ = ("_checks", "_everything", "_single")

    def __init__(self) -> None:
        self._checks: list[tuple[int, DeferredCheck]] = []
        self._everything: bool | None = None
        """What SET CONSTRAINTS ALL said last."""
        self._single: dict[int, bool] = {}
        """What was said about single constraints since."""

    def __bool__(self) -> bool:
        return bool(self._checks)

    def deferred(self, key: ForeignKey) -> bool:
        """Whether the constraint's checks wait for the end of the transaction now."""
        if not key.deferrable:
            return False
        said = self._single.get(key.oid, self._everything) if self._single else self._everything
        return key.initially_deferred if said is None else said

    def defer(self, key: ForeignKey, check: DeferredCheck) -> None:
        """Keep a check for later."""
        self._checks.append((key.oid, check))

    def set_all(self, *, deferred: bool) -> None:
        """SET CONSTRAINTS ALL."""
        self._everything = deferred
        self._single = {}

    def set_some(self, oids: Collection[int], *, deferred: bool) -> None:
        """SET CONSTRAINTS of some."""
        self._single = {**self._single, **dict.fromkeys(oids, deferred)}

    def take(self, oids: Collection[int] | None = None) -> list[DeferredCheck]:
        """The checks due of these constraints (None: of all), which are then no longer kept."""
        taken = [check for oid, check in self._checks if oids is None or oid in oids]
        self._checks = [] if oids is None else [c for c in self._checks if c[0] not in oids]
        return taken

    def mark(self) -> DeferralMark:
        """What a savepoint remembers."""
        return DeferralMark(self._checks, len(self._checks), self._everything, self._single)

    def rollback_to(self, mark: DeferralMark) -> None:
        """Timing and checks as they were."""
        self._checks = mark.checks[: mark.length]
        self._everything, self._single = mark.everything, mark.single
