"""Arrays to delimited text and back: array_to_string and string_to_array.

Source: PostgreSQL 15, section 9.19.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.registry import implements
from shardforge.sql.types import registry as types
from shardforge.sql.types.array import EMPTY
from shardforge.sql.types.values import Array


def _join(element: int, ctx: EvalContext, array: Array, separator: str, null: str | None) -> str:
    write = types.output_function(element, ctx.settings)
    parts = []
    for item in array.elements:
        if item is not None:
            parts.append(write(item))
        elif null is not None:
            parts.append(null)
    return separator.join(parts)


@implements("array_to_text", context=True, typed=True)
def array_to_string(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., str]:
    """The elements' text with a separator between, NULLs left out."""
    element = types.type_by_oid(arg_types[0]).element

    def call(ctx: EvalContext, array: Array, separator: str) -> str:
        return _join(element, ctx, array, separator, None)

    return call


@implements("array_to_text_null", context=True, typed=True)
def array_to_string_null(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Any]:
    """The elements' text with a separator between and a text for NULL."""
    element = types.type_by_oid(arg_types[0]).element

    def call(
        ctx: EvalContext, array: Array | None, separator: str | None, null: str | None
    ) -> str | None:
        if array is None or separator is None:
            return None
        return _join(element, ctx, array, separator, null)

    return call


def _split(text: str | None, separator: str | None, null: str | None) -> list[str | None] | None:
    if text is None:
        return None
    parts: list[str]
    if not text:
        parts = []
    elif separator is None:
        parts = list(text)
    elif not separator:
        parts = [text]
    else:
        parts = text.split(separator)
    return [None if null is not None and part == null else part for part in parts]


def _array(parts: list[str | None] | None) -> Array | None:
    if parts is None:
        return None
    return Array(tuple(parts)) if parts else EMPTY


@implements("text_to_array")
def string_to_array(text: str | None, separator: str | None) -> Array | None:
    """Text cut at each separator; a NULL separator cuts between characters."""
    return _array(_split(text, separator, None))


@implements("text_to_array_null")
def string_to_array_null(text: str | None, separator: str | None, null: str | None) -> Array | None:
    """Text cut at each separator, with a text that means NULL."""
    return _array(_split(text, separator, null))


@implements("text_to_table")
def string_to_table(text: str | None, separator: str | None) -> list[str | None]:
    """Text cut at each separator, as rows."""
    return _split(text, separator, None) or []


@implements("text_to_table_null")
def string_to_table_null(
    text: str | None, separator: str | None, null: str | None
) -> list[str | None]:
    """Text cut at each separator, as rows, with a text that means NULL."""
    return _split(text, separator, null) or []
