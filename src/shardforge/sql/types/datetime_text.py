"""Text and binary forms of date, time, timetz, timestamp and timestamptz.

Input is as lenient as PostgreSQL's, with a fast way for plain ISO text; output is DateStyle ISO, always. A
`Settings` supplies the session's zone and date order; words like 'now' also need its optional `transaction_us`.
Invariant: output(input(x)) reads back as the same value. Source: PostgreSQL 15, section 8.5 and appendix B.1.
"""

from __future__ import annotations

import datetime
import re
import struct
from collections.abc import Callable
from typing import Protocol

from shardforge.errors import QueryError, unsupported
from shardforge.sql.types.base import unpacker
from shardforge.sql.types.datetime_calendar import (
    DATE_INFINITY,
    DATE_MINUS_INFINITY,
    END_DATE,
    END_TIMESTAMP,
    EPOCH_JULIAN,
    MIN_DATE,
    MIN_TIMESTAMP,
    TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY,
    UNIX_EPOCH_DAYS,
    UNIX_EPOCH_USECS,
    USECS_PER_DAY,
    USECS_PER_SECOND,
    date_of_julian,
    is_valid_julian,
    join,
    julian_of,
    round_half_away,
    split,
)
from shardforge.sql.types.datetime_decode import Clock, Decoded, decode, decode_time, no_clock
from shardforge.sql.types.datetime_tokens import DateTimeError, refusal, tokenize
from shardforge.sql.types.timezone import FixedZone, Zone, session_zone
from shardforge.sql.types.values import TimeTz


class Settings(Protocol):
    """What of a session's settings these types look at."""

    @property
    def timezone(self) -> str:
        """The TimeZone setting."""

    @property
    def datestyle(self) -> str:
        """The DateStyle setting, such as `ISO, MDY`."""

    @property
    def intervalstyle(self) -> str:
        """The IntervalStyle setting."""


class UtcSettings:
    """The settings of a caller without a session: UTC, ISO, MDY."""

    timezone = "UTC"
    datestyle = "ISO, MDY"
    intervalstyle = "postgres"


def _order(settings: Settings) -> str:
    style = settings.datestyle.upper()
    return next((order for order in ("YMD", "DMY") if order in style), "MDY")


def _clock(settings: Settings) -> Clock:
    moment = getattr(settings, "transaction_us", None)
    return no_clock if moment is None else lambda: int(moment)


def require_iso(settings: Settings) -> None:
    """Refuse output in a DateStyle other than ISO rather than print the wrong one."""
    if not settings.datestyle.upper().startswith("ISO"):
        raise unsupported(f'DateStyle "{settings.datestyle}"')


_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(?:([+-]\d\d)(?::?(\d\d))?|(Z))?)?"
)


def _fast_date(text: str) -> int | None:
    if len(text) != 10 or text[4] != "-" or text[7] != "-":
        return None
    try:
        return datetime.date.fromisoformat(text).toordinal() - 730_120
    except ValueError:
        return None


_HOURS_EAST = {
    "": None, "Z": 0, **{f"{'+' if hours >= 0 else '-'}{abs(hours):02}": hours * 3600 for hours in range(-15, 16)}
}  # fmt: skip
_MICROSECONDS = 26
"""How long ISO text is with six digits after the point."""


def _fast_timestamp(text: str) -> tuple[int, int | None] | None:
    """Local microseconds and seconds east for plain ISO text; None to leave it to the full parser."""
    if (
        text[4:5] == "-" and text[7:8] == "-" and text[13:14] == ":" and text[16:17] == ":"
        and text[10] in " T" and text.isascii()
    ):  # fmt: skip
        # As servers and dumps write it, and Python reads it; it reads other forms as well, hence the look at this one.
        end = 19 if text[19:20] != "." else _MICROSECONDS
        zone = text[end:]
        if zone in _HOURS_EAST and (end == 19 or text[20:end].isdigit()):
            try:
                moment = datetime.datetime.fromisoformat(text[:end])
            except ValueError:
                pass  # not so plain, or not a time
            else:
                seconds = (moment.hour * 60 + moment.minute) * 60 + moment.second
                micros = seconds * USECS_PER_SECOND + moment.microsecond
                days = moment.toordinal() - 730_120
                return days * USECS_PER_DAY + micros, _HOURS_EAST[zone]
    return _regular_timestamp(text)


