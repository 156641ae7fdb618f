"""Array functions that need no element comparison: shape, concatenation, subscripts and assignment.

`subscript`, `slice_array`, `assign_element`, `assign_slice`, `build_array` and `build_nested` serve the expression
compiler; the others are SQL functions. Comparing functions are in arrays_compare, text in arrays_text.
Source: PostgreSQL 15, sections 8.15 and 9.19, and src/backend/utils/adt/arrayfuncs.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.array import (
    EMPTY,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    check_size,
    dimensions_text,
    subscript_error,
    too_many_dimensions,
)
from shardforge.sql.types.values import Array

_INCOMPATIBLE = "cannot concatenate incompatible arrays"
_MISMATCH = "multidimensional arrays must have array expressions with matching dimensions"
Bound = int | None


# Construction -------------------------------------------------------------------------------------


def build_array(elements: Sequence[Any]) -> Array:
    """ARRAY[a, b, ...] of scalars; also the result of array_agg and of ARRAY(SELECT ...)."""
    return Array(tuple(elements))


def build_nested(arrays: Sequence[Array | None]) -> Array:
    """ARRAY[a, b, ...] of arrays."""
    full = [a for a in arrays if a is not None and a.dims]
    if not full:
        return EMPTY
    first = full[0]
    if len(full) != len(arrays) or any(
        a.dims != first.dims or a.lower != first.lower for a in full
    ):
        raise subscript_error(_MISMATCH)
    return _stack(full)


def _stack(arrays: Sequence[Array]) -> Array:
    first = arrays[0]
    if len(first.dims) >= MAX_DIMENSIONS:
        raise too_many_dimensions(len(first.dims) + 1)
    elements = tuple(item for a in arrays for item in a.elements)
    return Array(elements, (len(arrays), *first.dims), (1, *first.lower))


# Subscripts -----------------------------------------------------------------------------------------


def subscript(array: Array | None, indices: Sequence[int | None]) -> Any:
    """array[i][j]...: NULL outside the bounds, or with the wrong number of subscripts."""
    if array is None or len(indices) != len(array.dims):
        return None
    position = 0
    for index, lower, size in zip(indices, array.lower, array.dims, strict=True):
        if index is None or not lower <= index < lower + size:
            return None
        position = position * size + index - lower
    return array.elements[position]


def slice_array(
    array: Array | None, bounds: Sequence[tuple[Bound, Bound]], *, null_bound: bool = False
) -> Array | None:
    """array[l:u]...: None for a bound left out (`null_bound` says that one given is NULL)."""
    if array is None or null_bound:
        return None
    if not array.dims or len(bounds) > len(array.dims):
        return EMPTY
    ranges: list[range] = []
    for position, (lower, size) in enumerate(zip(array.lower, array.dims, strict=True)):
        low, high = bounds[position] if position < len(bounds) else (None, None)
        start = lower if low is None else max(low, lower)
        stop = lower + size if high is None else min(high + 1, lower + size)
        if start >= stop:
            return EMPTY
        ranges.append(range(start - lower, stop - lower))
    elements = tuple(array.elements[_offset(where, array.dims)] for where in product(*ranges))
    return Array(elements, tuple(len(r) for r in ranges))


def _offset(where: Sequence[int], dims: Sequence[int]) -> int:
    position = 0
    for index, size in zip(where, dims, strict=True):
        position = position * size + index
    return position


def assign_element(array: Array | None, indices: Sequence[int | None], value: Any) -> Array:
    """The array after array[i]... = value. A one-dimensional array grows, with NULLs in between."""
    if any(index is None for index in indices):
        raise QueryError("array subscript in assignment must not be null", "22004")
    where = [index for index in indices if index is not None]
    if array is None or not array.dims:
        return Array((value,), (1,) * len(where), tuple(where))
    if len(where) != len(array.dims):
        raise subscript_error("wrong number of array subscripts")
    if len(where) == 1:
        grown, lower = _grown(array, where[0], where[0])
        grown[where[0] - lower] = value
        return Array(tuple(grown), (len(grown),), (lower,))
    local = [index - lower for index, lower in zip(where, array.lower, strict=True)]
    if any(not 0 <= i < size for i, size in zip(local, array.dims, strict=True)):
        raise subscript_error("array subscript out of range")
    elements = list(array.elements)
    elements[_offset(local, array.dims)] = value
    return Array(tuple(elements), array.dims, array.lower)


def _grown(array: Array, low: int, high: int) -> tuple[list[Any], int]:
    """The elements of a one-dimensional array stretched to hold low..high, and its lower bound."""
    lower, elements = array.lower[0], list(array.elements)
    start, stop = min(low, lower), max(high + 1, lower + len(elements))
    check_size((stop - start,))
    filler = [None] * (lower - start)
    return filler + elements + [None] * (stop - lower - len(elements)), start


def assign_slice(
    array: Array | None, bounds: Sequence[tuple[Bound, Bound]], source: Array
) -> Array:
    """The array after array[l:u]... = source; source's elements are taken in order."""
    if array is None or not array.dims:
        return _new_slice(bounds, source)
    if len(bounds) > len(array.dims):
        raise subscript_error("wrong number of array subscripts")
    ranges = []
    for position, (lower, size) in enumerate(zip(array.lower, array.dims, strict=True)):
        low, high = bounds[position] if position < len(bounds) else (None, None)
        low = lower if low is None else low
        high = lower + size - 1 if high is None else high
        if low > high:
            raise subscript_error("upper bound cannot be less than lower bound")
        if len(array.dims) > 1 and not (lower <= low and high < lower + size):
            raise subscript_error("array subscript out of range")
        ranges.append((low, high))
    count = prod(high - low + 1 for low, high in ranges)
    if count > len(source.elements):
        raise subscript_error("source array too small")
    if len(ranges) == 1:
        (low, high) = ranges[0]
        grown, start = _grown(array, low, high)
        grown[low - start : high + 1 - start] = source.elements[:count]
        return Array(tuple(grown), (len(grown),), (start,))
    elements = list(array.elements)
    spans = [
        range(low - lower, high - lower + 1)
        for (low, high), lower in zip(ranges, array.lower, strict=True)
    ]
    for where, value in zip(product(*spans), source.elements, strict=False):
        elements[_offset(where, array.dims)] = value
    return Array(tuple(elements), array.dims, array.lower)


