"""SQL values to json and jsonb: to_json, row_to_json, json_build_object and the rest.

`json_writer(oid)` and `jsonb_builder(oid)` give, once per type, the function from a value to JSON text and to a
jsonb tree; aggregates share them. Dates are ISO 8601 with a T, whatever DateStyle says; numbers stay bare unless
they are NaN or infinite; a record becomes an object by its field names. Source: PostgreSQL 15, section 9.16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring as quote
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.registry import implements
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types
from shardforge.sql.types.array import nested
from shardforge.sql.types.base import TypeSettings
from shardforge.sql.types.datetime_text import (
    format_date,
    format_timestamp,
    format_timestamptz,
)
from shardforge.sql.types.json import format_jsonb, json_number, ordered_object, parse_tree
from shardforge.sql.types.timezone import session_zone
from shardforge.sql.types.values import Array, Jsonb, JsonTree, Record

Writer = Callable[[TypeSettings, Any], str]
Builder = Callable[[TypeSettings, Any], JsonTree]

_NUMBERS = frozenset((oids.INT2, oids.INT4, oids.INT8, oids.FLOAT4, oids.FLOAT8, oids.NUMERIC))
_NOT_KEYS = frozenset((oids.JSON, oids.JSONB, oids.RECORD))


def _moment_text(oid: int) -> Writer | None:
    if oid == oids.DATE:
        return lambda _settings, value: format_date(value)
    if oid == oids.TIMESTAMP:
        return lambda _settings, value: format_timestamp(value, "T")
    if oid == oids.TIMESTAMPTZ:
        return lambda settings, value: format_timestamptz(
            value, session_zone(settings.timezone), "T"
        )
    return None


def _plain_text(oid: int) -> Writer:
    """The text a value has inside a JSON string."""
    moment = _moment_text(oid)
    if moment is not None:
        return moment
    if oid in (oids.TEXT, oids.VARCHAR, oids.BPCHAR, oids.UNKNOWN, oids.NAME):
        return lambda _settings, value: str(value)
    return lambda settings, value: types.output_function(oid, settings)(value)


@lru_cache(maxsize=512)
def json_writer(oid: int) -> Writer:
    """The function that writes a non-null value of a type as JSON text."""
    if oid == oids.BOOL:
        return lambda _settings, value: "true" if value else "false"
    if oid in _NUMBERS:
        return _number_writer(oid)
    if oid == oids.JSON:
        return lambda _settings, value: str(value)
    if oid == oids.JSONB:
        return lambda _settings, value: format_jsonb(value)
    if _is_record(oid):
        return _write_record
    if types.is_array(oid):
        write = json_writer(types.type_by_oid(oid).element)
        return lambda settings, value: _write_array(write, settings, value, ",")
    text = _plain_text(oid)
    return lambda settings, value: quote(text(settings, value))


def _is_record(oid: int) -> bool:
    return oid == oids.RECORD or types.find_type(oid) is None


def _number_writer(oid: int) -> Writer:
    def write(settings: TypeSettings, value: Any) -> str:
        text = types.output_function(oid, settings)(value)
        return text if text[-1].isdigit() else quote(text)

    return write


def _write_item(write: Writer, settings: TypeSettings, value: Any) -> str:
    return "null" if value is None else write(settings, value)


def _write_array(write: Writer, settings: TypeSettings, value: Array, separator: str) -> str:
    if not value.dims:
        return "[]"
    texts = [_write_item(write, settings, item) for item in value.elements]
    inner = value.dims[1:]
    if inner:
        size = len(texts) // value.dims[0]
        rows = [texts[i : i + size] for i in range(0, len(texts), size)]
        texts = [nested(row, inner, lambda parts: f"[{','.join(parts)}]") for row in rows]
    return f"[{separator.join(texts)}]"


def _write_record(settings: TypeSettings, value: Any) -> str:
    return _record_text(settings, value, ",")


def _record_text(settings: TypeSettings, value: Any, separator: str) -> str:
    assert isinstance(value, Record), "rows that reach JSON know their fields"
    fields = [
        f"{quote(name)}:{_write_item(json_writer(oid), settings, item)}"
        for name, oid, item in zip(value.names, value.types, value, strict=True)
    ]
    return "{" + separator.join(fields) + "}"


@lru_cache(maxsize=512)
def jsonb_builder(oid: int) -> Builder:
    """The function that makes a jsonb tree of a non-null value of a type."""
    if oid == oids.BOOL:
        return lambda _settings, value: bool(value)
    if oid in (oids.INT2, oids.INT4, oids.INT8):
        return lambda _settings, value: Decimal(value)
    if oid in _NUMBERS:
        return _number_builder(oid)
    if oid == oids.JSON:
        return lambda _settings, value: parse_tree(value)
    if oid == oids.JSONB:
        return lambda _settings, value: _tree(value)
    if _is_record(oid):
        return _build_record
    if types.is_array(oid):
        return _array_builder(jsonb_builder(types.type_by_oid(oid).element))
    return _plain_text(oid)


def _tree(value: Jsonb) -> JsonTree:
    return value.value


def _number_builder(oid: int) -> Builder:
    def build(settings: TypeSettings, value: Any) -> JsonTree:
        text = types.output_function(oid, settings)(value)
        return json_number(text) if text[-1].isdigit() else text

    return build


def _array_builder(build: Builder) -> Builder:
    def make(settings: TypeSettings, value: Array) -> JsonTree:
        items = [None if item is None else build(settings, item) for item in value.elements]
        tree: JsonTree = nested(items, value.dims, list) if value.dims else []
        return tree

    return make


def _build_record(settings: TypeSettings, value: Any) -> JsonTree:
    assert isinstance(value, Record), "rows that reach JSON know their fields"
    return ordered_object(
        [
            (name, None if item is None else jsonb_builder(oid)(settings, item))
            for name, oid, item in zip(value.names, value.types, value, strict=True)
        ]
    )


# Functions of one value -----------------------------------------------------------------------------


@implements("to_json", context=True, typed=True)
def to_json(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., str]:
    """Any value as json."""
    write = json_writer(arg_types[0])
    return lambda ctx, value: write(ctx.settings, value)


@implements("to_jsonb", context=True, typed=True)
def to_jsonb(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Jsonb]:
    """Any value as jsonb."""
    build = jsonb_builder(arg_types[0])
    return lambda ctx, value: Jsonb(build(ctx.settings, value))


@implements("row_to_json", context=True)
def row_to_json(ctx: EvalContext, value: Any) -> str:
    """A row as a json object."""
    return _record_text(ctx.settings, value, ",")


@implements("row_to_json_pretty", context=True)
def row_to_json_pretty(ctx: EvalContext, value: Any, pretty: bool) -> str:
    """A row as a json object, perhaps a field per line."""
    return _record_text(ctx.settings, value, ",\n " if pretty else ",")


@implements("array_to_json", context=True, typed=True)
def array_to_json(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., str]:
    """An array as json."""
    write = json_writer(arg_types[0])
    return lambda ctx, value: write(ctx.settings, value)


@implements("array_to_json_pretty", context=True, typed=True)
def array_to_json_pretty(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., str]:
    """An array as json, perhaps an element of its first dimension per line."""
    write = json_writer(types.type_by_oid(arg_types[0]).element)

    def call(ctx: EvalContext, value: Array, pretty: bool) -> str:
        return _write_array(write, ctx.settings, value, ",\n " if pretty else ",")

    return call


# Building from arguments ------------------------------------------------------------------------------


def key_text(settings: TypeSettings, oid: int, value: Any) -> str:
    """An object key's text; only scalars can be keys."""
    if oid in _NOT_KEYS or _is_record(oid) or types.is_array(oid):
        raise QueryError("key value must be scalar, not array, composite, or json", "22023")
    if oid == oids.BOOL:
        return "true" if value else "false"
    return _plain_text(oid)(settings, value)


