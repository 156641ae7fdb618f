"""Date/time text into typed fields, and the words that may stand in it.

`tokenize` splits leniently by character class and leaves all meaning to datetime_decode and interval. Its
fields are lower case. Source: PostgreSQL 15 appendix B.1 (date/time input interpretation) and B.3 (key words).
"""

from __future__ import annotations

import enum

from shardforge.errors import QueryError


class Problem(enum.Enum):
    """Why date/time text is refused."""

    BAD_FORMAT = 1
    FIELD_OVERFLOW = 2
    MONTH_DAY_OVERFLOW = 3
    INTERVAL_OVERFLOW = 4
    ZONE_OVERFLOW = 5


class DateTimeError(Exception):
    """Raised while decoding; `refusal` makes of it the error PostgreSQL reports."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.name)
        self.problem = problem


def bad_format() -> DateTimeError:
    """The text does not look like its type."""
    return DateTimeError(Problem.BAD_FORMAT)


def field_overflow() -> DateTimeError:
    """A field is outside its range."""
    return DateTimeError(Problem.FIELD_OVERFLOW)


def refusal(problem: Problem, text: str, type_name: str) -> QueryError:
    """PostgreSQL's error for `text` offered as a `type_name`."""
    if problem is Problem.FIELD_OVERFLOW:
        return QueryError(f'date/time field value out of range: "{text}"', "22008")
    if problem is Problem.MONTH_DAY_OVERFLOW:
        return QueryError(
            f'date/time field value out of range: "{text}"',
            "22008",
            hint='Perhaps you need a different "datestyle" setting.',
        )
    if problem is Problem.INTERVAL_OVERFLOW:
        return QueryError(f'interval field value out of range: "{text}"', "22015")
    if problem is Problem.ZONE_OVERFLOW:
        return QueryError(f'time zone displacement out of range: "{text}"', "22009")
    return QueryError(f'invalid input syntax for type {type_name}: "{text}"', "22007")


class FieldKind(enum.Enum):
    """The character class a field was recognized by."""

    NUMBER = 1
    STRING = 2
    DATE = 3
    TIME = 4
    ZONE = 5
    SPECIAL = 6


class Word(enum.Enum):
    """What a key word of date/time input means."""

    RESERVED = 1
    MONTH = 2
    WEEKDAY = 3
    ERA = 4
    HALF_DAY = 5
    UNIT = 6
    ISO_TIME = 7
    IGNORED = 8
    DAYLIGHT = 9


_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]

WORDS: dict[str, tuple[Word, int | str]] = {
    "-infinity": (Word.RESERVED, "early"),
    "infinity": (Word.RESERVED, "late"),
    "allballs": (Word.RESERVED, "zulu"),
    "epoch": (Word.RESERVED, "epoch"),
    "now": (Word.RESERVED, "now"),
    "today": (Word.RESERVED, "today"),
    "tomorrow": (Word.RESERVED, "tomorrow"),
    "yesterday": (Word.RESERVED, "yesterday"),
    "ad": (Word.ERA, "ad"),
    "bc": (Word.ERA, "bc"),
    "am": (Word.HALF_DAY, "am"),
    "pm": (Word.HALF_DAY, "pm"),
    "at": (Word.IGNORED, 0),
    "on": (Word.IGNORED, 0),
    "dst": (Word.DAYLIGHT, 3600),
    "t": (Word.ISO_TIME, "time"),
    "y": (Word.UNIT, "year"),
    "m": (Word.UNIT, "month"),
    "d": (Word.UNIT, "day"),
    "h": (Word.UNIT, "hour"),
    "mm": (Word.UNIT, "minute"),
    "s": (Word.UNIT, "second"),
    "j": (Word.UNIT, "julian"),
    "jd": (Word.UNIT, "julian"),
    "julian": (Word.UNIT, "julian"),
    "dow": (Word.UNIT, "dow"),
    "doy": (Word.UNIT, "doy"),
    "isodow": (Word.UNIT, "isodow"),
    "isoyear": (Word.UNIT, "isoyear"),
    **{name: (Word.MONTH, i + 1) for i, name in enumerate(_MONTHS)},
    **{name[:3]: (Word.MONTH, i + 1) for i, name in enumerate(_MONTHS)},
    "sept": (Word.MONTH, 9),
    **{name: (Word.WEEKDAY, i) for i, name in enumerate(_DAYS)},
    **{name[:3]: (Word.WEEKDAY, i) for i, name in enumerate(_DAYS)},
    "tues": (Word.WEEKDAY, 2),
    "weds": (Word.WEEKDAY, 3),
    "thur": (Word.WEEKDAY, 4),
    "thurs": (Word.WEEKDAY, 4),
}

