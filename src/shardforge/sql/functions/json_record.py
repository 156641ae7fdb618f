"""json_to_record, json_to_recordset and their jsonb kin, for a column definition list.

The columns are known to the binder alone; without them a call is refused. `record_reader(function, columns)`
gives the callable. Each value goes through its column's input function, arrays element by element. Columns of
composite types are refused. Source: PostgreSQL 15, section 9.16, and populate_record of jsonfuncs.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from shardforge.errors import QueryError, unsupported
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.json_binary import as_text, bad_parameter, type_name
from shardforge.sql.functions.registry import implements
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types
from shardforge.sql.types.array import EMPTY
from shardforge.sql.types.base import TypeSettings
from shardforge.sql.types.json import format_tree
from shardforge.sql.types.json_text import Node, scan
from shardforge.sql.types.values import Array, Jsonb, JsonTree

_FUNCTIONS = frozenset(
    ("json_to_record", "jsonb_to_record", "json_to_recordset", "jsonb_to_recordset")
)


class Column(NamedTuple):
    """One column of the definition list."""

    name: str
    oid: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class _Item:
    """A JSON value of either type: its kind, its JSON text, its text as ->> gives it, its parts."""

    kind: str
    json: str
    text: str
    items: tuple[_Item, ...] = ()
    fields: tuple[tuple[str, _Item], ...] = ()


def _of_node(node: Node, text: str) -> _Item:
    written = text[node.start : node.end]
    return _Item(
        node.kind,
        written,
        node.text if node.kind == "string" else written,
        tuple(_of_node(item, text) for item in node.items),
        tuple((name, _of_node(item, text)) for name, item in node.fields),
    )


def _of_tree(tree: JsonTree) -> _Item:
    return _Item(
        type_name(tree),
        format_tree(tree),
        as_text(tree) or "",
        tuple(map(_of_tree, tree)) if isinstance(tree, list) else (),
        tuple((k, _of_tree(v)) for k, v in tree.items()) if isinstance(tree, dict) else (),
    )


def _read(value: str | Jsonb) -> _Item:
    if isinstance(value, Jsonb):
        return _of_tree(value.value)
    return _of_node(scan(value, strict=True), value)


class _Reader:
    """Reads the value of one column."""

    def __init__(self, column: Column, settings: TypeSettings) -> None:
        self.column = column
        oid = column.oid
        found = types.find_type(oid)
        if found is None or oid == oids.RECORD:
            raise unsupported("a column of composite type in a JSON record")
        self.is_array = types.is_array(oid)
        self.is_json = oid in (oids.JSON, oids.JSONB)
        self.input = types.input_function(oid, settings)
        self.element = (
            _Reader(Column(column.name, found.element, column.typmod), settings)
            if self.is_array
            else None
        )

    def read(self, item: _Item | None) -> Any:
        if item is None or item.kind == "null":
            return None
        if self.element is not None and item.kind != "string":
            return self.array(item)
        value = self.input(item.json if self.is_json else item.text)
        return types.apply_typmod(self.column.oid, self.column.typmod, value, False)

    def not_an_array(self) -> QueryError:
        return QueryError(
            "expected JSON array", "22P02", hint=f'See the value of key "{self.column.name}".'
        )

    def array(self, item: _Item) -> Array:
        if item.kind != "array":
            raise self.not_an_array()
        depth, first = 1, item
        while first.items and first.items[0].kind == "array":
            depth, first = depth + 1, first.items[0]
        elements: list[Any] = []
        dims: list[int] = [-1] * depth
        self.collect(item, 0, dims, elements)
        return Array(tuple(elements), tuple(dims)) if elements else EMPTY

    def collect(self, item: _Item, level: int, dims: list[int], elements: list[Any]) -> None:
        assert self.element is not None, "only arrays collect"
        if dims[level] not in (-1, len(item.items)):
            raise QueryError(
                "malformed JSON array",
                "22P02",
                detail="Multidimensional arrays must have sub-arrays with matching dimensions.",
            )
        dims[level] = len(item.items)
        for part in item.items:
            if level + 1 < len(dims):
                if part.kind != "array":
                    raise self.not_an_array()
                self.collect(part, level + 1, dims, elements)
            else:
                elements.append(self.element.read(part))


def _row(item: _Item, readers: Sequence[_Reader]) -> tuple[Any, ...]:
    fields = dict(item.fields)
    return tuple(reader.read(fields.get(reader.column.name)) for reader in readers)


def _set_items(item: _Item, function: str) -> tuple[_Item, ...]:
    if item.kind != "array":
        what = "an object" if item.kind == "object" else "a scalar"
        if function.startswith("jsonb"):
            what = "a non-array"
        raise bad_parameter(f"cannot call {function} on {what}")
    return item.items


def record_reader(
    function: str, columns: Sequence[Column]
) -> Callable[[EvalContext, str | Jsonb | None], Iterator[tuple[Any, ...]]]:
    """The rows of json[b]_to_record (always one) or json[b]_to_recordset; 0A000 for other functions."""
    if function not in _FUNCTIONS:
        raise unsupported(f"function {function} with a column definition list")

    def one(ctx: EvalContext, value: str | Jsonb | None) -> Iterator[tuple[Any, ...]]:
        if value is None:
            yield (None,) * len(columns)
            return
        item = _read(value)
        if item.kind != "object":
            what = "an array" if item.kind == "array" else "a scalar"
            raise bad_parameter(f"cannot call populate_composite on {what}")
        yield _row(item, [_Reader(column, ctx.settings) for column in columns])

    def many(ctx: EvalContext, value: str | Jsonb | None) -> Iterator[tuple[Any, ...]]:
        if value is None:
            return
        items = _set_items(_read(value), function)
        readers = [_Reader(column, ctx.settings) for column in columns]
        for item in items:
            if item.kind != "object":
                raise bad_parameter(f"argument of {function} must be an array of objects")
            yield _row(item, readers)

    return many if function.endswith("recordset") else one


def _without_columns(function: str) -> Callable[[Any], Any]:
    def call(_value: Any) -> Any:
        raise QueryError(
            f"could not determine row type for result of {function}",
            "0A000",
            hint="Provide a non-null record argument, or call the function in the FROM clause "
            "using a column definition list.",
        )

    return call


for _function in sorted(_FUNCTIONS):
    implements(_function)(_without_columns(_function))
