"""Adding and subtracting dates, times, timestamps and intervals.

Months are added on the calendar with the day clamped to the month's last, then days, then microseconds. For
timestamptz the first two happen in the session's zone. Source: PostgreSQL 15, section 9.9, tables 9.32 and 9.33.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.interval_arithmetic import interval_um, justify_hours
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    END_DATE,
    END_TIMESTAMP,
    MIN_DATE,
    MIN_TIMESTAMP,
    TIMESTAMP_END_DATE,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    USECS_PER_DAY,
    USECS_PER_SECOND,
    date_fields,
    days_of,
    is_date_infinite,
    is_timestamp_infinite,
    month_days,
)
from shardforge.sql.types.interval_text import interval_total
from shardforge.sql.types.timezone import Zone, session_zone
from shardforge.sql.types.values import Interval, TimeTz


def timestamp_out_of_range() -> QueryError:
    """22008 for a timestamp."""
    return QueryError("timestamp out of range", "22008")


def checked_timestamp(micros: int) -> int:
    """A finite timestamp within PostgreSQL's range."""
    if not MIN_TIMESTAMP <= micros < END_TIMESTAMP:
        raise timestamp_out_of_range()
    return micros


def checked_date(days: int) -> int:
    """A finite date within PostgreSQL's range."""
    if not MIN_DATE <= days < END_DATE:
        raise QueryError("date out of range", "22008")
    return days


def zone_of(ctx: EvalContext) -> Zone:
    """The session's zone."""
    return session_zone(ctx.settings.timezone)


def local_of(zone: Zone, micros: int) -> int:
    """The local time of a UTC moment."""
    return micros + zone.offset_at(micros) * USECS_PER_SECOND


def utc_of(zone: Zone, local: int) -> int:
    """The UTC moment of a local time."""
    return checked_timestamp(local - zone.offset_of_local(local) * USECS_PER_SECOND)


def date_to_timestamp(days: int) -> int:
    """Midnight of a date."""
    if days == DATE_INFINITY:
        return TIMESTAMP_INFINITY
    if days == DATE_MINUS_INFINITY:
        return TIMESTAMP_MINUS_INFINITY
    if days >= TIMESTAMP_END_DATE:
        raise QueryError("date out of range for timestamp", "22008")
    return days * USECS_PER_DAY


def add_months(local: int, months: int) -> int:
    """A local time some months later, the day clamped to the month's last."""
    days, rest = divmod(local, USECS_PER_DAY)
    year, month, day = date_fields(days)
    year_shift, month = divmod(month - 1 + months, 12)
    year, month = year + year_shift, month + 1
    if not -4714 <= year <= 294277:
        raise timestamp_out_of_range()
    return days_of(year, month, min(day, month_days(year, month))) * USECS_PER_DAY + rest


@implements("timestamp_pl_interval")
def timestamp_pl_interval(value: int, span: Interval) -> int:
    """timestamp + interval."""
    if is_timestamp_infinite(value):
        return value
    if span.months:
        value = add_months(value, span.months)
    return checked_timestamp(value + span.days * USECS_PER_DAY + span.micros)


@implements("timestamp_mi_interval")
def timestamp_mi_interval(value: int, span: Interval) -> int:
    """timestamp - interval."""
    return timestamp_pl_interval(value, interval_um(span))


def add_in_zone(zone: Zone, value: int, span: Interval) -> int:
    """timestamptz + interval: months and days by the zone's calendar."""
    if is_timestamp_infinite(value):
        return value
    if span.months:
        value = utc_of(zone, add_months(local_of(zone, value), span.months))
    if span.days:
        value = utc_of(zone, local_of(zone, value) + span.days * USECS_PER_DAY)
    return checked_timestamp(value + span.micros)


@implements("timestamptz_pl_interval", context=True)
def timestamptz_pl_interval(ctx: EvalContext, value: int, span: Interval) -> int:
    """timestamptz + interval."""
    return add_in_zone(zone_of(ctx), value, span)


@implements("timestamptz_mi_interval", context=True)
def timestamptz_mi_interval(ctx: EvalContext, value: int, span: Interval) -> int:
    """timestamptz - interval."""
    return add_in_zone(zone_of(ctx), value, interval_um(span))


@implements("timestamp_mi")
def timestamp_mi(a: int, b: int) -> Interval:
    """The time between two timestamps, in days and less."""
    if is_timestamp_infinite(a) or is_timestamp_infinite(b):
        raise QueryError("cannot subtract infinite timestamps", "22008")
    return justify_hours(Interval(0, 0, a - b))


def _add_days(days: int, count: int) -> int:
    return days if is_date_infinite(days) else checked_date(days + count)


@implements("date_pli")
def date_pli(days: int, count: int) -> int:
    """A date some days later."""
    return _add_days(days, count)


@implements("integer_pl_date(integer,date)")
def integer_pl_date(count: int, days: int) -> int:
    """integer + date."""
    return _add_days(days, count)


