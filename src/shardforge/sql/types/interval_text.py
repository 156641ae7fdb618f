"""Interval text in all the styles PostgreSQL reads, and its `postgres` output style.

Verbose ('1 year 2 mons ago'), SQL standard ('1-2', '3 4:05:06') and ISO 8601 ('P1Y2M', 'P0001-02-03') are read
alike; fractions cascade to smaller units as PostgreSQL's do. Invariant: output(input(x)) reads back the same.
Source: PostgreSQL 15, section 8.5.4 and 8.5.5.
"""

from __future__ import annotations

import re

from shardforge.errors import QueryError
from shardforge.sql.types.datetime_calendar import (
    DAYS_PER_MONTH,
    MONTHS_PER_YEAR,
    USECS_PER_DAY,
    USECS_PER_HOUR,
    USECS_PER_MINUTE,
    USECS_PER_SECOND,
    round_half_away,
)
from shardforge.sql.types.datetime_decode import decode_clock_time
from shardforge.sql.types.datetime_tokens import (
    WORDS,
    DateTimeError,
    FieldKind,
    Problem,
    Token,
    Word,
    bad_format,
    field_overflow,
    refusal,
    tokenize,
)
from shardforge.sql.types.values import Interval

INT32 = range(-(2**31), 2**31)
INT64 = range(-(2**63), 2**63)

MONTH, YEAR, DAY, HOUR, MINUTE, SECOND = 1 << 1, 1 << 2, 1 << 3, 1 << 10, 1 << 11, 1 << 12
FULL_RANGE = 0x7FFF
FULL_PRECISION = 0xFFFF

_ALIASES = {
    "microsecond": "us usec usecs usecond useconds microsecon microsecond microseconds",
    "millisecond": "ms msec msecs msecond mseconds millisecon millisecond milliseconds",
    "second": "s sec secs second seconds",
    "minute": "m min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "d day days",
    "week": "w week weeks",
    "month": "mon mons month months",
    "year": "y yr yrs year years",
    "decade": "dec decs decade decades",
    "century": "c cent century centuries",
    "millennium": "mil mils millennium millennia",
}
UNITS: dict[str, str] = {
    word[:10]: unit for unit, words in _ALIASES.items() for word in words.split()
}
_YEARS = {"year": 1, "decade": 10, "century": 100, "millennium": 1000}
_MICROS = {
    "microsecond": 1,
    "millisecond": 1000,
    "second": USECS_PER_SECOND,
    "minute": USECS_PER_MINUTE,
    "hour": USECS_PER_HOUR,
}
_CLOCK = frozenset(("hour", "minute", "second", "millisecond", "microsecond"))
_SECONDS = frozenset(("second", "millisecond", "microsecond"))


class _Sum:
    """An interval being added up; overflow is noticed as it happens."""

    def __init__(self) -> None:
        self.years = self.months = self.days = self.micros = 0

    def add_years(self, value: int, fraction: float, scale: int) -> None:
        self.years += value * scale
        self.months += round(fraction * scale * MONTHS_PER_YEAR)
        self.check()

    def add_days(self, value: int, fraction: float, scale: int) -> None:
        self.days += value * scale
        self.fraction_days(fraction, scale)

    def add_months(self, value: int, fraction: float) -> None:
        self.months += value
        self.fraction_days(fraction, DAYS_PER_MONTH)

    def fraction_days(self, fraction: float, scale: int) -> None:
        amount = fraction * scale
        self.days += int(amount)
        self.add_micros(0, amount - int(amount), USECS_PER_DAY)

    def add_micros(self, value: int, fraction: float, scale: int) -> None:
        self.micros += value * scale
        amount = fraction * scale
        whole = int(amount)
        rest = amount - whole
        self.micros += whole + (1 if rest > 0.5 else -1 if rest < -0.5 else 0)
        self.check()

    def check(self) -> None:
        if self.micros not in INT64 or any(
            v not in INT32 for v in (self.years, self.months, self.days)
        ):
            raise field_overflow()

    def negate(self) -> None:
        self.years, self.months = -self.years, -self.months
        self.days, self.micros = -self.days, -self.micros
        self.check()

    def interval(self) -> Interval:
        return checked(self.years * MONTHS_PER_YEAR + self.months, self.days, self.micros)


