"""EXTRACT and date_part: a field of a date, time, timestamp or interval.

EXTRACT answers numeric with the field's own scale (seconds 6, milliseconds 3), date_part double precision. Of
infinite values only the fields that grow with time are known, and infinite. Source: PostgreSQL 15, section 9.9.1.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.datetime_arithmetic import date_to_timestamp, zone_of
from shardforge.sql.functions.datetime_units import find_field, not_recognized, not_supported
from shardforge.sql.functions.numeric import numeric_add, numeric_div
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    MONTHS_PER_YEAR,
    UNIX_EPOCH_DAYS,
    UNIX_EPOCH_USECS,
    USECS_PER_DAY,
    USECS_PER_HOUR,
    USECS_PER_MINUTE,
    USECS_PER_SECOND,
    Fields,
    date_fields,
    is_date_infinite,
    is_timestamp_infinite,
    iso_week,
    julian_of,
    split,
)
from shardforge.sql.types.interval_text import truncated
from shardforge.sql.types.values import Interval, TimeTz

Number = Decimal | float
_DATE = "date"
_TIME = "time without time zone"
_TIMETZ = "time with time zone"
_TIMESTAMP = "timestamp without time zone"
_TIMESTAMPTZ = "timestamp with time zone"
_INTERVAL = "interval"
_CLOCK_FIELDS = frozenset(("microsecond", "millisecond", "second", "minute", "hour"))
_GROWING = frozenset(("year", "decade", "century", "millennium", "julian", "isoyear", "epoch"))
_KNOWN = _CLOCK_FIELDS | _GROWING | {"day", "month", "quarter", "week", "dow", "isodow", "doy"}
_RESERVED = frozenset(("now", "today", "tomorrow", "yesterday", "early", "late", "zulu"))
_ZONE_FIELDS = frozenset(("timezone", "timezone_hour", "timezone_minute"))


class _Scaled(NamedTuple):
    """An exact amount: `value` / 10**`scale`."""

    value: int
    scale: int = 0


def _numeric(amount: _Scaled) -> Decimal:
    return Decimal(amount.value).scaleb(-amount.scale) if amount.scale else Decimal(amount.value)


def _double(amount: _Scaled) -> float:
    divisor: int = 10**amount.scale
    return amount.value / divisor


def _second_field(field: str, second: int, micros: int) -> _Scaled:
    total = second * USECS_PER_SECOND + micros
    return _Scaled(total, {"microsecond": 0, "millisecond": 3, "second": 6}[field])


def _date_field(field: str, year: int, month: int, day: int) -> int | None:
    """A calendar field, or None when it is none."""
    if field == "day":
        return day
    if field == "month":
        return month
    if field == "year":
        return year if year > 0 else year - 1
    if field == "quarter":
        return (month - 1) // 3 + 1
    if field == "week":
        return iso_week(year, month, day)[1]
    if field == "isoyear":
        iso = iso_week(year, month, day)[0]
        return iso if iso > 0 else iso - 1
    if field == "decade":
        return year // 10
    if field == "century":
        return (year + 99) // 100 if year > 0 else -((100 - year) // 100)
    if field == "millennium":
        return (year + 999) // 1000 if year > 0 else -((1000 - year) // 1000)
    julian = julian_of(year, month, day)
    if field == "julian":
        return julian
    if field == "dow":
        return (julian + 1) % 7
    if field == "isodow":
        return julian % 7 + 1
    if field == "doy":
        return julian - julian_of(year, 1, 1) + 1
    return None


def _moment_field(field: str, fields: Fields) -> _Scaled | None:
    if field in ("microsecond", "millisecond", "second"):
        return _second_field(field, fields.second, fields.micros)
    if field == "minute":
        return _Scaled(fields.minute)
    if field == "hour":
        return _Scaled(fields.hour)
    found = _date_field(field, fields.year, fields.month, fields.day)
    return None if found is None else _Scaled(found)


def _day_micros(fields: Fields) -> int:
    seconds = (fields.hour * 60 + fields.minute) * 60 + fields.second
    return seconds * USECS_PER_SECOND + fields.micros


def _julian(fields: Fields, numeric: bool) -> Number:
    day = julian_of(fields.year, fields.month, fields.day)
    micros = _day_micros(fields)
    if numeric:
        return numeric_add(Decimal(day), numeric_div(Decimal(micros), Decimal(USECS_PER_DAY)))
    seconds = (fields.hour * 60 + fields.minute) * 60 + fields.second
    return day + (seconds + fields.micros / 1e6) / 86400.0


def _infinite(
    name: str, field: str, positive: bool, type_name: str, numeric: bool, zoned: bool
) -> Number | None:
    if field not in _KNOWN and not (zoned and field in _ZONE_FIELDS):
        raise _refusal(name, field, type_name)
    if field not in _GROWING:
        return None
    text = "Infinity" if positive else "-Infinity"
    return Decimal(text) if numeric else float(text)


def _refusal(name: str, field: str, type_name: str) -> Exception:
    if field in _RESERVED and type_name in (_TIME, _TIMETZ, _INTERVAL):
        return not_recognized(name, type_name)
    return not_supported(name, type_name) if field else not_recognized(name, type_name)


def _timestamp(name: str, value: int, numeric: bool) -> Number | None:
    name = name.lower()
    field = find_field(name)
    if is_timestamp_infinite(value):
        return _infinite(name, field, value > 0, _TIMESTAMP, numeric, False)
    fields = split(value)
    if field == "julian":
        return _julian(fields, numeric)
    found = (
        _Scaled(value - UNIX_EPOCH_USECS, 6) if field == "epoch" else _moment_field(field, fields)
    )
    if found is None:
        raise _refusal(name, field, _TIMESTAMP)
    return _numeric(found) if numeric else _double(found)


def _timestamptz(ctx: EvalContext, name: str, value: int, numeric: bool) -> Number | None:
    name = name.lower()
    field = find_field(name)
    if is_timestamp_infinite(value):
        return _infinite(name, field, value > 0, _TIMESTAMPTZ, numeric, True)
    offset = zone_of(ctx).offset_at(value)
    fields = split(value + offset * USECS_PER_SECOND)
    if field == "julian":
        return _julian(fields, numeric)
    found: _Scaled | None
    if field in _ZONE_FIELDS:
        found = _Scaled(_zone_field(field, offset))
    elif field == "epoch":
        found = _Scaled(value - UNIX_EPOCH_USECS, 6)
    else:
        found = _moment_field(field, fields)
    if found is None:
        raise _refusal(name, field, _TIMESTAMPTZ)
    return _numeric(found) if numeric else _double(found)


def _zone_field(field: str, offset: int) -> int:
    if field == "timezone":
        return offset
    if field == "timezone_hour":
        return truncated(offset, 3600)
    return truncated(offset, 60) - truncated(offset, 3600) * 60


def _time_field(field: str, micros: int) -> _Scaled | None:
    if field in ("microsecond", "millisecond", "second"):
        return _Scaled(
            micros % USECS_PER_MINUTE, {"microsecond": 0, "millisecond": 3, "second": 6}[field]
        )
    if field == "minute":
        return _Scaled(micros // USECS_PER_MINUTE % 60)
    if field == "hour":
        return _Scaled(micros // USECS_PER_HOUR)
    return _Scaled(micros, 6) if field == "epoch" else None


def _time(name: str, value: int, numeric: bool) -> Number:
    name = name.lower()
    field = find_field(name)
    found = _time_field(field, value)
    if found is None:
        raise _refusal(name, field, _TIME)
    return _numeric(found) if numeric else _double(found)


def _timetz(name: str, value: TimeTz, numeric: bool) -> Number:
    name = name.lower()
    field = find_field(name)
    found: _Scaled | None
    if field in _ZONE_FIELDS:
        found = _Scaled(_zone_field(field, -value.zone))
    elif field == "epoch":
        found = _Scaled(value.micros + value.zone * USECS_PER_SECOND, 6)
    else:
        found = _time_field(field, value.micros)
    if found is None:
        raise _refusal(name, field, _TIMETZ)
    return _numeric(found) if numeric else _double(found)


def _interval_field(field: str, value: Interval) -> _Scaled | None:
    years = truncated(value.months, MONTHS_PER_YEAR)
    months = value.months - years * MONTHS_PER_YEAR
    hours = truncated(value.micros, USECS_PER_HOUR)
    rest = value.micros - hours * USECS_PER_HOUR
    minutes = truncated(rest, USECS_PER_MINUTE)
    rest -= minutes * USECS_PER_MINUTE
    whole = {
        "minute": minutes,
        "hour": hours,
        "day": value.days,
        "month": months,
        "quarter": truncated(months, 3) + 1,
        "year": years,
        "decade": truncated(years, 10),
        "century": truncated(years, 100),
        "millennium": truncated(years, 1000),
    }
    if field in whole:
        return _Scaled(whole[field])
    if field in ("microsecond", "millisecond", "second"):
        return _second_field(field, 0, rest)
    if field == "epoch":
        quarter_days = 1461 * years + 120 * months + 4 * value.days
        return _Scaled(quarter_days * 21_600 * USECS_PER_SECOND + value.micros, 6)
    return None


def _interval(name: str, value: Interval, numeric: bool) -> Number:
    name = name.lower()
    field = find_field(name)
    found = _interval_field(field, value)
    if found is None:
        raise _refusal(name, field, _INTERVAL)
    return _numeric(found) if numeric else _double(found)


@implements("extract_date")
def extract_date(name: str, days: int) -> Decimal | None:
    """EXTRACT from a date."""
    name = name.lower()
    field = find_field(name)
    known = field in _KNOWN and field not in _CLOCK_FIELDS
    if is_date_infinite(days) and known:
        found = _infinite(name, field, days > 0, _DATE, True, False)
        return found if found is None or isinstance(found, Decimal) else Decimal(found)
    if not known:
        raise _refusal(name, field, _DATE)
    if field == "epoch":
        return Decimal((days - UNIX_EPOCH_DAYS) * 86400)
    part = _date_field(field, *date_fields(days))
    assert part is not None, "known fields of dates are all here"
    return Decimal(part)


@implements("date_part(text,date)")
def date_part_date(name: str, days: int) -> Any:
    """date_part of a date is that of its midnight."""
    return _timestamp(name, date_to_timestamp(days), False)


def _register(prefix: str, function: Callable[..., Any], *, context: bool = False) -> None:
    """Registers EXTRACT and date_part of one type."""
    for key, numeric in ((f"extract_{prefix}", True), (f"{prefix}_part", False)):
        if context:
            implements(key, context=True)(
                lambda ctx, name, value, numeric=numeric: function(ctx, name, value, numeric)
            )
        else:
            implements(key)(lambda name, value, numeric=numeric: function(name, value, numeric))


_register("timestamp", _timestamp)
_register("timestamptz", _timestamptz, context=True)
_register("time", _time)
_register("timetz", _timetz)
_register("interval", _interval)