def _new_slice(bounds: Sequence[tuple[Bound, Bound]], source: Array) -> Array:
    dims, lowers = [], []
    for low, high in bounds:
        if low is None or high is None:
            raise subscript_error(
                "array slice subscript must provide both boundaries",
                "When assigning to a slice of an empty array value, "
                "slice boundaries must be fully specified.",
            )
        if low > high:
            raise QueryError(f"array size exceeds the maximum allowed ({MAX_ELEMENTS})", "54000")
        dims.append(high - low + 1)
        lowers.append(low)
    if prod(dims) > len(source.elements):
        raise subscript_error("source array too small")
    return Array(source.elements[: prod(dims)], tuple(dims), tuple(lowers))


# Shape ----------------------------------------------------------------------------------------------


@implements("array_ndims")
def array_ndims(array: Array) -> int | None:
    """How many dimensions; NULL when empty."""
    return len(array.dims) or None


@implements("array_dims")
def array_dims(array: Array) -> str | None:
    """The bounds as text; NULL when empty."""
    return dimensions_text(array) or None


@implements("array_length")
def array_length(array: Array, dimension: int) -> int | None:
    """The length of a dimension."""
    return array.dims[dimension - 1] if 0 < dimension <= len(array.dims) else None


@implements("array_lower")
def array_lower(array: Array, dimension: int) -> int | None:
    """The first subscript of a dimension."""
    return array.lower[dimension - 1] if 0 < dimension <= len(array.dims) else None


@implements("array_upper")
def array_upper(array: Array, dimension: int) -> int | None:
    """The last subscript of a dimension."""
    if not 0 < dimension <= len(array.dims):
        return None
    return array.lower[dimension - 1] + array.dims[dimension - 1] - 1


@implements("array_cardinality")
def cardinality(array: Array) -> int:
    """How many elements."""
    return len(array.elements)


# Concatenation --------------------------------------------------------------------------------------


def _one_dimensional(array: Array) -> None:
    if len(array.dims) > 1:
        raise QueryError("argument must be empty or one-dimensional array", "22000")


@implements("array_append")
def array_append(array: Array | None, value: Any) -> Array:
    """The array with one more element at its end."""
    if array is None or not array.dims:
        return Array((value,))
    _one_dimensional(array)
    return Array((*array.elements, value), (array.dims[0] + 1,), array.lower)