def _regular_timestamp(text: str) -> tuple[int, int | None] | None:
    """The same for every form of ISO text."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, east, east_minutes, zulu = match.groups()
    try:
        days = datetime.date(int(year), int(month), int(day)).toordinal() - 730_120
    except ValueError:
        return None
    if hour is None:
        return days * USECS_PER_DAY, None
    seconds = int(second or 0)
    if hour > "23" or minute > "59" or seconds > 59:
        return None
    micros = int(fraction.ljust(6, "0")) if fraction else 0
    total = ((int(hour) * 60 + int(minute)) * 60 + seconds) * USECS_PER_SECOND + micros
    local = days * USECS_PER_DAY + total
    if zulu:
        return local, 0
    if east is None:
        return local, None
    if east[1:] > "15" or (east_minutes or "") > "59":
        return None
    offset = int(east[1:]) * 3600 + int(east_minutes or 0) * 60
    return local, -offset if east[0] == "-" else offset


def _decoded(
    text: str, type_name: str, settings: Settings, reader: Callable[..., Decoded]
) -> Decoded:
    try:
        return reader(
            tokenize(text), _order(settings), _clock(settings), session_zone(settings.timezone)
        )
    except DateTimeError as error:
        raise refusal(error.problem, text, type_name) from None


def _special_timestamp(word: str) -> int:
    if word == "epoch":
        return UNIX_EPOCH_USECS
    return TIMESTAMP_INFINITY if word == "late" else TIMESTAMP_MINUS_INFINITY


def date_input(settings: Settings) -> Callable[[str], int]:
    """Reads text as a date."""

    def read(text: str) -> int:
        fast = _fast_date(text)
        if fast is not None:
            return fast
        found = _decoded(text, "date", settings, decode)
        if found.special:
            if found.special == "epoch":
                return UNIX_EPOCH_DAYS
            return DATE_INFINITY if found.special == "late" else DATE_MINUS_INFINITY
        days = julian_of(found.year, found.month, found.day) - EPOCH_JULIAN
        if not is_valid_julian(found.year, found.month) or not MIN_DATE <= days < END_DATE:
            raise QueryError(f'date out of range: "{text}"', "22008")
        return days

    return read


def timestamp_input(settings: Settings) -> Callable[[str], int]:
    """Reads text as a timestamp without time zone; a zone in the text is ignored."""

    def read(text: str) -> int:
        fast = _fast_timestamp(text)
        if fast is not None:
            return fast[0]
        found = _decoded(text, "timestamp", settings, decode)
        if found.special:
            return _special_timestamp(found.special)
        return _in_range(found, 0, text)

    return read


def timestamptz_input(settings: Settings) -> Callable[[str], int]:
    """Reads text as a timestamp with time zone; without one in the text, the session's zone holds."""
    zone = session_zone(settings.timezone)

    def read(text: str) -> int:
        fast = _fast_timestamp(text)
        if fast is not None:
            local, offset = fast
            if offset is None:
                offset = zone.offset_of_local(local)
            return local - offset * USECS_PER_SECOND
        found = _decoded(text, "timestamp with time zone", settings, decode)
        if found.special:
            return _special_timestamp(found.special)
        offset = found.offset
        if offset is None:
            offset = zone.offset_of_local(join(found.fields()))
        return _in_range(found, offset, text)

    return read


def _in_range(found: Decoded, offset: int, text: str) -> int:
    value = join(found.fields()) - offset * USECS_PER_SECOND
    if not is_valid_julian(found.year, found.month) or not MIN_TIMESTAMP <= value < END_TIMESTAMP:
        raise QueryError(f'timestamp out of range: "{text}"', "22008")
    return value


