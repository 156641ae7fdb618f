"""json_agg, jsonb_agg, json_object_agg and jsonb_object_agg.

A state keeps the context it began with, for the session's settings, and the parts so far.
Source: PostgreSQL 15, section 9.21.
"""

from __future__ import annotations

from json.encoder import encode_basestring as quote
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.aggregates import AggregateImplementation, implements_aggregate
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.json_build import json_writer, jsonb_builder, key_text
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types
from shardforge.sql.types.json import ordered_object
from shardforge.sql.types.values import Jsonb


class _State:
    __slots__ = ("parts", "settings")

    def __init__(self, ctx: EvalContext) -> None:
        self.settings = ctx.settings
        self.parts: list[Any] = []


def _null_key(message: str) -> QueryError:
    return QueryError(message, "22023")


@implements_aggregate("json_agg")
def _json_agg(arg_types: tuple[int, ...], _result_type: int) -> AggregateImplementation:
    write = json_writer(arg_types[0])
    oid = arg_types[0]
    spread = types.is_array(oid) or oid == oids.RECORD or types.find_type(oid) is None

    def step(state: _State, value: Any) -> _State:
        state.parts.append("null" if value is None else write(state.settings, value))
        return state

    def final(state: _State) -> str | None:
        separator = ", \n " if spread else ", "
        return f"[{separator.join(state.parts)}]" if state.parts else None

    return AggregateImplementation(_State, step, final, strict=False, needs_context=True)


@implements_aggregate("jsonb_agg")
def _jsonb_agg(arg_types: tuple[int, ...], _result_type: int) -> AggregateImplementation:
    build = jsonb_builder(arg_types[0])

    def step(state: _State, value: Any) -> _State:
        state.parts.append(None if value is None else build(state.settings, value))
        return state

    def final(state: _State) -> Jsonb | None:
        return Jsonb(state.parts) if state.parts else None

    return AggregateImplementation(_State, step, final, strict=False, needs_context=True)


@implements_aggregate("json_object_agg")
def _json_object_agg(arg_types: tuple[int, ...], _result_type: int) -> AggregateImplementation:
    key_type, write = arg_types[0], json_writer(arg_types[1])

    def step(state: _State, key: Any, value: Any) -> _State:
        if key is None:
            raise _null_key("field name must not be null")
        name = quote(key_text(state.settings, key_type, key))
        item = "null" if value is None else write(state.settings, value)
        state.parts.append(f"{name} : {item}")
        return state

    def final(state: _State) -> str | None:
        return "{ " + ", ".join(state.parts) + " }" if state.parts else None

    return AggregateImplementation(_State, step, final, strict=False, needs_context=True)


@implements_aggregate("jsonb_object_agg")
def _jsonb_object_agg(arg_types: tuple[int, ...], _result_type: int) -> AggregateImplementation:
    key_type, build = arg_types[0], jsonb_builder(arg_types[1])

    def step(state: _State, key: Any, value: Any) -> _State:
        if key is None:
            raise _null_key("field name must not be null")
        name = key_text(state.settings, key_type, key)
        state.parts.append((name, None if value is None else build(state.settings, value)))
        return state

    def final(state: _State) -> Jsonb | None:
        return Jsonb(ordered_object(state.parts)) if state.parts else None

    return AggregateImplementation(_State, step, final, strict=False, needs_context=True)
