"""Functions of text. The collation is C; case follows Unicode's simple mappings, as PostgreSQL's C.UTF-8 does.

Lengths and positions count characters. Source: PostgreSQL 15, src/backend/utils/adt/{varlena,oracle_compat,quote}.c.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.strings import (
    bpchar_coercion,
    same,
    truncated_name,
    varchar_coercion,
)
from shardforge.sql.types.values import Array

LENGTH_BYTES_MAX = 1_073_741_819


def _too_large() -> QueryError:
    return QueryError("requested length too large", "54000")


def text_array(values: list[str | None] | list[str]) -> Array:
    """A text[] of one dimension."""
    return Array(tuple(values))


# ---------------------------------------------------------------- case, length, order


def _simple(text: str, change: Callable[[str], str]) -> str:
    """Each character by Unicode's simple case mapping: one that would become two stays."""
    return "".join([c if len(changed := change(c)) != 1 else changed for c in text])


@implements("upper")
def upper(text: str) -> str:
    """Upper case, character by character."""
    return text.upper() if text.isascii() else _simple(text, str.upper)


@implements("lower")
def lower(text: str) -> str:
    """Lower case, character by character."""
    return text.lower() if text.isascii() else _simple(text, str.lower)


_WORD = re.compile(r"[^\W_]+")


@implements("initcap")
def initcap(text: str) -> str:
    """The first letter of each word (letters and digits) in upper case, the others in lower."""
    return _WORD.sub(lambda word: upper(word[0][0]) + lower(word[0][1:]), text)


implements("textlen")(len)
implements("textoctetlen")(lambda text: len(text) if text.isascii() else len(text.encode()))
implements("bit_length(text)")(lambda text: 8 * len(text.encode()))
implements("bpcharlen")(lambda text: len(text.rstrip(" ")))
implements("bpcharoctetlen")(lambda text: len(text.encode()))
implements("text_reverse")(lambda text: text[::-1])


@implements("repeat")
def repeat(text: str, count: int) -> str:
    """`count` copies; none when negative."""
    if count > 0 and len(text.encode()) * count > LENGTH_BYTES_MAX:
        raise _too_large()
    return text * count


@implements("ascii")
def ascii_code(text: str) -> int:
    """The first character's code point; 0 for an empty text."""
    return ord(text[0]) if text else 0


@implements("chr")
def character(code: int) -> str:
    """The character with this code point."""
    if code < 0:
        raise QueryError("character number must be positive", "22023")
    if code == 0:
        raise QueryError("null character not permitted", "54000")
    if code > 0x10FFFF:
        raise QueryError(f"requested character too large for encoding: {code}", "54000")
    if 0xD800 <= code <= 0xDFFF:
        raise QueryError(f"requested character not valid for encoding: {code}", "54000")
    return chr(code)


# ---------------------------------------------------------------- parts


def _substring(value: Any, start: int, length: int) -> Any:
    if length < 0:
        raise QueryError("negative substring length not allowed", "22011")
    end = start + length
    return value[max(start - 1, 0) : max(end - 1, 0)]


implements("text_substr", "bytea_substr")(_substring)
implements("text_substr_no_len", "bytea_substr_no_len")(
    lambda value, start: value[max(start - 1, 0) :]
)


def _overlay(value: Any, replacement: Any, start: int, length: int) -> Any:
    if start <= 0:
        raise QueryError("negative substring length not allowed", "22011")
    end = start + length
    if end > 2**31 - 1:
        raise QueryError("integer out of range", "22003")
    return value[: start - 1] + replacement + value[max(end - 1, 0) :]


implements("textoverlay", "byteaoverlay")(_overlay)
implements("textoverlay_no_len", "byteaoverlay_no_len")(
    lambda value, replacement, start: _overlay(value, replacement, start, len(replacement))
)
implements("textpos", "byteapos")(lambda value, part: value.find(part) + 1)
implements("text_starts_with")(lambda text, prefix: text.startswith(prefix))
implements("text_left")(lambda text, count: text[:count])
implements("text_right")(lambda text, count: text[-count:] if count else "")


@implements("split_part")
def split_part(text: str, delimiter: str, position: int) -> str:
    """The field at a position, from the end when negative; empty when there is none."""
    if position == 0:
        raise QueryError("field position must not be zero", "22023")
    if not text:
        return ""
    fields = text.split(delimiter) if delimiter else [text]
    index = position - 1 if position > 0 else len(fields) + position
    return fields[index] if 0 <= index < len(fields) else ""


# ---------------------------------------------------------------- trimming, padding, replacing


implements("btrim", "byteatrim")(
    lambda value, characters: value.strip(characters) if characters else value
)
implements("ltrim", "bytealtrim")(
    lambda value, characters: value.lstrip(characters) if characters else value
)
implements("rtrim", "byteartrim")(
    lambda value, characters: value.rstrip(characters) if characters else value
)
implements("btrim1")(lambda text: text.strip(" "))
implements("ltrim1")(lambda text: text.lstrip(" "))
implements("rtrim1")(lambda text: text.rstrip(" "))


