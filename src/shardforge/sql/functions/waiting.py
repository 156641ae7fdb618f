"""Functions that wait: pg_sleep and its kin, and how the middle of an expression waits at all.

Expressions are synchronous. A function whose value is not there yet raises `MustWaitError`; whoever evaluates the row
awaits `wait()` and evaluates the row again (`waited`), so the rows before it keep their values. In the select list, in
conditions over one table, in VALUES, FROM, SET and RETURNING somebody does; elsewhere it is the error that it is.
Evaluating again comes by every sleep of the row once more: `Sleeps` counts those that are over.
Source: PostgreSQL 15, src/backend/utils/adt/misc.c.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements

if TYPE_CHECKING:
    from shardforge.sql.functions.context import EvalContext
    from shardforge.sql.types.values import Interval

SLEEP_SECONDS_MAX: Final = 600.0
"""At a time: a longer sleep is several."""

T = TypeVar("T")


class MustWaitError(QueryError):
    """The value is not there yet: await `wait()`, then evaluate the row again."""

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__(
            "a function that has to wait is not supported at this place of a statement",
            "0A000",
            hint="Call it in the select list, in FROM, or in a WHERE over one table.",
        )
        self.wait = wait


class Sleeps:
    """The sleeps of the row that is evaluated: how many are over, and how many were come by this time."""

    __slots__ = ("met", "over")

    def __init__(self) -> None:
        self.met = self.over = 0

    def begin(self) -> None:
        """Another row."""
        self.met = self.over = 0

    def meet(self) -> bool:
        """Come by a sleep; whether it is over."""
        self.met += 1
        return self.met <= self.over


async def waited(evaluate: Callable[[], T], context: EvalContext) -> T:
    """What `evaluate` returns, waiting where it must."""
    sleeps = context.sleeps
    sleeps.begin()
    while True:
        try:
            value = evaluate()
        except MustWaitError as must:
            await must.wait()
            sleeps.met = 0
        else:
            sleeps.begin()
            return value


@implements("pg_sleep", context=True)
def pg_sleep(context: EvalContext, seconds: float) -> str:
    """Return after so many seconds; at once for what is not above zero."""
    if context.sleeps.meet():
        return ""
    raise MustWaitError(lambda: _sleep(context, seconds))


async def _sleep(context: EvalContext, seconds: float) -> None:
    end = context.clock.monotonic_ns() / 1e9 + seconds
    while (left := end - context.clock.monotonic_ns() / 1e9) > 0:
        await context.clock.sleep(min(left, SLEEP_SECONDS_MAX))
    context.sleeps.over += 1


@implements("pg_sleep_for(interval)", context=True)
def pg_sleep_for(context: EvalContext, span: Interval) -> str:
    """Return after an interval, by the calendar from now on."""
    from shardforge.sql.functions.datetime_arithmetic import timestamptz_pl_interval

    return pg_sleep_until(context, timestamptz_pl_interval(context, context.clock_us(), span))


@implements("pg_sleep_until(timestamp with time zone)", context=True)
def pg_sleep_until(context: EvalContext, until: int) -> str:
    """Return at a moment."""
    return pg_sleep(context, (until - context.clock_us()) / 1e6)
