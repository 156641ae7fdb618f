"""The text and CSV formats of COPY: rows to lines and lines to fields. PURE.

Source: PostgreSQL 15, COPY, "File Formats".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardforge.errors import QueryError

_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPED = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_TO_TEXT = str.maketrans(
    {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
)

Field = str | None


@dataclass(frozen=True, slots=True)
class CopyFormat:
    """The options of one COPY."""

    binary: bool = False
    """`copy_binary` reads and writes it, and nothing below counts."""
    csv: bool = False
    delimiter: str = "\t"
    null: str = "\\N"
    header: bool = False
    header_match: bool = False
    quote: str = '"'
    escape: str = '"'
    force_quote: frozenset[int] | None = frozenset()
    """Columns always quoted; None: all."""
    force_not_null: frozenset[int] = frozenset()
    force_null: frozenset[int] = frozenset()


def _bad(message: str, line: int) -> QueryError:
    return QueryError(message, "22P04", detail=f"COPY, line {line}")


class RecordReader:
    """Cuts a COPY FROM stream into records of fields. Feed it bytes; each call returns the records completed."""

    def __init__(self, form: CopyFormat) -> None:
        self._form = form
        self._rest = ""
        self._undecoded = b""
        self.line = 0
        self.ended = False
        """The end-of-data marker has been read; what follows is ignored."""

    def feed(self, data: bytes) -> list[list[Field]]:
        """The records that `data` completes."""
        text = self._decode(data)
        self._rest += text
        return self._records(final=False)

    def finish(self) -> list[list[Field]]:
        """The last record, if the stream does not end with a newline."""
        if self._undecoded:
            raise QueryError('invalid byte sequence for encoding "UTF8"', "22021")
        return self._records(final=True)

    def _decode(self, data: bytes) -> str:
        data = self._undecoded + data
        try:
            text = data.decode()
            self._undecoded = b""
        except UnicodeDecodeError as error:
            if error.start < len(data) - 3 or error.reason != "unexpected end of data":
                byte = data[error.start]
                raise QueryError(
                    f'invalid byte sequence for encoding "UTF8": 0x{byte:02x}', "22021"
                ) from None
            text = data[: error.start].decode()
            self._undecoded = data[error.start :]
        return text

    def _records(self, *, final: bool) -> list[list[Field]]:
        if self.ended:
            self._rest = ""
            return []
        lines = self._csv_lines(final=final) if self._form.csv else self._text_lines(final=final)
        records = []
        parse = self._csv_fields if self._form.csv else self._text_fields
        for line in lines:
            self.line += 1
            if line == "\\.":
                self.ended = True
                break
            records.append(parse(line))
        return records

    def _text_lines(self, *, final: bool) -> list[str]:
        rest = self._rest
        lines = rest.split("\n")
        if "\\\n" in rest:
            lines = _join_escaped(lines)
        self._rest = lines.pop()
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        return [line.removesuffix("\r") for line in lines] if "\r" in rest else lines

    def _text_fields(self, line: str) -> list[Field]:
        form = self._form
        if "\\" not in line:
            fields: list[Field] = list(line.split(form.delimiter))
            return (
                [None if field == form.null else field for field in fields]
                if form.null in fields
                else fields
            )
        return [
            None if raw == form.null else _unescape(raw)
            for raw in _split_escaped(line, form.delimiter)
        ]

    def _csv_lines(self, *, final: bool) -> list[str]:
        text, quote = self._rest, self._form.quote
        if quote not in text:
            lines = text.split("\n")
        else:
            lines, start, quoted = [], 0, False
            for match in re.finditer(f"{re.escape(quote)}|\n", text):
                if match[0] != "\n":
                    quoted = not quoted
                elif not quoted:
                    lines.append(text[start : match.start()])
                    start = match.end()
            lines.append(text[start:])
            if quoted and final:
                raise _bad("unterminated CSV quoted field", self.line + len(lines))
        self._rest = lines.pop()
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        return [line.removesuffix("\r") for line in lines]

    def _csv_fields(self, line: str) -> list[Field]:
        form = self._form
        fields: list[Field] = []
        position, end = 0, len(line)
        while True:
            value, position, quoted = self._csv_field(line, position)
            offset = len(fields)
            if (
                value == form.null
                and (not quoted or offset in form.force_null)
                and offset not in form.force_not_null
            ):
                fields.append(None)
            else:
                fields.append(value)
            if position >= end:
                return fields
            position += 1
            if position == end:
                fields.append(
                    None if form.null == "" and len(fields) not in form.force_not_null else ""
                )
                return fields

    def _csv_field(self, line: str, position: int) -> tuple[str, int, bool]:
        form = self._form
        pieces: list[str] = []
        quoted = any_quoted = False
        end = len(line)
        while position < end:
            char = line[position]
            if quoted:
                following = line[position + 1 : position + 2]
                if char == form.escape and following and following in (form.quote, form.escape):
                    pieces.append(following)
                    position += 2
                    continue
                if char == form.quote:
                    quoted = False
                else:
                    pieces.append(char)
            elif char == form.quote:
                quoted = any_quoted = True
            elif char == form.delimiter:
                break
            else:
                pieces.append(char)
            position += 1
        return "".join(pieces), position, any_quoted


def _join_escaped(lines: list[str]) -> list[str]:
    joined: list[str] = []
    carry = ""
    for line in lines:
        whole = carry + line
        trailing = len(whole) - len(whole.rstrip("\\"))
        if trailing % 2:
            carry = whole + "\n"
        else:
            joined.append(whole)
            carry = ""
    joined.append(carry.removesuffix("\n") if carry else joined.pop())
    return joined


def _split_escaped(line: str, delimiter: str) -> list[str]:
    fields: list[str] = []
    start = position = 0
    while position < len(line):
        if line[position] == "\\":
            position += 2
        elif line[position] == delimiter:
            fields.append(line[start:position])
            position += 1
            start = position
        else:
            position += 1
    fields.append(line[start:])
    return fields


def _unescape(raw: str) -> str:
    if "\\" not in raw:
        return raw

    def replacement(match: re.Match[str]) -> str:
        octal, hexadecimal, other = match.groups()
        if octal:
            return chr(int(octal, 8) & 0xFF)
        if hexadecimal:
            return chr(int(hexadecimal, 16))
        return _ESCAPES.get(other, other)

    return _ESCAPED.sub(replacement, raw)


def line_writer(form: CopyFormat) -> Callable[[Sequence[Field]], str]:
    """Fields of one row to its line, newline included."""
    if form.csv:
        return lambda fields: (
            form.delimiter.join(_csv_out(f, i, form) for i, f in enumerate(fields)) + "\n"
        )
    table = dict(_TO_TEXT)
    table[ord(form.delimiter)] = "\\t" if form.delimiter == "\t" else "\\" + form.delimiter
    null, delimiter = form.null, form.delimiter
    return lambda fields: (
        delimiter.join([null if f is None else f.translate(table) for f in fields]) + "\n"
    )


def _csv_out(field: Field, offset: int, form: CopyFormat) -> str:
    if field is None:
        return form.null
    forced = form.force_quote is None or offset in form.force_quote
    special = (
        field == form.null
        or field == "\\."
        or any(c in field for c in (form.delimiter, form.quote, "\n", "\r"))
    )
    if not forced and not special:
        return field
    body = field.replace(form.escape, form.escape * 2) if form.escape != form.quote else field
    return form.quote + body.replace(form.quote, form.escape + form.quote) + form.quote
