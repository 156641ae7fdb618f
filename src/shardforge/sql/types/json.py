"""json and jsonb: text and binary forms, and the canonical tree of jsonb.

json is validated and kept as typed. jsonb is a tree: object keys by length then bytes with the last duplicate
kept, numbers as Decimal with their scale (1e5 is 100000, as numeric reads it), no \\u0000. Trees are built by
`parse_tree` and written by `format_tree`; a tree in a Jsonb is never changed. Source: PostgreSQL 15, section 8.14.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Context, Decimal
from functools import lru_cache
from json.encoder import encode_basestring as quote
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, bad_binary, plain
from shardforge.sql.types.json_text import Node, scan, too_deep, unsupported_escape
from shardforge.sql.types.jsonpath import format_path, parse_path
from shardforge.sql.types.values import Jsonb, JsonTree, json_key_order

_MAX_INTEGER_DIGITS = 131_072
_MAX_SCALE = 16_383
_WIDE = Context(prec=_MAX_INTEGER_DIGITS + _MAX_SCALE)


def json_number(text: str) -> Decimal:
    """A JSON number as numeric reads it: the exponent is applied, the written scale kept, no minus zero."""
    value = Decimal(text)
    if "e" in text or "E" in text:
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int), "JSON has no NaN"
        if value and value.adjusted() >= _MAX_INTEGER_DIGITS:
            raise QueryError("value overflows numeric format", "22003")
        if -exponent > _MAX_SCALE:
            value = value.quantize(Decimal((0, (1,), -_MAX_SCALE)), context=_WIDE)
        elif exponent > 0:
            value = Decimal(int(value)) if value else Decimal(0)
    return value or value.copy_abs()


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def ordered_object(pairs: list[tuple[str, JsonTree]]) -> dict[str, JsonTree]:
    """An object in canonical order; of equal keys the last counts."""
    found = dict(pairs)
    if len(found) > 1:
        return {key: found[key] for key in sorted(found, key=json_key_order)}
    return found


_decode = json.JSONDecoder(
    object_pairs_hook=ordered_object,
    parse_float=json_number,
    parse_int=json_number,
    parse_constant=_refuse_constant,
).decode

_validate = json.JSONDecoder(
    object_pairs_hook=lambda _pairs: None,
    parse_float=lambda _text: None,
    parse_int=lambda _text: None,
    parse_constant=_refuse_constant,
).decode


def _odd_escape(text: str) -> bool:
    """Whether the text has an escape that strings may not be able to hold."""
    return "\\u0000" in text or "\\ud" in text or "\\uD" in text


def parse_tree(text: str) -> JsonTree:
    """The canonical tree of JSON text."""
    if not _odd_escape(text):
        try:
            tree: JsonTree = _decode(text)
        except RecursionError:
            raise too_deep() from None
        except ValueError:
            return tree_of(scan(text, strict=True), text)
        return tree
    return tree_of(scan(text, strict=True), text)


def tree_of(node: Node, text: str) -> JsonTree:
    """The canonical tree of a scanned value."""
    if node.kind == "string":
        if "\0" in node.text:
            raise unsupported_escape()
        return node.text
    if node.kind == "number":
        return json_number(text[node.start : node.end])
    if node.kind == "boolean":
        return text[node.start] == "t"
    if node.kind == "array":
        return [tree_of(item, text) for item in node.items]
    if node.kind == "object":
        return ordered_object([(name, tree_of(item, text)) for name, item in node.fields])
    return None


def parse_jsonb(text: str) -> Jsonb:
    """Reads jsonb."""
    return Jsonb(parse_tree(text))


def parse_json(text: str) -> str:
    """Reads json: checks the text and keeps it."""
    try:
        _validate(text)
    except RecursionError:
        raise too_deep() from None
    except ValueError:
        scan(text)
    return text


def format_tree(tree: JsonTree) -> str:
    """The text of a jsonb tree."""
    if isinstance(tree, str):
        return quote(tree)
    if tree is None:
        return "null"
    if tree is True:
        return "true"
    if tree is False:
        return "false"
    if isinstance(tree, Decimal):
        return format(tree, "f")
    if isinstance(tree, dict):
        return "{" + ", ".join([f"{quote(k)}: {format_tree(v)}" for k, v in tree.items()]) + "}"
    return "[" + ", ".join([format_tree(item) for item in tree]) + "]"


def format_jsonb(value: Jsonb) -> str:
    """Writes jsonb."""
    return format_tree(value.value)


def _receive_json(data: bytes) -> str:
    return parse_json(data.decode())


def _receive_jsonb(data: bytes) -> Jsonb:
    if data[:1] != b"\x01":
        raise bad_binary(f"unsupported jsonb version number {data[0] if data else 0}")
    return parse_jsonb(data[1:].decode())


def _send_jsonb(value: Jsonb) -> bytes:
    return b"\x01" + format_jsonb(value).encode()


def _receive_path(data: bytes) -> Any:
    if data[:1] != b"\x01":
        raise bad_binary(f"unsupported jsonpath version number {data[0] if data else 0}")
    return parse_path(data[1:].decode())


_cached_path: Callable[[str], Any] = lru_cache(maxsize=512)(parse_path)

CODECS: tuple[Codec, ...] = (
    Codec(
        oids.JSON,
        input=plain(parse_json),
        output=plain(str),
        receive=plain(_receive_json),
        send=plain(str.encode),
    ),
    Codec(
        oids.JSONB,
        input=plain(parse_jsonb),
        output=plain(format_jsonb),
        receive=plain(_receive_jsonb),
        send=plain(_send_jsonb),
        sort_key=Jsonb.sort_key,
    ),
    Codec(
        oids.JSONPATH,
        input=plain(_cached_path),
        output=plain(format_path),
        receive=plain(_receive_path),
        send=plain(lambda path: b"\x01" + format_path(path).encode()),
    ),
)
