"""jsonb subscripts, aggregates, records, and row values as JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from shardforge.errors import QueryError
from shardforge.sql.functions import json_binary, json_binary_change, json_build
from shardforge.sql.functions.aggregates import aggregate
from shardforge.sql.functions.json_record import Column, record_reader
from shardforge.sql.types import oids
from shardforge.sql.types.json import format_jsonb, parse_jsonb
from shardforge.sql.types.values import Array, Jsonb, Record
from tests.golden.calls import Settings, context

CTX = context(Settings())


def assigned(text: str | None, keys: list[str | None], new: str) -> str:
    value = None if text is None else parse_jsonb(text)
    return format_jsonb(json_binary_change.assign_subscript(value, keys, parse_jsonb(new)))


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        ('{"a": 1}', ["a"], '{"a": 9}'),
        ('{"a": 1}', ["b"], '{"a": 1, "b": 9}'),
        (None, ["a"], '{"a": 9}'),
        (None, ["0"], "[9]"),
        ("{}", ["a", "0", "b"], '{"a": [{"b": 9}]}'),
        ("[]", ["2"], "[null, null, 9]"),
        ("[1]", ["-1"], "[9]"),
        ("{}", ["a", "-1"], '{"a": [9]}'),
        ('{"a": []}', ["a", "1", "b"], '{"a": [null, {"b": 9}]}'),
    ],
)
def test_subscript_assignment_fills_gaps(
    before: str | None, keys: list[str | None], after: str
) -> None:
    assert assigned(before, keys, "9") == after


@pytest.mark.parametrize(
    ("before", "keys", "sqlstate"),
    [
        ("1", ["a"], "22023"),
        ('{"a": 1}', ["a", "b"], "22023"),
        ("[]", ["-1"], "22023"),
        (None, ["-1"], "22023"),
        ("[]", ["x"], "22P02"),
        ("{}", [None], "22004"),
    ],
)
def test_subscript_assignment_refuses(
    before: str | None, keys: list[str | None], sqlstate: str
) -> None:
    with pytest.raises(QueryError) as refused:
        assigned(before, keys, "9")
    assert refused.value.sqlstate == sqlstate


def test_subscripts_read_keys_and_positions() -> None:
    value = parse_jsonb('{"a": [1, 2]}')
    assert json_binary.jsonb_subscript(value, ["a", "1"]) == Jsonb(Decimal(2))
    assert json_binary.jsonb_subscript(value, ["a", "x"]) is None
    assert json_binary.jsonb_subscript(None, ["a"]) is None


def aggregated(name: str, arg_types: tuple[int, ...], rows: list[tuple[Any, ...]]) -> Any:
    found = aggregate(name, arg_types)
    assert found is not None
    state = found.init(CTX)
    for row in rows:
        state = found.step(state, *row)
    return found.final(state)


def test_aggregates_write_as_postgresql_does() -> None:
    numbers = [(2,), (None,), (1,)]
    assert aggregated("json_agg", (oids.INT4,), numbers) == "[2, null, 1]"
    assert aggregated("jsonb_agg", (oids.INT4,), numbers) == parse_jsonb("[2, null, 1]")
    assert aggregated("json_agg", (oids.INT4,), []) is None
    pairs = [("b", 1), ("a", 2), ("b", 3)]
    assert aggregated("json_object_agg", (oids.TEXT, oids.INT4), pairs) == (
        '{ "b" : 1, "a" : 2, "b" : 3 }'
    )
    found = aggregated("jsonb_object_agg", (oids.TEXT, oids.INT4), pairs)
    assert format_jsonb(found) == '{"a": 2, "b": 3}'
    with pytest.raises(QueryError, match="field name must not be null"):
        aggregated("json_object_agg", (oids.TEXT, oids.INT4), [(None, 1)])


def test_rows_become_objects() -> None:
    row = Record((1, "x", None), (oids.INT4, oids.TEXT, oids.BOOL), ("id", "name", "flag"))
    assert json_build.row_to_json(CTX, row) == '{"id":1,"name":"x","flag":null}'
    assert json_build.row_to_json_pretty(CTX, row, True) == '{"id":1,\n "name":"x",\n "flag":null}'
    tree = json_build.jsonb_builder(oids.RECORD)(CTX.settings, row)
    assert format_jsonb(Jsonb(tree)) == '{"id": 1, "flag": null, "name": "x"}'


def test_build_functions_take_arguments_of_any_type() -> None:
    arg_types = (oids.TEXT, oids.INT4, oids.TEXT, oids.JSONB, oids.INT4, oids.TEXT)
    args = ("a", 1, "b", parse_jsonb("[1]"), 3, None)
    build = json_build.json_build_object(arg_types, oids.JSON)
    assert build(CTX, *args) == '{"a" : 1, "b" : [1], "3" : null}'
    build_binary = json_build.jsonb_build_object(arg_types, oids.JSONB)
    assert format_jsonb(build_binary(CTX, *args)) == '{"3": null, "a": 1, "b": [1]}'
    with pytest.raises(QueryError, match="even number"):
        json_build.json_build_object((oids.TEXT,), oids.JSON)(CTX, "a")


def record(function: str, value: str, *columns: tuple[str, int]) -> Any:
    given = parse_jsonb(value) if function.startswith("jsonb") else value
    return record_reader(function, [Column(*c) for c in columns])(CTX, given)


@pytest.mark.parametrize("kind", ["json", "jsonb"])
def test_records_are_read_by_their_column_types(kind: str) -> None:
    text = '{"a": 1, "b": "x", "c": [1, 2], "f": null, "g": "2000-01-02", "m": [[1], [2]]}'
    row = record(
        f"{kind}_to_record", text, ("a", oids.INT4), ("b", oids.TEXT), ("c", 1007),
        ("f", oids.INT4), ("g", oids.DATE), ("h", oids.TEXT), ("m", 1007),
    )  # fmt: skip
    assert list(row) == [(1, "x", Array((1, 2)), None, 1, None, Array((1, 2), (2, 1)))]
    rows = record(f"{kind}_to_recordset", '[{"a": 1}, {"b": 2}]', ("a", oids.INT4))
    assert list(rows) == [(1,), (None,)]


@pytest.mark.parametrize(
    ("function", "text", "column", "message"),
    [
        ("json_to_record", "1", oids.INT4, "cannot call populate_composite on a scalar"),
        ("jsonb_to_record", "[1]", oids.INT4, "cannot call populate_composite on an array"),
        ("json_to_recordset", "{}", oids.INT4, "cannot call json_to_recordset on an object"),
        ("jsonb_to_recordset", "{}", oids.INT4, "cannot call jsonb_to_recordset on a non-array"),
        ("json_to_recordset", "[2]", oids.INT4, "must be an array of objects"),
        ("jsonb_to_record", '{"a": [[1,2],[3]]}', 1007, "malformed JSON array"),
        ("jsonb_to_record", '{"a": 5}', 1007, "expected JSON array"),
        ("jsonb_to_record", '{"a": "x"}', oids.INT4, 'integer: "x"'),
    ],
)
def test_records_refuse_as_postgresql_does(
    function: str, text: str, column: int, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        list(record(function, text, ("a", column)))
