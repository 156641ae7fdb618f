"""The few functions of libpg_query that we call, through ctypes.

The shared library comes with the `postgast` wheel; its Python package is not imported here (it loads protobuf).
Calls release the interpreter lock and keep no state between them. Results are copied and freed at once.
Source: libpg_query 18, pg_query.h.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_FILE_NAMES = {"linux": "libpg_query.so", "darwin": "libpg_query.dylib", "win32": "pg_query.dll"}


class SyntaxFailure(NamedTuple):
    """PostgreSQL's message, and its 1-based position in characters (0 when unknown)."""

    message: str
    position: int


class _Error(ctypes.Structure):
    _fields_ = [
        ("message", ctypes.c_char_p),
        ("funcname", ctypes.c_char_p),
        ("filename", ctypes.c_char_p),
        ("lineno", ctypes.c_int),
        ("cursorpos", ctypes.c_int),
        ("context", ctypes.c_char_p),
    ]


class _ParseResult(ctypes.Structure):
    _fields_ = [
        ("parse_tree", ctypes.c_char_p),
        ("stderr_buffer", ctypes.c_char_p),
        ("error", ctypes.POINTER(_Error)),
    ]


class _Protobuf(ctypes.Structure):
    _fields_ = [("len", ctypes.c_size_t), ("data", ctypes.c_void_p)]


class _DeparseResult(ctypes.Structure):
    _fields_ = [("query", ctypes.c_char_p), ("error", ctypes.POINTER(_Error))]


@cache
def _library() -> Any:
    spec = importlib.util.find_spec("postgast")
    assert spec is not None, "the postgast package is not installed"
    assert spec.origin is not None
    path = Path(spec.origin).parent / _FILE_NAMES[sys.platform]
    library = ctypes.CDLL(str(path))
    library.pg_query_parse.argtypes = [ctypes.c_char_p]
    library.pg_query_parse.restype = _ParseResult
    library.pg_query_free_parse_result.argtypes = [_ParseResult]
    library.pg_query_free_parse_result.restype = None
    library.pg_query_deparse_protobuf.argtypes = [_Protobuf]
    library.pg_query_deparse_protobuf.restype = _DeparseResult
    library.pg_query_free_deparse_result.argtypes = [_DeparseResult]
    library.pg_query_free_deparse_result.restype = None
    return library


def _failure(error: Any) -> SyntaxFailure:
    found = error.contents
    return SyntaxFailure((found.message or b"").decode("utf-8", "replace"), found.cursorpos)


def parse_json(text: bytes) -> bytes | SyntaxFailure:
    """The parse tree of a script as JSON."""
    library = _library()
    result = library.pg_query_parse(text)
    try:
        if result.error:
            return _failure(result.error)
        return bytes(result.parse_tree)
    finally:
        library.pg_query_free_parse_result(result)


def deparse_protobuf(tree: bytes) -> str | SyntaxFailure:
    """The SQL text of a parse tree in protobuf form."""
    library = _library()
    data = ctypes.create_string_buffer(tree, len(tree))
    result = library.pg_query_deparse_protobuf(
        _Protobuf(len(tree), ctypes.cast(data, ctypes.c_void_p))
    )
    try:
        if result.error:
            return _failure(result.error)
        return bytes(result.query).decode("utf-8")
    finally:
        library.pg_query_free_deparse_result(result)
