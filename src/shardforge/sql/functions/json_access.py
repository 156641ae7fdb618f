"""Reading json, the type that keeps its text: operators and functions answer slices of the text as typed.

Of equal keys the last counts when one is asked for; json_each and json_object_keys show them all.
Source: PostgreSQL 15, section 9.16, and src/backend/utils/adt/jsonfuncs.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring as quote

from shardforge.sql.functions.json_binary import array_index, bad_parameter
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.json_text import Node, scan
from shardforge.sql.types.values import Array


def _slice(text: str, node: Node | None) -> str | None:
    return None if node is None else text[node.start : node.end]


def _plain(text: str, node: Node | None) -> str | None:
    if node is None or node.kind == "null":
        return None
    return node.text if node.kind == "string" else text[node.start : node.end]


def _member(node: Node, key: str) -> Node | None:
    return next((item for name, item in reversed(node.fields) if name == key), None)


def _item(node: Node, index: int) -> Node | None:
    return node.items[index] if -len(node.items) <= index < len(node.items) else None


def _path(text: str, path: Sequence[str | None]) -> Node | None:
    node: Node | None = scan(text, strict=True)
    for key in path:
        if key is None or node is None:
            return None
        if node.kind == "array":
            index = array_index(key)
            node = None if index is None else _item(node, index)
        else:
            node = _member(node, key)
    return node


@implements("json_object_field")
def object_field(text: str, key: str) -> str | None:
    """value -> 'key'."""
    return _slice(text, _member(scan(text, strict=True), key))


@implements("json_object_field_text")
def object_field_text(text: str, key: str) -> str | None:
    """value ->> 'key'."""
    return _plain(text, _member(scan(text, strict=True), key))


@implements("json_array_element")
def array_element(text: str, index: int) -> str | None:
    """value -> index."""
    return _slice(text, _item(scan(text, strict=True), index))


@implements("json_array_element_text")
def array_element_text(text: str, index: int) -> str | None:
    """value ->> index."""
    return _plain(text, _item(scan(text, strict=True), index))


@implements("json_extract_path")
def extract_path(text: str, path: Array) -> str | None:
    """value #> path."""
    return _slice(text, _path(text, path.elements))


@implements("json_extract_path_text")
def extract_path_text(text: str, path: Array) -> str | None:
    """value #>> path."""
    return _plain(text, _path(text, path.elements))


@implements("json_typeof")
def json_typeof(text: str) -> str:
    """The kind of value."""
    return scan(text).kind


@implements("json_array_length")
def array_length(text: str) -> int:
    """How many elements."""
    node = scan(text)
    if node.kind == "array":
        return len(node.items)
    what = "a non-array" if node.kind == "object" else "a scalar"
    raise bad_parameter(f"cannot get array length of {what}")


def _elements(text: str, function: str) -> Sequence[Node]:
    node = scan(text, strict=True)
    if node.kind == "array":
        return node.items
    what = "a non-array" if node.kind == "object" else "a scalar"
    raise bad_parameter(f"cannot call {function} on {what}")


@implements("json_array_elements")
def array_elements(text: str) -> Iterator[str]:
    """Each element."""
    return (text[n.start : n.end] for n in _elements(text, "json_array_elements"))


@implements("json_array_elements_text")
def array_elements_text(text: str) -> Iterator[str | None]:
    """Each element as text."""
    return (_plain(text, n) for n in _elements(text, "json_array_elements_text"))


def _fields(text: str) -> Sequence[tuple[str, Node]]:
    node = scan(text, strict=True)
    if node.kind == "object":
        return node.fields
    if node.kind == "array":
        raise bad_parameter("cannot deconstruct an array as an object")
    raise bad_parameter("cannot deconstruct a scalar")


@implements("json_each")
def each(text: str) -> Iterator[tuple[str, str]]:
    """Each key and value."""
    return ((name, text[n.start : n.end]) for name, n in _fields(text))


@implements("json_each_text")
def each_text(text: str) -> Iterator[tuple[str, str | None]]:
    """Each key and value as text."""
    return ((name, _plain(text, n)) for name, n in _fields(text))


@implements("json_object_keys")
def object_keys(text: str) -> Iterator[str]:
    """Each key."""
    node = scan(text, strict=True)
    if node.kind != "object":
        what = "an array" if node.kind == "array" else "a scalar"
        raise bad_parameter(f"cannot call json_object_keys on {what}")
    return (name for name, _ in node.fields)


def _stripped(text: str, node: Node) -> str:
    if node.kind == "object":
        parts = [
            f"{quote(name)}:{_stripped(text, item)}"
            for name, item in node.fields
            if item.kind != "null"
        ]
        return "{" + ",".join(parts) + "}"
    if node.kind == "array":
        return f"[{','.join(_stripped(text, item) for item in node.items)}]"
    return quote(node.text) if node.kind == "string" else text[node.start : node.end]


@implements("json_strip_nulls")
def strip_nulls(text: str) -> str:
    """The value, without white space and without object fields that are null."""
    return _stripped(text, scan(text, strict=True))
