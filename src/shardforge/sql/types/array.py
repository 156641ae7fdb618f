"""Arrays of any element type: text form, binary form, order.

The codec of an array type is made from its element's by `array_codec`. Text follows PostgreSQL's quoting rules,
with explicit bounds when a dimension does not begin at 1. Order is element-wise with NULL last, then by size and
shape. Source: PostgreSQL 15, section 8.15.6, and array_in, array_out, array_cmp.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.types.base import (
    Codec,
    Coercion,
    Input,
    Output,
    Receive,
    Send,
    SqlType,
    TypeSettings,
    bad_binary,
    cut_short,
)
from shardforge.sql.types.values import Array

MAX_DIMENSIONS = 6
MAX_ELEMENTS = 134_217_727
EMPTY = Array(())

_SPACE = " \t\n\r\v\f"
_PLAIN = re.compile(r"\{[^\"\\{}\s,]+(?:,[^\"\\{}\s,]+)*\}")
_MUST_QUOTE = re.compile(r'["\\{},\s]')
_MISMATCH = "Multidimensional arrays must have sub-arrays with matching dimensions."


def _malformed(text: str, detail: str) -> QueryError:
    return QueryError(f'malformed array literal: "{text}"', "22P02", detail=detail)


def too_many_dimensions(count: int) -> QueryError:
    """54000: the array would have more dimensions than there can be."""
    return QueryError(
        f"number of array dimensions ({count}) exceeds the maximum allowed ({MAX_DIMENSIONS})",
        "54000",
    )


def subscript_error(message: str, detail: str = "") -> QueryError:
    """2202E: subscripts or shapes do not fit."""
    return QueryError(message, "2202E", detail=detail)


def check_size(dims: Sequence[int]) -> None:
    """Refuse an array larger than PostgreSQL's limit."""
    if prod(dims) > MAX_ELEMENTS:
        raise QueryError(f"array size exceeds the maximum allowed ({MAX_ELEMENTS})", "54000")


# Text input -------------------------------------------------------------------------------------