_ISO_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:\.(\d{1,6}))?)?")


def time_input(settings: Settings) -> Callable[[str], int]:
    """Reads text as a time of day."""

    def read(text: str) -> int:
        match = _ISO_TIME.fullmatch(text)
        if match is not None:
            hour, minute, second, fraction = match.groups()
            total = (int(hour) * 60 + int(minute)) * 60 + int(second or 0)
            return total * USECS_PER_SECOND + (int(fraction.ljust(6, "0")) if fraction else 0)
        return _time_of_day(_decoded(text, "time", settings, decode_time))

    return read


def timetz_input(settings: Settings) -> Callable[[str], TimeTz]:
    """Reads text as a time with time zone; without one, the session's zone holds (today, if it matters)."""

    def read(text: str) -> TimeTz:
        found = _decoded(text, "time with time zone", settings, decode_time)
        offset = found.offset
        if offset is None:
            offset = _zone_of_time(found, session_zone(settings.timezone), _clock(settings))
        return TimeTz(_time_of_day(found), -offset)

    return read


def _zone_of_time(found: Decoded, zone: Zone, clock: Clock) -> int:
    if zone.fixed_offset is not None:
        return zone.fixed_offset
    fields = found.fields()
    if not found.seen & {"year", "month", "day"}:
        now = clock()
        today = split(now + zone.offset_at(now) * USECS_PER_SECOND)
        fields = fields._replace(year=today.year, month=today.month, day=today.day)
    return zone.offset_of_local(join(fields))


def _time_of_day(found: Decoded) -> int:
    total = (found.hour * 60 + found.minute) * 60 + found.second
    return total * USECS_PER_SECOND + found.micros


# Output ---------------------------------------------------------------------------------------


def _year_text(year: int) -> tuple[str, str]:
    return (f"{year:04d}", "") if year > 0 else (f"{1 - year:04d}", " BC")


def format_date(days: int) -> str:
    """A date in ISO style."""
    if -730_119 <= days <= 2_921_939:
        return datetime.date.fromordinal(days + 730_120).isoformat()
    if days == DATE_INFINITY:
        return "infinity"
    if days == DATE_MINUS_INFINITY:
        return "-infinity"
    year, month, day = date_of_julian(days + EPOCH_JULIAN)
    digits, era = _year_text(year)
    return f"{digits}-{month:02d}-{day:02d}{era}"


def format_time(micros: int) -> str:
    """A time of day, with as many fraction digits as it needs."""
    seconds, fraction = divmod(micros, USECS_PER_SECOND)
    minutes, second = divmod(seconds, 60)
    text = f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
    return f"{text}.{fraction:06d}".rstrip("0") if fraction else text


def format_offset(east: int) -> str:
    """A zone offset as +02, -03:30 or +01:02:03."""
    sign = "-" if east < 0 else "+"
    minutes, second = divmod(abs(east), 60)
    hour, minute = divmod(minutes, 60)
    if second:
        return f"{sign}{hour:02d}:{minute:02d}:{second:02d}"
    return f"{sign}{hour:02d}:{minute:02d}" if minute else f"{sign}{hour:02d}"


def format_timetz(value: TimeTz) -> str:
    """A time with its zone."""
    return format_time(value.micros) + format_offset(-value.zone)


def _format_moment(micros: int, zone_text: str, separator: str = " ") -> str:
    days, rest = divmod(micros, USECS_PER_DAY)
    if -730_119 <= days <= 2_921_939:
        date = datetime.date.fromordinal(days + 730_120).isoformat()
        return f"{date}{separator}{format_time(rest)}{zone_text}"
    year, month, day = date_of_julian(days + EPOCH_JULIAN)
    digits, era = _year_text(year)
    return f"{digits}-{month:02d}-{day:02d}{separator}{format_time(rest)}{zone_text}{era}"


def format_timestamp(micros: int, separator: str = " ") -> str:
    """A timestamp without time zone in ISO style; JSON wants the separator T."""
    if micros == TIMESTAMP_INFINITY:
        return "infinity"
    if micros == TIMESTAMP_MINUS_INFINITY:
        return "-infinity"
    return _format_moment(micros, "", separator)


