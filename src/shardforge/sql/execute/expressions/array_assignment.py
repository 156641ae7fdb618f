"""Assignment to elements and slices of arrays: UPDATE t SET a[1] = ...

Source: PostgreSQL 15, src/backend/utils/adt/arrayfuncs.c (array_set_element, array_set_slice).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.execute.expressions.core import (
    Function,
    Layout,
    compile_expression,
    compile_optional,
    compiles,
)
from shardforge.sql.types.values import Array

ELEMENTS_MAX = (1 << 27) - 1
"""PostgreSQL's MaxArraySize."""


@compiles(tree.SubscriptAssignment)
def _assignment(expression: tree.SubscriptAssignment, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    value = compile_expression(expression.value, layout)
    pairs = [
        (compile_optional(lower, layout), compile_optional(upper, layout))
        for lower, upper in expression.subscripts
    ]
    is_slice = expression.is_slice

    def assign(row: Any, ctx: Any) -> Any:
        before = arg(row, ctx)
        bounds = []
        for pair in pairs:
            found = [None if bound is None else bound(row, ctx) for bound in pair]
            if any(b is not None and f is None for b, f in zip(pair, found, strict=True)):
                raise QueryError("array subscript in assignment must not be null", "22004")
            bounds.append((found[0], found[1]))
        new = value(row, ctx)
        if is_slice:
            return before if new is None else set_slice(before, bounds, new)
        return set_element(before, [upper for _, upper in bounds if upper is not None], new)

    return assign


def _check_size(count: int) -> None:
    if count > ELEMENTS_MAX:
        raise QueryError(f"array size exceeds the maximum allowed ({ELEMENTS_MAX})", "54000")


def set_element(array: Array | None, at: Sequence[int], value: Any) -> Array:
    """`array` with one element put at the subscripts; a one-dimensional array grows to hold it."""
    if array is None or not array.dims:
        return Array((value,), (1,) * len(at), tuple(at))
    if len(at) != len(array.dims):
        raise QueryError("wrong number of array subscripts", "2202E")
    if len(at) == 1:
        return _put(array, at[0], (value,))
    offset = 0
    for index, size, lower in zip(at, array.dims, array.lower, strict=True):
        if not lower <= index < lower + size:
            raise QueryError("array subscript out of range", "2202E")
        offset = offset * size + index - lower
    elements = (*array.elements[:offset], value, *array.elements[offset + 1 :])
    return Array(elements, array.dims, array.lower)


def _put(array: Array, first: int, values: tuple[Any, ...]) -> Array:
    """`values` from position `first` on in a one-dimensional array; gaps become NULLs."""
    lower, end = array.lower[0], array.lower[0] + array.dims[0]
    start, stop = min(lower, first), max(end, first + len(values))
    _check_size(stop - start)
    elements = [None] * (stop - start)
    elements[lower - start : end - start] = array.elements
    elements[first - start : first - start + len(values)] = values
    return Array(tuple(elements), (stop - start,), (start,))


def set_slice(
    array: Array | None, bounds: Sequence[tuple[int | None, int | None]], source: Array
) -> Array:
    """`array` with the first elements of `source` put in a slice."""
    if len(bounds) != 1 or (array is not None and len(array.dims) > 1):
        raise unsupported("assignment to a slice of several dimensions")
    ((low, high),) = bounds
    if array is None or not array.dims:
        if low is None or high is None:
            raise QueryError(
                "array slice subscript must provide both boundaries", "2202E",
                detail="When assigning to a slice of an empty array value, slice boundaries must be fully specified.",
            )  # fmt: skip
        return Array(_taken(source, low, high), (high - low + 1,), (low,))
    low = array.lower[0] if low is None else low
    high = array.lower[0] + array.dims[0] - 1 if high is None else high
    return _put(array, low, _taken(source, low, high))


def _taken(source: Array, low: int, high: int) -> tuple[Any, ...]:
    count = high - low + 1
    if count <= 0:
        raise QueryError("upper bound cannot be less than lower bound", "2202E")
    _check_size(count)
    if len(source.elements) < count:
        raise QueryError("source array too small", "2202E")
    return source.elements[:count]
