"""Time zones: names, POSIX specifications, abbreviations, and the offset of a moment in any of them.

Offsets are seconds EAST of UTC. Rules come from the pinned `tzdata` package rather than the host's files, so
that every node of a cluster answers alike. Before the first and after the last known transition of years that
`datetime` cannot express, a zone repeats as PostgreSQL's does: local mean time, and the 400-year cycle.
Source: PostgreSQL 15 appendix B.4 and B.5; RFC 8536 (TZif).
"""

from __future__ import annotations

import datetime
import functools
import importlib.resources
import io
import re
import struct
import zoneinfo
from typing import Protocol

from shardforge.errors import QueryError
from shardforge.sql.types.datetime_calendar import USECS_PER_DAY, days_of
from shardforge.sql.types.timezone_abbreviations import DYNAMIC, FIXED

_EPOCH = datetime.datetime(2000, 1, 1)  # noqa: DTZ001 (values are local or UTC by context)
_FIRST = days_of(2, 1, 1) * USECS_PER_DAY
_LAST = days_of(9999, 1, 1) * USECS_PER_DAY
_CYCLE = 146_097 * USECS_PER_DAY
_CYCLE_START = days_of(2400, 1, 1) * USECS_PER_DAY
_UNIX_SHIFT = 946_684_800
_MAX_POSIX_HOURS = 167


class Zone(Protocol):
    """What the types need to know of a zone. `micros` are since 2000-01-01."""

    name: str
    fixed_offset: int | None
    """Seconds east, when the zone has but one offset."""

    def offset_at(self, micros: int) -> int:
        """Seconds east of UTC at a UTC moment."""

    def offset_of_local(self, micros: int) -> int:
        """Seconds east at a local time; in a gap the offset before it, when ambiguous the one after."""

    def abbreviation_at(self, micros: int) -> str:
        """The abbreviation in use at a UTC moment."""


class FixedZone:
    """A zone with a single offset."""

    def __init__(self, name: str, offset: int, abbreviation: str) -> None:
        self.name = name
        self.fixed_offset: int | None = offset
        self._offset = offset
        self._abbreviation = abbreviation

    def offset_at(self, micros: int) -> int:
        """The offset."""
        return self._offset

    def offset_of_local(self, micros: int) -> int:
        """The offset."""
        return self._offset

    def abbreviation_at(self, micros: int) -> str:
        """The abbreviation."""
        return self._abbreviation


class NamedZone:
    """A zone with rules."""

    def __init__(self, name: str, rules: zoneinfo.ZoneInfo) -> None:
        self.name = name
        self._rules = rules
        fixed = rules.utcoffset(None)
        self.fixed_offset: int | None = None if fixed is None else _seconds(fixed)

    def offset_at(self, micros: int) -> int:
        """Seconds east of UTC at a UTC moment."""
        moment = _datetime(micros).replace(tzinfo=self._rules)
        return _seconds(self._rules.fromutc(moment).utcoffset())

    def offset_of_local(self, micros: int) -> int:
        """Seconds east at a local time; in a gap the offset before it, when ambiguous the one after."""
        moment = _datetime(micros)
        first = _seconds(self._rules.utcoffset(moment))
        second = _seconds(self._rules.utcoffset(moment.replace(fold=1)))
        return min(first, second)

    def abbreviation_at(self, micros: int) -> str:
        """The abbreviation in use at a UTC moment."""
        moment = _datetime(micros).replace(tzinfo=self._rules)
        return self._rules.fromutc(moment).tzname() or ""


def _seconds(offset: datetime.timedelta | None) -> int:
    assert offset is not None, "a zone with rules always knows its offset"
    return offset.days * 86400 + offset.seconds


def _datetime(micros: int) -> datetime.datetime:
    if micros < _FIRST:
        micros = _FIRST
    elif micros >= _LAST:
        micros = (micros - _CYCLE_START) % _CYCLE + _CYCLE_START
    return _EPOCH + datetime.timedelta(microseconds=micros)


UTC = FixedZone("UTC", 0, "UTC")


@functools.lru_cache(maxsize=1)
def zone_names() -> dict[str, str]:
    """Every name of the database: lower case -> as spelt."""
    text = importlib.resources.files("tzdata").joinpath("zones").read_text("ascii")
    return {name.lower(): name for name in text.split()}


def _zone_file(name: str) -> bytes:
    return importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


@functools.lru_cache(maxsize=1024)
def find_zone(name: str) -> Zone | None:
    """The zone of a full name (any case) or a POSIX specification such as `EST5EDT`; None when neither."""
    if name.upper() in ("UTC", "GMT"):
        return FixedZone(name.upper(), 0, name.upper())
    known = zone_names().get(name.lower())
    if known is not None:
        return NamedZone(known, zoneinfo.ZoneInfo.from_file(io.BytesIO(_zone_file(known)), known))
    return _posix_zone(name.upper())


_POSIX = re.compile(
    r"(<[^>]*>|[^\d,+\-<>]*)([+-]?\d{1,3})(?::(\d{1,2}))?(?::(\d{1,2}))?(.*)", re.DOTALL
)


