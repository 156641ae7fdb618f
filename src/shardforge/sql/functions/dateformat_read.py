"""to_date and to_timestamp: text read by a template.

Outside FX mode a separator or space of the template matches at most one of the text, spaces are skipped before and
after fields, and a literal matches any character, as in PostgreSQL 12 and later. Source: PostgreSQL 15, section
9.8, and DCH_from_char and do_to_timestamp of src/backend/utils/adt/formatting.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.dateformat_template import (
    DAYS,
    DIGIT_FIELDS,
    MONTHS,
    ROMAN,
    NodeKind,
    TemplateNode,
    is_separator,
    parse_template,
)
from shardforge.sql.functions.datetime_arithmetic import zone_of
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.datetime_calendar import (
    END_DATE,
    END_TIMESTAMP,
    MIN_DATE,
    MIN_TIMESTAMP,
    USECS_PER_DAY,
    USECS_PER_SECOND,
    date_of_julian,
    days_of,
    is_valid_julian,
    iso_week_monday,
    month_days,
)
from shardforge.sql.types.datetime_tokens import Problem, refusal

_SPACE = " \t\n\r\f\v"
_INTEGER = re.compile(r"\s*[+-]?\d+")
_HINT = 'If your source string is not fixed-width, try using the "FM" modifier.'
_SIMPLE = {
    "HH24": "hh", "HH12": "hh", "HH": "hh", "MI": "mi", "SS": "ss", "SSSS": "ssss", "SSSSS": "ssss", "MM": "mm",
    "DDD": "ddd", "IDDD": "ddd", "DD": "dd", "D": "d", "WW": "ww", "IW": "ww", "CC": "cc", "W": "w", "J": "j",
}  # fmt: skip
_WIDTHS = {"HH24": 2, "HH12": 2, "HH": 2, "IDDD": 3, "D": 1, "ID": 1}
_ISO = frozenset(("IDDD", "ID", "IW", "IYYY", "IYY", "IY", "I"))
_GREGORIAN = frozenset(
    ["DDD", "DD", "D", "MM", "MONTH", "MON", "RM", "WW", "W", "YYYY", "YYY", "YY", "Y", "Y,YYY"]
)
_YEARS = {"YYYY": 4, "IYYY": 4, "YYY": 3, "IYY": 3, "YY": 2, "IY": 2, "Y": 1, "I": 1}


def _invalid(message: str, detail: str = "", hint: str = "") -> QueryError:
    return QueryError(message, "22007", detail=detail, hint=hint)


def _recent_year(year: int) -> int:
    """The year near 2020 that a year of fewer than four digits means."""
    if year < 70:
        return year + 2000
    if year < 100:
        return year + 1900
    if year < 520:
        return year + 2000
    return year + 1000 if year < 1000 else year


class _Reader:
    """Reads text by a template into `values`; a field read twice must agree with itself."""

    def __init__(self, text: str, template: str) -> None:
        self.text = text
        self.nodes = parse_template(template)
        self.at = 0
        self.values: dict[str, int] = {}
        self.convention = ""
        self.twelve_hour = False
        self.zone_sign = 0
        self.skipped = 0

    def run(self) -> None:
        exact = False
        for position, node in enumerate(self.nodes):
            if self.at >= len(self.text):
                break
            if not exact and (node.kind is NodeKind.FIELD or position == 0):
                self.skip_spaces()
            if node.kind is not NodeKind.FIELD:
                self.literal(node, exact)
                continue
            self.set_convention(node)
            if node.name == "FX":
                exact = True
            else:
                self.field(node, position)
            if not exact:
                self.skipped = 0
                self.skip_spaces()

    def skip_spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1
            self.skipped += 1

    def literal(self, node: TemplateNode, exact: bool) -> None:
        if exact:
            self.at += 1
        elif node.kind is NodeKind.CHARACTER:
            if self.skipped > 0:
                self.skipped -= 1
            else:
                self.at += 1
        else:
            self.skipped -= 1
            char = self.text[self.at]
            if char in _SPACE or is_separator(char):
                self.at += 1
                self.skipped += 1

    def set_convention(self, node: TemplateNode) -> None:
        name = node.name
        mode = "iso" if name in _ISO else "gregorian" if name in _GREGORIAN else ""
        if mode and self.convention not in ("", mode):
            raise _invalid(
                "invalid combination of date conventions",
                hint="Do not mix Gregorian and ISO week date conventions in a formatting template.",
            )
        self.convention = mode or self.convention

    def put(self, name: str, value: int, node: TemplateNode) -> None:
        if self.values.get(name, 0) not in (0, value):
            raise _invalid(
                f'conflicting values for "{node.text}" field in formatting string',
                "This value contradicts a previous setting for the same field type.",
            )
        self.values[name] = value

    # Fields -----------------------------------------------------------------------------------

    def field(self, node: TemplateNode, position: int) -> None:
        name = node.name
        if name in ("A.M.", "P.M.", "AM", "PM"):
            words = ("A.M.", "P.M.") if "." in name else ("AM", "PM")
            self.put("pm", self.word(node, words), node)
            self.twelve_hour = True
        elif name in ("A.D.", "B.C.", "AD", "BC"):
            words = ("A.D.", "B.C.") if "." in name else ("AD", "BC")
            self.put("bc", self.word(node, words), node)
        elif name in ("MONTH", "MON"):
            names = MONTHS if name == "MONTH" else [month[:3] for month in MONTHS]
            self.put("mm", self.word(node, names) + 1, node)
        elif name in ("DAY", "DY"):
            names = DAYS if name == "DAY" else [day[:3] for day in DAYS]
            self.put("d", self.word(node, names) + 1, node)
        elif name == "RM":
            backward = ROMAN[::-1]
            self.put("mm", 12 - self.word(node, backward), node)
        elif name in ("TZ", "OF"):
            raise QueryError(
                f'formatting field "{node.text}" is only supported in to_char', "0A000"
            )
        elif name in ("TZH", "TZM"):
            self.zone(node, position)
        else:
            self.number(node, position)

    def zone(self, node: TemplateNode, position: int) -> None:
        if node.name == "TZM":
            self.zone_sign = self.zone_sign or 1
        elif self.text[self.at] in "+- ":
            self.zone_sign = -1 if self.text[self.at] == "-" else 1
            self.at += 1
        else:
            swallowed = self.skipped > 0 and self.text[self.at - 1] == "-"
            self.zone_sign = -1 if swallowed else 1
        self.put(node.name.lower(), self.integer(node, position, 2)[0], node)

    def number(self, node: TemplateNode, position: int) -> None:
        name = node.name
        if name == "Y,YYY":
            self.year_with_comma(node)
        elif name in ("MS", "US") or name.startswith("FF"):
            width = {"MS": 3, "US": 6}.get(name) or int(name[2:])
            value, used = self.integer(node, position, width)
            scale = 3 if name == "MS" else 6
            key = "ms" if name == "MS" else "us"
            self.put(key, value, node)
            self.values[key] = value * 10 ** max(scale - used, 0)
        elif name in _YEARS:
            value, used = self.integer(node, position, _YEARS[name])
            if _YEARS[name] < 4 and used < 4:
                value = _recent_year(value)
            self.put("year", value, node)
            self.values["year_digits"] = _YEARS[name]
        elif name == "Q":
            self.integer(node, position, 1)
        elif name == "ID":
            value, _ = self.integer(node, position, 1)
            self.put("d", 1 if value + 1 > 7 else value + 1, node)
        else:
            width = _WIDTHS.get(name, len(node.text))
            self.put(_SIMPLE[name], self.integer(node, position, width)[0], node)
            self.twelve_hour = self.twelve_hour or name in ("HH", "HH12")
        if node.ordinal:
            self.at += 2

    def year_with_comma(self, node: TemplateNode) -> None:
        match = re.compile(r"\s*([+-]?\d+),([+-]?\d{1,3})").match(self.text, self.at)
        if match is None:
            raise _invalid('invalid input string for "Y,YYY"')
        self.put("year", int(match[1]) * 1000 + int(match[2]), node)
        self.values["year_digits"] = 4
        self.at = match.end()

    def ends_before_digits(self, position: int) -> bool:
        """Whether what follows a field cannot be taken for its digits."""
        if self.nodes[position].ordinal or position + 1 == len(self.nodes):
            return True
        following = self.nodes[position + 1]
        if following.kind is NodeKind.FIELD:
            return following.name not in DIGIT_FIELDS
        return not following.text.isdigit()

    def integer(self, node: TemplateNode, position: int, width: int) -> tuple[int, int]:
        """An integer and how many characters it took."""
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1
        start, copy = self.at, self.text[self.at : self.at + width]
        if node.fill or self.ends_before_digits(position):
            match = _INTEGER.match(self.text, self.at)
            used = match.end() - start if match else 0
            digits = match[0] if match else ""
        else:
            if len(copy) < width:
                raise _invalid(
                    f'source string too short for "{node.text}" formatting field',
                    f"Field requires {width} characters, but only {len(copy)} remain.",
                    _HINT,
                )
            match = _INTEGER.match(copy)
            digits, used = (match[0], match.end()) if match else ("", 0)
            if 0 < used < width:
                raise _invalid(
                    f'invalid value "{copy}" for "{node.text}"',
                    f"Field requires {width} characters, but only {used} could be parsed.",
                    _HINT,
                )
        if not used:
            raise _invalid(f'invalid value "{copy}" for "{node.text}"', "Value must be an integer.")
        self.at += used
        value = int(digits)
        if not -(2**31) <= value < 2**31:
            raise QueryError(
                f'value for "{node.text}" in source string is out of range',
                "22008",
                detail="Value must be in the range -2147483648 to 2147483647.",
            )
        return value, used

    def word(self, node: TemplateNode, names: Sequence[str]) -> int:
        """Which of the names the text goes on with."""
        rest = self.text[self.at :].lower()
        for index, name in enumerate(names):
            if rest.startswith(name.lower()):
                self.at += len(name)
                return index
        copy = re.split(r"\s", self.text[self.at :], maxsplit=1)[0]
        raise _invalid(
            f'invalid value "{copy}" for "{node.text}"',
            "The given value did not match any of the allowed values for this field.",
        )


class _Result:
    """The values of a reading as a date, a time and perhaps a zone."""

    def __init__(self, text: str, template: str) -> None:
        reader = _Reader(text, template)
        reader.run()
        self.text = text
        self.values = reader.values
        self.iso = reader.convention == "iso"
        self.year, self.month, self.day = 0, 1, 1
        self.known: set[str] = set()
        self.set_time(reader.twelve_hour)
        self.set_year()
        self.set_date()
        self.check()
        self.offset = self.zone_offset(reader.zone_sign)

    def get(self, name: str) -> int:
        return self.values.get(name, 0)

    def set_time(self, twelve_hour: bool) -> None:
        minutes, self.second = divmod(self.get("ssss"), 60)
        self.hour, self.minute = divmod(minutes, 60)
        self.second = self.get("ss") or self.second
        self.minute = self.get("mi") or self.minute
        self.hour = self.get("hh") or self.hour
        if twelve_hour:
            if not 1 <= self.hour <= 12:
                raise _invalid(
                    f'hour "{self.hour}" is invalid for the 12-hour clock',
                    hint="Use the 24-hour clock, or give an hour between 1 and 12.",
                )
            if self.get("pm") and self.hour < 12:
                self.hour += 12
            elif not self.get("pm") and self.hour == 12:
                self.hour = 0
        self.micros = self.get("ms") * 1000 + self.get("us")

    def set_year(self) -> None:
        year, century, bc = self.get("year"), self.get("cc"), bool(self.get("bc"))
        if bc:
            century = -century
        if year and century and self.get("year_digits") <= 2:
            year %= 100
            if year:
                year += (century - 1) * 100 if century >= 0 else 0
                if century < 0:
                    year = (century + 1) * 100 - year + 1
            else:
                year = century * 100 + (0 if century >= 0 else 1)
        elif year:
            year = -year if bc else year
            year += 1 if year < 0 else 0
        elif century:
            year = (century - 1) * 100 + 1 if century >= 0 else century * 100 + 1
        else:
            return
        self.year = year
        self.known.add("year")

    def set_date(self) -> None:
        year_day, day = self.get("ddd"), self.get("dd")
        if self.get("j"):
            self.put_julian(self.get("j"))
        week = self.get("ww")
        if week and self.iso:
            monday = iso_week_monday(self.year) + (week - 1) * 7
            weekday = self.get("d")
            self.put_julian(monday + ((weekday - 2) % 7 if weekday else 0))
        elif week:
            year_day = (week - 1) * 7 + 1
        if self.get("w"):
            day = (self.get("w") - 1) * 7 + 1
        if day:
            self.day = day
            self.known.add("day")
        if self.get("mm"):
            self.month = self.get("mm")
            self.known.add("month")
        if year_day and (self.month <= 1 or self.day <= 1):
            self.put_year_day(year_day)

    def put_julian(self, julian: int) -> None:
        self.year, self.month, self.day = date_of_julian(julian)
        self.known |= {"year", "month", "day"}

    def put_year_day(self, year_day: int) -> None:
        if not self.year and not self.get("bc"):
            raise _invalid("cannot calculate day of year without year information")
        if self.iso:
            self.put_julian(iso_week_monday(self.year) + year_day - 1)
            return
        month, rest = 1, year_day
        while month <= 12 and rest > month_days(self.year, month):
            rest -= month_days(self.year, month)
            month += 1
        if self.month <= 1:
            self.month = month
        if self.day <= 1:
            self.day = rest
        self.known |= {"month", "day"}

    def check(self) -> None:
        bad_month = "month" in self.known and not 1 <= self.month <= 12
        bad_day = "day" in self.known and not 1 <= self.day <= 31
        if (
            bad_month
            or bad_day
            or (
                self.known >= {"year", "month", "day"}
                and self.day > month_days(self.year, self.month)
            )
            or not 0 <= self.hour < 24
            or not 0 <= self.minute < 60
            or not 0 <= self.second < 60
            or not 0 <= self.micros < USECS_PER_SECOND
        ):
            raise refusal(Problem.FIELD_OVERFLOW, self.text, "timestamp")

    def zone_offset(self, sign: int) -> int | None:
        if not sign:
            return None
        hours, minutes = self.get("tzh"), self.get("tzm")
        if not 0 <= hours <= 15 or not 0 <= minutes < 60:
            raise refusal(Problem.ZONE_OVERFLOW, self.text, "timestamp")
        return sign * (hours * 3600 + minutes * 60)

    def days(self) -> int:
        return days_of(self.year, self.month, self.day)

    def local(self) -> int:
        seconds = (self.hour * 60 + self.minute) * 60 + self.second
        return self.days() * USECS_PER_DAY + seconds * USECS_PER_SECOND + self.micros


@implements("to_date")
def to_date(text: str, template: str) -> int:
    """A date read by a template."""
    found = _Result(text, template)
    days = found.days()
    if not is_valid_julian(found.year, found.month) or not MIN_DATE <= days < END_DATE:
        raise QueryError(f'date out of range: "{text}"', "22008")
    return days


@implements("to_timestamp", context=True)
def to_timestamp(ctx: EvalContext, text: str, template: str) -> int:
    """A timestamptz read by a template, in the session's zone unless the text has an offset."""
    found = _Result(text, template)
    local = found.local()
    offset = found.offset
    if offset is None:
        offset = zone_of(ctx).offset_of_local(local)
    value = local - offset * USECS_PER_SECOND
    if not is_valid_julian(found.year, found.month) or not MIN_TIMESTAMP <= value < END_TIMESTAMP:
        raise QueryError("timestamp out of range", "22008")
    return value
