"""LIKE, ILIKE and the translation of SIMILAR TO patterns into regular expressions.

% stands for any run of characters, _ for one, a backslash for the next character itself; ILIKE folds ASCII letters.
Source: PostgreSQL 15, src/backend/utils/adt/{like,like_match}.c and similar_escape_internal in regexp.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements
from shardforge.sql.functions.text import lower

Matcher = Callable[[str], object]
_SPECIAL = re.compile(r"[%_\\]")


@lru_cache(maxsize=1024)
def like_matcher(pattern: str) -> Matcher:
    """A function that is true of the texts LIKE `pattern`."""
    inner = pattern.strip("%")
    if _SPECIAL.search(inner) is None and not pattern.endswith("\\%"):
        head, tail = pattern.startswith("%"), pattern.endswith("%")
        if not inner:
            return (lambda text: True) if pattern else (lambda text: text == "")
        if head and tail:
            return lambda text: inner in text
        if tail:
            return lambda text: text.startswith(inner)
        if head:
            return lambda text: text.endswith(inner)
        return lambda text: text == inner
    body = re.fullmatch(r"((?:[^\\]|\\.)*)\\", pattern, re.DOTALL)
    if body is not None:
        return _unfinished(body[1])
    return re.compile(_like_regex(pattern), re.DOTALL).fullmatch


def _unfinished(pattern: str) -> Matcher:
    """For a pattern that a lone escape character ends: an error for a text that gets that far, else no match."""
    reaches = re.compile(_like_regex(pattern) + "(?=.)", re.DOTALL).match

    def match(text: str) -> bool:
        if reaches(text):
            raise QueryError("LIKE pattern must not end with escape character", "22025")
        return False

    return match


def _like_regex(pattern: str) -> str:
    out: list[str] = []
    characters = iter(pattern)
    for char in characters:
        if char == "%":
            if not out or out[-1] != ".*":
                out.append(".*")
        elif char == "_":
            out.append(".")
        elif char == "\\":
            out.append(re.escape(next(characters)))
        else:
            out.append(re.escape(char))
    return "".join(out)


@implements("textlike", "namelike")
def textlike(text: str, pattern: str) -> bool:
    """text LIKE pattern."""
    return bool(like_matcher(pattern)(text))


@implements("textnlike", "namenlike")
def textnlike(text: str, pattern: str) -> bool:
    """text NOT LIKE pattern."""
    return not like_matcher(pattern)(text)


@implements("texticlike", "nameiclike")
def texticlike(text: str, pattern: str) -> bool:
    """text ILIKE pattern."""
    return bool(like_matcher(lower(pattern))(lower(text)))


@implements("texticnlike", "nameicnlike")
def texticnlike(text: str, pattern: str) -> bool:
    """text NOT ILIKE pattern."""
    return not like_matcher(lower(pattern))(lower(text))


@implements("bytealike")
def bytealike(data: bytes, pattern: bytes) -> bool:
    """bytea LIKE bytea, byte by byte."""
    return textlike(data.decode("latin-1"), pattern.decode("latin-1"))


@implements("byteanlike")
def byteanlike(data: bytes, pattern: bytes) -> bool:
    """bytea NOT LIKE bytea."""
    return not bytealike(data, pattern)


def _check_escape(escape: str) -> None:
    if len(escape) > 1:
        raise QueryError(
            "invalid escape string", "22025", hint="Escape string must be empty or one character."
        )


@implements("like_escape")
def like_escape(pattern: str, escape: str) -> str:
    """The pattern with a backslash as its escape character."""
    _check_escape(escape)
    if escape == "\\":
        return pattern
    if not escape:
        return pattern.replace("\\", "\\\\")
    out: list[str] = []
    after_escape = False
    for char in pattern:
        if char == escape and not after_escape:
            out.append("\\")
            after_escape = True
        else:
            out.append("\\\\" if char == "\\" and not after_escape else char)
            after_escape = False
    return "".join(out)


@implements("like_escape_bytea")
def like_escape_bytea(pattern: bytes, escape: bytes) -> bytes:
    """The pattern with a backslash as its escape byte."""
    return like_escape(pattern.decode("latin-1"), escape.decode("latin-1")).encode("latin-1")


# ---------------------------------------------------------------- SIMILAR TO

_SIMILAR = {"%": ".*", "_": ".", "(": "(?:", "\\": "\\\\", ".": "\\.", "^": "\\^", "$": "\\$"}


@implements("similar_to_escape_2")
def similar_to_escape(pattern: str, escape: str) -> str:
    """The regular expression of a SIMILAR TO pattern with this escape character (none when empty)."""
    _check_escape(escape)
    out: list[str] = ["^(?:"]
    after_escape = in_class = False
    separators = 0
    for char in pattern:
        if after_escape:
            if char == '"' and not in_class:
                if separators > 1:
                    raise QueryError(
                        "SQL regular expression may not contain more than two escape-double-quote separators",
                        "2200C",
                    )
                out.append("){1,1}?(" if separators == 0 else "){1,1}(?:")
                separators += 1
            else:
                out.append("\\" + char)
            after_escape = False
        elif char == escape:
            after_escape = True
        elif in_class:
            out.append("\\\\" if char == "\\" else char)
            in_class = char != "]"
        else:
            out.append(_SIMILAR.get(char, char))
            in_class = char == "["
    out.append(")$")
    return "".join(out)


implements("similar_to_escape_1")(lambda pattern: similar_to_escape(pattern, "\\"))


@implements("similar_escape")
def similar_escape(pattern: str | None, escape: str | None) -> str | None:
    """The older form: a NULL escape character is a backslash."""
    return (
        None if pattern is None else similar_to_escape(pattern, "\\" if escape is None else escape)
    )
