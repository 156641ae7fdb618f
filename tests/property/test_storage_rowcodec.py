"""Rows: what is encoded is decoded, for every type, layout and choice of columns."""

import contextlib
import math
import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardforge.errors import QueryError, StorageError
from shardforge.sql.types.values import Array, Interval, Jsonb, TimeTz
from shardforge.storage.rowcodec import RowCodec

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.floats(allow_nan=False)
DECIMALS = st.one_of(
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
        st.integers(0, 1), st.lists(st.integers(0, 9), min_size=1, max_size=40),
        st.integers(-60, 0),
    ),
    st.sampled_from([Decimal("Infinity"), Decimal("-Infinity"), Decimal("0.000"), Decimal("1E+3")]),
)  # fmt: skip
JSON_TREES = st.recursive(
    st.none() | st.booleans() | DECIMALS.filter(Decimal.is_finite) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def arrays_of(element: st.SearchStrategy[Any]) -> st.SearchStrategy[Array]:
    def build(items: list[Any], lower: int) -> Array:
        if not items:
            return Array((), (), ())
        if len(items) % 2 == 0:
            return Array(tuple(items), (2, len(items) // 2), (lower, 1))
        return Array(tuple(items), (len(items),), (lower,))

    return st.builds(build, st.lists(st.none() | element, max_size=9), INT32)


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    16: st.booleans(), 17: st.binary(max_size=20), 18: TEXTS, 19: TEXTS, 20: INT64,
    21: st.integers(-(2**15), 2**15 - 1), 23: INT32, 25: TEXTS, 26: st.integers(0, 2**32 - 1),
    114: TEXTS, 700: st.floats(width=32, allow_nan=False), 701: FLOATS, 1042: TEXTS, 1043: TEXTS,
    1082: INT32, 1083: st.integers(0, 86_400_000_000), 1114: INT64, 1184: INT64,
    1186: st.builds(Interval, INT32, INT32, INT64), 1266: st.builds(TimeTz, INT64, INT32),
    1700: DECIMALS, 2205: st.integers(0, 2**32 - 1), 2950: st.binary(min_size=16, max_size=16),
    3802: st.builds(Jsonb, JSON_TREES), 5069: st.integers(0, 2**64 - 1),
}  # fmt: skip
ARRAYS = {
    1000: 16, 1001: 17, 1007: 23, 1009: 25, 1016: 20, 1022: 701, 1182: 1082, 1185: 1184,
    1187: 1186, 1231: 1700, 1270: 1266, 2951: 2950, 3807: 3802,
}  # fmt: skip
TYPES = {**SCALARS, **{oid: arrays_of(SCALARS[element]) for oid, element in ARRAYS.items()}}


def exact(value: Any) -> Any:
    """A form in which equal means indistinguishable: type, numeric scale, sign of zero, order of keys."""
    match value:
        case Decimal():
            return ("numeric", value.as_tuple())
        case float():
            return ("float", struct.pack("<d", value))
        case Array():
            return ("array", [exact(item) for item in value.elements], value.dims, value.lower)
        case Jsonb():
            return ("jsonb", exact(value.value))
        case dict():
            return ("object", [(key, exact(item)) for key, item in value.items()])
        case list():
            return ("list", [exact(item) for item in value])
        case _:
            return (type(value).__name__, value)


def rows_of(layout: list[int]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*[st.none() | TYPES[oid] for oid in layout])


@pytest.mark.parametrize("oid", sorted(TYPES))
@settings(max_examples=40)
@given(data=st.data())
def test_every_type_comes_back_exactly(oid: int, data: st.DataObject) -> None:
    value = data.draw(TYPES[oid])
    codec = RowCodec([[(1, 20), (2, oid), (3, 25)]])
    row = codec.decode(codec.encode((5, value, "end")))
    assert exact(row[1]) == exact(value)
    assert (row[0], row[2]) == (5, "end")


@settings(max_examples=200)
@given(data=st.data(), layout=st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=12))
def test_rows_and_any_choice_of_columns_come_back(layout: list[int], data: st.DataObject) -> None:
    row = data.draw(rows_of(layout))
    codec = RowCodec([list(enumerate(layout))])
    encoded = codec.encode(row)
    decoded = codec.decode(encoded)
    assert [exact(value) for value in decoded] == [exact(value) for value in row]
    positions = data.draw(st.lists(st.integers(0, len(layout) - 1), max_size=5))
    picked = codec.decoder(positions)(encoded)
    assert [exact(value) for value in picked] == [exact(row[position]) for position in positions]


@settings(max_examples=150)
@given(data=st.data())
def test_rows_of_older_layouts_are_read_as_the_newest(data: st.DataObject) -> None:
    pool = [(column, data.draw(st.sampled_from(sorted(TYPES)))) for column in range(6)]
    layouts = data.draw(
        st.lists(st.lists(st.sampled_from(pool), unique=True, min_size=1), min_size=1, max_size=4)
    )
    missing = {column: data.draw(TYPES[oid]) for column, oid in pool if data.draw(st.booleans())}
    number = data.draw(st.integers(0, len(layouts) - 1))
    row = data.draw(rows_of([oid for _, oid in layouts[number]]))
    encoded = RowCodec(layouts[: number + 1]).encode(row)
    codec = RowCodec(layouts, missing)
    stored = {column: value for (column, _), value in zip(layouts[number], row, strict=True)}
    expected = [
        stored[column] if column in stored else missing.get(column) for column, _ in layouts[-1]
    ]
    assert [exact(value) for value in codec.decode(encoded)] == [exact(v) for v in expected]
    last = len(layouts[-1]) - 1
    assert exact(codec.decoder([last])(encoded)[0]) == exact(expected[last])


def test_nan_comes_back() -> None:
    codec = RowCodec([[(1, 701), (2, 1700)]])
    double, numeric = codec.decode(codec.encode((math.nan, Decimal("NaN"))))
    assert math.isnan(double)
    assert numeric.is_nan()


def test_wide_rows() -> None:
    codec = RowCodec([[(n, 23 if n % 2 else 25) for n in range(200)]])
    row = tuple(None if n % 7 == 0 else n if n % 2 else str(n) for n in range(200))
    assert codec.decode(codec.encode(row)) == row


def test_a_row_of_an_unknown_layout_is_refused() -> None:
    newer = RowCodec([[(1, 23)], [(1, 23), (2, 23)]]).encode((1, 2))
    with pytest.raises(StorageError, match="row has layout 1") as raised:
        RowCodec([[(1, 23)]]).decode(newer)
    assert raised.value.sqlstate == "XX001"


def test_a_type_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(QueryError) as raised:
        RowCodec([[(1, 2249)]])
    assert raised.value.sqlstate == "0A000"


@settings(max_examples=150)
@given(data=st.binary(max_size=60))
def test_bytes_that_are_no_row_raise_nothing_but_storage_errors(data: bytes) -> None:
    codec = RowCodec([[(1, 20), (2, 1700), (3, 1009), (4, 3802)]])
    with contextlib.suppress(StorageError):
        codec.decode(data)