@implements("array_prepend")
def array_prepend(value: Any, array: Array | None) -> Array:
    """The array with one more element before its first."""
    if array is None or not array.dims:
        return Array((value,))
    _one_dimensional(array)
    return Array((value, *array.elements), (array.dims[0] + 1,), array.lower)


@implements("array_cat")
def array_cat(a: Array | None, b: Array | None) -> Array | None:
    """Two arrays end to end, or an array with one more row."""
    if a is None or b is None:
        return b if a is None else a
    if not b.dims:
        return a
    if not a.dims:
        return b
    return _concatenate(a, b)


def _concatenate(a: Array, b: Array) -> Array:
    difference = len(a.dims) - len(b.dims)
    if abs(difference) > 1:
        raise subscript_error(
            _INCOMPATIBLE,
            f"Arrays of {len(a.dims)} and {len(b.dims)} dimensions "
            "are not compatible for concatenation.",
        )
    if difference == 0:
        if (a.dims[1:], a.lower[1:]) != (b.dims[1:], b.lower[1:]):
            raise subscript_error(
                _INCOMPATIBLE,
                "Arrays with differing element dimensions are not compatible for concatenation.",
            )
        dims, lower = (a.dims[0] + b.dims[0], *a.dims[1:]), a.lower
    else:
        outer, inner = (a, b) if difference > 0 else (b, a)
        if (outer.dims[1:], outer.lower[1:]) != (inner.dims, inner.lower):
            raise subscript_error(
                _INCOMPATIBLE,
                "Arrays with differing dimensions are not compatible for concatenation.",
            )
        dims, lower = (outer.dims[0] + 1, *outer.dims[1:]), outer.lower
    check_size(dims)
    return Array(a.elements + b.elements, dims, lower)


@implements("array_fill")
def array_fill(value: Any, dims: Array | None) -> Array:
    """An array of equal elements."""
    return array_fill_with_lower_bounds(value, dims, Array((1,) * _count(dims)))


def _count(array: Array | None) -> int:
    return 0 if array is None else len(array.elements)


@implements("array_fill_with_lower_bounds")
def array_fill_with_lower_bounds(value: Any, dims: Array | None, lower: Array | None) -> Array:
    """An array of equal elements with given bounds."""
    if dims is None or lower is None:
        raise QueryError("dimension array or low bound array cannot be null", "22004")
    for given in (dims, lower):
        if len(given.dims) > 1:
            raise subscript_error(
                "wrong number of array subscripts", "Dimension array must be one dimensional."
            )
        if None in given.elements:
            raise QueryError("dimension values cannot be null", "22004")
    if len(dims.elements) > MAX_DIMENSIONS:
        raise too_many_dimensions(len(dims.elements))
    if len(lower.elements) != len(dims.elements):
        raise subscript_error(
            "wrong number of array subscripts",
            "Low bound array has different size than dimensions array.",
        )
    if any(size < 0 for size in dims.elements):
        raise QueryError("array size exceeds the maximum allowed (134217727)", "54000")
    check_size(dims.elements)
    count = prod(dims.elements) if dims.elements else 0
    return Array((value,) * count, dims.elements, lower.elements) if count else EMPTY


@implements("trim_array")
def trim_array(array: Array, count: int) -> Array:
    """The array without its last elements (or rows)."""
    size = array.dims[0] if array.dims else 0
    if not 0 <= count <= size:
        raise subscript_error(f"number of elements to trim must be between 0 and {size}")
    if not array.dims:
        return EMPTY
    sliced = slice_array(array, [(None, array.lower[0] + size - count - 1)])
    assert sliced is not None, "the array is not NULL"
    return sliced


@implements("array_unnest")
def unnest(array: Array) -> Iterator[Any]:
    """The elements in storage order."""
    return iter(array.elements)


@implements("generate_subscripts_nodir")
def generate_subscripts(array: Array, dimension: int) -> Iterator[int]:
    """The subscripts of a dimension."""
    return generate_subscripts_either_way(array, dimension, False)


@implements("generate_subscripts")
def generate_subscripts_either_way(array: Array, dimension: int, backward: bool) -> Iterator[int]:
    """The subscripts of a dimension, perhaps from the last."""
    if not 0 < dimension <= len(array.dims):
        return iter(())
    lower = array.lower[dimension - 1]
    subscripts = range(lower, lower + array.dims[dimension - 1])
    return iter(reversed(subscripts) if backward else subscripts)
