"""Digests, encode/decode, character sets, and bytea's bits and bytes.

Source: PostgreSQL 15, src/backend/utils/adt/{cryptohashfuncs,encode,varlena}.c and commands of mb/mbutils.c.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql import pgdata
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.binary import decode_escaped, decode_hex
from shardforge.sql.types.registry import send_function, supported

implements("md5_text")(lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
implements("md5_bytea")(lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest())
implements("sha224_bytea")(lambda data: hashlib.sha224(data).digest())
implements("sha256_bytea")(lambda data: hashlib.sha256(data).digest())
implements("sha384_bytea")(lambda data: hashlib.sha384(data).digest())
implements("sha512_bytea")(lambda data: hashlib.sha512(data).digest())


# ---------------------------------------------------------------- encode, decode


def _encode_base64(data: bytes) -> str:
    """Lines of 76 characters with line feeds between them."""
    text = base64.b64encode(data).decode("ascii")
    return "\n".join(text[at : at + 76] for at in range(0, len(text), 76))


_BASE64 = {
    char: code
    for code, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}


def _decode_base64(text: str) -> bytes:
    out = bytearray()
    buffer = position = end = 0
    for char in text:
        if char in " \t\n\r":
            continue
        if char == "=":
            if not end:
                end = {2: 1, 3: 2}.get(position, 0)
                if not end:
                    raise QueryError('unexpected "=" while decoding base64 sequence', "22023")
            code = 0
        else:
            found = _BASE64.get(char)
            if found is None:
                raise QueryError(
                    f'invalid symbol "{char}" found while decoding base64 sequence', "22023"
                )
            code = found
        buffer = (buffer << 6) + code
        position += 1
        if position == 4:
            data = buffer.to_bytes(3, "big")
            out += data[: end or 3]
            buffer = position = 0
    if position:
        raise QueryError(
            "invalid base64 end sequence",
            "22023",
            hint="Input data is missing padding, is truncated, or is otherwise corrupted.",
        )
    return bytes(out)


def _encode_escape(data: bytes) -> str:
    r"""Zero bytes and those above 127 as \ooo, backslashes doubled."""
    return "".join(
        "\\\\" if byte == 0x5C else f"\\{byte:03o}" if byte == 0 or byte > 127 else chr(byte)
        for byte in data
    )


_ENCODERS: dict[str, tuple[Callable[[bytes], str], Callable[[str], bytes]]] = {
    "hex": (bytes.hex, decode_hex),
    "base64": (_encode_base64, _decode_base64),
    "escape": (_encode_escape, decode_escaped),
}


def _format(name: str) -> tuple[Callable[[bytes], str], Callable[[str], bytes]]:
    found = _ENCODERS.get(name.lower())
    if found is None:
        raise QueryError(f'unrecognized encoding: "{name}"', "22023")
    return found


implements("binary_encode")(lambda data, name: _format(name)[0](data))
implements("binary_decode")(lambda text, name: _format(name)[1](text))


# ---------------------------------------------------------------- character sets

_PYTHON_CODECS = {
    "utf8": "utf-8", "unicode": "utf-8", "latin1": "iso8859-1", "iso88591": "iso8859-1", "latin2": "iso8859-2",
    "iso88592": "iso8859-2", "latin9": "iso8859-15", "win1252": "cp1252", "win1251": "cp1251", "win1250": "cp1250",
    "sqlascii": "",
}  # fmt: skip


def _codec(name: str, role: str) -> str:
    key = name.lower().replace("-", "").replace("_", "")
    if key not in _PYTHON_CODECS:
        from shardforge.sql.functions.session_info import encoding_number

        if encoding_number(name) < 0:
            raise QueryError(f'invalid {role} encoding name "{name}"', "22023")
        raise unsupported(f"encoding {name}")
    return _PYTHON_CODECS[key]


@implements("pg_convert_to")
def convert_to(text: str, encoding: str) -> bytes:
    """The text's bytes in an encoding."""
    codec = _codec(encoding, "destination")
    try:
        return text.encode(codec or "utf-8")
    except UnicodeEncodeError as error:
        data = error.object[error.start].encode()
        shown = " ".join(f"0x{byte:02x}" for byte in data)
        raise QueryError(
            f'character with byte sequence {shown} in encoding "UTF8" has no equivalent in encoding'
            f' "{encoding.upper()}"',
            "22P05",
        ) from None


@implements("pg_convert_from")
def convert_from(data: bytes, encoding: str) -> str:
    """Bytes in an encoding as text."""
    from shardforge.sql.types.strings import receive_text

    codec = _codec(encoding, "source")
    if codec in ("utf-8", ""):
        return receive_text(data)
    try:
        return receive_text(data.decode(codec).encode())
    except UnicodeDecodeError as error:
        raise QueryError(
            f'character with byte sequence 0x{error.object[error.start]:02x} in encoding "{encoding.upper()}"'
            ' has no equivalent in encoding "UTF8"',
            "22P05",
        ) from None


# ---------------------------------------------------------------- bytes and bits

implements("byteaoctetlen")(len)
implements("bit_length(bytea)")(lambda data: 8 * len(data))
implements("bytea_bit_count")(lambda data: int.from_bytes(data, "big").bit_count())


def _checked_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise QueryError(f"index {index} out of valid range, 0..{size - 1}", "2202E")


@implements("byteaGetByte")
def get_byte(data: bytes, index: int) -> int:
    """The byte at an offset from 0."""
    _checked_index(index, len(data))
    return data[index]


@implements("byteaSetByte")
def set_byte(data: bytes, index: int, value: int) -> bytes:
    """With another byte at an offset."""
    _checked_index(index, len(data))
    return data[:index] + bytes([value % 256]) + data[index + 1 :]


@implements("byteaGetBit")
def get_bit(data: bytes, index: int) -> int:
    """The bit at an offset; bit 0 is the lowest of the first byte."""
    _checked_index(index, 8 * len(data))
    return data[index // 8] >> (index % 8) & 1


@implements("byteaSetBit")
def set_bit(data: bytes, index: int, value: int) -> bytes:
    """With another bit at an offset."""
    _checked_index(index, 8 * len(data))
    if value not in (0, 1):
        raise QueryError("new bit must be 0 or 1", "22023")
    byte = data[index // 8] & ~(1 << index % 8) | value << index % 8
    return data[: index // 8] + bytes([byte]) + data[index // 8 + 1 :]


# ---------------------------------------------------------------- binary forms


def _sender(arg_types: tuple[int, ...], result_type: int) -> Callable[[EvalContext, Any], bytes]:
    """The send function of the argument's type."""
    del result_type
    return lambda ctx, value: send_function(arg_types[0], ctx.settings)(value)


_SENDERS = {
    row.typsend
    for row in pgdata.types()
    if supported(row.oid) and row.typelem == 0 and row.typsend != "-"
}
implements(*sorted(_SENDERS), "enum_send", context=True, typed=True)(_sender)
