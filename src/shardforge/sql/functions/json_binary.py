"""Reading jsonb: -> ->> #> #>>, containment, existence, elements, keys, casts to scalars.

Trees inside Jsonb values are shared between values and never changed. Source: PostgreSQL 15, section 9.16, and
src/backend/utils/adt/jsonb_op.c, jsonb_util.c (JsonbDeepContains).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements
from shardforge.sql.types import registry as types
from shardforge.sql.types.base import TypeSettings
from shardforge.sql.types.datetime_text import UtcSettings
from shardforge.sql.types.json import format_tree
from shardforge.sql.types.values import Array, Jsonb, JsonTree

_MISSING: Any = object()
_INTEGER = re.compile(r"\s*[+-]?\d+")


def bad_parameter(message: str) -> QueryError:
    """22023: the value has the wrong shape for the function."""
    return QueryError(message, "22023")


def is_scalar(tree: JsonTree) -> bool:
    """Whether a tree is neither object nor array."""
    return not isinstance(tree, dict | list)


def type_name(tree: JsonTree) -> str:
    """What jsonb_typeof answers."""
    if tree is None:
        return "null"
    if isinstance(tree, bool):
        return "boolean"
    if isinstance(tree, str):
        return "string"
    if isinstance(tree, dict):
        return "object"
    return "array" if isinstance(tree, list) else "number"


def as_text(tree: JsonTree) -> str | None:
    """What ->> answers: strings bare, null as NULL."""
    if tree is None or isinstance(tree, str):
        return tree
    return format_tree(tree)


def _jsonb(found: Any) -> Jsonb | None:
    return None if found is _MISSING else Jsonb(found)


def _text(found: Any) -> str | None:
    return None if found is _MISSING else as_text(found)


def _field(value: Jsonb, key: str) -> Any:
    tree = value.value
    return tree.get(key, _MISSING) if isinstance(tree, dict) else _MISSING


def _element(value: Jsonb, index: int) -> Any:
    tree = value.value
    if isinstance(tree, list) and -len(tree) <= index < len(tree):
        return tree[index]
    if is_scalar(tree) and index in (0, -1):
        return tree  # A bare scalar is stored as an array of one, and PostgreSQL lets it show.
    return _MISSING


def array_index(text: str) -> int | None:
    """The array index a path element means, or None."""
    match = _INTEGER.fullmatch(text)
    index = int(text) if match else None
    return index if index is not None and -(2**31) <= index < 2**31 else None


def step_into(tree: Any, key: str) -> Any:
    """The value one path element down, or the missing marker."""
    if isinstance(tree, dict):
        return tree.get(key, _MISSING)
    if isinstance(tree, list):
        index = array_index(key)
        if index is not None and -len(tree) <= index < len(tree):
            return tree[index]
    return _MISSING


def _path(value: Jsonb, path: Sequence[str | None]) -> Any:
    tree: Any = value.value
    for key in path:
        if key is None:
            return _MISSING
        tree = step_into(tree, key)
        if tree is _MISSING:
            return _MISSING
    return tree


def jsonb_subscript(value: Jsonb | None, keys: Sequence[str | None]) -> Jsonb | None:
    """value[key]...: NULL when anything on the way is missing or NULL."""
    return None if value is None else _jsonb(_path(value, keys))


@implements("jsonb_object_field")
def object_field(value: Jsonb, key: str) -> Jsonb | None:
    """value -> 'key'."""
    return _jsonb(_field(value, key))


@implements("jsonb_object_field_text")
def object_field_text(value: Jsonb, key: str) -> str | None:
    """value ->> 'key'."""
    return _text(_field(value, key))


@implements("jsonb_array_element")
def array_element(value: Jsonb, index: int) -> Jsonb | None:
    """value -> index."""
    return _jsonb(_element(value, index))


@implements("jsonb_array_element_text")
def array_element_text(value: Jsonb, index: int) -> str | None:
    """value ->> index."""
    return _text(_element(value, index))


@implements("jsonb_extract_path")
def extract_path(value: Jsonb, path: Array) -> Jsonb | None:
    """value #> path."""
    return _jsonb(_path(value, path.elements))


@implements("jsonb_extract_path_text")
def extract_path_text(value: Jsonb, path: Array) -> str | None:
    """value #>> path."""
    return _text(_path(value, path.elements))


# Comparison, containment, existence -------------------------------------------------------------------


for _name, _operator in (
    ("eq", operator.eq),
    ("ne", operator.ne),
    ("lt", operator.lt),
    ("le", operator.le),
    ("gt", operator.gt),
    ("ge", operator.ge),
):
    implements(f"jsonb_{_name}")(
        lambda a, b, compare=_operator: compare(a.sort_key(), b.sort_key())
    )


@implements("jsonb_cmp")
def jsonb_cmp(a: Jsonb, b: Jsonb) -> int:
    """-1, 0 or 1."""
    return (a.sort_key() > b.sort_key()) - (a.sort_key() < b.sort_key())


def _same_scalar(a: JsonTree, b: JsonTree) -> bool:
    return type(a) is type(b) and a == b


