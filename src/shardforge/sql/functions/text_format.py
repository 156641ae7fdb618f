"""format(), concat(), quoting, and what else turns values of any type into text.

Source: PostgreSQL 15, src/backend/utils/adt/{varlena,quote,ruleutils,misc}.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.registry import implements
from shardforge.sql.functions.text import text_array
from shardforge.sql.types import oids
from shardforge.sql.types.registry import codec
from shardforge.sql.types.values import Array

TextOf = Callable[[EvalContext, Any], str]
_TEXTUAL = (oids.TEXT, oids.VARCHAR, oids.BPCHAR, oids.NAME, oids.UNKNOWN, oids.CSTRING)


def text_of(type_oid: int) -> TextOf:
    """A value's output text, for functions that take any type."""
    if type_oid in _TEXTUAL:
        return lambda _context, value: value
    output = codec(type_oid).output
    return lambda context, value: output(context.settings)(value)


def cast_to_text(type_oid: int) -> TextOf:
    """A value cast to text, which differs from its output for boolean and char(n)."""
    if type_oid == oids.BOOL:
        return lambda _context, value: "true" if value else "false"
    if type_oid == oids.BPCHAR:
        return lambda _context, value: value.rstrip(" ")
    return text_of(type_oid)


# ---------------------------------------------------------------- quoting

_PLAIN_IDENTIFIER = re.compile("[a-z_][a-z0-9_]*")


@cache
def reserved_words() -> frozenset[str]:
    """Keywords that an identifier must be quoted to be: all but PostgreSQL's unreserved ones."""
    return frozenset(row[0] for row in pgdata.keywords() if row[1] != "U")


@implements("quote_ident")
def quote_ident(name: str) -> str:
    """The name as SQL would need it written."""
    if _PLAIN_IDENTIFIER.fullmatch(name) and name not in reserved_words():
        return name
    return '"' + name.replace('"', '""') + '"'


@implements("quote_literal")
def quote_literal(text: str) -> str:
    """The text as a literal; with a backslash in it, in the E'' form."""
    quoted = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return "E" + quoted if "\\" in text else quoted


@implements("quote_nullable")
def quote_nullable(text: str | None) -> str:
    """The text as a literal, or the word NULL."""
    return "NULL" if text is None else quote_literal(text)


@implements("quote_literal(anyelement)", context=True, typed=True)
def quote_literal_any(arg_types: tuple[int, ...], result_type: int) -> Callable[..., str]:
    """quote_literal of any value's text."""
    del result_type
    to_text = cast_to_text(arg_types[0])
    return lambda context, value: quote_literal(to_text(context, value))


@implements("quote_nullable(anyelement)", context=True, typed=True)
def quote_nullable_any(arg_types: tuple[int, ...], result_type: int) -> Callable[..., str]:
    """quote_nullable of any value's text."""
    del result_type
    to_text = cast_to_text(arg_types[0])
    return lambda context, value: (
        "NULL" if value is None else quote_literal(to_text(context, value))
    )


# ---------------------------------------------------------------- concat and ||


@implements("text_concat", context=True, typed=True)
def concat(arg_types: tuple[int, ...], result_type: int) -> Callable[..., str]:
    """The arguments' texts in a row, NULLs left out."""
    del result_type
    texts = tuple(map(text_of, arg_types))

    def call(context: EvalContext, *args: Any) -> str:
        return "".join(
            text(context, arg) for text, arg in zip(texts, args, strict=True) if arg is not None
        )

    return call


@implements("text_concat_ws", context=True, typed=True)
def concat_ws(arg_types: tuple[int, ...], result_type: int) -> Callable[..., str | None]:
    """The arguments' texts with a separator between them, NULLs left out."""
    del result_type
    texts = tuple(map(text_of, arg_types[1:]))

    def call(context: EvalContext, separator: str | None, *args: Any) -> str | None:
        if separator is None:
            return None
        return separator.join(
            text(context, arg) for text, arg in zip(texts, args, strict=True) if arg is not None
        )

    return call


@implements("anytextcat(anynonarray,text)", context=True, typed=True)
def anytextcat(arg_types: tuple[int, ...], result_type: int) -> Callable[..., str]:
    """anything || text."""
    del result_type
    to_text = cast_to_text(arg_types[0])
    return lambda context, value, text: to_text(context, value) + text


@implements("textanycat(text,anynonarray)", context=True, typed=True)
def textanycat(arg_types: tuple[int, ...], result_type: int) -> Callable[..., str]:
    """text || anything."""
    del result_type
    to_text = cast_to_text(arg_types[1])
    return lambda context, text, value: text + to_text(context, value)


