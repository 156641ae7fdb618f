"""Fields of date/time text into calendar fields and a zone, by PostgreSQL's interpretation rules.

`decode` serves date, timestamp and timestamptz; `decode_time` serves time and timetz, where a date is optional.
The order in which ambiguous numbers are read follows DateStyle. Ranges of the target types are checked by
datetime_text, not here. Source: PostgreSQL 15, appendix B.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal

from shardforge.errors import QueryError
from shardforge.sql.types import timezone as tz
from shardforge.sql.types.datetime_calendar import (
    USECS_PER_DAY,
    USECS_PER_SECOND,
    Fields,
    date_of_julian,
    is_valid_julian,
    join,
    julian_of,
    month_days,
    split,
)
from shardforge.sql.types.datetime_tokens import (
    WORDS,
    DateTimeError,
    FieldKind,
    Problem,
    Token,
    Word,
    bad_format,
    field_overflow,
)

DATE = frozenset(("year", "month", "day"))
ALL_SECONDS = frozenset(("second", "subsecond"))
TIME = frozenset(("hour", "minute")) | ALL_SECONDS
_NOTHING: frozenset[str] = frozenset()
_LEADING_INT = re.compile(r"[+-]?\d+")

Clock = Callable[[], int]
"""Answers the transaction's start in UTC microseconds; refuses when there is no clock."""


def leading_integer(
    text: str, overflow: Problem = Problem.FIELD_OVERFLOW, bits: int = 32
) -> tuple[int, str]:
    """The integer of so many bits that `text` begins with (0 for none), and the rest."""
    match = _LEADING_INT.match(text)
    if match is None:
        return 0, text
    value = int(match[0])
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise DateTimeError(overflow)
    return value, text[match.end() :]


def fraction_micros(text: str) -> int:
    """Microseconds of a fraction such as `.25`, rounded as C's rint does."""
    if not re.fullmatch(r"\.\d*", text):
        raise bad_format()
    if text == ".":
        return 0
    return int((Decimal("0" + text) * USECS_PER_SECOND).to_integral_value(ROUND_HALF_EVEN))


def decode_offset(text: str) -> int:
    """Seconds EAST of UTC of a numeric zone such as `+5:30`, `-0800` or `+01:02:03`."""
    if not text or text[0] not in "+-":
        raise bad_format()
    hours, rest = leading_integer(text[1:], Problem.ZONE_OVERFLOW)
    minutes = seconds = 0
    if rest.startswith(":"):
        match = re.match(r":(\d*)(?::(\d*))?", rest)
        assert match is not None, "it begins with a colon"
        minutes, seconds, rest = int(match[1] or 0), int(match[2] or 0), rest[match.end() :]
    elif not rest and len(text) > 3:
        hours, minutes = divmod(hours, 100)
    if not 0 <= hours <= 15 or minutes > 59 or seconds > 59:
        raise DateTimeError(Problem.ZONE_OVERFLOW)
    if rest:
        raise bad_format()
    east = (hours * 60 + minutes) * 60 + seconds
    return -east if text[0] == "-" else east


def decode_clock_time(text: str, *, minute_to_second: bool = False) -> tuple[int, int, int, int]:
    """Hour, minute, second and microseconds of `hh:mm[:ss[.fff]]` or `mm:ss.fff`; hours unlimited."""
    hour, rest = leading_integer(text, bits=64)
    if not rest.startswith(":"):
        raise bad_format()
    minute, rest = leading_integer(rest[1:])
    second = micros = 0
    if not rest:
        if minute_to_second:
            hour, minute, second = 0, hour, minute
    elif rest[0] == ".":
        micros = fraction_micros(rest)
        hour, minute, second = 0, hour, minute
    elif rest[0] == ":":
        second, rest = leading_integer(rest[1:])
        if rest:
            if rest[0] != ".":
                raise bad_format()
            micros = fraction_micros(rest)
    else:
        raise bad_format()
    if hour < 0 or not 0 <= minute <= 59 or not 0 <= second <= 60:
        raise field_overflow()
    return hour, minute, second, micros


