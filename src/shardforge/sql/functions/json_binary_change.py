"""Changing jsonb: || - #-, jsonb_set, jsonb_insert, jsonb_strip_nulls, jsonb_pretty, subscript assignment.

Every function builds a new tree along the changed path and shares the rest. Source: PostgreSQL 15, section 9.16,
and setPath, setPathObject, setPathArray of src/backend/utils/adt/jsonfuncs.c.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from json.encoder import encode_basestring as quote

from shardforge.errors import QueryError
from shardforge.sql.functions.json_binary import array_index, bad_parameter, is_scalar
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.json import format_tree, ordered_object
from shardforge.sql.types.values import Array, Jsonb, JsonTree

_INDENT = "    "


@implements("jsonb_concat")
def concat(a: Jsonb, b: Jsonb) -> Jsonb:
    """a || b: objects merge, anything else becomes one array."""
    left, right = a.value, b.value
    if isinstance(left, dict) and isinstance(right, dict):
        return Jsonb(ordered_object([*left.items(), *right.items()]))
    return Jsonb([*_as_list(left), *_as_list(right)])


def _as_list(tree: JsonTree) -> list[JsonTree]:
    return tree if isinstance(tree, list) else [tree]


def _refuse_scalar(value: Jsonb, message: str) -> None:
    if is_scalar(value.value):
        raise bad_parameter(message)


@implements("jsonb_delete")
def delete(value: Jsonb, key: str) -> Jsonb:
    """value - 'key': a key of an object, or equal strings of an array."""
    return _delete_all(value, {key})


@implements("jsonb_delete_array")
def delete_array(value: Jsonb, keys: Array) -> Jsonb:
    """value - keys."""
    if len(keys.dims) > 1:
        raise QueryError("wrong number of array subscripts", "2202E")
    return _delete_all(value, {key for key in keys.elements if key is not None})


def _delete_all(value: Jsonb, keys: set[str]) -> Jsonb:
    _refuse_scalar(value, "cannot delete from scalar")
    tree = value.value
    if isinstance(tree, dict):
        return Jsonb({key: item for key, item in tree.items() if key not in keys})
    assert isinstance(tree, list), "scalars were refused"
    return Jsonb([item for item in tree if not (isinstance(item, str) and item in keys)])


@implements("jsonb_delete_idx")
def delete_index(value: Jsonb, index: int) -> Jsonb:
    """value - index."""
    _refuse_scalar(value, "cannot delete from scalar")
    tree = value.value
    if isinstance(tree, dict):
        raise bad_parameter("cannot delete from object using integer index")
    assert isinstance(tree, list), "scalars were refused"
    if not -len(tree) <= index < len(tree):
        return value
    index %= len(tree)
    return Jsonb(tree[:index] + tree[index + 1 :])


class _Change(enum.Enum):
    REPLACE = 1
    CREATE = 2
    DELETE = 3
    INSERT_BEFORE = 4
    INSERT_AFTER = 5
    ASSIGN = 6
    """Subscript assignment: creates what is missing on the way."""

    @property
    def creates(self) -> bool:
        """Whether a missing last element is added."""
        return self not in (_Change.REPLACE, _Change.DELETE)

    @property
    def inserts(self) -> bool:
        """Whether an existing element stays."""
        return self in (_Change.INSERT_BEFORE, _Change.INSERT_AFTER)


class _Setter:
    """One change at the end of one path."""

    def __init__(self, path: Sequence[str | None], new: JsonTree, change: _Change) -> None:
        self.path = path
        self.new = new
        self.change = change

    def key(self, level: int) -> str:
        key = self.path[level]
        if key is None:
            raise QueryError(f"path element at position {level + 1} is null", "22004")
        return key

    def apply(self, tree: JsonTree, level: int) -> JsonTree:
        if isinstance(tree, dict):
            return self.in_object(tree, level)
        if isinstance(tree, list):
            return self.in_array(tree, level)
        self.key(level)
        if self.change is _Change.ASSIGN:
            raise QueryError(
                "cannot replace existing key",
                "22023",
                detail="The path assumes key is a composite object, but it is a scalar value.",
            )
        return tree

    def in_object(self, tree: dict[str, JsonTree], level: int) -> JsonTree:
        key = self.key(level)
        last = level == len(self.path) - 1
        if key in tree:
            if not last:
                return {**tree, key: self.apply(tree[key], level + 1)}
            if self.change is _Change.DELETE:
                return {k: v for k, v in tree.items() if k != key}
            if self.change.inserts:
                raise QueryError(
                    "cannot replace existing key",
                    "22023",
                    hint="Try using the function jsonb_set to replace key value.",
                )
            return {**tree, key: self.new}
        if last and self.change.creates:
            return ordered_object([*tree.items(), (key, self.new)])
        if not last and self.change is _Change.ASSIGN:
            return ordered_object([*tree.items(), (key, self.missing(level + 1))])
        return tree

    def in_array(self, tree: list[JsonTree], level: int) -> JsonTree:
        text = self.key(level)
        found = array_index(text)
        if found is None:
            raise QueryError(
                f'path element at position {level + 1} is not an integer: "{text}"', "22P02"
            )
        last = level == len(self.path) - 1
        index = found + len(tree) if found < 0 else found
        if 0 <= index < len(tree):
            return self.at_index(tree, index, level)
        if self.change is _Change.ASSIGN:
            return self.beyond(tree, found, index, level)
        if not last or not self.change.creates:
            return tree
        return [self.new, *tree] if index < 0 else [*tree, self.new]

    def at_index(self, tree: list[JsonTree], index: int, level: int) -> JsonTree:
        before, item, after = tree[:index], tree[index], tree[index + 1 :]
        if level < len(self.path) - 1:
            return [*before, self.apply(item, level + 1), *after]
        if self.change is _Change.DELETE:
            return before + after
        if self.change is _Change.INSERT_BEFORE:
            return [*before, self.new, item, *after]
        if self.change is _Change.INSERT_AFTER:
            return [*before, item, self.new, *after]
        return [*before, self.new, *after]

    def beyond(self, tree: list[JsonTree], found: int, index: int, level: int) -> JsonTree:
        """Subscript assignment past the end fills the gap with nulls."""
        if index < 0:
            raise QueryError(
                f"path element at position {level + 1} is out of range: {found}", "22023"
            )
        gap: list[JsonTree] = [None] * (index - len(tree))
        last = level == len(self.path) - 1
        return [*tree, *gap, self.new if last else self.missing(level + 1)]

    def missing(self, level: int) -> JsonTree:
        """The containers that the rest of the path needs, around the new value."""
        if level == len(self.path):
            return self.new
        key = self.key(level)
        index = array_index(key)
        if index is None:
            return {key: self.missing(level + 1)}
        return [*([None] * index), self.missing(level + 1)]


def _change(value: Jsonb, path: Array, new: JsonTree, change: _Change) -> Jsonb:
    if len(path.dims) > 1:
        raise QueryError("wrong number of array subscripts", "2202E")
    verb = "delete" if change is _Change.DELETE else "set"
    _refuse_scalar(value, f"cannot {verb} path in scalar")
    tree = value.value
    if not path.elements or (not tree and not change.creates):
        return value
    return Jsonb(_Setter(path.elements, new, change).apply(tree, 0))


@implements("jsonb_delete_path")
def delete_path(value: Jsonb, path: Array) -> Jsonb:
    """value #- path."""
    return _change(value, path, None, _Change.DELETE)