# ---------------------------------------------------------------- format

_SPECIFIER = re.compile(r"%(?:(%)|(?:(\d+)\$)?(-*)(?:(\d+)|\*(?:(\d+)\$)?()|)(.)?)", re.DOTALL)


@implements("text_format", "text_format_nv", context=True, typed=True)
def text_format(arg_types: tuple[int, ...], result_type: int) -> Callable[..., str | None]:
    """format(): %s, %I, %L with positions, widths and the left flag."""
    del result_type
    texts = tuple(map(text_of, arg_types[1:]))

    def call(context: EvalContext, template: str | None, *args: Any) -> str | None:
        if template is None:
            return None
        return _Formatter(context, texts, args).format(template)

    return call


class _Formatter:
    """One call of format(): which argument comes next is its state."""

    def __init__(
        self, context: EvalContext, texts: tuple[TextOf, ...], args: tuple[Any, ...]
    ) -> None:
        self.context = context
        self.texts = texts
        self.args = args
        self.next = 0

    def format(self, template: str) -> str:
        """The template with its specifiers replaced."""
        return _SPECIFIER.sub(self._replace, template)

    def _take(self, position: str | None) -> int:
        if position is not None:
            if int(position) == 0:
                raise QueryError(
                    "format specifies argument 0, but arguments are numbered from 1", "22023"
                )
            self.next = int(position)
        else:
            self.next += 1
        if self.next > len(self.args):
            raise QueryError("too few arguments for format()", "22023")
        return self.next - 1

    def _width(self, literal: str | None, position: str | None, *, star: bool) -> int:
        if literal:
            return int(literal)
        if not star:
            return 0
        value = self.args[self._take(position)]
        return 0 if value is None else int(value)

    def _replace(self, match: re.Match[str]) -> str:
        if match[1]:
            return "%"
        position, flags, literal, star_position, star, kind = match.group(2, 3, 4, 5, 6, 7)
        if kind is None:
            raise QueryError(
                "unterminated format() type specifier", "22023", hint='For a single "%" use "%%".'
            )
        width = self._width(literal, star_position, star=star is not None)
        if kind not in "sIL":
            raise QueryError(
                f'unrecognized format() type specifier "{kind}"',
                "22023",
                hint='For a single "%" use "%%".',
            )
        index = self._take(position)
        text = self._convert(kind, index)
        if flags or width < 0:
            return text.ljust(abs(width))
        return text.rjust(width)

    def _convert(self, kind: str, index: int) -> str:
        value = self.args[index]
        if value is None:
            if kind == "I":
                raise QueryError("null values cannot be formatted as an SQL identifier", "22004")
            return "NULL" if kind == "L" else ""
        text = self.texts[index](self.context, value)
        return quote_ident(text) if kind == "I" else quote_literal(text) if kind == "L" else text


# ---------------------------------------------------------------- parse_ident

_IDENTIFIER = re.compile(r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*")
_SPACE = re.compile(r"[ \t\n\r\f\v]*")


@implements("parse_ident")
def parse_ident(text: str, strict: bool) -> Array:
    """The parts of a dotted identifier; unquoted ones folded to lower case."""
    parts: list[str] = []
    at = _SPACE.match(text, 0).end()  # type: ignore[union-attr]
    after_dot = False
    while True:
        part, at = _identifier_part(text, at, after_dot=after_dot)
        parts.append(part)
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] == ".":
            after_dot = True
            at = _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]
        elif at == len(text) or not strict:
            return text_array(parts)
        else:
            raise _invalid_identifier(text)


def _invalid_identifier(text: str, detail: str = "") -> QueryError:
    return QueryError(f'string is not a valid identifier: "{text}"', "22023", detail=detail)


def _identifier_part(text: str, at: int, *, after_dot: bool) -> tuple[str, int]:
    if text[at : at + 1] == '"':
        end = text.find('"', at + 1)
        while end != -1 and text[end + 1 : end + 2] == '"':
            end = text.find('"', end + 2)
        if end == -1:
            raise _invalid_identifier(text, "String has unclosed double quotes.")
        part = text[at + 1 : end].replace('""', '"')
        if not part:
            raise _invalid_identifier(text, "Quoted identifier must not be empty.")
        return part, end + 1
    match = _IDENTIFIER.match(text, at)
    if match:
        from shardforge.sql.functions.text import lower

        return lower(match[0]), match.end()
    if after_dot:
        raise _invalid_identifier(text, 'No valid identifier after ".".')
    if text[at : at + 1] == ".":
        raise _invalid_identifier(text, 'No valid identifier before ".".')
    raise _invalid_identifier(text)
