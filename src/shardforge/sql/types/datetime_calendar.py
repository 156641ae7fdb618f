"""The calendar under every date/time type: Julian day numbers, field splitting, ranges and rounding.

Dates are days and timestamps microseconds since 2000-01-01 on the proleptic Gregorian calendar; year 0 is
1 BC. Nothing here knows text or time zones. Source: PostgreSQL 15, src/include/datatype/timestamp.h (the
ranges) and appendix B.7 of its manual (Julian days).
"""

from __future__ import annotations

from typing import NamedTuple

USECS_PER_SECOND = 1_000_000
USECS_PER_MINUTE = 60_000_000
USECS_PER_HOUR = 3_600_000_000
USECS_PER_DAY = 86_400_000_000
SECONDS_PER_DAY = 86_400
DAYS_PER_MONTH = 30
MONTHS_PER_YEAR = 12

EPOCH_JULIAN = 2_451_545  # 2000-01-01
UNIX_EPOCH_JULIAN = 2_440_588  # 1970-01-01
UNIX_EPOCH_DAYS = UNIX_EPOCH_JULIAN - EPOCH_JULIAN
UNIX_EPOCH_USECS = UNIX_EPOCH_DAYS * USECS_PER_DAY

DATE_INFINITY = 2**31 - 1
DATE_MINUS_INFINITY = -(2**31)
TIMESTAMP_INFINITY = 2**63 - 1
TIMESTAMP_MINUS_INFINITY = -(2**63)
MIN_DATE = -EPOCH_JULIAN
END_DATE = 2_147_483_494 - EPOCH_JULIAN
MIN_TIMESTAMP = -211_813_488_000_000_000
END_TIMESTAMP = 9_223_371_331_200_000_000
TIMESTAMP_END_DATE = 109_203_528 - EPOCH_JULIAN

_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Fields(NamedTuple):
    """A moment split into calendar fields."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    micros: int


def is_leap(year: int) -> bool:
    """Whether `year` (0 is 1 BC) has 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def month_days(year: int, month: int) -> int:
    """Days in a month, 1 to 12."""
    return 29 if month == 2 and is_leap(year) else _MONTH_DAYS[month - 1]


def julian_of(year: int, month: int, day: int) -> int:
    """The Julian day number; month and day may lie outside their usual range."""
    if month > 2:
        month += 1
        year += 4800
    else:
        month += 13
        year += 4799
    century = year // 100
    return year * 365 - 32167 + year // 4 - century + century // 4 + 7834 * month // 256 + day


def date_of_julian(julian: int) -> tuple[int, int, int]:
    """Year, month and day of a Julian day number."""
    julian += 32044
    quad = julian // 146097
    extra = (julian - quad * 146097) * 4 + 3
    julian += 60 + quad * 3 + extra // 146097
    quad = julian // 1461
    julian -= quad * 1461
    year = julian * 4 // 1461
    julian = ((julian + 305) % 365 if year else (julian + 306) % 366) + 123
    year += quad * 4
    quad = julian * 2141 // 65536
    return year - 4800, (quad + 10) % 12 + 1, julian - 7834 * quad // 256


def is_valid_julian(year: int, month: int) -> bool:
    """Whether PostgreSQL counts days in this month at all: from 4714 BC November to 5874898 May."""
    return (year > -4713 or (year == -4713 and month >= 11)) and (
        year < 5874898 or (year == 5874898 and month < 6)
    )


def days_of(year: int, month: int, day: int) -> int:
    """Days since 2000-01-01."""
    return julian_of(year, month, day) - EPOCH_JULIAN


def date_fields(days: int) -> tuple[int, int, int]:
    """Year, month and day of a date value."""
    return date_of_julian(days + EPOCH_JULIAN)


def day_of_week(days: int) -> int:
    """0 Sunday to 6 Saturday."""
    return (days + EPOCH_JULIAN + 1) % 7


def split(micros: int) -> Fields:
    """The fields of a timestamp value read as local time."""
    days, rest = divmod(micros, USECS_PER_DAY)
    year, month, day = date_of_julian(days + EPOCH_JULIAN)
    seconds, fraction = divmod(rest, USECS_PER_SECOND)
    minutes, second = divmod(seconds, 60)
    return Fields(year, month, day, minutes // 60, minutes % 60, second, fraction)


def join(fields: Fields) -> int:
    """The timestamp value of calendar fields read as local time; the inverse of `split`."""
    year, month, day, hour, minute, second, micros = fields
    days = julian_of(year, month, day) - EPOCH_JULIAN
    return days * USECS_PER_DAY + ((hour * 60 + minute) * 60 + second) * USECS_PER_SECOND + micros


def iso_week_monday(year: int) -> int:
    """The Julian day of the Monday that begins ISO week 1 of an ISO year."""
    fourth = julian_of(year, 1, 4)
    return fourth - fourth % 7


def iso_week(year: int, month: int, day: int) -> tuple[int, int]:
    """The ISO year and week number of a date."""
    julian = julian_of(year, month, day)
    iso_year = year + 1
    first = iso_week_monday(iso_year)
    while julian < first:
        iso_year -= 1
        first = iso_week_monday(iso_year)
    return iso_year, (julian - first) // 7 + 1


def is_date_infinite(days: int) -> bool:
    """Whether a date value is one of the infinities."""
    return days in (DATE_INFINITY, DATE_MINUS_INFINITY)


def is_timestamp_infinite(micros: int) -> bool:
    """Whether a timestamp value is one of the infinities."""
    return micros in (TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY)


def round_half_away(value: int, precision: int) -> int:
    """Round microseconds to `precision` decimal digits of a second, halves away from zero."""
    unit: int = 10 ** (6 - precision)
    if value >= 0:
        return (value + unit // 2) // unit * unit
    return -((-value + unit // 2) // unit * unit)
