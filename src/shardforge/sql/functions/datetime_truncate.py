"""date_trunc, date_bin, age and isfinite.

Source: PostgreSQL 15, sections 9.9.2 and 9.9.3, and timestamp_age.
"""

from __future__ import annotations

import operator

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.datetime_arithmetic import (
    checked_timestamp,
    local_of,
    timestamp_out_of_range,
    utc_of,
    zone_of,
)
from shardforge.sql.functions.datetime_units import find_unit, not_recognized, not_supported
from shardforge.sql.functions.datetime_zone import find_named_zone
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    MONTHS_PER_YEAR,
    USECS_PER_DAY,
    USECS_PER_HOUR,
    USECS_PER_MINUTE,
    USECS_PER_SECOND,
    Fields,
    date_fields,
    day_of_week,
    days_of,
    is_date_infinite,
    is_timestamp_infinite,
    month_days,
    split,
)
from shardforge.sql.types.interval_text import checked, truncated
from shardforge.sql.types.timezone import Zone
from shardforge.sql.types.values import Interval

_STEPS = {
    "microsecond": 1,
    "millisecond": 1000,
    "second": USECS_PER_SECOND,
    "minute": USECS_PER_MINUTE,
    "hour": USECS_PER_HOUR,
    "day": USECS_PER_DAY,
}
_YEAR_STEPS = {"year": 1, "decade": 10, "century": 100, "millennium": 1000}


