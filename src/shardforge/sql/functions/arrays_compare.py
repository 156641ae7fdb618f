"""Array functions that compare elements: equality, order, containment, search, and ANY/ALL.

Elements compare by their type's sort key. In `=` and `<` NULL elements are equal and last; in containment and
overlap they match nothing. Source: PostgreSQL 15, sections 9.19 and 9.24.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements
from shardforge.sql.types import registry as types
from shardforge.sql.types.array import EMPTY
from shardforge.sql.types.values import Array

Key = Callable[[Any], Any]


def element_key(array_oid: int) -> Key:
    """The sort key of an array type's elements."""
    return types.sort_key(types.type_by_oid(array_oid).element) or _identity


def _identity(value: Any) -> Any:
    return value


def _array_key(array_oid: int) -> Key:
    return types.sort_key(array_oid) or _identity


def _comparison(compare: Callable[[Any, Any], Any]) -> Callable[..., Callable[..., Any]]:
    def factory(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Any]:
        key = _array_key(arg_types[0])
        return lambda a, b: compare(key(a), key(b))

    return factory


def _three_way(a: Any, b: Any) -> int:
    return bool(a > b) - bool(a < b)


for _name, _operator in (
    ("array_eq", operator.eq),
    ("array_ne", operator.ne),
    ("array_lt", operator.lt),
    ("array_le", operator.le),
    ("array_gt", operator.gt),
    ("array_ge", operator.ge),
    ("btarraycmp", _three_way),
):
    implements(_name, typed=True)(_comparison(_operator))


@implements("array_larger", typed=True)
def array_larger(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Array]:
    """The greater array."""
    key = _array_key(arg_types[0])
    return lambda a, b: a if key(a) > key(b) else b


@implements("array_smaller", typed=True)
def array_smaller(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Array]:
    """The lesser array."""
    key = _array_key(arg_types[0])
    return lambda a, b: a if key(a) < key(b) else b


def _keys(key: Key, array: Array) -> set[Any]:
    return {key(item) for item in array.elements if item is not None}


@implements("arraycontains", typed=True)
def array_contains(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., bool]:
    """a @> b."""
    key = element_key(arg_types[0])
    return lambda a, b: None not in b.elements and _keys(key, b) <= _keys(key, a)


@implements("arraycontained", typed=True)
def array_contained(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., bool]:
    """a <@ b."""
    key = element_key(arg_types[0])
    return lambda a, b: None not in a.elements and _keys(key, a) <= _keys(key, b)


@implements("arrayoverlap", typed=True)
def array_overlap(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., bool]:
    """a && b."""
    key = element_key(arg_types[0])
    return lambda a, b: not _keys(key, a).isdisjoint(_keys(key, b))


# Search ---------------------------------------------------------------------------------------------


def _matcher(key: Key, wanted: Any) -> Callable[[Any], bool]:
    """Whether an element is `wanted`; NULL is NULL."""
    if wanted is None:
        return lambda item: item is None
    target = key(wanted)
    return lambda item: item is not None and key(item) == target


def _search_one_dimension(array: Array) -> None:
    if len(array.dims) > 1:
        raise QueryError(
            "searching for elements in multidimensional arrays is not supported", "0A000"
        )


@implements("array_position", typed=True)
def array_position(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., int | None]:
    """The subscript of an element's first occurrence."""
    key = element_key(arg_types[0])

    def call(array: Array | None, wanted: Any) -> int | None:
        return None if array is None else _position(key, array, wanted, None)

    return call


@implements("array_position_start", typed=True)
def array_position_start(
    arg_types: tuple[int, ...], _result_type: int
) -> Callable[..., int | None]:
    """The subscript of an element's first occurrence from a subscript on."""
    key = element_key(arg_types[0])

    def call(array: Array | None, wanted: Any, start: int | None) -> int | None:
        if array is None:
            return None
        _search_one_dimension(array)
        may_match = wanted is not None or None in array.elements
        if array.dims and start is None and may_match:
            raise QueryError("initial position must not be null", "22004")
        return _position(key, array, wanted, start)

    return call


def _position(key: Key, array: Array, wanted: Any, start: int | None) -> int | None:
    _search_one_dimension(array)
    if not array.dims:
        return None
    matches = _matcher(key, wanted)
    lower = array.lower[0]
    for index, item in enumerate(array.elements, lower):
        if (start is None or index >= start) and matches(item):
            return index
    return None


@implements("array_positions", typed=True)
def array_positions(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Array | None]:
    """The subscripts of every occurrence of an element."""
    key = element_key(arg_types[0])

    def call(array: Array | None, wanted: Any) -> Array | None:
        if array is None:
            return None
        _search_one_dimension(array)
        if not array.dims:
            return EMPTY
        matches = _matcher(key, wanted)
        first = array.lower[0]
        return Array(tuple(i for i, item in enumerate(array.elements, first) if matches(item)))

    return call


@implements("array_remove", typed=True)
def array_remove(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Array | None]:
    """The array without an element."""
    key = element_key(arg_types[0])

    def call(array: Array | None, unwanted: Any) -> Array | None:
        if array is None:
            return None
        if len(array.dims) > 1:
            raise QueryError(
                "removing elements from multidimensional arrays is not supported", "0A000"
            )
        matches = _matcher(key, unwanted)
        kept = tuple(item for item in array.elements if not matches(item))
        return Array(kept, (len(kept),), array.lower) if kept else EMPTY

    return call


@implements("array_replace", typed=True)
def array_replace(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Array | None]:
    """The array with one element in place of another."""
    key = element_key(arg_types[0])

    def call(array: Array | None, old: Any, new: Any) -> Array | None:
        if array is None:
            return None
        matches = _matcher(key, old)
        items = tuple(new if matches(item) else item for item in array.elements)
        return Array(items, array.dims, array.lower)

    return call


@implements("width_bucket_array", typed=True)
def width_bucket_array(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., int]:
    """Which of the sorted thresholds a value falls behind."""
    key = element_key(arg_types[1])

    def call(value: Any, thresholds: Array) -> int:
        if len(thresholds.dims) > 1:
            raise QueryError("thresholds must be one-dimensional array", "2202E")
        if None in thresholds.elements:
            raise QueryError("thresholds array must not contain NULLs", "22004")
        target = key(value)
        low, high = 0, len(thresholds.elements)
        while low < high:
            middle = (low + high) // 2
            if target < key(thresholds.elements[middle]):
                high = middle
            else:
                low = middle + 1
        return low

    return call


# ANY and ALL ------------------------------------------------------------------------------------------


def any_of(compare: Callable[[Any, Any], Any], value: Any, items: Iterable[Any]) -> bool | None:
    """value op ANY (items), for a strict operator: unknown when only NULLs could make it true."""
    unknown = False
    for item in items:
        found = None if value is None or item is None else compare(value, item)
        if found:
            return True
        unknown = unknown or found is None
    return None if unknown else False


def all_of(compare: Callable[[Any, Any], Any], value: Any, items: Iterable[Any]) -> bool | None:
    """value op ALL (items), for a strict operator: unknown when only NULLs could make it false."""
    unknown = False
    for item in items:
        found = None if value is None or item is None else compare(value, item)
        if found is None:
            unknown = True
        elif not found:
            return False
    return None if unknown else True
