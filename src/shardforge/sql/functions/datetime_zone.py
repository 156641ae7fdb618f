"""AT TIME ZONE, and the conversions among dates, times and timestamps.

A zone is named by an abbreviation, a full name or a POSIX specification, in this order. Local times in a gap
take the offset before it, ambiguous ones the offset after. Source: PostgreSQL 15, section 9.9.4.
"""

from __future__ import annotations

import math

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.datetime_arithmetic import (
    checked_timestamp,
    date_to_timestamp,
    local_of,
    timestamp_out_of_range,
    utc_of,
    zone_of,
)
from shardforge.sql.functions.registry import implements
from shardforge.sql.types import timezone as tz
from shardforge.sql.types.datetime_calendar import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    UNIX_EPOCH_USECS,
    USECS_PER_DAY,
    USECS_PER_SECOND,
    is_timestamp_infinite,
)
from shardforge.sql.types.datetime_text import apply_precision, apply_timetz_precision
from shardforge.sql.types.interval_text import format_interval, truncated
from shardforge.sql.types.values import Interval, TimeTz


def find_named_zone(name: str) -> tz.Zone:
    """The zone of an abbreviation, full name or POSIX specification; 22023 when unknown."""
    abbreviation = tz.abbreviation_offset(name)
    if abbreviation is None:
        return tz.require_zone(name)
    if isinstance(abbreviation, int):
        return tz.FixedZone(name, abbreviation, name.upper())
    return abbreviation


def _changing(name: str) -> tz.Zone | None:
    """The zone behind an abbreviation whose meaning changed over time, else None."""
    abbreviation = tz.abbreviation_offset(name)
    return None if abbreviation is None or isinstance(abbreviation, int) else abbreviation


@implements("timestamp_zone")
def timestamp_zone(name: str, local: int) -> int:
    """The moment when clocks in a zone show a local time."""
    if is_timestamp_infinite(local):
        return local
    changing = _changing(name)
    if changing is not None:
        offset = tz.dynamic_offset_of_local(name, changing, local)
    else:
        offset = find_named_zone(name).offset_of_local(local)
    return checked_timestamp(local - offset * USECS_PER_SECOND)


@implements("timestamptz_zone")
def timestamptz_zone(name: str, value: int) -> int:
    """What clocks in a zone show at a moment."""
    if is_timestamp_infinite(value):
        return value
    return checked_timestamp(value + _offset_at(name, value) * USECS_PER_SECOND)


def _offset_at(name: str, value: int) -> int:
    changing = _changing(name)
    if changing is None:
        return find_named_zone(name).offset_at(value)
    meant = tz.meaning_at(name, changing, value)
    return changing.offset_at(value) if meant is None else meant


@implements("timetz_zone", context=True)
def timetz_zone(ctx: EvalContext, name: str, time: TimeTz) -> TimeTz:
    """A time as clocks in a zone show it; a zone with rules is taken as of this transaction."""
    return _move_timetz(time, _offset_at(name, ctx.transaction_us))


def _move_timetz(time: TimeTz, offset: int) -> TimeTz:
    micros = time.micros + (time.zone + offset) * USECS_PER_SECOND
    return TimeTz(micros % USECS_PER_DAY, -offset)


def _interval_offset(zone: Interval) -> int:
    if zone.months or zone.days:
        raise QueryError(
            f'interval time zone "{format_interval(zone)}" must not include months or days',
            "22023",
        )
    return truncated(zone.micros, USECS_PER_SECOND)


@implements("timestamp_izone")
def timestamp_izone(zone: Interval, local: int) -> int:
    """The moment when clocks at an offset show a local time."""
    if is_timestamp_infinite(local):
        return local
    return checked_timestamp(local - _interval_offset(zone) * USECS_PER_SECOND)


@implements("timestamptz_izone")
def timestamptz_izone(zone: Interval, value: int) -> int:
    """What clocks at an offset show at a moment."""
    if is_timestamp_infinite(value):
        return value
    return checked_timestamp(value + _interval_offset(zone) * USECS_PER_SECOND)


@implements("timetz_izone")
def timetz_izone(zone: Interval, time: TimeTz) -> TimeTz:
    """A time as clocks at an offset show it."""
    return _move_timetz(time, _interval_offset(zone))


# Casts ----------------------------------------------------------------------------------------------


@implements("date_timestamp")
def date_timestamp(days: int) -> int:
    """date to timestamp."""
    return date_to_timestamp(days)