@implements("date_mii")
def date_mii(days: int, count: int) -> int:
    """A date some days earlier."""
    return _add_days(days, -count)


@implements("date_mi")
def date_mi(a: int, b: int) -> int:
    """Days between two dates."""
    if is_date_infinite(a) or is_date_infinite(b):
        raise QueryError("cannot subtract infinite dates", "22008")
    return a - b


@implements("date_pl_interval")
def date_pl_interval(days: int, span: Interval) -> int:
    """date + interval, a timestamp."""
    return timestamp_pl_interval(date_to_timestamp(days), span)


@implements("date_mi_interval")
def date_mi_interval(days: int, span: Interval) -> int:
    """date - interval, a timestamp."""
    return timestamp_mi_interval(date_to_timestamp(days), span)


@implements("datetime_timestamp")
def datetime_timestamp(days: int, time: int) -> int:
    """date + time."""
    start = date_to_timestamp(days)
    return start if is_timestamp_infinite(start) else checked_timestamp(start + time)


@implements("datetimetz_timestamptz")
def datetimetz_timestamptz(days: int, time: TimeTz) -> int:
    """date + timetz."""
    start = date_to_timestamp(days)
    if is_timestamp_infinite(start):
        return start
    value = start + time.micros + time.zone * USECS_PER_SECOND
    if not MIN_TIMESTAMP <= value < END_TIMESTAMP:
        raise QueryError("date out of range for timestamp", "22008")
    return value


@implements("timedate_pl(time without time zone,date)")
def timedate_pl(time: int, days: int) -> int:
    """time + date."""
    return datetime_timestamp(days, time)


@implements("timetzdate_pl(time with time zone,date)")
def timetzdate_pl(time: TimeTz, days: int) -> int:
    """timetz + date."""
    return datetimetz_timestamptz(days, time)


@implements("time_pl_interval")
def time_pl_interval(time: int, span: Interval) -> int:
    """time + interval, around the clock."""
    return (time + span.micros) % USECS_PER_DAY


@implements("time_mi_interval")
def time_mi_interval(time: int, span: Interval) -> int:
    """time - interval, around the clock."""
    return (time - span.micros) % USECS_PER_DAY


@implements("time_mi_time")
def time_mi_time(a: int, b: int) -> Interval:
    """The time between two times of day."""
    return Interval(0, 0, a - b)


@implements("timetz_pl_interval")
def timetz_pl_interval(time: TimeTz, span: Interval) -> TimeTz:
    """timetz + interval, around the clock."""
    return TimeTz((time.micros + span.micros) % USECS_PER_DAY, time.zone)


@implements("timetz_mi_interval")
def timetz_mi_interval(time: TimeTz, span: Interval) -> TimeTz:
    """timetz - interval, around the clock."""
    return TimeTz((time.micros - span.micros) % USECS_PER_DAY, time.zone)


@implements("interval_pl_time(interval,time without time zone)")
def interval_pl_time(span: Interval, time: int) -> int:
    """interval + time."""
    return time_pl_interval(time, span)


@implements("interval_pl_timetz(interval,time with time zone)")
def interval_pl_timetz(span: Interval, time: TimeTz) -> TimeTz:
    """interval + timetz."""
    return timetz_pl_interval(time, span)


@implements("interval_pl_date(interval,date)")
def interval_pl_date(span: Interval, days: int) -> int:
    """interval + date."""
    return date_pl_interval(days, span)


@implements("interval_pl_timestamp(interval,timestamp without time zone)")
def interval_pl_timestamp(span: Interval, value: int) -> int:
    """interval + timestamp."""
    return timestamp_pl_interval(value, span)


@implements("interval_pl_timestamptz(interval,timestamp with time zone)", context=True)
def interval_pl_timestamptz(ctx: EvalContext, span: Interval, value: int) -> int:
    """interval + timestamptz."""
    return add_in_zone(zone_of(ctx), value, span)


def _check_step(step: Interval) -> int:
    direction = interval_total(step)
    if not direction:
        raise QueryError("step size cannot equal zero", "22023")
    return direction


@implements("generate_series_timestamp")
def generate_series_timestamp(start: int, stop: int, step: Interval) -> Iterator[int]:
    """Timestamps from start to stop."""
    forward = _check_step(step) > 0
    value = start
    while value <= stop if forward else value >= stop:
        yield value
        value = timestamp_pl_interval(value, step)


@implements("generate_series_timestamptz", context=True)
def generate_series_timestamptz(
    ctx: EvalContext, start: int, stop: int, step: Interval
) -> Iterator[int]:
    """Timestamps with time zone from start to stop, days and months by the session's zone."""
    forward = _check_step(step) > 0
    zone = zone_of(ctx)
    value = start
    while value <= stop if forward else value >= stop:
        yield value
        value = add_in_zone(zone, value, step)
