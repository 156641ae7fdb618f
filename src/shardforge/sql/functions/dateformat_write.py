"""to_char of timestamps and intervals.

Names of months and days are English (lc_time C). Source: PostgreSQL 15, section 9.8, and DCH_to_char of
src/backend/utils/adt/formatting.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.dateformat_template import (
    DAYS,
    MONTHS,
    ROMAN,
    NodeKind,
    TemplateNode,
    parse_template,
)
from shardforge.sql.functions.datetime_arithmetic import zone_of
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    MONTHS_PER_YEAR,
    USECS_PER_HOUR,
    USECS_PER_MINUTE,
    USECS_PER_SECOND,
    is_timestamp_infinite,
    iso_week,
    iso_week_monday,
    julian_of,
    split,
)
from shardforge.sql.types.interval_text import truncated
from shardforge.sql.types.values import Interval


@dataclass(slots=True)
class _Moment:
    """What is written: the fields of a timestamp or of an interval."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    micros: int
    year_day: int
    interval: bool = False
    offset: int = 0
    zone: str = ""

    @property
    def shown_year(self) -> int:
        """The year as written: BC years count from 1, an interval's years as they are."""
        return self.year if self.interval or self.year > 0 else 1 - self.year

    @property
    def iso_year(self) -> int:
        """The year of the ISO week, as written."""
        if self.interval:
            return self.year
        year = iso_week(self.year, self.month, self.day)[0]
        return year if year > 0 else 1 - year

    @property
    def week_day(self) -> int:
        """0 Sunday to 6 Saturday; 0 for an interval."""
        return 0 if self.interval else (julian_of(self.year, self.month, self.day) + 1) % 7


def _remainder(value: int, divisor: int) -> int:
    return value - truncated(value, divisor) * divisor


def _padded(value: int, width: int, node: TemplateNode) -> str:
    """A number with leading zeros, one more place for a minus sign."""
    if node.fill:
        return str(value)
    return f"{value:0{width if value >= 0 else width + 1}d}"


def _ordinal(number: str, node: TemplateNode) -> str:
    if not node.ordinal:
        return number
    teen = len(number) > 1 and number[-2] == "1"
    suffix = "th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number + (suffix.upper() if node.ordinal == "TH" else suffix)


def _half_day(moment: _Moment, node: TemplateNode) -> str:
    late = _remainder(moment.hour, 24) >= 12
    text = ("P.M." if late else "A.M.") if "." in node.text else ("PM" if late else "AM")
    return text if node.text[0].isupper() else text.lower()


def _era(moment: _Moment, node: TemplateNode) -> str:
    _calendar_only(moment)
    early = moment.year <= 0
    text = ("B.C." if early else "A.D.") if "." in node.text else ("BC" if early else "AD")
    return text if node.text[0].isupper() else text.lower()


def _calendar_only(moment: _Moment) -> None:
    if moment.interval:
        raise QueryError(
            "invalid format specification for an interval value",
            "22007",
            hint="Intervals are not tied to specific calendar dates.",
        )


def _cased(name: str, node: TemplateNode) -> str:
    if node.text.isupper():
        return name.upper()
    return name.lower() if node.text.islower() else name


def _month_name(moment: _Moment, node: TemplateNode) -> str:
    _calendar_only(moment)
    name = _cased(MONTHS[moment.month - 1], node)
    if node.name == "MON":
        return name[:3]
    return name if node.fill or node.translated else f"{name:<9}"


def _day_name(moment: _Moment, node: TemplateNode) -> str:
    _calendar_only(moment)
    name = _cased(DAYS[moment.week_day], node)
    if node.name == "DY":
        return name[:3]
    return name if node.fill or node.translated else f"{name:<9}"


def _roman(moment: _Moment, node: TemplateNode) -> str:
    if not moment.month and not moment.year:
        return ""
    if moment.month == 0:
        index = 12 if moment.year >= 0 else 1
    else:
        index = moment.month if moment.month > 0 else moment.month + 13
    text = _cased(ROMAN[index - 1], node)
    return text if node.fill else f"{text:<4}"