class _Reader:
    """One pass over the braces: elements row-major and the shape."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.at = start
        self.elements: list[str | None] = []
        self.dims: list[int] = []

    def fail(self, detail: str) -> QueryError:
        return _malformed(self.text, detail)

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1
        if self.at >= len(self.text):
            raise self.fail("Unexpected end of input.")
        return self.text[self.at]

    def level(self, depth: int) -> None:
        """Reads from a left brace to its right brace."""
        if depth >= MAX_DIMENSIONS:
            raise too_many_dimensions(depth + 1)
        self.at += 1
        if self.peek() == "}":
            if depth:
                raise self.fail('Unexpected "}" character.')
            self.at += 1
            return
        nested = self.text[self.at] == "{"
        count = 0
        while True:
            self.item(depth, nested=nested, first=count == 0)
            count += 1
            char = self.peek()
            self.at += 1
            if char == "}":
                break
            if char != ",":
                raise self.fail(
                    f'Unexpected "{char}" character.'
                    if char in "{\\"
                    else "Unexpected array element."
                )
        while len(self.dims) <= depth:
            self.dims.append(-1)
        if self.dims[depth] not in (-1, count):
            raise self.fail(_MISMATCH)
        self.dims[depth] = count

    def item(self, depth: int, *, nested: bool, first: bool) -> None:
        char = self.peek()
        if nested:
            if char == "{":
                self.level(depth + 1)
            elif char in "},":
                raise self.fail(f'Unexpected "{char}" character.')
            else:
                raise self.fail("Unexpected array element.")
            return
        if char in "{},":
            raise self.fail(f'Unexpected "{char}" character.')
        if len(self.dims) > depth + 1:
            raise self.fail(_MISMATCH)
        self.elements.append(self.quoted() if char == '"' else self.unquoted())

    def quoted(self) -> str:
        out: list[str] = []
        text = self.text
        self.at += 1
        while True:
            if self.at >= len(text):
                raise self.fail("Unexpected end of input.")
            char = text[self.at]
            self.at += 1
            if char == '"':
                return "".join(out)
            if char == "\\":
                char = text[self.at : self.at + 1]
                self.at += 1
                if not char:
                    raise self.fail("Unexpected end of input.")
            out.append(char)

    def unquoted(self) -> str | None:
        out: list[str] = []
        text = self.text
        keep = 0
        escaped = False
        while True:
            if self.at >= len(text):
                raise self.fail("Unexpected end of input.")
            char = text[self.at]
            if char in "},":
                break
            if char == '"':
                raise self.fail("Unexpected array element.")
            if char == "{":
                raise self.fail('Unexpected "{" character.')
            self.at += 1
            if char == "\\":
                char = text[self.at : self.at + 1]
                if not char:
                    raise self.fail("Unexpected end of input.")
                self.at += 1
                escaped = True
                out.append(char)
                keep = len(out)
                continue
            out.append(char)
            if char not in _SPACE:
                keep = len(out)
        value = "".join(out[:keep])
        return None if not escaped and value.upper() == "NULL" else value


_DIMENSION = re.compile(r"\[\s*([+-]?\d*)\s*(?::\s*([+-]?\d*)\s*)?")


def _read_bounds(text: str) -> tuple[list[tuple[int, int]], int]:
    """Explicit bounds such as [2:3][0:1]= and where they end."""
    at = len(text) - len(text.lstrip(_SPACE))
    bounds: list[tuple[int, int]] = []
    while text.startswith("[", at):
        if len(bounds) >= MAX_DIMENSIONS:
            raise too_many_dimensions(len(bounds) + 1)
        match = _DIMENSION.match(text, at)
        assert match is not None, "it begins with a bracket"
        first, second = match.groups()
        if not first:
            raise _malformed(text, '"[" must introduce explicitly-specified array dimensions.')
        if second == "":
            raise _malformed(text, "Missing array dimension value.")
        if not text.startswith("]", match.end()):
            raise _malformed(text, 'Missing "]" after array dimensions.')
        lower, upper = (1, int(first)) if second is None else (int(first), int(second))
        if upper < lower:
            raise subscript_error("upper bound cannot be less than lower bound")
        bounds.append((lower, upper))
        at = match.end() + 1
        at += len(text[at:]) - len(text[at:].lstrip(_SPACE))
    if not bounds:
        if not text.startswith("{", at):
            raise _malformed(text, 'Array value must start with "{" or dimension information.')
        return [], at
    if not text.startswith("=", at):
        raise _malformed(text, 'Missing "=" after array dimensions.')
    at += 1
    at += len(text[at:]) - len(text[at:].lstrip(_SPACE))
    if not text.startswith("{", at):
        raise _malformed(text, 'Array contents must start with "{".')
    return bounds, at


def parse_array(text: str, element: Input) -> Array:
    """Reads the text form, each element with `element`."""
    if _PLAIN.fullmatch(text):
        parts = text[1:-1].split(",")
        return Array(tuple([None if p.upper() == "NULL" else element(p) for p in parts]))
    bounds, at = _read_bounds(text)
    reader = _Reader(text, at)
    reader.level(0)
    if text[reader.at :].strip(_SPACE):
        raise _malformed(text, "Junk after closing right brace.")
    dims = tuple(reader.dims)
    if bounds and tuple(upper - lower + 1 for lower, upper in bounds) != dims:
        raise _malformed(text, "Specified array dimensions do not match array contents.")
    if not dims:
        return EMPTY
    if prod(dims) != len(reader.elements):
        raise _malformed(text, _MISMATCH)
    check_size(dims)
    elements = tuple([None if item is None else element(item) for item in reader.elements])
    return Array(elements, dims, tuple(lower for lower, _ in bounds) if bounds else None)


# Text output --------------------------------------------------------------------------------------


def quote_element(text: str) -> str:
    """An element's text, quoted when it could be misread."""
    if not text or _MUST_QUOTE.search(text) or text.upper() == "NULL":
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def nested(items: Sequence[Any], dims: Sequence[int], join: Callable[[Sequence[Any]], Any]) -> Any:
    """Folds row-major `items` by dimension, innermost first, with `join`."""
    for size in reversed(dims):
        items = [join(items[i : i + size]) for i in range(0, len(items), size)]
    return items[0]