def _padding(length: int, fill: str) -> str:
    return (fill * (length // len(fill) + 1))[:length]


@implements("lpad")
def lpad(text: str, length: int, fill: str) -> str:
    """Fill up on the left to a length, or cut to it."""
    if length > LENGTH_BYTES_MAX // 4:
        raise _too_large()
    missing = length - len(text)
    if missing <= 0:
        return text[: max(length, 0)]
    return _padding(missing, fill) + text if fill else text


@implements("rpad")
def rpad(text: str, length: int, fill: str) -> str:
    """Fill up on the right to a length, or cut to it."""
    if length > LENGTH_BYTES_MAX // 4:
        raise _too_large()
    missing = length - len(text)
    if missing <= 0:
        return text[: max(length, 0)]
    return text + _padding(missing, fill) if fill else text


implements("lpad(text,integer)")(lambda text, length: lpad(text, length, " "))
implements("rpad(text,integer)")(lambda text, length: rpad(text, length, " "))


@implements("replace_text")
def replace(text: str, old: str, new: str) -> str:
    """Every occurrence; an empty pattern occurs nowhere."""
    return text.replace(old, new) if old else text


@implements("translate")
def translate(text: str, characters: str, replacements: str) -> str:
    """Character by character; those without a replacement are dropped, and the first mapping counts."""
    table: dict[int, str] = {}
    for position, char in enumerate(characters):
        table.setdefault(ord(char), replacements[position : position + 1])
    return text.translate(table)


# ---------------------------------------------------------------- joining (splitting is in `arrays_text`)


@implements("textcat", "byteacat")
def concatenate(a: Any, b: Any) -> Any:
    """a || b."""
    return a + b


# ---------------------------------------------------------------- conversions between string types

implements("name_text", "name_bpchar", "char_text", "char_bpchar")(same)
implements("text_name")(truncated_name)
implements("bpchar_name")(lambda text: truncated_name(text.rstrip(" ")))


@implements("text_char")
def text_char(text: str) -> str:
    """The first byte."""
    from shardforge.sql.types.strings import parse_char

    return parse_char(text)


@implements("nameconcatoid")
def nameconcatoid(name: str, oid: int) -> str:
    """name_oid, the name cut so that it fits."""
    suffix = f"_{oid}"
    return name.encode()[: 63 - len(suffix)].decode(errors="ignore") + suffix


@implements("varchar")
def varchar(text: str, typmod: int, explicit: bool) -> Any:
    """The length coercion to varchar(n)."""
    return text if typmod < 5 else varchar_coercion(typmod, explicit)(text)


@implements("bpchar")
def bpchar(text: str, typmod: int, explicit: bool) -> Any:
    """The length coercion to char(n)."""
    return text if typmod < 5 else bpchar_coercion(typmod, explicit)(text)


# ---------------------------------------------------------------- Unicode


_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def _form(name: str) -> Any:
    if name.upper() not in _FORMS:
        raise QueryError(f"invalid normalization form: {name}", "22023")
    return name.upper()


implements("unicode_normalize_func")(lambda text, form: unicodedata.normalize(_form(form), text))
implements("unicode_is_normalized")(lambda text, form: unicodedata.is_normalized(_form(form), text))

_UNICODE_ESCAPE = re.compile(
    r"\\(?:(\\)|([0-9a-fA-F]{4})|\+([0-9a-fA-F]{6})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))?"
)


@implements("unistr")
def unistr(text: str) -> str:
    r"""Unicode escapes: \XXXX, \+XXXXXX, \uXXXX, \UXXXXXXXX; surrogate pairs are joined."""
    codes: list[int] = []
    at = 0
    for match in _UNICODE_ESCAPE.finditer(text):
        codes += map(ord, text[at : match.start()])
        at = match.end()
        digits = match[2] or match[3] or match[4] or match[5]
        if match[1]:
            codes.append(ord("\\"))
        elif digits is None:
            raise QueryError(
                "invalid Unicode escape",
                "42601",
                hint="Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.",
            )
        else:
            _append_code(codes, int(digits, 16))
    codes += map(ord, text[at:])
    if any(0xD800 <= code <= 0xDFFF for code in codes):
        raise QueryError("invalid Unicode surrogate pair", "42601")
    return "".join(map(chr, codes))


def _append_code(codes: list[int], code: int) -> None:
    if code == 0 or code > 0x10FFFF:
        raise QueryError("invalid Unicode code point: %04X" % code, "42601")  # noqa: UP031
    if 0xDC00 <= code <= 0xDFFF and codes and 0xD800 <= codes[-1] <= 0xDBFF:
        codes[-1] = ((codes[-1] & 0x3FF) << 10) + 0x10000 + (code & 0x3FF)
    else:
        codes.append(code)