def _century(moment: _Moment, node: TemplateNode) -> str:
    if moment.interval:
        value = truncated(moment.year, 100)
    elif moment.year > 0:
        value = (moment.year - 1) // 100 + 1
    else:
        value = truncated(moment.year, 100) - 1
    return _padded(value, 2, node) if -99 <= value <= 99 else str(value)


def _year_with_comma(moment: _Moment, _node: TemplateNode) -> str:
    thousands = truncated(moment.shown_year, 1000)
    return f"{thousands},{moment.shown_year - thousands * 1000:03d}"


def _zone_name(moment: _Moment, node: TemplateNode) -> str:
    _calendar_only(moment)
    return moment.zone if node.text.isupper() else moment.zone.lower()


def _zone_hours(moment: _Moment, _node: TemplateNode) -> str:
    _calendar_only(moment)
    return f"{'+' if moment.offset >= 0 else '-'}{abs(moment.offset) // 3600:02d}"


def _zone_minutes(moment: _Moment, _node: TemplateNode) -> str:
    _calendar_only(moment)
    return f"{abs(moment.offset) % 3600 // 60:02d}"


def _zone_offset(moment: _Moment, node: TemplateNode) -> str:
    _calendar_only(moment)
    hours, minutes = abs(moment.offset) // 3600, abs(moment.offset) % 3600 // 60
    text = f"{'+' if moment.offset >= 0 else '-'}{_padded(hours, 2, node)}"
    return f"{text}:{minutes:02d}" if minutes else text


def _seconds_of_day(moment: _Moment, _node: TemplateNode) -> str:
    return str((moment.hour * 60 + moment.minute) * 60 + moment.second)


def _iso_day_of_year(moment: _Moment, node: TemplateNode) -> str:
    julian = julian_of(moment.year, moment.month, moment.day)
    year = iso_week(moment.year, moment.month, moment.day)[0]
    return _padded(julian - iso_week_monday(year) + 1, 3, node)


def _quarter(moment: _Moment, _node: TemplateNode) -> str:
    return str(truncated(moment.month - 1, 3) + 1) if moment.month else ""


def _iso_week_day(moment: _Moment, _node: TemplateNode) -> str:
    _calendar_only(moment)
    return str(moment.week_day or 7)


def _week_day(moment: _Moment, _node: TemplateNode) -> str:
    _calendar_only(moment)
    return str(moment.week_day + 1)


def _number(width: int, value: Callable[[_Moment], int]) -> Callable[[_Moment, TemplateNode], str]:
    return lambda moment, node: _padded(value(moment), width, node)


def _digits(count: int) -> Callable[[_Moment, TemplateNode], str]:
    divisor = 10 ** (6 - count)
    return lambda moment, _node: f"{truncated(moment.micros, divisor):0{count}d}"


def _hour12(moment: _Moment) -> int:
    return _remainder(moment.hour, 12) or 12


def _fixed(width: int, value: Callable[[_Moment], int]) -> Callable[[_Moment, TemplateNode], str]:
    """As `_number`, but a minus sign takes one of the places."""
    return lambda moment, node: str(value(moment)) if node.fill else f"{value(moment):0{width}d}"