def checked(months: int, days: int, micros: int) -> Interval:
    """The interval, or 22008 when a field is out of range."""
    if months not in INT32 or days not in INT32 or micros not in INT64:
        raise QueryError("interval out of range", "22008")
    return Interval(months, days, micros)


def parse_interval(text: str, fields: int = FULL_RANGE) -> Interval:
    """Reads an interval; `fields` is the range of its typmod, which says what a bare number counts."""
    try:
        try:
            total = _decode(tokenize(text), fields)
        except DateTimeError as error:
            if error.problem is not Problem.BAD_FORMAT:
                raise
            total = _decode_iso(text)
    except DateTimeError as error:
        problem = error.problem
        if problem is Problem.FIELD_OVERFLOW:
            problem = Problem.INTERVAL_OVERFLOW
        raise refusal(problem, text, "interval") from None
    return total.interval()


def _rightmost_unit(fields: int) -> str:
    for mask, unit in ((SECOND, "second"), (MINUTE, "minute"), (HOUR, "hour"), (DAY, "day")):
        if fields & mask:
            return unit
    if fields & MONTH:
        return "month"
    return "year" if fields & YEAR else "second"


def _decode(tokens: list[Token], fields: int) -> _Sum:
    """Fields from right to left, so that a unit is met before its number."""
    total = _Sum()
    seen: frozenset[str] = frozenset()
    unit = ""
    ago = False
    for kind, text in reversed(tokens):
        found: frozenset[str] = frozenset()
        if kind is FieldKind.TIME or (kind is FieldKind.ZONE and ":" in text):
            clock = _clock_micros(kind, text, fields)
            if clock is not None:
                total.add_micros(clock, 0.0, 1)
                found, unit = _CLOCK, "day"
                if found & seen:
                    raise bad_format()
                seen |= found
                continue
        if kind in (FieldKind.ZONE, FieldKind.DATE, FieldKind.NUMBER):
            unit = unit or (_rightmost_unit(fields) if fields != FULL_RANGE else "second")
            found, unit = _add_number(total, text, unit)
        elif text[:10] in UNITS:
            unit = UNITS[text[:10]]
        elif text == "ago":
            ago, unit = True, ""
        elif WORDS.get(text, (None, 0))[0] is Word.IGNORED:
            continue
        else:
            raise bad_format()
        if found & seen:
            raise bad_format()
        seen |= found
    if not seen:
        raise bad_format()
    if ago:
        total.negate()
    return total


def _clock_micros(kind: FieldKind, text: str, fields: int) -> int | None:
    """Microseconds of hh:mm[:ss]; None when a signed field turns out not to be a time."""
    signed = kind is FieldKind.ZONE
    try:
        hour, minute, second, micros = decode_clock_time(
            text[1:] if signed else text, minute_to_second=fields == MINUTE | SECOND
        )
    except DateTimeError:
        if signed:
            return None
        raise
    value = ((hour * 60 + minute) * 60 + second) * USECS_PER_SECOND + micros
    return -value if signed and text[0] == "-" else value


_NUMBER = re.compile(r"([+-]?\d*)(.*)", re.DOTALL)


def _add_number(total: _Sum, text: str, unit: str) -> tuple[frozenset[str], str]:
    """Adds a number of `unit`s; answers the fields it fills and the unit of the next field to the left."""
    match = _NUMBER.fullmatch(text)
    assert match is not None, "every token matches"
    digits, rest = match.groups()
    value = int(digits) if digits.strip("+-") else 0
    if value not in INT64:
        raise field_overflow()
    fraction = 0.0
    if rest.startswith("-"):
        months = re.fullmatch(r"-(\d*)", rest)
        if months is None:
            raise bad_format()
        extra = int(months[1] or 0)
        if extra >= MONTHS_PER_YEAR:
            raise field_overflow()
        value = value * MONTHS_PER_YEAR + (-extra if text[0] == "-" else extra)
        unit = "month"
    elif rest.startswith("."):
        if not re.fullmatch(r"\.\d*", rest):
            raise bad_format()
        fraction = float("0" + rest)
        if text[0] == "-":
            fraction = -fraction
    elif rest:
        raise bad_format()
    if unit in _MICROS:
        total.add_micros(value, fraction, _MICROS[unit])
        if unit == "second" and fraction:
            return _SECONDS, unit
        return frozenset((unit,)), "day" if unit == "hour" else unit
    _add_calendar(total, value, fraction, unit)
    return frozenset((unit,)), unit