class Decoded:
    """What the text said: a `special` value ("epoch", "early", "late"), or fields and an offset.

    `offset` is seconds EAST, None when the text named no zone.
    """

    def __init__(self) -> None:
        self.special = ""
        self.year = self.month = self.day = 0
        self.hour = self.minute = self.second = self.micros = 0
        self.offset: int | None = None
        self.seen: set[str] = set()

    def fields(self) -> Fields:
        """The calendar fields."""
        return Fields(
            self.year, self.month, self.day, self.hour, self.minute, self.second, self.micros
        )

    def has(self, names: frozenset[str]) -> bool:
        """Whether all these fields were given."""
        return names <= self.seen


class _Decoder:
    """One reading of one token list; `out.seen` is the set of fields met, each at most once."""

    def __init__(self, tokens: list[Token], order: str, clock: Clock, zone: tz.Zone) -> None:
        self.tokens = tokens
        self.order = order
        self.clock = clock
        self.session_zone = zone
        self.out = Decoded()
        self.label = ""
        self.text_month = False
        self.two_digit_year = False
        self.is_julian = False
        self.bc = False
        self.half_day = ""
        self.year_day = 0
        self.named_zone: tz.Zone | None = None
        self.dynamic_abbreviation = ""
        self.time_only = False

    def run(self, *, time_only: bool) -> Decoded:
        self.time_only = time_only
        for index, (kind, text) in enumerate(self.tokens):
            found = self._field(index, kind, text)
            if found is None:
                continue
            if found & self.out.seen:
                raise bad_format()
            self.out.seen |= found
        self._validate_date()
        self._apply_half_day()
        return self.out

    def _field(self, index: int, kind: FieldKind, text: str) -> frozenset[str] | None:
        if kind is FieldKind.DATE:
            return self._time_only_date(index, text) if self.time_only else self._date(text)
        if kind is FieldKind.TIME:
            if self.label and self.label != "time":
                raise bad_format()
            self.label = ""
            self._set_time(*decode_clock_time(text))
            if not self.time_only and _time_overflows(self.out):
                raise field_overflow()
            return TIME
        if kind is FieldKind.ZONE:
            self.out.offset = decode_offset(text)
            return frozenset(("zone",))
        if kind is FieldKind.NUMBER:
            return self._labelled(text) if self.label else self._number(index, text)
        return self._word(index, text)

    # Fields with punctuation ------------------------------------------------------------------

    def _date(self, text: str) -> frozenset[str]:
        if self.label == "julian":
            value, rest = leading_integer(text)
            if value < 0:
                raise field_overflow()
            self._set_julian(value)
            self.out.offset = decode_offset(rest)
            self.label = ""
            return DATE | TIME | {"zone"}
        if self.label or {"month", "day"} <= self.out.seen:
            if text[0].isdigit() or self.label:
                if self.label not in ("", "time"):
                    raise bad_format()
                self.label = ""
                return self._time_with_zone(text, self.out.seen)
            self.named_zone = tz.require_zone(text)
            return frozenset(("zone",))
        return self._delimited_date(text)

    def _time_only_date(self, index: int, text: str) -> frozenset[str]:
        tokens = self.tokens
        if (
            index == 0
            and len(tokens) >= 2
            and (tokens[-1][0] is FieldKind.DATE or tokens[1][0] is FieldKind.TIME)
        ):
            return self._delimited_date(text)
        if text[0].isdigit():
            self.label = ""
            return self._time_with_zone(text, self.out.seen | DATE)
        self.named_zone = tz.require_zone(text)
        return frozenset(("zone",))

    def _time_with_zone(self, text: str, seen: set[str]) -> frozenset[str]:
        """A run-together time with a zone behind it: hhmmss-zz."""
        if seen >= TIME or "-" not in text:
            raise bad_format()
        at = text.index("-")
        self.out.offset = decode_offset(text[at:])
        return self._concatenated(text[:at], seen) | {"zone"}

    def _delimited_date(self, text: str) -> frozenset[str]:
        parts = re.findall(r"\d+|[a-z]+", text)
        if not text[-2:].strip("-/."):
            raise bad_format()
        seen = set(self.out.seen)
        found: set[str] = set()
        numbers = []
        text_month = False
        for part in parts:
            if part[0].isdigit():
                numbers.append(part)
                continue
            word, value = WORDS.get(part[:10], (None, 0))
            if word is Word.IGNORED:
                continue
            if word is not Word.MONTH or "month" in seen:
                raise bad_format()
            self.out.month = int(value)
            text_month = True
            seen.add("month")
            found.add("month")
        for part in numbers:
            given = self._plain_number(part, seen, text_month=text_month)
            if given & seen:
                raise bad_format()
            seen |= given
            found |= given
        if seen - {"doy", "zone"} != DATE:
            raise bad_format()
        return frozenset(found)

    # Numbers ----------------------------------------------------------------------------------

    def _number(self, index: int, text: str) -> frozenset[str]:
        seen = self.out.seen | DATE if self.time_only else self.out.seen
        point = text.find(".")
        if self.time_only and point >= 0:
            if index == 0 and len(self.tokens) >= 2 and self.tokens[-1][0] is FieldKind.DATE:
                return self._delimited_date(text)
            if point <= 2:
                raise bad_format()
            return self._concatenated(text, seen)
        if point >= 0 and not seen & DATE:
            return self._delimited_date(text)
        if point > 2 or (len(text) > 4 and (self.time_only or point < 0 or point > 2)):
            return self._concatenated(text, seen)
        if len(text) > 4:
            return self._concatenated(text, seen)
        return self._plain_number(text, seen, text_month=self.text_month and not self.time_only)

    def _labelled(self, text: str) -> frozenset[str]:
        """A number behind a field label, as in y2001m02d04 or J2451187."""
        label, self.label = self.label, ""
        value, rest = leading_integer(text)
        if rest.startswith("."):
            if label not in ("julian", "time", "second"):
                raise bad_format()
        elif rest:
            raise bad_format()
        out = self.out
        if label == "month" and {"month", "hour"} <= out.seen:
            label = "minute"
        if label in ("year", "month", "day", "hour", "minute"):
            setattr(out, label, value)
            return frozenset((label,))
        if label == "second":
            out.second = value
            if not rest:
                return frozenset(("second",))
            out.micros = fraction_micros(rest)
            return ALL_SECONDS
        if label == "julian":
            if value < 0:
                raise field_overflow()
            self._set_julian(value)
            if not rest:
                return DATE
            micros = int(float("0" + rest) * USECS_PER_DAY)
            moment = split(micros)
            self._set_time(moment.hour, moment.minute, moment.second, moment.micros)
            return DATE | TIME
        if label == "time":
            found = self._concatenated(text, out.seen | DATE)
            if found != TIME:
                raise bad_format()
            return found
        raise bad_format()

    def _plain_number(self, text: str, seen: set[str], *, text_month: bool) -> frozenset[str]:
        """A short number; what it is follows from what was read so far, and DateStyle."""
        length = len(text)
        value, rest = leading_integer(text)
        if rest.startswith("."):
            if length - len(rest) > 2:
                return self._concatenated(text, seen | DATE)
            self.out.micros = fraction_micros(rest)
        elif rest:
            raise bad_format()
        dated = seen & DATE
        if length == 3 and dated == {"year"} and 1 <= value <= 366:
            self.year_day = value
            return frozenset(("doy", "month", "day"))
        if dated == DATE:
            return self._concatenated(text, seen)
        if dated == {"year", "month"} and text_month and length >= 3 and self.two_digit_year:
            # DD-MON-YYYY: the first number was taken for a year and was the day.
            self.out.day, self.out.year = self.out.year, value
            self.two_digit_year = False
            return frozenset(("day",))
        name = self._date_part(length, frozenset(dated), text_month=text_month)
        if not name:
            raise bad_format()
        setattr(self.out, name, value)
        if name == "year":
            self.two_digit_year = length <= 2
        return frozenset((name,))

    def _date_part(self, length: int, dated: frozenset[str], *, text_month: bool) -> str:
        year_first = length >= 3 or self.order == "YMD"
        if not dated:
            return "year" if year_first else "day" if self.order == "DMY" else "month"
        if dated == {"year"}:
            return "month"
        if dated == {"month"}:
            return "year" if text_month and year_first else "day"
        if dated == {"year", "month"}:
            return "day"
        if dated == {"day"}:
            return "month"
        return "year" if dated == {"month", "day"} else ""

    def _concatenated(self, text: str, seen: set[str]) -> frozenset[str]:
        """Run-together digits: yyyymmdd, yymmdd, hhmmss or hhmm, the times with a fraction."""
        digits, point, fraction = text.partition(".")
        out = self.out
        if point:
            out.micros = fraction_micros(point + fraction)
        elif not seen >= DATE and len(digits) in (6, 8):
            year = digits[:-4]
            out.year, out.month, out.day = _int(year), _int(digits[-4:-2]), _int(digits[-2:])
            self.two_digit_year = len(year) == 2 or self.two_digit_year
            return DATE
        if not seen >= TIME and len(digits) in (4, 6):
            out.hour, out.minute = _int(digits[:2]), _int(digits[2:4])
            out.second = _int(digits[4:] or "0")
            return TIME
        raise bad_format()

    # Words ------------------------------------------------------------------------------------

    def _word(self, index: int, text: str) -> frozenset[str] | None:
        abbreviation = tz.abbreviation_offset(text)
        if abbreviation is not None:
            if isinstance(abbreviation, int):
                self.out.offset = abbreviation
            else:
                self.named_zone, self.dynamic_abbreviation = abbreviation, text
            return frozenset(("zone",))
        word, value = WORDS.get(text[:10], (None, 0))
        if word is Word.IGNORED:
            return None
        if word is Word.RESERVED:
            return self._reserved(str(value))
        if word is Word.MONTH and not self.time_only:
            return self._month_name(int(value))
        if word is Word.WEEKDAY and not self.time_only:
            return frozenset(("weekday",))
        if word is Word.ERA:
            self.bc = value == "bc"
            return frozenset(("era",))
        if word is Word.HALF_DAY:
            self.half_day = str(value)
            return frozenset(("half_day",))
        if word is Word.DAYLIGHT:
            self.out.offset = (self.out.offset or 0) + int(value)
            return frozenset(("daylight", "dst"))
        if word is Word.UNIT:
            self.label = str(value)
            return _NOTHING
        if word is Word.ISO_TIME:
            self._expect_time(index)
            self.label = "time"
            return _NOTHING
        if word is None:
            self.named_zone = tz.find_zone(text)
            if self.named_zone is not None:
                return frozenset(("zone",))
        raise bad_format()

    def _expect_time(self, index: int) -> None:
        if not self.time_only and not self.out.has(DATE):
            raise bad_format()
        following = self.tokens[index + 1][0] if index + 1 < len(self.tokens) else None
        if following not in (FieldKind.NUMBER, FieldKind.TIME, FieldKind.DATE):
            raise bad_format()

    def _month_name(self, month: int) -> frozenset[str]:
        out = self.out
        found = "month"
        if (
            "month" in out.seen
            and not self.text_month
            and "day" not in out.seen
            and 1 <= out.month <= 31
        ):
            out.day = out.month
            found = "day"
        self.text_month = True
        out.month = month
        return frozenset((found,))

    def _reserved(self, value: str) -> frozenset[str]:
        out = self.out
        if value == "zulu":
            self._set_time(0, 0, 0, 0)
            out.offset = 0
            return TIME | {"zone"}
        if self.time_only and value != "now":
            raise bad_format()
        if value in ("epoch", "early", "late"):
            out.special = value
            return frozenset(("reserved",))
        utc = self.clock()
        offset = self.session_zone.offset_at(utc)
        now = split(utc + offset * USECS_PER_SECOND)
        if value == "now":
            self._set_time(now.hour, now.minute, now.second, now.micros)
            if self.time_only:
                return TIME
            out.year, out.month, out.day = now.year, now.month, now.day
            out.offset = offset
            return DATE | TIME | {"zone"}
        shift = {"yesterday": -1, "today": 0, "tomorrow": 1}[value]
        day = julian_of(now.year, now.month, now.day) + shift
        out.year, out.month, out.day = date_of_julian(day)
        self._set_time(0, 0, 0, out.micros)
        return DATE

    # Afterwards -------------------------------------------------------------------------------

    def _set_time(self, hour: int, minute: int, second: int, micros: int) -> None:
        out = self.out
        out.hour, out.minute, out.second, out.micros = hour, minute, second, micros

    def _set_julian(self, julian: int) -> None:
        self.out.year, self.out.month, self.out.day = date_of_julian(julian)
        self.is_julian = True

    def _validate_date(self) -> None:
        out = self.out
        if "year" in out.seen and not self.is_julian:
            if self.bc:
                if out.year <= 0:
                    raise field_overflow()
                out.year = 1 - out.year
            elif self.two_digit_year:
                if out.year < 0:
                    raise field_overflow()
                if out.year < 100:
                    out.year += 2000 if out.year < 70 else 1900
            elif out.year <= 0:
                raise field_overflow()
        if "doy" in out.seen:
            first = julian_of(out.year, 1, 1)
            out.year, out.month, out.day = date_of_julian(first + self.year_day - 1)
        if ("month" in out.seen and not 1 <= out.month <= 12) or (
            "day" in out.seen and not 1 <= out.day <= 31
        ):
            raise DateTimeError(Problem.MONTH_DAY_OVERFLOW)
        if out.has(DATE) and out.day > month_days(out.year, out.month):
            raise field_overflow()

    def _apply_half_day(self) -> None:
        out = self.out
        if self.half_day and out.hour > 12:
            raise field_overflow()
        if self.half_day == "am" and out.hour == 12:
            out.hour = 0
        elif self.half_day == "pm" and out.hour != 12:
            out.hour += 12

    def zone_offset(self, fields: Fields) -> int:
        """Seconds east of the zone the text named, at that local time."""
        zone = self.named_zone
        assert zone is not None, "the caller checked"
        if "dst" in self.out.seen:
            raise bad_format()
        local = join(fields)
        if self.dynamic_abbreviation:
            return tz.dynamic_offset_of_local(self.dynamic_abbreviation, zone, local)
        return zone.offset_of_local(local)


