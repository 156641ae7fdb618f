"""Values to wire bytes and back, in the text (0) and binary (1) formats, by type. PURE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from shardforge.errors import QueryError, unsupported
from shardforge.server.pgwire import backend
from shardforge.server.pgwire.frontend import malformed
from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.session.settings import Settings
from shardforge.sql.types.registry import (
    input_function,
    output_function,
    receive_function,
    send_function,
    type_by_oid,
)

Encoder = Callable[[Any], bytes]
Decoder = Callable[[bytes], Any]

_INTEGERS = {20, 21, 23, 26}
_TEXTS = {25, 1043, 19, 705, 1042, 114}
_DIGITS = {21: 4, 23: 9, 20: 18}
"""So many decimal digits are surely a value of the type."""
_BOOL = 16
SHAPES_MAX = 200


def _bool_text(value: bool) -> bytes:  # a value of the type
    return b"t" if value else b"f"


def _int_text(value: int) -> bytes:
    return b"%d" % value


def encoder(type_oid: int, form: int, settings: Settings) -> Encoder:
    """The function from a value of the type to its bytes."""
    if form == 1:
        return send_function(type_oid, settings)
    if type_oid in _INTEGERS:
        return _int_text
    if type_oid in _TEXTS:
        return str.encode
    if type_oid == _BOOL:
        return _bool_text
    output = output_function(type_oid, settings)
    return lambda value: output(value).encode()


def decoder(type_oid: int, form: int, settings: Settings) -> Decoder:
    """The function from a parameter's bytes to its value; raises QueryError for bytes that are no such value."""
    if form == 1:
        return receive_function(type_oid, settings)
    read = input_function(type_oid, settings)

    def decode(raw: bytes) -> Any:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            raise QueryError(
                f'invalid byte sequence for encoding "UTF8": 0x{byte:02x}', "22021"
            ) from None
        if "\0" in text:
            raise QueryError('invalid byte sequence for encoding "UTF8": 0x00', "22021")
        return read(text)

    digits = _DIGITS.get(type_oid, 0)

    def decode_digits(raw: bytes) -> Any:
        if len(raw) <= digits and raw.isdigit():
            return int(raw)
        return decode(raw)

    return decode_digits if digits else decode


def _description(columns: Sequence[OutputColumn], formats: Sequence[int]) -> bytes:
    return backend.row_description(
        (c.name, c.table, max(c.attnum, 0), c.type, type_by_oid(c.type).length, c.typmod, form)
        for c, form in zip(columns, formats, strict=True)
    )


class Codecs:
    """Encoders and decoders of one session, remembered until a setting that they depend on changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version = -1
        self._encoders: dict[tuple[int, int], Encoder] = {}
        self._decoders: dict[tuple[int, int], Decoder] = {}
        self._readers: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Decoder]] = {}
        """By the types of parameters and the formats given for them."""
        self._shapes: dict[tuple[int, Sequence[int]], Shape] = {}
        """By the identity of the columns, which a shape keeps alive."""

    def _check(self) -> None:
        if self._settings.version != self._version:
            self._version = self._settings.version
            self._encoders.clear()
            self._shapes.clear()
            self._decoders.clear()
            self._readers.clear()

    def shape(self, columns: Sequence[OutputColumn], formats: Sequence[int]) -> Shape:
        """Encoders and description of rows of `columns`, remembered."""
        self._check()
        key = (id(columns), formats)
        found = self._shapes.get(key)
        if found is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            forms = expand(formats, len(columns), "result")
            encoders = self._encoders_of([column.type for column in columns], forms)
            found = Shape(columns, formats, encoders, _description(columns, forms))
            self._shapes[key] = found
        return found

    def _encoders_of(self, types: Sequence[int], formats: Sequence[int]) -> list[Encoder]:
        found = []
        for pair in zip(types, formats, strict=True):
            made = self._encoders.get(pair)
            if made is None:
                made = self._encoders[pair] = encoder(*pair, self._settings)
            found.append(made)
        return found

    def decode(
        self, values: Sequence[bytes | None], types: tuple[int, ...], formats: tuple[int, ...]
    ) -> list[Any]:
        """Parameter values from their bytes."""
        if not values:
            return []
        self._check()
        key = (types, formats)
        decoders = self._readers.get(key)
        if decoders is None or len(decoders) != len(values):
            decoders = self._decoders_of(types, expand(formats, len(values), "parameter"))
            if len(self._readers) >= SHAPES_MAX:
                self._readers.clear()
            self._readers[key] = decoders
        decoded: list[Any] = []
        try:
            for raw, read in zip(values, decoders, strict=True):
                decoded.append(None if raw is None else read(raw))
        except (ValueError, IndexError, ArithmeticError) as error:
            raise QueryError(
                f"incorrect binary data format in bind parameter {len(decoded) + 1}", "22P03"
            ) from error
        return decoded

    def _decoders_of(self, types: Sequence[int], formats: Sequence[int]) -> list[Decoder]:
        found = []
        for pair in zip(types, formats, strict=True):
            made = self._decoders.get(pair)
            if made is None:
                made = self._decoders[pair] = decoder(*pair, self._settings)
            found.append(made)
        return found


class Shape(NamedTuple):
    """How the rows of one statement travel in the formats asked for."""

    columns: Sequence[OutputColumn]
    formats: Sequence[int]
    encoders: list[Encoder]
    description: bytes
    """The RowDescription message."""


def expand(formats: Sequence[int], count: int, what: str) -> Sequence[int]:
    """The format of each of `count` values: none given is all text, one given is for all."""
    if len(formats) == count:
        given = formats
    elif not formats:
        return (0,) * count
    elif len(formats) == 1:
        given = formats * count if isinstance(formats, tuple) else tuple(formats) * count
    else:
        raise malformed(f"{len(formats)} {what} formats for {count} values")
    for form in given:
        if form not in (0, 1):
            raise unsupported(f"format code {form}")
    return given
