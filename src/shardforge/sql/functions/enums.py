"""enum_first, enum_last and enum_range: an enum's labels, of which the argument gives only the type.

Comparisons are in `comparison`: values are numbers. Source: PostgreSQL 15, section 9.10, src/backend/utils/adt/enum.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.values import Array


def _values(context: EvalContext, oid: int) -> list[float]:
    return [label.order for label in context.catalog.enum_labels(oid)]


def _end(position: int) -> Callable[..., Callable[..., float]]:
    def factory(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., float]:
        def end(context: EvalContext, _value: Any) -> float:
            values = _values(context, arg_types[0])
            if not values:
                shown = context.catalog.format_type(arg_types[0], None)
                raise QueryError(f"enum {shown} contains no values", "55000")
            return values[position]

        return end

    return factory


implements("enum_first", context=True, typed=True)(_end(0))
implements("enum_last", context=True, typed=True)(_end(-1))


@implements("enum_range_all", context=True, typed=True)
def enum_range_all(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Array]:
    """Every value, in order."""
    return lambda context, _value: Array(tuple(_values(context, arg_types[0])))


@implements("enum_range_bounds", context=True, typed=True)
def enum_range_bounds(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Array]:
    """The values between two, both among them; NULL is the type's own end."""

    def between(context: EvalContext, low: float | None, high: float | None) -> Array:
        values = _values(context, arg_types[0])
        return Array(
            tuple(v for v in values if (low is None or low <= v) and (high is None or v <= high))
        )

    return between