def _even(name: str, count: int) -> None:
    if count % 2:
        raise QueryError(
            "argument list must have even number of elements",
            "22023",
            hint=f"The arguments of {name}() must consist of alternating keys and values.",
        )


@implements("json_build_object", context=True, typed=True)
def json_build_object(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., str]:
    """A json object of alternating keys and values."""
    writers = [json_writer(oid) for oid in arg_types]

    def call(ctx: EvalContext, *values: Any) -> str:
        _even("json_build_object", len(values))
        parts = []
        for at in range(0, len(values), 2):
            if values[at] is None:
                raise QueryError(
                    f"argument {at + 1} cannot be null",
                    "22023",
                    hint="Object keys should be text.",
                )
            key = quote(key_text(ctx.settings, arg_types[at], values[at]))
            parts.append(f"{key} : {_write_item(writers[at + 1], ctx.settings, values[at + 1])}")
        return "{" + ", ".join(parts) + "}"

    return call


@implements("jsonb_build_object", context=True, typed=True)
def jsonb_build_object(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Jsonb]:
    """A jsonb object of alternating keys and values."""
    builders = [jsonb_builder(oid) for oid in arg_types]

    def call(ctx: EvalContext, *values: Any) -> Jsonb:
        _even("jsonb_build_object", len(values))
        pairs: list[tuple[str, JsonTree]] = []
        for at in range(0, len(values), 2):
            if values[at] is None:
                raise QueryError(f"argument {at + 1}: key must not be null", "22023")
            item = values[at + 1]
            pairs.append(
                (
                    key_text(ctx.settings, arg_types[at], values[at]),
                    None if item is None else builders[at + 1](ctx.settings, item),
                )
            )
        return Jsonb(ordered_object(pairs))

    return call


