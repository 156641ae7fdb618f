"""The current moment in its many forms, and make_date and its kin.

`now()` is the transaction's start. `current_date` and the other values that SQL writes without parentheses are
plain functions here, for the binder. Source: PostgreSQL 15, section 9.9.5 and table 9.33.
"""

from __future__ import annotations

import datetime
import math

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.datetime_arithmetic import (
    checked_timestamp,
    local_of,
    utc_of,
    zone_of,
)
from shardforge.sql.functions.datetime_zone import timestamp_zone
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    END_DATE,
    END_TIMESTAMP,
    MIN_DATE,
    MIN_TIMESTAMP,
    USECS_PER_DAY,
    USECS_PER_SECOND,
    days_of,
    is_valid_julian,
    month_days,
)
from shardforge.sql.types.datetime_decode import decode_offset
from shardforge.sql.types.datetime_text import apply_precision
from shardforge.sql.types.datetime_tokens import DateTimeError, Problem
from shardforge.sql.types.values import TimeTz


@implements("now", context=True)
def now(ctx: EvalContext) -> int:
    """The transaction's start."""
    return ctx.transaction_us


@implements("statement_timestamp", context=True)
def statement_timestamp(ctx: EvalContext) -> int:
    """The statement's start."""
    return ctx.statement_us


@implements("clock_timestamp", context=True)
def clock_timestamp(ctx: EvalContext) -> int:
    """The moment now."""
    return ctx.clock_us()


@implements("timeofday", context=True)
def timeofday(ctx: EvalContext) -> str:
    """The moment now, as text of the old style."""
    value = ctx.clock_us()
    zone = zone_of(ctx)
    local = datetime.datetime(2000, 1, 1) + datetime.timedelta(  # noqa: DTZ001 (already local)
        microseconds=local_of(zone, value)
    )
    return f"{local:%a %b %d %H:%M:%S.%f %Y} {zone.abbreviation_at(value)}"


def current_timestamp(ctx: EvalContext, precision: int = -1) -> int:
    """CURRENT_TIMESTAMP[(p)]."""
    return apply_precision(precision, ctx.transaction_us)


def localtimestamp(ctx: EvalContext, precision: int = -1) -> int:
    """LOCALTIMESTAMP[(p)]."""
    return apply_precision(precision, local_of(zone_of(ctx), ctx.transaction_us))


def current_date(ctx: EvalContext) -> int:
    """CURRENT_DATE."""
    return local_of(zone_of(ctx), ctx.transaction_us) // USECS_PER_DAY


def localtime(ctx: EvalContext, precision: int = -1) -> int:
    """LOCALTIME[(p)]."""
    time = local_of(zone_of(ctx), ctx.transaction_us) % USECS_PER_DAY
    return apply_precision(precision, time)


def current_time(ctx: EvalContext, precision: int = -1) -> TimeTz:
    """CURRENT_TIME[(p)]."""
    offset = zone_of(ctx).offset_at(ctx.transaction_us)
    return TimeTz(localtime(ctx, precision), -offset)


# Making ---------------------------------------------------------------------------------------------


def _make_days(year: int, month: int, day: int) -> int:
    astronomical = year + 1 if year < 0 else year
    text = f"{astronomical}-{month:02d}-{day:02d}"
    if year == 0 or not 1 <= month <= 12 or not 1 <= day <= month_days(astronomical, month):
        raise QueryError(f"date field value out of range: {text}", "22008")
    days = days_of(astronomical, month, day)
    if not is_valid_julian(astronomical, month) or not MIN_DATE <= days < END_DATE:
        raise QueryError(f"date out of range: {text}", "22008")
    return days


def _make_micros(hour: int, minute: int, second: float) -> int:
    bad = math.isnan(second) or math.isinf(second)
    micros = 0 if bad else round(second * USECS_PER_SECOND)
    total = (hour * 60 + minute) * 60 * USECS_PER_SECOND + micros
    if (
        bad
        or not 0 <= hour <= 24
        or not 0 <= minute <= 59
        or not 0 <= micros <= 60 * USECS_PER_SECOND
        or total > USECS_PER_DAY
    ):
        raise QueryError(
            f"time field value out of range: {hour}:{minute:02d}:{_seconds_text(second)}", "22008"
        )
    return total


def _seconds_text(second: float) -> str:
    return "NaN" if math.isnan(second) else f"{second:02g}"


@implements("make_date")
def make_date(year: int, month: int, day: int) -> int:
    """A date; negative years are BC."""
    return _make_days(year, month, day)


@implements("make_time")
def make_time(hour: int, minute: int, second: float) -> int:
    """A time of day."""
    return _make_micros(hour, minute, second)


@implements("make_timestamp")
def make_timestamp(year: int, month: int, day: int, hour: int, minute: int, second: float) -> int:
    """A timestamp."""
    days = _make_days(year, month, day)
    value = days * USECS_PER_DAY + _make_micros(hour, minute, second)
    if not MIN_TIMESTAMP <= value < END_TIMESTAMP:
        raise QueryError(
            f"timestamp out of range: {year}-{month:02d}-{day:02d} "
            f"{hour}:{minute:02d}:{_seconds_text(second)}",
            "22008",
        )
    return value


@implements("make_timestamptz", context=True)
def make_timestamptz(
    ctx: EvalContext, year: int, month: int, day: int, hour: int, minute: int, second: float
) -> int:
    """A timestamptz, in the session's zone."""
    return utc_of(zone_of(ctx), make_timestamp(year, month, day, hour, minute, second))


@implements("make_timestamptz_at_timezone")
def make_timestamptz_at_timezone(
    year: int, month: int, day: int, hour: int, minute: int, second: float, zone: str
) -> int:
    """A timestamptz, in a zone."""
    local = make_timestamp(year, month, day, hour, minute, second)
    if zone[:1].isdigit():
        raise QueryError(
            f'invalid input syntax for type numeric time zone: "{zone}"',
            "22023",
            hint='Numeric time zones must have "-" or "+" as first character.',
        )
    try:
        offset = decode_offset(zone)
    except DateTimeError as error:
        if error.problem is Problem.ZONE_OVERFLOW:
            raise QueryError(f'numeric time zone "{zone}" out of range', "22023") from None
        return timestamp_zone(zone, local)
    return checked_timestamp(local - offset * USECS_PER_SECOND)