def _posix_zone(spec: str) -> Zone | None:
    match = _POSIX.fullmatch(spec)
    if match is None:
        return None
    abbreviation, hours, minutes, seconds, rest = match.groups()
    west = abs(int(hours)) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    if abs(int(hours)) > _MAX_POSIX_HOURS or int(minutes or 0) > 59 or int(seconds or 0) > 59:
        return None
    if hours.startswith("-"):
        west = -west
    if not rest:
        return FixedZone(spec, -west, abbreviation.strip("<>"))
    footer = spec if "," in rest else spec + ",M3.2.0,M11.1.0"
    try:
        rules = zoneinfo.ZoneInfo.from_file(io.BytesIO(_footer_only(-west, footer)), spec)
    except (ValueError, UnicodeEncodeError):
        return None
    return NamedZone(spec, rules)


def _footer_only(offset: int, footer: str) -> bytes:
    """A TZif file without transitions whose rules are all in its POSIX footer."""
    body = struct.pack(">lbb", offset, 0, 0) + b"STD\0"
    header = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return header + body + header + body + b"\n" + footer.encode("ascii") + b"\n"


_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@functools.lru_cache(maxsize=256)
def session_zone(setting: str) -> Zone:
    """The zone a TimeZone setting means: a bare number counts hours EAST, unlike a POSIX specification."""
    name = timezone_setting(setting)
    zone = find_zone(name)
    assert zone is not None, "timezone_setting answers only names that exist"
    return zone


def timezone_setting(value: str) -> str:
    """The text SHOW TimeZone answers after SET TimeZone = value: a name in any case, as the database spells it.

    A bare number is hours east; 22023 when there is no such zone.
    """
    if _NUMBER.fullmatch(value):
        seconds = float(value) * 3600
        if abs(seconds) >= (_MAX_POSIX_HOURS + 1) * 3600:
            raise _invalid(value, "UTC timezone offset is out of range.")
        return fixed_zone_name(int(seconds))
    zone = find_zone(value)
    if zone is None:
        raise _invalid(value)
    return zone.name


def interval_zone_name(text: str, months: int, days: int, micros: int) -> str:
    """The setting of SET TIME ZONE INTERVAL: an interval of hours, minutes and seconds east; `text` is as given."""
    if months:
        raise _invalid(text, "Cannot specify months in time zone interval.")
    if days:
        raise _invalid(text, "Cannot specify days in time zone interval.")
    seconds = abs(micros) // 1_000_000
    if seconds >= (_MAX_POSIX_HOURS + 1) * 3600:
        raise _invalid(text, "UTC timezone offset is out of range.")
    return fixed_zone_name(seconds if micros >= 0 else -seconds)


def _invalid(value: str, detail: str = "") -> QueryError:
    return QueryError(f'invalid value for parameter "TimeZone": "{value}"', "22023", detail=detail)


def fixed_zone_name(east: int) -> str:
    """PostgreSQL's POSIX specification for a numeric TimeZone, as `<+02:30>-02:30`."""
    hours, rest = divmod(abs(east), 3600)
    text = f"{hours:02d}"
    if rest:
        text += f":{rest // 60:02d}"
        if rest % 60:
            text += f":{rest % 60:02d}"
    return f"<+{text}>-{text}" if east >= 0 else f"<-{text}>+{text}"


def require_zone(name: str) -> Zone:
    """The zone of a full name or POSIX specification; 22023 in PostgreSQL's words when unknown."""
    zone = find_zone(name)
    if zone is None:
        raise QueryError(f'time zone "{name}" not recognized', "22023")
    return zone


def abbreviation_offset(abbreviation: str) -> int | Zone | None:
    """Seconds east for a fixed abbreviation, the zone behind a changing one, None for no abbreviation."""
    fixed = FIXED.get(abbreviation.lower())
    if fixed is not None:
        return fixed[0]
    zone = DYNAMIC.get(abbreviation.lower())
    return None if zone is None else require_zone(zone)


def dynamic_offset_of_local(abbreviation: str, zone: Zone, local: int) -> int:
    """The offset a changing abbreviation has at a local time.

    The last meaning the zone gave the abbreviation up to then, else its first; else just the zone's offset.
    """
    plain = zone.offset_of_local(local)
    found = meaning_at(abbreviation, zone, local - plain * 1_000_000)
    return plain if found is None else found


def meaning_at(abbreviation: str, zone: Zone, micros: int) -> int | None:
    """Seconds east that `abbreviation` last meant in `zone` at or before a UTC moment, else first after."""
    wanted = abbreviation.upper()
    uses = [(start, offset) for start, offset, name in _history(zone.name) if name == wanted]
    if not uses:
        return None
    moment = micros // 1_000_000 + _UNIX_SHIFT
    return next((offset for start, offset in reversed(uses) if start <= moment), uses[0][1])


@functools.lru_cache(maxsize=64)
def _history(name: str) -> tuple[tuple[int, int, str], ...]:
    """(Unix second, seconds east, abbreviation) of every stored transition of a named zone."""
    data = _zone_file(name)
    isut, isstd, leap, times, types, chars = struct.unpack_from(">6l", data, 20)
    at = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut
    isut, isstd, leap, times, types, chars = struct.unpack_from(">6l", data, at + 20)
    at += 44
    starts = struct.unpack_from(f">{times}q", data, at)
    which = data[at + times * 8 : at + times * 9]
    at += times * 9
    names = data[at + types * 6 : at + types * 6 + chars]
    kinds = [struct.unpack_from(">lbB", data, at + 6 * i) for i in range(types)]

    def label(index: int) -> str:
        return names[index : names.index(b"\0", index)].decode("ascii")

    first = [(-(2**62), kinds[0][0], label(kinds[0][2]))]
    rest = [(s, kinds[k][0], label(kinds[k][2])) for s, k in zip(starts, which, strict=True)]
    return tuple(first + rest)