@implements("json_build_array", context=True, typed=True)
def json_build_array(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., str]:
    """A json array of the arguments."""
    writers = [json_writer(oid) for oid in arg_types]

    def call(ctx: EvalContext, *values: Any) -> str:
        parts = [
            _write_item(write, ctx.settings, value)
            for write, value in zip(writers, values, strict=True)
        ]
        return f"[{', '.join(parts)}]"

    return call


@implements("jsonb_build_array", context=True, typed=True)
def jsonb_build_array(arg_types: tuple[int, ...], _result_type: int) -> Callable[..., Jsonb]:
    """A jsonb array of the arguments."""
    builders = [jsonb_builder(oid) for oid in arg_types]

    def call(ctx: EvalContext, *values: Any) -> Jsonb:
        return Jsonb(
            [
                None if value is None else build(ctx.settings, value)
                for build, value in zip(builders, values, strict=True)
            ]
        )

    return call


@implements("json_build_object_noargs")
def empty_json_object() -> str:
    """{}."""
    return "{}"


@implements("json_build_array_noargs")
def empty_json_array() -> str:
    """[]."""
    return "[]"


@implements("jsonb_build_object_noargs")
def empty_jsonb_object() -> Jsonb:
    """{}."""
    return Jsonb({})


@implements("jsonb_build_array_noargs")
def empty_jsonb_array() -> Jsonb:
    """[]."""
    return Jsonb([])


# Objects of text arrays -------------------------------------------------------------------------------


def _pairs(array: Array) -> list[tuple[str, str | None]]:
    items: Sequence[Any] = array.elements
    if len(array.dims) > 2:
        raise QueryError("wrong number of array subscripts", "2202E")
    if len(array.dims) == 2 and array.dims[1] != 2:
        raise QueryError("array must have two columns", "2202E")
    if len(items) % 2:
        raise QueryError("array must have even number of elements", "2202E")
    return _checked_keys(items[::2], items[1::2])


def _two_arrays(keys: Array, values: Array) -> list[tuple[str, str | None]]:
    if len(keys.dims) > 1 or len(keys.dims) != len(values.dims):
        raise QueryError("wrong number of array subscripts", "2202E")
    if len(keys.elements) != len(values.elements):
        raise QueryError("mismatched array dimensions", "2202E")
    return _checked_keys(keys.elements, values.elements)


def _checked_keys(keys: Sequence[Any], values: Sequence[Any]) -> list[tuple[str, str | None]]:
    if None in keys:
        raise QueryError("null value not allowed for object key", "22004")
    return list(zip(keys, values, strict=True))


def _json_of_pairs(pairs: list[tuple[str, str | None]]) -> str:
    parts = [f"{quote(k)} : {'null' if v is None else quote(v)}" for k, v in pairs]
    return "{" + ", ".join(parts) + "}"


@implements("json_object")
def json_object(array: Array) -> str:
    """A json object of text in an array of alternating keys and values, or of pairs."""
    return _json_of_pairs(_pairs(array))


@implements("json_object_two_arg")
def json_object_two_arg(keys: Array, values: Array) -> str:
    """A json object of text from keys and values."""
    return _json_of_pairs(_two_arrays(keys, values))


@implements("jsonb_object")
def jsonb_object(array: Array) -> Jsonb:
    """A jsonb object of text in an array of alternating keys and values, or of pairs."""
    return Jsonb(ordered_object(list(_pairs(array))))


@implements("jsonb_object_two_arg")
def jsonb_object_two_arg(keys: Array, values: Array) -> Jsonb:
    """A jsonb object of text from keys and values."""
    return Jsonb(ordered_object(list(_two_arrays(keys, values))))