def _first_year(unit: str, year: int) -> int:
    """The year a decade, century or millennium begins with."""
    step = _YEAR_STEPS[unit]
    if step <= 10:
        return year // step * step
    if year > 0:
        return (year + step - 1) // step * step - step + 1
    return -((step - year) // step) * step + 1


def truncate_local(unit: str, name: str, local: int, type_name: str) -> int:
    """A local time cut to `unit` (named `name` by the caller)."""
    step = _STEPS.get(unit)
    if step is not None:
        return local // step * step
    days = local // USECS_PER_DAY
    if unit == "week":
        return (days - (day_of_week(days) - 1) % 7) * USECS_PER_DAY
    year, month, _ = date_fields(days)
    if unit == "month":
        return days_of(year, month, 1) * USECS_PER_DAY
    if unit == "quarter":
        return days_of(year, (month - 1) // 3 * 3 + 1, 1) * USECS_PER_DAY
    if unit in _YEAR_STEPS:
        return days_of(_first_year(unit, year), 1, 1) * USECS_PER_DAY
    raise not_supported(name, type_name) if unit else not_recognized(name, type_name)


@implements("timestamp_trunc")
def timestamp_trunc(name: str, value: int) -> int:
    """date_trunc of a timestamp."""
    if is_timestamp_infinite(value):
        return value
    name = name.lower()
    return checked_timestamp(
        truncate_local(find_unit(name), name, value, "timestamp without time zone")
    )


def _truncate_in_zone(zone: Zone, name: str, value: int) -> int:
    if is_timestamp_infinite(value):
        return value
    name = name.lower()
    unit = find_unit(name)
    local = truncate_local(unit, name, local_of(zone, value), "timestamp with time zone")
    if unit in _STEPS and unit != "day":
        return checked_timestamp(local - zone.offset_at(value) * USECS_PER_SECOND)
    return utc_of(zone, local)


@implements("timestamptz_trunc", context=True)
def timestamptz_trunc(ctx: EvalContext, name: str, value: int) -> int:
    """date_trunc of a timestamptz, in the session's zone."""
    return _truncate_in_zone(zone_of(ctx), name, value)


@implements("timestamptz_trunc_zone")
def timestamptz_trunc_zone(name: str, value: int, zone: str) -> int:
    """date_trunc of a timestamptz, in a zone."""
    if is_timestamp_infinite(value):
        return value
    return _truncate_in_zone(find_named_zone(zone), name, value)


@implements("interval_trunc")
def interval_trunc(name: str, value: Interval) -> Interval:
    """date_trunc of an interval."""
    name = name.lower()
    unit = find_unit(name)
    if unit in _STEPS:
        step = _STEPS[unit]
        return Interval(
            value.months,
            value.days,
            0 if unit == "day" else truncated(value.micros, step) * step,
        )
    months = {"month": 1, "quarter": 3}.get(unit)
    if unit in _YEAR_STEPS:
        months = _YEAR_STEPS[unit] * MONTHS_PER_YEAR
    if months is not None:
        return checked(truncated(value.months, months) * months, 0, 0)
    if unit == "week":
        raise not_supported(name, "interval", "Months usually have fractional weeks.")
    raise not_supported(name, "interval") if unit else not_recognized(name, "interval")


@implements("timestamp_bin", "timestamptz_bin")
def date_bin(stride: Interval, source: int, origin: int) -> int:
    """The start of the bin of length `stride`, counted from `origin`, that `source` falls in."""
    if is_timestamp_infinite(source):
        return source
    if is_timestamp_infinite(origin):
        raise QueryError("origin out of range", "22008")
    if stride.months:
        raise QueryError(
            "timestamps cannot be binned into intervals containing months or years", "0A000"
        )
    size = stride.days * USECS_PER_DAY + stride.micros
    if size <= 0:
        raise QueryError("stride must be greater than zero", "22008")
    return checked_timestamp(origin + (source - origin) // size * size)


def _difference(later: Fields, earlier: Fields, *, swapped: bool) -> Interval:
    """Field by field, borrowing upward; `swapped` when the first of the two given was the earlier."""
    micros, second, minute, hour, day, month, year = map(
        operator.sub, reversed(later), reversed(earlier)
    )
    if micros < 0:
        micros, second = micros + USECS_PER_SECOND, second - 1
    if second < 0:
        second, minute = second + 60, minute - 1
    if minute < 0:
        minute, hour = minute + 60, hour - 1
    if hour < 0:
        hour, day = hour + 24, day - 1
    while day < 0:
        # The month whose length is borrowed is that of the earlier of the two moments.
        day += month_days(earlier.year, earlier.month)
        month -= 1
    while month < 0:
        month, year = month + MONTHS_PER_YEAR, year - 1
    time = ((hour * 60 + minute) * 60 + second) * USECS_PER_SECOND + micros
    months = year * MONTHS_PER_YEAR + month
    return checked(-months, -day, -time) if swapped else checked(months, day, time)


@implements("timestamp_age")
def timestamp_age(a: int, b: int) -> Interval:
    """The calendar time from b to a, in years, months, days and less."""
    if is_timestamp_infinite(a) or is_timestamp_infinite(b):
        raise timestamp_out_of_range()
    if a < b:
        return _difference(split(b), split(a), swapped=True)
    return _difference(split(a), split(b), swapped=False)


@implements("timestamptz_age", context=True)
def timestamptz_age(ctx: EvalContext, a: int, b: int) -> Interval:
    """The calendar time from b to a as seen in the session's zone."""
    if is_timestamp_infinite(a) or is_timestamp_infinite(b):
        raise timestamp_out_of_range()
    zone = zone_of(ctx)
    return timestamp_age(local_of(zone, a), local_of(zone, b))


def _today(ctx: EvalContext) -> int:
    local = local_of(zone_of(ctx), ctx.transaction_us)
    return local // USECS_PER_DAY * USECS_PER_DAY


@implements("age(timestamp without time zone)", context=True)
def age(ctx: EvalContext, value: int) -> Interval:
    """The calendar time up to today's midnight."""
    return timestamp_age(_today(ctx), value)


@implements("age(timestamp with time zone)", context=True)
def age_with_zone(ctx: EvalContext, value: int) -> Interval:
    """The calendar time up to today's midnight in the session's zone."""
    return timestamptz_age(ctx, utc_of(zone_of(ctx), _today(ctx)), value)


@implements("date_finite")
def date_finite(days: int) -> bool:
    """Whether a date is finite."""
    return not is_date_infinite(days)


@implements("timestamp_finite")
def timestamp_finite(value: int) -> bool:
    """Whether a timestamp is finite."""
    return not is_timestamp_infinite(value)
