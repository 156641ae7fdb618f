"""Comparisons among date, time, timetz, timestamp and timestamptz, within a type and across types.

A date compares with timestamps as its midnight, in the session's zone where a zone matters; a date beyond the
range of timestamps is later than every finite one. Source: PostgreSQL 15, date_cmp_timestamp and its kin.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.datetime_arithmetic import zone_of
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    TIMESTAMP_END_DATE,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    USECS_PER_DAY,
    USECS_PER_SECOND,
    is_timestamp_infinite,
)
from shardforge.sql.types.datetime_text import timetz_sort_key
from shardforge.sql.types.values import TimeTz


def _three_way(a: Any, b: Any) -> int:
    return bool(a > b) - bool(a < b)


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "cmp": _three_way,
}

for _name, _operator in _OPERATORS.items():
    for _type in ("date", "time", "timestamp"):
        implements(f"{_type}_{_name}")(_operator)
    implements(f"timetz_{_name}")(
        lambda a, b, compare=_operator: compare(timetz_sort_key(a), timetz_sort_key(b))
    )


@implements("date_larger", "time_larger", "timestamp_larger")
def larger(a: int, b: int) -> int:
    """The later."""
    return max(b, a)


@implements("date_smaller", "time_smaller", "timestamp_smaller")
def smaller(a: int, b: int) -> int:
    """The earlier."""
    return min(b, a)


@implements("timetz_larger")
def timetz_larger(a: TimeTz, b: TimeTz) -> TimeTz:
    """The later."""
    return a if timetz_sort_key(a) > timetz_sort_key(b) else b


@implements("timetz_smaller")
def timetz_smaller(a: TimeTz, b: TimeTz) -> TimeTz:
    """The earlier."""
    return a if timetz_sort_key(a) < timetz_sort_key(b) else b


def _of_date(_ctx: EvalContext | None, days: int) -> int:
    """A date as a timestamp that need not be in range."""
    if days == DATE_INFINITY:
        return TIMESTAMP_INFINITY
    if days == DATE_MINUS_INFINITY:
        return TIMESTAMP_MINUS_INFINITY
    return TIMESTAMP_INFINITY - 1 if days >= TIMESTAMP_END_DATE else days * USECS_PER_DAY


def _of_local(ctx: EvalContext, local: int) -> int:
    """A local time as a UTC moment that need not be in range."""
    if is_timestamp_infinite(local) or local == TIMESTAMP_INFINITY - 1:
        return local
    return local - zone_of(ctx).offset_of_local(local) * USECS_PER_SECOND


def _date_in_zone(ctx: EvalContext, days: int) -> int:
    return _of_local(ctx, _of_date(ctx, days))


def _same(_ctx: EvalContext, value: int) -> int:
    return value


_CONVERSIONS: dict[tuple[str, str], tuple[Callable[..., int], Callable[..., int]]] = {
    ("date", "timestamp"): (_of_date, _same),
    ("timestamp", "date"): (_same, _of_date),
    ("date", "timestamptz"): (_date_in_zone, _same),
    ("timestamptz", "date"): (_same, _date_in_zone),
    ("timestamp", "timestamptz"): (_of_local, _same),
    ("timestamptz", "timestamp"): (_same, _of_local),
}


def _across(
    compare: Callable[[Any, Any], Any], left: Callable[..., int], right: Callable[..., int]
) -> Callable[[EvalContext, int, int], Any]:
    return lambda ctx, a, b: compare(left(ctx, a), right(ctx, b))


for (_left, _right), (_convert_left, _convert_right) in _CONVERSIONS.items():
    for _name, _operator in _OPERATORS.items():
        implements(f"{_left}_{_name}_{_right}", context=True)(
            _across(_operator, _convert_left, _convert_right)
        )


@implements("overlaps_time", "overlaps_timestamp")
def overlaps(
    start1: int | None, end1: int | None, start2: int | None, end2: int | None
) -> bool | None:
    """Whether two periods share a moment; an unknown end may still leave the answer known."""
    return _overlaps(start1, end1, start2, end2)


@implements("overlaps_timetz")
def overlaps_timetz(
    start1: TimeTz | None, end1: TimeTz | None, start2: TimeTz | None, end2: TimeTz | None
) -> bool | None:
    """Whether two periods of timetz share a moment."""
    keys = (None if v is None else timetz_sort_key(v) for v in (start1, end1, start2, end2))
    return _overlaps(*keys)


def _period(start: Any, end: Any) -> tuple[Any, Any]:
    if start is None:
        return end, None
    if end is not None and start > end:
        return end, start
    return start, end


def _overlaps(start1: Any, end1: Any, start2: Any, end2: Any) -> bool | None:
    start1, end1 = _period(start1, end1)
    start2, end2 = _period(start2, end2)
    if start1 is None or start2 is None:
        return None
    if start1 == start2:
        return None if end1 is None or end2 is None else True
    if start1 > start2:
        start1, end1, start2, end2 = start2, end2, start1, end1
    if end1 is None:
        return None
    if start2 < end1:
        return True
    return None if end2 is None else False