def _int(text: str) -> int:
    if not text.isdigit():
        raise bad_format()
    return int(text)


def _time_overflows(out: Decoded) -> bool:
    total = ((out.hour * 60 + out.minute) * 60 + out.second) * USECS_PER_SECOND + out.micros
    return (
        not 0 <= out.hour <= 24
        or not 0 <= out.minute <= 59
        or not 0 <= out.second <= 60
        or not 0 <= out.micros <= USECS_PER_SECOND
        or total > USECS_PER_DAY
    )


def decode(tokens: list[Token], order: str, clock: Clock, zone: tz.Zone) -> Decoded:
    """A date with or without time; `order` is MDY, DMY or YMD and `zone` the session's."""
    decoder = _Decoder(tokens, order, clock, zone)
    out = decoder.run(time_only=False)
    if out.special:
        return out
    if not out.has(DATE):
        raise bad_format()
    if decoder.named_zone is not None:
        if not is_valid_julian(out.year, out.month):
            out.offset = 0
        else:
            out.offset = decoder.zone_offset(out.fields())
    elif "zone" not in out.seen and "dst" in out.seen:
        raise bad_format()
    return out


def decode_time(tokens: list[Token], order: str, clock: Clock, zone: tz.Zone) -> Decoded:
    """A time of day, perhaps with a date that only helps to find the zone's offset."""
    decoder = _Decoder(tokens, order, clock, zone)
    out = decoder.run(time_only=True)
    if _time_overflows(out):
        raise field_overflow()
    if not out.has(TIME):
        raise bad_format()
    named = decoder.named_zone
    if named is not None:
        if named.fixed_offset is not None and not decoder.dynamic_abbreviation:
            out.offset = named.fixed_offset
        elif out.has(DATE):
            out.offset = decoder.zone_offset(out.fields())
        elif decoder.dynamic_abbreviation:
            out.offset = _dynamic_offset_now(decoder, named)
        else:
            raise bad_format()
    elif "zone" not in out.seen and "dst" in out.seen:
        raise bad_format()
    return out


def _dynamic_offset_now(decoder: _Decoder, zone: tz.Zone) -> int:
    now = decoder.clock()
    meant = tz.meaning_at(decoder.dynamic_abbreviation, zone, now)
    return zone.offset_at(now) if meant is None else meant


def no_clock() -> int:
    """The clock of a caller that has none."""
    raise QueryError(
        'date/time input that depends on the current time, such as "now", is not supported here',
        "0A000",
        hint="Use current_timestamp, current_date or localtime.",
    )