def _contains(whole: JsonTree, part: JsonTree) -> bool:
    """Containment below the root, where kinds must match."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and _contains(whole[key], item) for key, item in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and all(
            any(_contains(candidate, item) for candidate in whole) for item in part
        )
    return _same_scalar(whole, part)


@implements("jsonb_contains")
def contains(whole: Jsonb, part: Jsonb) -> bool:
    """whole @> part. At the root an array may contain a bare scalar."""
    a, b = whole.value, part.value
    if isinstance(a, list) and is_scalar(b):
        return any(_same_scalar(item, b) for item in a)
    return _contains(a, b)


@implements("jsonb_contained")
def contained(part: Jsonb, whole: Jsonb) -> bool:
    """part <@ whole."""
    return contains(whole, part)


def _exists(tree: JsonTree, key: str | None) -> bool:
    if isinstance(tree, dict | list):
        return key is not None and key in tree
    return isinstance(tree, str) and tree == key


@implements("jsonb_exists")
def exists(value: Jsonb, key: str) -> bool:
    """value ? key: a key of an object, or a string in an array."""
    return _exists(value.value, key)


@implements("jsonb_exists_any")
def exists_any(value: Jsonb, keys: Array) -> bool:
    """value ?| keys."""
    return any(_exists(value.value, key) for key in keys.elements if key is not None)


@implements("jsonb_exists_all")
def exists_all(value: Jsonb, keys: Array) -> bool:
    """value ?& keys."""
    return all(_exists(value.value, key) for key in keys.elements if key is not None)


# Taking apart ------------------------------------------------------------------------------------------


@implements("jsonb_typeof")
def jsonb_typeof(value: Jsonb) -> str:
    """The kind of value."""
    return type_name(value.value)


@implements("jsonb_array_length")
def array_length(value: Jsonb) -> int:
    """How many elements."""
    if isinstance(value.value, list):
        return len(value.value)
    what = "a scalar" if is_scalar(value.value) else "a non-array"
    raise bad_parameter(f"cannot get array length of {what}")


def _elements(value: Jsonb) -> list[JsonTree]:
    if isinstance(value.value, list):
        return value.value
    what = "a scalar" if is_scalar(value.value) else "an object"
    raise bad_parameter(f"cannot extract elements from {what}")


@implements("jsonb_array_elements")
def array_elements(value: Jsonb) -> Iterator[Jsonb]:
    """Each element."""
    return map(Jsonb, _elements(value))


@implements("jsonb_array_elements_text")
def array_elements_text(value: Jsonb) -> Iterator[str | None]:
    """Each element as text."""
    return map(as_text, _elements(value))


def _members(value: Jsonb, function: str) -> dict[str, JsonTree]:
    if isinstance(value.value, dict):
        return value.value
    raise bad_parameter(f"cannot call {function} on a non-object")


@implements("jsonb_each")
def each(value: Jsonb) -> Iterator[tuple[str, Jsonb]]:
    """Each key and value."""
    return ((key, Jsonb(item)) for key, item in _members(value, "jsonb_each").items())


@implements("jsonb_each_text")
def each_text(value: Jsonb) -> Iterator[tuple[str, str | None]]:
    """Each key and value as text."""
    return ((key, as_text(item)) for key, item in _members(value, "jsonb_each_text").items())


@implements("jsonb_object_keys")
def object_keys(value: Jsonb) -> Iterator[str]:
    """Each key."""
    if not isinstance(value.value, dict):
        what = "an array" if isinstance(value.value, list) else "a scalar"
        raise bad_parameter(f"cannot call jsonb_object_keys on {what}")
    return iter(value.value)


# Casts ---------------------------------------------------------------------------------------------------


def _cast_error(tree: JsonTree, type_text: str) -> QueryError:
    name = type_name(tree)
    what = "numeric" if name == "number" else name
    return bad_parameter(f"cannot cast jsonb {what} to type {type_text}")


def _number(value: Jsonb, type_text: str) -> Decimal:
    tree = value.value
    if isinstance(tree, Decimal):
        return tree
    raise _cast_error(tree, type_text)


@implements("jsonb_bool")
def jsonb_bool(value: Jsonb) -> bool:
    """jsonb to boolean."""
    if isinstance(value.value, bool):
        return value.value
    raise _cast_error(value.value, "boolean")


@implements("jsonb_numeric")
def jsonb_numeric(value: Jsonb) -> Decimal:
    """jsonb to numeric."""
    return _number(value, "numeric")


_UTC: TypeSettings = UtcSettings()  # type: ignore[assignment]


def _through_text(type_oid_name: str, type_text: str) -> Callable[[Jsonb], Any]:
    """jsonb to a float, by way of the number's text."""
    sql_type = types.type_named(type_oid_name)
    assert sql_type is not None, "a type of PostgreSQL's own"

    def call(value: Jsonb) -> Any:
        number = _number(value, type_text)
        return types.input_function(sql_type.oid, _UTC)(format(number, "f"))

    return call


def _to_integer(bits: int, type_text: str) -> Callable[[Jsonb], int]:
    limit = 2 ** (bits - 1)

    def call(value: Jsonb) -> int:
        number = _number(value, type_text)
        sign, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int), "jsonb has no NaN"
        whole = int("".join(map(str, digits)) or "0")
        if exponent < 0:
            unit = 10**-exponent
            whole = (whole + unit // 2) // unit
        elif exponent:
            whole *= 10**exponent
        found = -whole if sign else whole
        if not -limit <= found < limit:
            raise QueryError(f"{type_text} out of range", "22003")
        return found

    return call


implements("jsonb_float4")(_through_text("float4", "real"))
implements("jsonb_float8")(_through_text("float8", "double precision"))
implements("jsonb_int2")(_to_integer(16, "smallint"))
implements("jsonb_int4")(_to_integer(32, "integer"))
implements("jsonb_int8")(_to_integer(64, "bigint"))
