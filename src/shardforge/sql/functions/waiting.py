"""Functions that wait: pg_sleep and its kin, and how the middle of an expression waits at all.

Expressions are synchronous. A function whose value is not there yet raises `MustWaitError`; whoever evaluates the row
awaits `wait()` and evaluates the row again (`waited`), so the rows before it keep their values. In the select list, in
conditions over one table, in VALUES, FROM, SET and RETURNING somebody does; elsewhere it is the error that it is.
Evaluating again comes by every sleep and every lock of the row once more: `Steps` knows which are done.
Source: PostgreSQL 15, src/backend/utils/adt/misc.c.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

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


class Steps:
    """What the row that is evaluated does beyond its value: each step once, however often the row is evaluated.

    Steps are told apart by their order. Where nobody would evaluate the row again, nothing is kept.
    """

    __slots__ = ("_kept", "_met", "_results")

    def __init__(self) -> None:
        self._kept = False
        self._met = 0
        self._results: list[Any] = []

    def begin(self) -> None:
        """Another row, that may have to be evaluated again."""
        self._kept, self._met = True, 0
        self._results.clear()

    def again(self) -> None:
        """The same row from its beginning."""
        self._met = 0

    def end(self) -> None:
        """The row has been evaluated, or has failed."""
        self._kept, self._met = False, 0
        self._results.clear()

    def done(self, result: T) -> T:
        """The step that was met is done: what `once` gives for it from now on."""
        if self._kept:
            self._results.append(result)
        return result

    def once(self, act: Callable[[], T]) -> T:
        """What `act` returns, or has returned. If it has to wait, `done` is to be called when that is over."""
        self._met += 1
        if self._met <= len(self._results):
            result: T = self._results[self._met - 1]
            return result
        return self.done(act())


async def waited(evaluate: Callable[[], T], context: EvalContext) -> T:
    """What `evaluate` returns, waiting where it must."""
    steps = context.steps
    steps.begin()
    try:
        while True:
            try:
                return evaluate()
            except MustWaitError as must:
                await must.wait()
                steps.again()
    finally:
        steps.end()


@implements("pg_sleep", context=True)
def pg_sleep(context: EvalContext, seconds: float) -> str:
    """Return after so many seconds; at once for what is not above zero."""

    def sleep() -> str:
        raise MustWaitError(lambda: _sleep(context, seconds))

    return context.steps.once(sleep)


async def _sleep(context: EvalContext, seconds: float) -> None:
    end = context.clock.monotonic_ns() / 1e9 + seconds
    while (left := end - context.clock.monotonic_ns() / 1e9) > 0:
        await context.clock.sleep(min(left, SLEEP_SECONDS_MAX))
    context.steps.done("")


@implements("pg_sleep_for(interval)", context=True)
def pg_sleep_for(context: EvalContext, span: Interval) -> str:
    """Return after an interval, by the calendar from now on."""
    from shardforge.sql.functions.datetime_arithmetic import timestamptz_pl_interval

    return pg_sleep_until(context, timestamptz_pl_interval(context, context.clock_us(), span))


@implements("pg_sleep_until(timestamp with time zone)", context=True)
def pg_sleep_until(context: EvalContext, until: int) -> str:
    """Return at a moment."""
    return pg_sleep(context, (until - context.clock_us()) / 1e6)
