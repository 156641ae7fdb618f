"""Character types: text, varchar(n), char(n), name, "char", and what is kept as text (unknown, cstring ...).

All order by code point, which is UTF-8's byte order: the C collation. char(n) is kept padded and compared without
its trailing blanks. Source: PostgreSQL 15, src/backend/utils/adt/{varchar,name,char}.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from shardforge.errors import QueryError
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Coercion, plain, unpacker

NAME_LENGTH_MAX = 63
LENGTH_MAX = 10_485_760


def same(text: str) -> str:
    """Text is its own text form."""
    return text


def receive_text(data: bytes) -> str:
    """textrecv: UTF-8 without zero bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        wrong = " ".join(
            f"0x{byte:02x}" for byte in data[error.start : max(error.end, error.start + 1)]
        )
        raise QueryError(f'invalid byte sequence for encoding "UTF8": {wrong}', "22021") from None
    if "\0" in text:
        raise QueryError('invalid byte sequence for encoding "UTF8": 0x00', "22021")
    return text


def send_text(value: str) -> bytes:
    """textsend."""
    return value.encode()


# ---------------------------------------------------------------- lengths


def _length_typmod_in(name: str) -> Callable[[list[int]], int]:
    def typmod_in(numbers: list[int]) -> int:
        if len(numbers) != 1:
            raise QueryError("invalid type modifier", "22023")
        if numbers[0] < 1:
            raise QueryError(f"length for type {name} must be at least 1", "22023")
        if numbers[0] > LENGTH_MAX:
            raise QueryError(f"length for type {name} cannot exceed {LENGTH_MAX}", "22023")
        return numbers[0] + 4

    return typmod_in


def _length_typmod_out(typmod: int) -> str:
    return f"({typmod - 4})"


def _too_long(type_name: str, length: int) -> QueryError:
    return QueryError(f"value too long for type {type_name}({length})", "22001")


def varchar_coercion(typmod: int, explicit: bool) -> Coercion:
    """Cut to n characters: silently when explicit or when only blanks are lost, else 22001."""
    length = typmod - 4

    def coerce(value: str) -> str:
        if len(value) <= length:
            return value
        if not explicit and value[length:].strip(" "):
            raise _too_long("character varying", length)
        return value[:length]

    return coerce


def bpchar_coercion(typmod: int, explicit: bool) -> Coercion:
    """Pad to n characters, or cut as varchar does."""
    length = typmod - 4

    def coerce(value: str) -> str:
        if len(value) <= length:
            return value.ljust(length)
        if not explicit and value[length:].strip(" "):
            raise _too_long("character", length)
        return value[:length]

    return coerce


def bpchar_sort_key(value: str) -> str:
    """Trailing blanks do not count."""
    return value.rstrip(" ")


# ---------------------------------------------------------------- name, "char"


def truncated_name(text: str) -> str:
    """namein: at most 63 bytes, whole characters only."""
    if len(text) * 4 <= NAME_LENGTH_MAX:
        return text
    return text.encode()[:NAME_LENGTH_MAX].decode(errors="ignore")


_OCTAL = re.compile(r"\\([0-3][0-7][0-7])")


def parse_char(text: str) -> str:
    """charin: the first byte; \\ooo names one by its octal number."""
    octal = _OCTAL.fullmatch(text)
    byte = int(octal[1], 8) if octal else next(iter(text.encode()), 0)
    return chr(byte) if byte else ""


def format_char(value: str) -> str:
    """charout: bytes above 127 in octal."""
    return value if value < "\x80" else f"\\{ord(value):03o}"


_unpack_char = unpacker("!c")


def _receive_char(data: bytes) -> str:
    (byte,) = _unpack_char(data)
    return byte.decode("latin-1") if byte != b"\0" else ""


def _send_char(value: str) -> bytes:
    return value.encode("latin-1") or b"\0"


def _text_codec(oid: int) -> Codec:
    return Codec(oid, plain(same), plain(same), plain(receive_text), plain(send_text))


CODECS = (
    _text_codec(oids.TEXT),
    _text_codec(oids.UNKNOWN),
    _text_codec(oids.CSTRING),
    _text_codec(oids.REFCURSOR),
    _text_codec(oids.PG_NODE_TREE),
    _text_codec(oids.ACLITEM),
    Codec(
        oids.VARCHAR, plain(same), plain(same), plain(receive_text), plain(send_text),
        coercion=varchar_coercion, typmod_in=_length_typmod_in("varchar"), typmod_out=_length_typmod_out,
    ),
    Codec(
        oids.BPCHAR, plain(same), plain(same), plain(receive_text), plain(send_text),
        sort_key=bpchar_sort_key, coercion=bpchar_coercion, typmod_in=_length_typmod_in("char"),
        typmod_out=_length_typmod_out,
    ),
    Codec(
        oids.NAME, plain(truncated_name), plain(same),
        plain(lambda data: truncated_name(receive_text(data))), plain(send_text),
    ),
    Codec(oids.CHAR, plain(parse_char), plain(format_char), plain(_receive_char), plain(_send_char)),
)  # fmt: skip
