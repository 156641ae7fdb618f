"""JSON and arrays survive text and binary form; their orders are total and agree with equality."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardforge.sql.functions.json_binary import contains
from shardforge.sql.functions.json_binary_change import concat, strip_nulls
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types
from shardforge.sql.types.json import format_jsonb, ordered_object, parse_json, parse_jsonb
from shardforge.sql.types.json_text import scan
from shardforge.sql.types.values import Array, Jsonb
from tests.golden.calls import Settings

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)
NUMBERS = st.decimals(
    allow_nan=False, allow_infinity=False, places=3, min_value=-999, max_value=999
)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), TEXT, NUMBERS.map(lambda d: d or d.copy_abs())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXT, inner, max_size=4).map(lambda d: ordered_object(list(d.items()))),
    ),
    max_leaves=12,
)
INTEGER_ARRAYS = st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), max_size=6)
TEXT_ARRAYS = st.lists(st.one_of(st.none(), TEXT), max_size=6)
SESSION = Settings()


@given(TREES)
def test_jsonb_survives_text_and_binary(tree: Any) -> None:
    value = Jsonb(tree)
    text = format_jsonb(value)
    assert parse_jsonb(text) == value
    assert format_jsonb(parse_jsonb(text)) == text
    again = types.receive_function(oids.JSONB, SESSION)(
        types.send_function(oids.JSONB, SESSION)(value)
    )
    assert format_jsonb(again) == text


@given(TREES)
def test_json_keeps_its_text_and_the_scanner_agrees(tree: Any) -> None:
    text = format_jsonb(Jsonb(tree))
    assert parse_json(text) == text
    node = scan(text)
    assert (node.start, node.end) == (0, len(text))


@given(TREES, TREES)
def test_order_agrees_with_equality(a: Any, b: Any) -> None:
    left, right = Jsonb(a).sort_key(), Jsonb(b).sort_key()
    assert (left < right) + (left == right) + (left > right) == 1
    assert (left == right) == (Jsonb(a) == Jsonb(b))


@given(TREES)
def test_everything_contains_itself(tree: Any) -> None:
    assert contains(Jsonb(tree), Jsonb(tree))


@given(TREES, TREES)
def test_changes_leave_their_arguments_alone(a: Any, b: Any) -> None:
    left, right = Jsonb(a), Jsonb(b)
    before = format_jsonb(left), format_jsonb(right)
    concat(left, right)
    strip_nulls(left)
    assert (format_jsonb(left), format_jsonb(right)) == before


def survives(oid: int, array: Array) -> None:
    text = types.output_function(oid, SESSION)(array)
    assert types.input_function(oid, SESSION)(text) == array, text
    assert types.receive_function(oid, SESSION)(types.send_function(oid, SESSION)(array)) == array


@given(INTEGER_ARRAYS, st.integers(-5, 5))
def test_integer_arrays(items: list[int | None], lower: int) -> None:
    array = Array(tuple(items), lower=(lower,)) if items else Array(())
    survives(1007, array)


@given(TEXT_ARRAYS)
def test_text_arrays(items: list[str | None]) -> None:
    survives(1009, Array(tuple(items)))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(-3, 3), st.data())
def test_arrays_of_two_dimensions(rows: int, columns: int, lower: int, data: Any) -> None:
    size = rows * columns
    items = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    survives(1007, Array(tuple(items), (rows, columns), (lower, 1)))


@given(INTEGER_ARRAYS, INTEGER_ARRAYS)
def test_array_order_is_total(a: list[int | None], b: list[int | None]) -> None:
    key = types.sort_key(1007)
    assert key is not None
    left, right = key(Array(tuple(a))), key(Array(tuple(b)))
    assert (left < right) + (left == right) + (left > right) == 1


def test_numbers_keep_their_scale() -> None:
    assert format_jsonb(Jsonb(Decimal("1.50"))) == "1.50"
