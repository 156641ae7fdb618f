"""Keys: key order is value order, equal values have equal keys, no key is a prefix of another."""

import struct
from decimal import Decimal
from functools import cmp_to_key
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardforge.errors import QueryError
from shardforge.keys import (
    BUCKETS,
    bucket_boundary,
    bucket_of,
    can_be_key,
    colocated_boundary,
    colocated_prefix,
    encode_column,
    hash16_of,
    hash_prefix,
    hashed_key_encoder,
    key_encoder,
    meta_key,
    prefix_end,
    range_prefix,
    shard_key_prefix,
)
from shardforge.sql.types.values import Array, Interval, TimeTz

INT64 = st.integers(-(2**63), 2**63 - 1)
DECIMALS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
        st.integers(0, 1), st.lists(st.integers(0, 9), min_size=1, max_size=25).map(tuple),
        st.integers(-40, 20),
    ),
    st.sampled_from([Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity"), Decimal("-0.00")]),
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


def numeric_order(value: Decimal) -> Any:
    return (1, Decimal(0)) if value.is_nan() else (0, value)


def float_order(value: float) -> Any:
    return (1, 0.0) if value != value else (0, value)


def array_order(value: Array) -> Any:
    elements = [(1, 0) if item is None else (0, item) for item in value.elements]
    return (elements, len(value.dims), value.dims, value.lower)


def arrays_of(element: st.SearchStrategy[Any]) -> st.SearchStrategy[Array]:
    def build(items: list[Any], rows: int, lower: int) -> Array:
        if not items:
            return Array((), (), ())
        if rows > 1 and len(items) % rows == 0:
            return Array(tuple(items), (rows, len(items) // rows), (1, lower))
        return Array(tuple(items), (len(items),), (lower,))

    return st.builds(
        build, st.lists(st.none() | element, max_size=6), st.integers(1, 2), st.integers(-2, 2)
    )


# oid -> (values, PostgreSQL's order as a sort key)
TYPES: dict[int, tuple[st.SearchStrategy[Any], Any]] = {
    16: (st.booleans(), lambda value: value),
    17: (st.binary(max_size=6) | st.lists(st.sampled_from([0, 1, 255])).map(bytes), lambda v: v),
    20: (INT64, lambda value: value),
    21: (st.integers(-(2**15), 2**15 - 1), lambda value: value),
    23: (st.integers(-(2**31), 2**31 - 1), lambda value: value),
    25: (TEXTS, lambda value: value.encode()),
    26: (st.integers(0, 2**32 - 1), lambda value: value),
    700: (st.floats(width=32), float_order),
    701: (st.floats(), float_order),
    1042: (TEXTS.map(lambda t: t.ljust(10)), lambda value: value.rstrip(" ").encode()),
    1082: (st.integers(-(2**31), 2**31 - 1), lambda value: value),
    1083: (st.integers(0, 86_400_000_000), lambda value: value),
    1114: (INT64, lambda value: value),
    1184: (INT64, lambda value: value),
    1186: (
        st.builds(
            Interval, *[st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3)] * 2,
            INT64 | st.sampled_from([86_400_000_000, -86_400_000_000, 0]),
        ),
        lambda value: (value.months * 30 + value.days) * 86_400_000_000 + value.micros,
    ),
    1266: (
        st.builds(TimeTz, st.integers(0, 86_400_000_000), st.integers(-57_540, 57_540)),
        lambda value: (value.micros + value.zone * 1_000_000, value.zone),
    ),
    1700: (DECIMALS, numeric_order),
    2950: (st.binary(min_size=16, max_size=16), lambda value: value),
    1007: (arrays_of(st.integers(-2, 2)), array_order),
    1009: (arrays_of(TEXTS), array_order),
    1231: (arrays_of(st.decimals(-3, 3, places=1)), array_order),
}  # fmt: skip


def columns() -> st.SearchStrategy[tuple[int, bool, bool]]:
    return st.tuples(st.sampled_from(sorted(TYPES)), st.booleans(), st.booleans())


def compare(oid: int, descending: bool, nulls_first: bool, left: Any, right: Any) -> int:
    """PostgreSQL's comparison of two column values in an index with these options."""
    if left is None or right is None:
        if left is right:
            return 0
        return -1 if (left is None) == nulls_first else 1
    order = TYPES[oid][1]
    a, b = order(left), order(right)
    return 0 if a == b else (-1 if a < b else 1) * (-1 if descending else 1)


@pytest.mark.parametrize("oid", sorted(TYPES))
@pytest.mark.parametrize("descending", [False, True])
@settings(max_examples=60)
@given(data=st.data(), nulls_first=st.booleans())
def test_key_order_is_value_order(
    oid: int, descending: bool, nulls_first: bool, data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.none() | TYPES[oid][0], min_size=2, max_size=12))
    encode = key_encoder([(oid, descending, nulls_first)])
    ordered = sorted(
        values, key=cmp_to_key(lambda a, b: compare(oid, descending, nulls_first, a, b))
    )
    keys = [encode((value,)) for value in ordered]
    assert keys == sorted(keys)
    for (left, left_key), (right, right_key) in pairwise(zip(ordered, keys, strict=True)):
        equal = compare(oid, descending, nulls_first, left, right) == 0
        assert (left_key == right_key) == equal
        assert left_key == right_key or not right_key.startswith(left_key)
        assert left_key == right_key or not left_key.startswith(right_key)
    out = bytearray(b"x")
    encode_column(oid, values[0], out, descending=descending, nulls_first=nulls_first)
    assert bytes(out) == b"x" + encode((values[0],))


@settings(max_examples=150)
@given(data=st.data(), layout=st.lists(columns(), min_size=1, max_size=4))
def test_several_columns_compare_from_the_left(
    layout: list[tuple[int, bool, bool]], data: st.DataObject
) -> None:
    rows = data.draw(
        st.lists(st.tuples(*[st.none() | TYPES[oid][0] for oid, _, _ in layout]), max_size=8)
    )
    encode = key_encoder(layout, b"prefix")

    def compare_rows(left: Any, right: Any) -> int:
        for column, a, b in zip(layout, left, right, strict=True):
            result = compare(*column, a, b)
            if result:
                return result
        return 0

    ordered = sorted(rows, key=cmp_to_key(compare_rows))
    keys = [encode(row) for row in ordered]
    assert keys == sorted(keys)
    for left, right in pairwise(sorted(set(keys))):
        assert not right.startswith(left)
        assert left.startswith(b"prefix")


def test_equal_values_have_equal_keys() -> None:
    numeric = key_encoder([(1700, False, False)])
    assert numeric((Decimal("1.0"),)) == numeric((Decimal("1.000"),)) == numeric((Decimal("1E0"),))
    assert numeric((Decimal(100),)) == numeric((Decimal("1E+2"),))
    assert numeric((Decimal("0.00"),)) == numeric((Decimal("-0"),)) == numeric((Decimal("0E+9"),))
    double = key_encoder([(701, True, False)])
    assert double((0.0,)) == double((-0.0,))
    negative_nan = struct.unpack(">d", b"\xff\xf8\x00\x00\x00\x00\x00\x01")[0]
    assert double((float("nan"),)) == double((negative_nan,))
    assert key_encoder([(1186, False, False)])((Interval(1, 0, 0),)) == key_encoder(
        [(1186, False, False)]
    )((Interval(0, 29, 86_400_000_000),))


@pytest.mark.parametrize("oid", [114, 3802, 199, 3807, 2249, 999_999])
def test_types_without_an_order_are_refused(oid: int) -> None:
    assert not can_be_key(oid)
    with pytest.raises(QueryError) as raised:
        key_encoder([(oid, False, False)])
    assert raised.value.sqlstate == "0A000"


@given(INT64, st.integers(0, 5))
def test_buckets_are_canonical_across_integers_and_numeric(value: int, scale: int) -> None:
    shown = Decimal(f"{value}.{'0' * scale}")
    for oid in (20, 21, 23):
        assert bucket_of((value,), (oid,)) == bucket_of((shown,), (1700,))
    assert shard_key_prefix((value,), (23,)) == shard_key_prefix((shown,), (1700,))
    assert 0 <= bucket_of((value,), (20,)) < BUCKETS
    assert bucket_of((value,), (20,)) == hash16_of((value,), (20,)) >> 10


def test_the_hash_is_frozen() -> None:
    """Data on disk is placed by it: these numbers must never change."""
    assert [bucket_of((n,), (20,)) for n in (0, 1, 2, -1, 10**12)] == FROZEN_INTEGERS
    assert [bucket_of((t,), (25,)) for t in ("", "a", "ab", "ä")] == FROZEN_TEXTS
    assert bucket_of((b"k\x00",), (17,)) == FROZEN_BYTES
    assert bucket_of((Decimal("1.5"),), (1700,)) == FROZEN_NUMERIC
    assert bucket_of((None, 7), (20, 20)) == FROZEN_PAIR


FROZEN_INTEGERS = [63, 22, 59, 45, 24]
FROZEN_TEXTS = [21, 32, 31, 52]
FROZEN_BYTES = 20
FROZEN_NUMERIC = 3
FROZEN_PAIR = 5


@pytest.mark.parametrize("step", [1, 64, 1000, 4096, 100_000])
def test_sequences_spread_over_the_buckets(step: int) -> None:
    counts = [0] * BUCKETS
    for n in range(6400):
        counts[bucket_of((n * step,), (20,))] += 1
    assert min(counts) > 50
    assert max(counts) < 200


@settings(max_examples=150)
@given(data=st.data(), layout=st.lists(columns(), min_size=1, max_size=3), hashed=st.integers(1, 3))
def test_hashed_keys_lie_in_the_bucket_of_their_hashed_columns(
    layout: list[tuple[int, bool, bool]], hashed: int, data: st.DataObject
) -> None:
    hashed = min(hashed, len(layout))
    row = data.draw(st.tuples(*[st.none() | TYPES[oid][0] for oid, _, _ in layout]))
    oids = [oid for oid, _, _ in layout][:hashed]
    key = hashed_key_encoder(layout, 7, 9, hashed)(row)
    prefix = hash_prefix(bucket_of(row[:hashed], oids), 7, 9)
    assert key == key_encoder(layout, prefix)(row)


def test_prefixes_tile_the_key_space_in_order() -> None:
    one = [(1,), (20,)]
    assert colocated_prefix(*one, 5, 6).startswith(shard_key_prefix(*one))
    assert colocated_boundary(hash16_of(*one)) < colocated_prefix(*one, 5, 6)
    assert colocated_prefix(*one, 5, 6) < colocated_boundary(hash16_of(*one) + 1)
    assert bucket_boundary(3) < hash_prefix(3, 1, 1) < hash_prefix(3, 1, 2) < bucket_boundary(4)
    assert b"g" < b"h" < range_prefix(1, 1)[:1] < meta_key()[:1] == b"s"
    assert prefix_end(range_prefix(1, 1)) == range_prefix(1, 2)
    assert prefix_end(b"a\xff\xff") == b"b"


@given(st.lists(st.tuples(TEXTS, INT64), min_size=2, max_size=6))
def test_meta_keys_keep_the_order_of_their_parts(parts: list[tuple[str, int]]) -> None:
    ordered = sorted(parts, key=lambda pair: (pair[0].encode(), pair[1]))
    keys = [meta_key("table", *pair) for pair in ordered]
    assert keys == sorted(keys)
    for key, (name, _) in zip(keys, ordered, strict=True):
        prefix = meta_key("table", name)
        assert prefix <= key < prefix_end(prefix)