_Writer = Callable[[_Moment, TemplateNode], str]
_NAMES: dict[str, _Writer] = {
    **dict.fromkeys(("A.M.", "P.M.", "AM", "PM"), _half_day),
    **dict.fromkeys(("A.D.", "B.C.", "AD", "BC"), _era),
    "MONTH": _month_name,
    "MON": _month_name,
    "DAY": _day_name,
    "DY": _day_name,
    "RM": _roman,
    "TZ": _zone_name,
    "TZH": _zone_hours,
    "TZM": _zone_minutes,
    "OF": _zone_offset,
    "FX": lambda _moment, _node: "",
}
_NUMBERS: dict[str, _Writer] = {
    **{f"FF{n}": _digits(n) for n in range(1, 7)},
    "MS": _digits(3),
    "US": _digits(6),
    "HH": _number(2, _hour12),
    "HH12": _number(2, _hour12),
    "HH24": _number(2, lambda m: m.hour),
    "MI": _number(2, lambda m: m.minute),
    "SS": _number(2, lambda m: m.second),
    "SSSS": _seconds_of_day,
    "SSSSS": _seconds_of_day,
    "MM": _number(2, lambda m: m.month),
    "DDD": _fixed(3, lambda m: m.year_day),
    "IDDD": _iso_day_of_year,
    "DD": _fixed(2, lambda m: m.day),
    "D": _week_day,
    "ID": _iso_week_day,
    "WW": _fixed(2, lambda m: truncated(m.year_day - 1, 7) + 1),
    "IW": _number(2, lambda m: iso_week(m.year, m.month, m.day)[1]),
    "W": lambda m, _node: str(truncated(m.day - 1, 7) + 1),
    "Q": _quarter,
    "CC": _century,
    "Y,YYY": _year_with_comma,
    "YYYY": _number(4, lambda m: m.shown_year),
    "YYY": _number(3, lambda m: _remainder(m.shown_year, 1000)),
    "YY": _number(2, lambda m: _remainder(m.shown_year, 100)),
    "Y": _number(1, lambda m: _remainder(m.shown_year, 10)),
    "IYYY": _number(4, lambda m: m.iso_year),
    "IYY": _number(3, lambda m: _remainder(m.iso_year, 1000)),
    "IY": _number(2, lambda m: _remainder(m.iso_year, 100)),
    "I": _number(1, lambda m: _remainder(m.iso_year, 10)),
    "J": lambda m, _node: str(julian_of(m.year, m.month, m.day)),
}
_CALENDAR_NUMBERS = frozenset(("IDDD", "IW", "J", "IYYY", "IYY", "IY", "I"))


def _write(moment: _Moment, template: str) -> str:
    out = []
    for node in parse_template(template):
        if node.kind is not NodeKind.FIELD:
            out.append(node.text)
            continue
        name = node.name
        if name in _NAMES:
            out.append(_NAMES[name](moment, node))
            continue
        if moment.interval and name in _CALENDAR_NUMBERS:
            raise QueryError(
                f'the field "{node.text}" of an interval is not supported by to_char', "0A000"
            )
        text = _NUMBERS[name](moment, node)
        out.append(_ordinal(text, node) if text and name != "TZM" else text)
    return "".join(out)


def _of_timestamp(local: int) -> _Moment:
    fields = split(local)
    day = julian_of(fields.year, fields.month, fields.day) - julian_of(fields.year, 1, 1) + 1
    return _Moment(*fields, year_day=day)


@implements("timestamp_to_char")
def timestamp_to_char(value: int, template: str) -> str | None:
    """to_char of a timestamp; infinity has no form."""
    if is_timestamp_infinite(value) or not template:
        return None
    return _write(_of_timestamp(value), template)


@implements("timestamptz_to_char", context=True)
def timestamptz_to_char(ctx: EvalContext, value: int, template: str) -> str | None:
    """to_char of a timestamptz, in the session's zone."""
    if is_timestamp_infinite(value) or not template:
        return None
    zone = zone_of(ctx)
    offset = zone.offset_at(value)
    moment = _of_timestamp(value + offset * USECS_PER_SECOND)
    moment.offset, moment.zone = offset, zone.abbreviation_at(value)
    return _write(moment, template)


@implements("interval_to_char")
def interval_to_char(value: Interval, template: str) -> str | None:
    """to_char of an interval, field by field."""
    if not template:
        return None
    years = truncated(value.months, MONTHS_PER_YEAR)
    months = value.months - years * MONTHS_PER_YEAR
    hours = truncated(value.micros, USECS_PER_HOUR)
    rest = value.micros - hours * USECS_PER_HOUR
    minutes = truncated(rest, USECS_PER_MINUTE)
    rest -= minutes * USECS_PER_MINUTE
    seconds = truncated(rest, USECS_PER_SECOND)
    moment = _Moment(
        years, months, value.days, hours, minutes, seconds, rest - seconds * USECS_PER_SECOND,
        year_day=value.months * 30 + value.days, interval=True,
    )  # fmt: skip
    return _write(moment, template)