def format_array(value: Array, element: Output) -> str:
    """The text form, each element written with `element`."""
    if not value.dims:
        return "{}"
    texts = ["NULL" if item is None else quote_element(element(item)) for item in value.elements]
    body: str = nested(texts, value.dims, lambda parts: "{" + ",".join(parts) + "}")
    if any(bound != 1 for bound in value.lower):
        return dimensions_text(value) + "=" + body
    return body


def dimensions_text(value: Array) -> str:
    """The bounds, as [1:2][0:3]."""
    return "".join(
        f"[{lower}:{lower + size - 1}]" for lower, size in zip(value.lower, value.dims, strict=True)
    )


# Binary ---------------------------------------------------------------------------------------------


def _receive(array_type: SqlType, receive_element: Receive) -> Callable[[bytes], Array]:
    def receive(data: bytes) -> Array:
        if len(data) < 12:
            raise cut_short()
        count, flags, oid = struct.unpack_from(">iiI", data)
        if not 0 <= count <= MAX_DIMENSIONS or flags not in (0, 1):
            raise QueryError("invalid array flags", "22P03")
        if oid != array_type.element:
            raise QueryError("wrong element type", "42804")
        at = 12 + 8 * count
        if at > len(data):
            raise cut_short()
        shape = [struct.unpack_from(">ii", data, 12 + 8 * i) for i in range(count)]
        dims = tuple(size for size, _ in shape)
        if not count or not prod(dims):
            return EMPTY
        check_size(dims)
        elements: list[Any] = []
        for _ in range(prod(dims)):
            if at + 4 > len(data):
                raise cut_short()
            (length,) = struct.unpack_from(">i", data, at)
            at += 4
            if length < 0:
                elements.append(None)
                continue
            if at + length > len(data):
                raise cut_short()
            elements.append(receive_element(data[at : at + length]))
            at += length
        if at != len(data):
            raise bad_binary()
        return Array(tuple(elements), dims, tuple(lower for _, lower in shape))

    return receive


def _send(array_type: SqlType, send_element: Send) -> Callable[[Array], bytes]:
    def send(value: Array) -> bytes:
        out = bytearray(
            struct.pack(">iiI", len(value.dims), None in value.elements, array_type.element)
        )
        for size, lower in zip(value.dims, value.lower, strict=True):
            out += struct.pack(">ii", size, lower)
        for item in value.elements:
            if item is None:
                out += b"\xff\xff\xff\xff"
            else:
                data = send_element(item)
                out += struct.pack(">i", len(data))
                out += data
        return bytes(out)

    return send


def array_sort_key(element: Callable[[Any], Any] | None) -> Callable[[Array], Any]:
    """The key whose order and equality are array_cmp's, from the elements' key."""

    def key(value: Array) -> Any:
        if element is None:
            items = tuple([(1,) if v is None else (0, v) for v in value.elements])
        else:
            items = tuple([(1,) if v is None else (0, element(v)) for v in value.elements])
        return items, len(value.dims), value.dims, value.lower

    return key


def _coercion(element: Codec) -> Callable[[int, bool], Coercion]:
    def make(typmod: int, explicit: bool) -> Coercion:
        assert element.coercion is not None, "array_codec offers coercion only then"
        apply = element.coercion(typmod, explicit)
        return lambda value: Array(
            tuple([None if item is None else apply(item) for item in value.elements]),
            value.dims,
            value.lower,
        )

    return make


def array_codec(array_type: SqlType, element: Codec) -> Codec:
    """How values of `array_type` are handled, from how their elements are."""

    def reader(settings: TypeSettings) -> Input:
        read = element.input(settings)
        return lambda text: parse_array(text, read)

    def writer(settings: TypeSettings) -> Output:
        write = element.output(settings)
        return lambda value: format_array(value, write)

    return Codec(
        array_type.oid,
        input=reader,
        output=writer,
        receive=lambda settings: _receive(array_type, element.receive(settings)),
        send=lambda settings: _send(array_type, element.send(settings)),
        sort_key=array_sort_key(element.sort_key),
        coercion=_coercion(element) if element.coercion else None,
        typmod_in=element.typmod_in,
        typmod_out=element.typmod_out,
    )
