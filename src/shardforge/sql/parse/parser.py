"""The ctypes door to libpg_query."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from shardforge.errors import QueryError

Node = dict[str, Any]

_LIBRARIES = ("libpg_query.so", "libpg_query.dylib", "pg_query.dll")


class _Error(ctypes.Structure):
    _fields_ = [
        ("message", ctypes.c_char_p),
        ("function", ctypes.c_char_p),
        ("file", ctypes.c_char_p),
        ("line", ctypes.c_int),
        ("cursor_position", ctypes.c_int),
        ("context", ctypes.c_char_p),
    ]


class _Result(ctypes.Structure):
    _fields_ = [
        ("tree", ctypes.c_char_p),
        ("stderr", ctypes.c_char_p),
        ("error", ctypes.POINTER(_Error)),
    ]


def _load() -> ctypes.CDLL:
    package = find_spec("postgast")
    assert package is not None, "a dependency of this package"
    assert package.submodule_search_locations is not None, "postgast is a package"
    folder = Path(package.submodule_search_locations[0])
    path = next(folder / name for name in _LIBRARIES if (folder / name).exists())
    library = ctypes.CDLL(str(path))
    library.pg_query_parse.argtypes = [ctypes.c_char_p]
    library.pg_query_parse.restype = _Result
    library.pg_query_free_parse_result.argtypes = [_Result]
    return library


_LIBRARY = _load()
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its tree, the whole text that locations in the tree count into, and its own slice of that."""

    node: Node
    source: str
    """What was parsed: byte offsets in the tree (`location`) point into its UTF-8 form."""
    text: str
    """The statement's own text, without the semicolon."""

    def position(self, location: int) -> int:
        """The 1-based character position of a byte offset; 0 when there is none."""
        if location < 0:
            return 0
        return len(self.source.encode()[:location].decode(errors="replace")) + 1


def parse(text: str) -> list[Statement]:
    """The statements of a script, in order. Raises QueryError 42601 with its position for a syntax error."""
    if "\0" in text:
        raise QueryError("invalid byte sequence for encoding \"UTF8\": 0x00", "22021")
    encoded = text.encode()
    result = _LIBRARY.pg_query_parse(encoded)
    try:
        if result.error:
            error = result.error.contents
            raise _syntax_error(error.message.decode(errors="replace"), error.cursor_position)
        tree = _decode(result.tree)
    finally:
        _LIBRARY.pg_query_free_parse_result(result)
    statements = []
    for raw in tree.get("stmts", ()):
        start = raw.get("stmt_location", 0)
        length = raw.get("stmt_len", 0)
        own = encoded[start : start + length] if length else encoded[start:]
        statements.append(Statement(raw["stmt"], text, own.decode().strip().rstrip(";").rstrip()))
    return statements


def _syntax_error(message: str, position: int) -> QueryError:
    sqlstate = "42601"
    if "unicode" in message.lower() or "escape" in message.lower():
        sqlstate = "22025" if "invalid Unicode" in message else "42601"
    return QueryError(message, sqlstate, position=max(position, 0))