@implements("date_timestamptz", context=True)
def date_timestamptz(ctx: EvalContext, days: int) -> int:
    """date to timestamptz: midnight in the session's zone."""
    local = date_to_timestamp(days)
    return local if is_timestamp_infinite(local) else utc_of(zone_of(ctx), local)


@implements("timestamptz(date,time without time zone)", context=True)
def timestamptz_of_date_time(ctx: EvalContext, days: int, time: int) -> int:
    """date and time to timestamptz, in the session's zone."""
    local = date_to_timestamp(days)
    return local if is_timestamp_infinite(local) else utc_of(zone_of(ctx), local + time)


@implements("timestamp_date")
def timestamp_date(value: int) -> int:
    """timestamp to date."""
    if value == TIMESTAMP_INFINITY:
        return DATE_INFINITY
    if value == TIMESTAMP_MINUS_INFINITY:
        return DATE_MINUS_INFINITY
    return value // USECS_PER_DAY


@implements("timestamptz_date", context=True)
def timestamptz_date(ctx: EvalContext, value: int) -> int:
    """timestamptz to date, in the session's zone."""
    finite = not is_timestamp_infinite(value)
    return timestamp_date(local_of(zone_of(ctx), value) if finite else value)


@implements("timestamp_time")
def timestamp_time(value: int) -> int | None:
    """timestamp to time; infinity has none."""
    return None if is_timestamp_infinite(value) else value % USECS_PER_DAY


@implements("timestamptz_time", context=True)
def timestamptz_time(ctx: EvalContext, value: int) -> int | None:
    """timestamptz to time, in the session's zone."""
    if is_timestamp_infinite(value):
        return None
    return local_of(zone_of(ctx), value) % USECS_PER_DAY


@implements("timestamptz_timetz", context=True)
def timestamptz_timetz(ctx: EvalContext, value: int) -> TimeTz | None:
    """timestamptz to timetz, in the session's zone."""
    if is_timestamp_infinite(value):
        return None
    offset = zone_of(ctx).offset_at(value)
    return TimeTz((value + offset * USECS_PER_SECOND) % USECS_PER_DAY, -offset)


@implements("timestamp_timestamptz", context=True)
def timestamp_timestamptz(ctx: EvalContext, local: int) -> int:
    """timestamp to timestamptz, in the session's zone."""
    return local if is_timestamp_infinite(local) else utc_of(zone_of(ctx), local)


@implements("timestamptz_timestamp", context=True)
def timestamptz_timestamp(ctx: EvalContext, value: int) -> int:
    """timestamptz to timestamp, in the session's zone."""
    return value if is_timestamp_infinite(value) else local_of(zone_of(ctx), value)


@implements("time_timetz", context=True)
def time_timetz(ctx: EvalContext, time: int) -> TimeTz:
    """time to timetz, at today's offset of the session's zone."""
    zone = zone_of(ctx)
    today = local_of(zone, ctx.transaction_us) // USECS_PER_DAY * USECS_PER_DAY
    return TimeTz(time, -zone.offset_of_local(today + time))


@implements("timetz_time")
def timetz_time(time: TimeTz) -> int:
    """timetz to time."""
    return time.micros


@implements("time_interval")
def time_interval(time: int) -> Interval:
    """time to interval."""
    return Interval(0, 0, time)


@implements("interval_time")
def interval_time(value: Interval) -> int:
    """interval to time, around the clock."""
    return value.micros % USECS_PER_DAY


@implements("float8_timestamptz")
def float8_timestamptz(seconds: float) -> int:
    """to_timestamp(double precision): seconds since 1970."""
    if math.isnan(seconds):
        raise QueryError("timestamp cannot be NaN", "22008")
    if math.isinf(seconds):
        return TIMESTAMP_INFINITY if seconds > 0 else TIMESTAMP_MINUS_INFINITY
    if not -210_866_803_200.0 <= seconds < 9_224_318_016_000.0:
        raise QueryError(f'timestamp out of range: "{seconds:g}"', "22008")
    shifted = seconds + UNIX_EPOCH_USECS / USECS_PER_SECOND
    return checked_timestamp(round(shifted * USECS_PER_SECOND))


@implements("time_scale", "timestamp_scale", "timestamptz_scale")
def scale(value: int, typmod: int) -> int:
    """Rounds to a precision."""
    rounded = apply_precision(typmod, value)
    if rounded != value and abs(rounded) >= 2**63 - 1:
        raise timestamp_out_of_range()
    return rounded


@implements("timetz_scale")
def timetz_scale(time: TimeTz, typmod: int) -> TimeTz:
    """Rounds to a precision."""
    return apply_timetz_precision(typmod, time)