_MAX_FIELDS = 25
_MAX_WORKSPACE = 153
_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ALNUM = _DIGITS | _LETTERS
_SPACE = frozenset(" \t\n\r\f\v")
_TIME_TAIL = _DIGITS | frozenset(":.")
_ZONE_TAIL = _DIGITS | frozenset(":.-")
_NAME_TAIL = _ALNUM | frozenset("+-/_.:")

Token = tuple[FieldKind, str]


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def run(self, allowed: frozenset[str]) -> None:
        text, at = self.text, self.at
        while at < len(text) and text[at] in allowed:
            at += 1
        self.at = at


def tokenize(text: str) -> list[Token]:
    """The fields of date/time text, in order; raises DateTimeError for characters that cannot be there."""
    scanner = _Scanner(text)
    tokens: list[Token] = []
    used = 0
    while scanner.at < len(text):
        char = text[scanner.at]
        if char in _SPACE:
            scanner.at += 1
            continue
        token = _next_token(scanner, char)
        if token is None:
            continue
        tokens.append(token)
        used += len(token[1]) + 1
        if len(tokens) > _MAX_FIELDS or used > _MAX_WORKSPACE:
            raise bad_format()
    return tokens


def _next_token(scanner: _Scanner, char: str) -> Token | None:
    start = scanner.at
    if char in _DIGITS:
        kind = _digits(scanner)
    elif char == ".":
        scanner.at += 1
        scanner.run(_DIGITS)
        kind = FieldKind.NUMBER
    elif char in _LETTERS:
        kind = _letters(scanner)
    elif char in "+-":
        return _signed(scanner)
    elif char.isascii() and char.isprintable():
        scanner.at += 1
        return None
    else:
        raise bad_format()
    return kind, scanner.text[start : scanner.at].lower()


def _digits(scanner: _Scanner) -> FieldKind:
    scanner.run(_DIGITS)
    char = scanner.peek()
    if char == ":":
        scanner.at += 1
        scanner.run(_TIME_TAIL)
        return FieldKind.TIME
    if not char or char not in "-/.":
        return FieldKind.NUMBER
    scanner.at += 1
    if scanner.peek() not in _DIGITS:
        scanner.run(_ALNUM | {char})
        return FieldKind.DATE
    kind = FieldKind.NUMBER if char == "." else FieldKind.DATE
    scanner.run(_DIGITS)
    if scanner.peek() == char:
        kind = FieldKind.DATE
        scanner.run(_DIGITS | {char})
    return kind


def _letters(scanner: _Scanner) -> FieldKind:
    start = scanner.at
    scanner.run(_LETTERS)
    char = scanner.peek()
    if not char:
        return FieldKind.STRING
    is_date = char in "-/."
    if not is_date and (char == "+" or char in _DIGITS):
        is_date = scanner.text[start : scanner.at].lower()[:10] not in WORDS
    if not is_date:
        return FieldKind.STRING
    scanner.run(_NAME_TAIL)
    return FieldKind.DATE


def _signed(scanner: _Scanner) -> Token:
    sign = scanner.text[scanner.at]
    scanner.at += 1
    scanner.run(_SPACE)
    start = scanner.at
    char = scanner.peek()
    if char and char in _DIGITS:
        scanner.run(_ZONE_TAIL)
        kind = FieldKind.ZONE
    elif char and char in _LETTERS:
        scanner.run(_LETTERS)
        kind = FieldKind.SPECIAL
    else:
        raise bad_format()
    return kind, sign + scanner.text[start : scanner.at].lower()
