"""Interval arithmetic: +, -, *, /, justification, comparison and casts.

Products and quotients cascade their fractions from months to days to seconds exactly as PostgreSQL does, in
double precision. Source: PostgreSQL 15, section 9.9, and interval_mul, interval_div, interval_justify_*.
"""

from __future__ import annotations

import math
import operator

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    DAYS_PER_MONTH,
    SECONDS_PER_DAY,
    USECS_PER_DAY,
    USECS_PER_HOUR,
    USECS_PER_MINUTE,
    USECS_PER_SECOND,
)
from shardforge.sql.types.interval_text import (
    INT32,
    INT64,
    apply_interval_typmod,
    checked,
    interval_total,
    truncated,
)
from shardforge.sql.types.values import Interval

for _name, _compare in (
    ("eq", operator.eq),
    ("ne", operator.ne),
    ("lt", operator.lt),
    ("le", operator.le),
    ("gt", operator.gt),
    ("ge", operator.ge),
):
    implements(f"interval_{_name}")(
        lambda a, b, compare=_compare: compare(interval_total(a), interval_total(b))
    )


@implements("interval_cmp")
def interval_cmp(a: Interval, b: Interval) -> int:
    """-1, 0 or 1 by total length."""
    left, right = interval_total(a), interval_total(b)
    return (left > right) - (left < right)


@implements("interval_larger")
def interval_larger(a: Interval, b: Interval) -> Interval:
    """The longer; the second when equal."""
    return a if interval_total(a) > interval_total(b) else b


@implements("interval_smaller")
def interval_smaller(a: Interval, b: Interval) -> Interval:
    """The shorter; the second when equal."""
    return a if interval_total(a) < interval_total(b) else b


@implements("interval_finite")
def interval_finite(value: Interval) -> bool:
    """Every interval is finite."""
    return True


@implements("interval_um")
def interval_um(value: Interval) -> Interval:
    """Minus."""
    return checked(-value.months, -value.days, -value.micros)


@implements("interval_pl")
def interval_pl(a: Interval, b: Interval) -> Interval:
    """Plus, field by field."""
    return checked(a.months + b.months, a.days + b.days, a.micros + b.micros)


@implements("interval_mi")
def interval_mi(a: Interval, b: Interval) -> Interval:
    """Minus, field by field."""
    return checked(a.months - b.months, a.days - b.days, a.micros - b.micros)


def _round_micro(value: float) -> float:
    return round(value * 1e6) / 1e6


def _whole(value: float) -> int:
    if math.isnan(value) or math.isinf(value):
        raise QueryError("interval out of range", "22008")
    found = int(value)
    if found not in INT32:
        raise QueryError("interval out of range", "22008")
    return found


def _cascade(months: float, days: float, micros: float) -> Interval:
    """The interval of fractional fields: what is left of a month becomes days, of a day seconds."""
    whole_months, whole_days = _whole(months), _whole(days)
    month_rest = _round_micro((months - whole_months) * DAYS_PER_MONTH)
    seconds = _round_micro((days - whole_days + month_rest - int(month_rest)) * SECONDS_PER_DAY)
    if abs(seconds) >= SECONDS_PER_DAY:
        extra = int(seconds / SECONDS_PER_DAY)
        whole_days += extra
        seconds -= extra * SECONDS_PER_DAY
    whole_days += int(month_rest)
    total = micros + seconds * USECS_PER_SECOND
    if math.isnan(total) or math.isinf(total) or round(total) not in INT64:
        raise QueryError("interval out of range", "22008")
    return checked(whole_months, whole_days, round(total))


@implements("interval_mul")
def interval_mul(value: Interval, factor: float) -> Interval:
    """Times a number."""
    return _cascade(value.months * factor, value.days * factor, value.micros * factor)


@implements("mul_d_interval")
def mul_d_interval(factor: float, value: Interval) -> Interval:
    """A number times an interval."""
    return interval_mul(value, factor)


@implements("interval_div")
def interval_div(value: Interval, divisor: float) -> Interval:
    """Divided by a number."""
    if divisor == 0:
        raise QueryError("division by zero", "22012")
    return _cascade(value.months / divisor, value.days / divisor, value.micros / divisor)


def _settle(upper: int, lower: int, size: int) -> tuple[int, int]:
    """Moves one unit so that both fields have the same sign."""
    if upper > 0 and lower < 0:
        return upper - 1, lower + size
    if upper < 0 and lower > 0:
        return upper + 1, lower - size
    return upper, lower


@implements("interval_justify_hours")
def justify_hours(value: Interval) -> Interval:
    """24-hour periods become days."""
    extra = truncated(value.micros, USECS_PER_DAY)
    days, micros = _settle(value.days + extra, value.micros - extra * USECS_PER_DAY, USECS_PER_DAY)
    return checked(value.months, days, micros)


@implements("interval_justify_days")
def justify_days(value: Interval) -> Interval:
    """30-day periods become months."""
    extra = truncated(value.days, DAYS_PER_MONTH)
    months, days = _settle(
        value.months + extra, value.days - extra * DAYS_PER_MONTH, DAYS_PER_MONTH
    )
    return checked(months, days, value.micros)


@implements("interval_justify_interval")
def justify_interval(value: Interval) -> Interval:
    """Both justifications, with all fields of one sign."""
    extra = truncated(value.micros, USECS_PER_DAY)
    micros = value.micros - extra * USECS_PER_DAY
    days = value.days + extra
    extra = truncated(days, DAYS_PER_MONTH)
    days -= extra * DAYS_PER_MONTH
    months = value.months + extra
    if months > 0 and (days < 0 or (days == 0 and micros < 0)):
        days, months = days + DAYS_PER_MONTH, months - 1
    elif months < 0 and (days > 0 or (days == 0 and micros > 0)):
        days, months = days - DAYS_PER_MONTH, months + 1
    days, micros = _settle(days, micros, USECS_PER_DAY)
    return checked(months, days, micros)


@implements("interval_scale")
def interval_scale(value: Interval, typmod: int) -> Interval:
    """Cuts to a typmod."""
    return apply_interval_typmod(typmod, value)


@implements("make_interval")
def make_interval(
    years: int, months: int, weeks: int, days: int, hours: int, minutes: int, seconds: float
) -> Interval:
    """An interval of its parts."""
    if math.isnan(seconds) or math.isinf(seconds):
        raise QueryError("interval out of range", "22008")
    micros = hours * USECS_PER_HOUR + minutes * USECS_PER_MINUTE
    return checked(
        years * 12 + months, weeks * 7 + days, micros + round(seconds * USECS_PER_SECOND)
    )
