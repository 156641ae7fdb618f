"""The boolean type's text and binary forms. Source: PostgreSQL 15, src/backend/utils/adt/bool.c."""

from __future__ import annotations

from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, invalid_input, plain, unpacker

WHITESPACE = " \t\n\v\f\r"

_WORDS = {
    **{"true"[:n]: True for n in range(1, 5)},
    **{"false"[:n]: False for n in range(1, 6)},
    **{"yes"[:n]: True for n in range(1, 4)},
    **{"no"[:n]: False for n in range(1, 3)},
    "on": True,
    "off": False,
    "of": False,
    "1": True,
    "0": False,
}


def parse_bool(text: str) -> bool:
    """boolin: any unique prefix of true, false, yes, no, on, off; or 1 or 0."""
    value = _WORDS.get(text.strip(WHITESPACE).lower())
    if value is None:
        raise invalid_input("boolean", text)
    return value


def format_bool(value: bool) -> str:
    """boolout."""
    return "t" if value else "f"


_unpack = unpacker("!B")


def receive_bool(data: bytes) -> bool:
    """boolrecv: any byte but zero is true."""
    return bool(_unpack(data)[0])


def send_bool(value: bool) -> bytes:
    """boolsend."""
    return b"\1" if value else b"\0"


CODECS = (
    Codec(oids.BOOL, plain(parse_bool), plain(format_bool), plain(receive_bool), plain(send_bool)),
)