def _add_calendar(total: _Sum, value: int, fraction: float, unit: str) -> None:
    if unit == "day":
        total.days += value
        total.add_micros(0, fraction, USECS_PER_DAY)
    elif unit == "week":
        total.add_days(value, fraction, 7)
    elif unit == "month":
        total.add_months(value, fraction)
    else:
        total.add_years(value, fraction, _YEARS[unit])


# ISO 8601 -----------------------------------------------------------------------------------------

_ISO_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class _IsoReader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 1

    def number(self) -> tuple[int, float, int]:
        """Whole part, fraction, and how many digits the whole part has."""
        match = _ISO_NUMBER.match(self.text, self.at)
        if match is None:
            raise bad_format()
        self.at = match.end()
        value = float(match[0])
        digits = len(match[0].lstrip("-").split(".")[0])
        if abs(value) >= 2.0**63:
            raise field_overflow()
        whole = int(match[0]) if match[0].lstrip("-").isdigit() else int(value)
        return whole, value - int(value), digits

    def take(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        return char

    def expect(self, allowed: str) -> str:
        """Consumes one of `allowed` or the end of the text (answered as "")."""
        char = self.text[self.at : self.at + 1]
        if char and char not in allowed:
            raise bad_format()
        if char != "T":
            self.at += 1
        return char


def _decode_iso(text: str) -> _Sum:
    """Designators (P1Y2M3DT4H) and the alternative format (P0001-02-03T04:05:06)."""
    if len(text) < 2 or text[0] != "P":
        raise bad_format()
    reader, total = _IsoReader(text), _Sum()
    in_date = True
    have_field = False
    while reader.at < len(text):
        if text[reader.at] == "T":
            in_date, have_field = False, False
            reader.at += 1
            continue
        value, fraction, digits = reader.number()
        designator = reader.take()
        if in_date:
            after = _iso_date_field(
                reader, total, (value, fraction, digits), designator, have_field
            )
        else:
            after = _iso_time_field(
                reader, total, (value, fraction, digits), designator, have_field
            )
        if after == "end":
            return total
        if after == "T":
            in_date, have_field = False, False
            continue
        have_field = True
    return total


def _iso_date_field(
    reader: _IsoReader,
    total: _Sum,
    number: tuple[int, float, int],
    designator: str,
    have_field: bool,
) -> str:
    value, fraction, digits = number
    unit = {"Y": "year", "M": "month", "W": "week", "D": "day"}.get(designator)
    if unit is not None:
        _add_calendar(total, value, fraction, unit)
        return ""
    if designator not in ("T", "", "-"):
        raise bad_format()
    if designator != "-" and digits == 8 and not have_field:
        total.years += value // 10000
        total.months += value // 100 % 100
        _add_calendar(total, value % 100, fraction, "day")
        return designator or "end"
    if have_field:
        raise bad_format()
    total.add_years(value, fraction, 1)
    for unit in ("month", "day"):
        if designator in ("", "T"):
            return designator or "end"
        value, fraction, _ = reader.number()
        _add_calendar(total, value, fraction, unit)
        designator = reader.expect("T-" if unit == "month" else "T")
    return "T" if designator == "T" else "end"


def _iso_time_field(
    reader: _IsoReader,
    total: _Sum,
    number: tuple[int, float, int],
    designator: str,
    have_field: bool,
) -> str:
    value, fraction, digits = number
    scale = {"H": USECS_PER_HOUR, "M": USECS_PER_MINUTE, "S": USECS_PER_SECOND}.get(designator)
    if scale is not None:
        total.add_micros(value, fraction, scale)
        return ""
    if designator not in ("", ":"):
        raise bad_format()
    if not designator and digits == 6 and not have_field:
        total.add_micros(value // 10000, 0.0, USECS_PER_HOUR)
        total.add_micros(value // 100 % 100, 0.0, USECS_PER_MINUTE)
        total.add_micros(value % 100, fraction, USECS_PER_SECOND)
        return "end"
    if have_field:
        raise bad_format()
    total.add_micros(value, fraction, USECS_PER_HOUR)
    for scale in (USECS_PER_MINUTE, USECS_PER_SECOND):
        if not designator:
            return "end"
        value, fraction, _ = reader.number()
        total.add_micros(value, fraction, scale)
        designator = reader.expect(":" if scale == USECS_PER_MINUTE else "")
    return "end"


# Output and typmods -------------------------------------------------------------------------------


def truncated(value: int, divisor: int) -> int:
    """Division toward zero, as C divides."""
    return value // divisor if value >= 0 else -(-value // divisor)


def format_interval(value: Interval) -> str:
    """An interval in the `postgres` style."""
    years = truncated(value.months, MONTHS_PER_YEAR)
    months = value.months - years * MONTHS_PER_YEAR
    parts = []
    negative = False
    for amount, unit in ((years, "year"), (months, "mon"), (value.days, "day")):
        if amount:
            sign = "+" if negative and amount > 0 else ""
            parts.append(f"{sign}{amount} {unit}{'' if amount == 1 else 's'}")
            negative = amount < 0
    if value.micros or not parts:
        sign = "-" if value.micros < 0 else "+" if negative else ""
        seconds, fraction = divmod(abs(value.micros), USECS_PER_SECOND)
        minutes, second = divmod(seconds, 60)
        text = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
        parts.append(f"{text}.{fraction:06d}".rstrip("0") if fraction else text)
    return " ".join(parts)


def apply_interval_typmod(typmod: int, value: Interval) -> Interval:
    """Cuts an interval to the fields of its typmod and rounds its seconds."""
    if typmod < 0:
        return value
    months, days, micros = value
    fields, precision = typmod >> 16 & FULL_RANGE, typmod & FULL_PRECISION
    if fields != FULL_RANGE:
        if not fields & (DAY | HOUR | MINUTE | SECOND):
            if not fields & MONTH:
                months = truncated(months, MONTHS_PER_YEAR) * MONTHS_PER_YEAR
            days = micros = 0
        elif not fields & SECOND:
            step = USECS_PER_MINUTE if fields & MINUTE else USECS_PER_HOUR
            micros = truncated(micros, step) * step if fields & (MINUTE | HOUR) else 0
    if precision < 6:
        micros = round_half_away(micros, precision)
    return checked(months, days, micros)


_FIELD_NAMES = {
    YEAR: " year",
    MONTH: " month",
    DAY: " day",
    HOUR: " hour",
    MINUTE: " minute",
    SECOND: " second",
    YEAR | MONTH: " year to month",
    DAY | HOUR: " day to hour",
    DAY | HOUR | MINUTE: " day to minute",
    DAY | HOUR | MINUTE | SECOND: " day to second",
    HOUR | MINUTE: " hour to minute",
    HOUR | MINUTE | SECOND: " hour to second",
    MINUTE | SECOND: " minute to second",
    FULL_RANGE: "",
}


def interval_typmod_in(numbers: list[int]) -> int:
    """The typmod of (fields) or (fields, precision), as the grammar gives them."""
    if len(numbers) not in (1, 2) or numbers[0] not in _FIELD_NAMES:
        raise QueryError("invalid INTERVAL type modifier", "22023")
    precision = FULL_PRECISION
    if len(numbers) == 2:
        precision = numbers[1]
        if precision < 0:
            raise QueryError(f"INTERVAL({precision}) precision must not be negative", "22023")
        precision = min(precision, 6) if precision != FULL_PRECISION else precision
    elif numbers[0] == FULL_RANGE:
        return -1
    return (numbers[0] & FULL_RANGE) << 16 | precision


def interval_typmod_out(typmod: int) -> str:
    """The modifier as format_type writes it."""
    if typmod < 0:
        return ""
    text = _FIELD_NAMES.get(typmod >> 16 & FULL_RANGE, "")
    precision = typmod & FULL_PRECISION
    return text if precision == FULL_PRECISION else f"{text}({precision})"


def interval_total(value: Interval) -> int:
    """Microseconds with months of 30 days and days of 24 hours: the order of intervals."""
    return (value.months * DAYS_PER_MONTH + value.days) * USECS_PER_DAY + value.micros