def format_timestamptz(micros: int, zone: Zone, separator: str = " ") -> str:
    """A timestamp with time zone in ISO style, as seen in `zone`; JSON's zone always shows minutes."""
    if micros == TIMESTAMP_INFINITY:
        return "infinity"
    if micros == TIMESTAMP_MINUS_INFINITY:
        return "-infinity"
    offset = zone.offset_at(micros)
    text = format_offset(offset)
    if separator == "T" and len(text) == 3:
        text += ":00"
    return _format_moment(micros + offset * USECS_PER_SECOND, text, separator)


def date_output(settings: Settings) -> Callable[[int], str]:
    """Writes dates for a session."""
    require_iso(settings)
    return format_date


def timestamp_output(settings: Settings) -> Callable[[int], str]:
    """Writes timestamps for a session."""
    require_iso(settings)
    return format_timestamp


def timestamptz_output(settings: Settings) -> Callable[[int], str]:
    """Writes timestamps with time zone for a session."""
    require_iso(settings)
    zone = session_zone(settings.timezone)
    if isinstance(zone, FixedZone):
        shift, suffix = zone.offset_at(0) * USECS_PER_SECOND, format_offset(zone.offset_at(0))

        def write(micros: int) -> str:
            if micros in (TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY):
                return format_timestamp(micros)
            return _format_moment(micros + shift, suffix)

        return write
    return lambda micros: format_timestamptz(micros, zone)


# Typmods and binary -----------------------------------------------------------------------------


def apply_precision(typmod: int, value: int) -> int:
    """Round a time, or a finite timestamp, to the precision of its typmod."""
    if not 0 <= typmod < 6 or value in (TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY):
        return value
    return round_half_away(value, typmod)


def apply_timetz_precision(typmod: int, value: TimeTz) -> TimeTz:
    """Round a timetz to the precision of its typmod."""
    return value._replace(micros=apply_precision(typmod, value.micros))


_unpack_date = unpacker(">i")
_unpack_micros = unpacker(">q")
_unpack_timetz = unpacker(">qi")


def receive_date(data: bytes) -> int:
    """Binary date."""
    value: int = _unpack_date(data)[0]
    if value not in (DATE_INFINITY, DATE_MINUS_INFINITY) and not MIN_DATE <= value < END_DATE:
        raise QueryError("date out of range", "22008")
    return value


def receive_timestamp(data: bytes) -> int:
    """Binary timestamp or timestamptz."""
    value: int = _unpack_micros(data)[0]
    finite = value not in (TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY)
    if finite and not MIN_TIMESTAMP <= value < END_TIMESTAMP:
        raise QueryError("timestamp out of range", "22008")
    return value


def receive_time(data: bytes) -> int:
    """Binary time."""
    value: int = _unpack_micros(data)[0]
    if not 0 <= value <= USECS_PER_DAY:
        raise QueryError("time out of range", "22008")
    return value


def receive_timetz(data: bytes) -> TimeTz:
    """Binary timetz."""
    micros, zone = _unpack_timetz(data)
    if not 0 <= micros <= USECS_PER_DAY:
        raise QueryError("time out of range", "22008")
    if not -57_600 < zone < 57_600:
        raise QueryError("time zone displacement out of range", "22009")
    return TimeTz(micros, zone)


send_date: Callable[[int], bytes] = struct.Struct(">i").pack
send_timestamp: Callable[[int], bytes] = struct.Struct(">q").pack
send_time: Callable[[int], bytes] = struct.Struct(">q").pack


def send_timetz(value: TimeTz) -> bytes:
    """Binary timetz."""
    return struct.pack(">qi", value.micros, value.zone)


def timetz_sort_key(value: TimeTz) -> tuple[int, int]:
    """Orders timetz by the UTC moment, then by zone."""
    return value.micros + value.zone * USECS_PER_SECOND, value.zone