@implements("jsonb_set")
def jsonb_set(value: Jsonb, path: Array, new: Jsonb, create: bool) -> Jsonb:
    """The value with the item at a path replaced, or added when `create`."""
    return _change(value, path, new.value, _Change.CREATE if create else _Change.REPLACE)


@implements("jsonb_insert")
def jsonb_insert(value: Jsonb, path: Array, new: Jsonb, after: bool) -> Jsonb:
    """The value with an item put in at a path."""
    change = _Change.INSERT_AFTER if after else _Change.INSERT_BEFORE
    return _change(value, path, new.value, change)


_TREATMENTS = (
    'null_value_treatment must be "delete_key", "return_target", "use_json_null", '
    'or "raise_exception"'
)


@implements("jsonb_set_lax")
def jsonb_set_lax(
    value: Jsonb | None,
    path: Array | None,
    new: Jsonb | None,
    create: bool | None,
    treatment: str | None,
) -> Jsonb | None:
    """jsonb_set, with a say about a NULL new value."""
    if value is None or path is None or create is None:
        return None
    if treatment is None:
        raise QueryError(_TREATMENTS, "22023")
    if new is not None:
        return jsonb_set(value, path, new, create)
    if treatment == "raise_exception":
        raise QueryError(
            "JSON value must not be null",
            "22004",
            detail='Exception was raised because null_value_treatment is "raise_exception".',
            hint="To avoid, either change the null_value_treatment argument or ensure that an "
            "SQL NULL is not passed.",
        )
    if treatment == "use_json_null":
        return jsonb_set(value, path, Jsonb(None), create)
    if treatment == "delete_key":
        return delete_path(value, path)
    if treatment == "return_target":
        return value
    raise QueryError(_TREATMENTS, "22023")


def assign_subscript(value: Jsonb | None, keys: Sequence[str | None], new: Jsonb | None) -> Jsonb:
    """The value after value[key]... = new; what is missing on the way is created."""
    if any(key is None for key in keys):
        raise QueryError("jsonb subscript in assignment must not be null", "22004")
    item = None if new is None else new.value
    setter = _Setter(keys, item, _Change.ASSIGN)
    if value is None:
        empty: JsonTree = {} if array_index(keys[0] or "") is None else []
        return Jsonb(setter.apply(empty, 0))
    if is_scalar(value.value):
        raise QueryError(
            "cannot replace existing key",
            "22023",
            detail="The path assumes key is a composite object, but it is a scalar value.",
        )
    return Jsonb(setter.apply(value.value, 0))


def _without_nulls(tree: JsonTree) -> JsonTree:
    if isinstance(tree, dict):
        return {key: _without_nulls(item) for key, item in tree.items() if item is not None}
    if isinstance(tree, list):
        return [_without_nulls(item) for item in tree]
    return tree


@implements("jsonb_strip_nulls")
def strip_nulls(value: Jsonb) -> Jsonb:
    """The value without object fields that are null."""
    return Jsonb(_without_nulls(value.value))


def _pretty(tree: JsonTree, indent: str) -> str:
    inner = indent + _INDENT
    if isinstance(tree, dict):
        lines = [f"{inner}{quote(key)}: {_pretty(item, inner)}" for key, item in tree.items()]
        opening, closing = "{", "}"
    elif isinstance(tree, list):
        lines = [inner + _pretty(item, inner) for item in tree]
        opening, closing = "[", "]"
    else:
        return format_tree(tree)
    body = ",\n".join(lines)
    return f"{opening}\n{body}\n{indent}{closing}" if lines else f"{opening}\n{indent}{closing}"


@implements("jsonb_pretty")
def jsonb_pretty(value: Jsonb) -> str:
    """The value on indented lines."""
    return _pretty(value.value, "")
