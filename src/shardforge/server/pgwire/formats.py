"""Values to wire bytes and back, in the text (0) and binary (1) formats, by type. PURE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.server.pgwire.frontend import malformed
from shardforge.sql.session.settings import Settings
from shardforge.sql.types.registry import (
    input_function,
    output_function,
    receive_function,
    send_function,
)

Encoder = Callable[[Any], bytes]
Decoder = Callable[[bytes], Any]

_INTEGERS = {20, 21, 23, 26}
_TEXTS = {25, 1043, 19, 705, 1042, 114}
_BOOL = 16


def _bool_text(value: bool) -> bytes:  # a value of the type
    return b"t" if value else b"f"


def _int_text(value: int) -> bytes:
    return b"%d" % value


def encoder(type_oid: int, form: int, settings: Settings) -> Encoder:
    """The function from a value of the type to its bytes."""
    if form == 1:
        return send_function(type_oid)
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
        return receive_function(type_oid)
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

    return decode


class Codecs:
    """Encoders and decoders of one session, remembered until a setting that they depend on changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._binding: Any = None
        self._encoders: dict[tuple[int, int], Encoder] = {}
        self._decoders: dict[tuple[int, int], Decoder] = {}

    def _check(self) -> None:
        settings = self._settings
        binding = (
            settings.binding,
            settings.bytea_output,
            settings.extra_float_digits,
            settings.intervalstyle,
        )
        if binding != self._binding:
            self._binding = binding
            self._encoders.clear()
            self._decoders.clear()

    def encoders(self, types: Sequence[int], formats: Sequence[int]) -> list[Encoder]:
        """One encoder a column."""
        self._check()
        found = []
        for pair in zip(types, expand(formats, len(types), "result"), strict=True):
            made = self._encoders.get(pair)
            if made is None:
                made = self._encoders[pair] = encoder(*pair, self._settings)
            found.append(made)
        return found

    def decode(
        self, values: Sequence[bytes | None], types: Sequence[int], formats: Sequence[int]
    ) -> list[Any]:
        """Parameter values from their bytes."""
        if not values:
            return []
        self._check()
        decoded: list[Any] = []
        decoders = self._decoders
        for number, (raw, *pair) in enumerate(
            zip(values, types, expand(formats, len(values), "parameter"), strict=True), start=1
        ):
            if raw is None:
                decoded.append(None)
                continue
            key = (pair[0], pair[1])
            read = decoders.get(key)
            if read is None:
                read = decoders[key] = decoder(*key, self._settings)
            try:
                decoded.append(read(raw))
            except QueryError:
                raise
            except (ValueError, IndexError, ArithmeticError) as error:
                raise QueryError(
                    f"incorrect binary data format in bind parameter {number}", "22P03"
                ) from error
        return decoded


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
