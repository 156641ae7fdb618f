"""Statement texts without their literals, so that texts that differ only in those are recognised as alike.

    SELECT a FROM t WHERE b = 7 AND c = 'x'  ->  SELECT a FROM t WHERE b = <int4> AND c = <string>,  (7, 'x')

One regular expression splits a text into literals and what stands between them; nothing is parsed. Invariant: two texts
of one template have the same tokens at the same places, except that literals of one kind have other values, so
PostgreSQL's grammar makes the same tree of both. What is not plain is left alone, with the whole text: dollar quotes,
parameters, E'' B'' X'' U&'', strings in several parts, nested comments, numbers with letters in them.
Source: PostgreSQL 17, src/backend/parser/scan.l (the scanner of libpg_query).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

INT4, INT8, NUMERIC, STRING = "\0i", "\0l", "\0n", "\0s"
"""Kinds of literals, as they stand in a template. NUL is in no text that the parser accepts."""

TEXT_SIZE_MAX: Final = 32_768
LITERALS_MAX: Final = 500
_INT4_MAX, _INT8_MAX = 2**31 - 1, 2**63 - 1
_NEGATED_DIFFERENTLY = (_INT4_MAX + 1, _INT8_MAX + 1)
"""Integers that have a smaller type behind a minus sign."""

_SPACE = r"[ \t\n\r\f\v]"
_LETTER = r"A-Za-z_\x80-\U0010ffff"
_BETWEEN = rf"""(?:
    [{_LETTER}][{_LETTER}0-9$]*+ (?!'|&['"])
  | [ \t\n\r\f\v,()=<>*+\[\]:%!|&~\#@^?]+
  | \.(?![0-9])
  | -(?!-)
  | /(?!\*)
  | "(?:[^"]++|"")*+"
  | --[^\n\r]*+
  | /\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/
)*+"""
_NUMBER = rf"""
    (?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+(?![{_LETTER}0-9.$])
"""
_STRING = rf"""
    '(?:[^'\0\ud800-\udfff]++|'')*+'(?!{_SPACE}*')
"""
_tokens = re.compile(
    rf"({_BETWEEN})(?:({_NUMBER})|({_STRING})|;?{_SPACE}*\Z|([\s\S]+))", re.VERBOSE
)
_minus = re.compile(rf"-{_SPACE}*\Z")

Value = int | str


@dataclass(frozen=True, slots=True)
class Literal:
    """Where a literal stands: byte offsets of itself and of a minus sign before it (-1: none)."""

    location: int
    minus: int


def lift(text: str) -> tuple[str, tuple[Value, ...]] | None:
    """A template and the literals' values: integers, the text of other numbers, strings unquoted.

    None when there is nothing to lift, or the text is not plain.
    """
    if len(text) > TEXT_SIZE_MAX:
        return None
    parts: list[str] = []
    values: list[Value] = []
    for between, number, string, other in _tokens.findall(text):
        parts.append(between)
        if number:
            if len(number) <= 9 and number.isdecimal():
                parts.append(INT4)
                values.append(int(number))
                continue
            found = _number(number)
            if found is None:
                return None
            parts.append(found[0])
            values.append(found[1])
        elif string:
            parts.append(STRING)
            values.append(string[1:-1].replace("''", "'"))
        elif other:
            return None
    if not values or len(values) > LITERALS_MAX:
        return None
    return "".join(parts), tuple(values)


def _number(number: str) -> tuple[str, Value] | None:
    if not number.isdecimal():
        return NUMERIC, number
    if len(number) > 19:
        return None
    value = int(number)
    if value in _NEGATED_DIFFERENTLY:
        return None
    if value <= _INT4_MAX:
        return INT4, value
    return (INT8, value) if value <= _INT8_MAX else (NUMERIC, number)


def literals(text: str) -> list[Literal]:
    """Where the literals of a text that `lift` takes stand, in its order."""
    found = []
    ascii_only = text.isascii()
    for match in _tokens.finditer(text):
        if match[2] or match[3]:
            location = match.end(1)
            if not ascii_only:
                location = len(text[:location].encode())
            minus = _minus.search(match[1])
            at = -1 if minus is None else location - len(minus[0])
            found.append(Literal(location, at))
    return found


def kinds(template: str) -> list[str]:
    """The kind of each literal of a template."""
    return re.findall(r"\0.", template)
