"""bytea (hex and escape forms) and uuid. Source: PostgreSQL 15, src/backend/utils/adt/{varlena,encode,uuid}.c."""

from __future__ import annotations

import re

from shardforge.errors import QueryError
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Output, TypeSettings, invalid_input, plain, unpacker

_BLANKS = re.compile(r"[ \t\n\r]+")
_ESCAPE = re.compile(rb"\\(?:(\\)|([0-3][0-7][0-7])|)")
_NOT_HEX = re.compile("[^0-9a-fA-F]")
_UUID = re.compile(r"\{?(?:[0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}\}?")


def decode_hex(text: str) -> bytes:
    """Pairs of hexadecimal digits, blanks between pairs allowed; 22023 otherwise."""
    if _NOT_HEX.search(text) is None and len(text) % 2 == 0:
        return bytes.fromhex(text)
    out = bytearray()
    for word in _BLANKS.split(text):
        wrong = _NOT_HEX.search(word)
        if wrong:
            raise QueryError(f'invalid hexadecimal digit: "{wrong[0]}"', "22023")
        if len(word) % 2:
            raise QueryError("invalid hexadecimal data: odd number of digits", "22023")
        out += bytes.fromhex(word)
    return bytes(out)


def decode_escaped(text: str) -> bytes:
    r"""The escape form: \\ for a backslash, \ooo for a byte."""

    def replace(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return b"\\"
        if match[2]:
            return bytes([int(match[2], 8)])
        raise QueryError("invalid input syntax for type bytea", "22P02")

    return _ESCAPE.sub(replace, text.encode())


def encode_escaped(value: bytes) -> str:
    """The escape form: printable ASCII as itself."""
    return "".join(
        "\\\\" if byte == 0x5C else chr(byte) if 0x20 <= byte <= 0x7E else f"\\{byte:03o}"
        for byte in value
    )


def parse_bytea(text: str) -> bytes:
    """byteain."""
    if text.startswith("\\x"):
        return decode_hex(text[2:])
    return decode_escaped(text) if "\\" in text else text.encode()


def format_hex(value: bytes) -> str:
    """byteaout with bytea_output = hex."""
    return "\\x" + value.hex()


def _bytea_writer(settings: TypeSettings) -> Output:
    return encode_escaped if settings.bytea_output == "escape" else format_hex


def parse_uuid(text: str) -> bytes:
    """uuid_in: 32 digits, hyphens after any group of four, braces around them or not."""
    if _UUID.fullmatch(text) is None or text.startswith("{") != text.endswith("}"):
        raise invalid_input("uuid", text)
    return bytes.fromhex(text.strip("{}").replace("-", ""))


def format_uuid(value: bytes) -> str:
    """uuid_out."""
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_unpack_uuid = unpacker("!16s")


def _receive_uuid(data: bytes) -> bytes:
    value: bytes = _unpack_uuid(data)[0]
    return value


CODECS = (
    Codec(oids.BYTEA, plain(parse_bytea), _bytea_writer, plain(bytes), plain(bytes)),
    Codec(oids.UUID, plain(parse_uuid), plain(format_uuid), plain(_receive_uuid), plain(bytes)),
)
