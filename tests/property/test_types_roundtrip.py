"""Text and binary forms read back as the value they came from, and sort keys order values as their type does."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction as Exact

from hypothesis import given
from hypothesis import strategies as st

from shardforge.sql.functions import numeric as arithmetic
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types
from shardforge.sql.types.floats import single
from shardforge.sql.types.numeric import checked
from tests.unit.test_functions_golden import SETTINGS

NUMERICS = st.builds(
    lambda digits, scale: checked(Decimal(digits).scaleb(-scale)),
    st.integers(-(10**24), 10**24),
    st.integers(0, 20),
)
FLOATS = st.floats(allow_nan=False)


def through_text(oid: int, value: object) -> object:
    return types.input_function(oid, SETTINGS)(types.output_function(oid, SETTINGS)(value))


def through_bytes(oid: int, value: object) -> object:
    return types.receive_function(oid, SETTINGS)(types.send_function(oid, SETTINGS)(value))


@given(FLOATS)
def test_double_text_reads_back_to_the_bit(value: float) -> None:
    again = through_text(oids.FLOAT8, value)
    assert isinstance(again, float)
    assert (again, math.copysign(1, again)) == (value, math.copysign(1, value))


@given(st.floats(allow_nan=False, width=32))
def test_single_text_reads_back(value: float) -> None:
    assert through_text(oids.FLOAT4, single(value)) == single(value)


@given(NUMERICS)
def test_numeric_keeps_value_and_scale(value: Decimal) -> None:
    for again in (through_text(oids.NUMERIC, value), through_bytes(oids.NUMERIC, value)):
        assert isinstance(again, Decimal)
        assert again.as_tuple() == value.as_tuple()


@given(st.binary(), st.uuids())
def test_bytes_and_uuids_read_back(data: bytes, uuid: object) -> None:
    assert through_text(oids.BYTEA, data) == data
    raw = getattr(uuid, "bytes")  # noqa: B009
    assert through_text(oids.UUID, raw) == raw


@given(st.integers(-(2**63), 2**63 - 1))
def test_bigint_reads_back(value: int) -> None:
    assert through_text(oids.INT8, value) == through_bytes(oids.INT8, value) == value


@given(st.lists(st.floats(), min_size=1))
def test_nan_sorts_last_and_equals_itself(values: list[float]) -> None:
    key = types.sort_key(oids.FLOAT8)
    assert key is not None
    ordered = sorted(values, key=key)
    nans = sum(math.isnan(value) for value in values)
    assert all(math.isnan(value) for value in ordered[len(values) - nans :])
    assert ordered[: len(values) - nans] == sorted(v for v in values if not math.isnan(v))


@given(NUMERICS, NUMERICS)
def test_numeric_sums_and_products_are_exact(a: Decimal, b: Decimal) -> None:
    scale_a, scale_b = (-int(x.as_tuple().exponent) for x in (a, b))
    whole_a, whole_b = (int(x * 10**40) for x in map(Exact, (a, b)))
    assert int(Exact(arithmetic.numeric_add(a, b)) * 10**40) == whole_a + whole_b
    product = arithmetic.numeric_mul(a, b)
    assert -int(product.as_tuple().exponent) == scale_a + scale_b
    assert int(Exact(product) * 10**80) == whole_a * whole_b


@given(NUMERICS, NUMERICS.filter(bool))
def test_numeric_quotient_is_rounded_once(a: Decimal, b: Decimal) -> None:
    quotient = Exact(arithmetic.numeric_div(a, b))
    unit = 10 ** -int(arithmetic.numeric_div(a, b).as_tuple().exponent)
    exact = Exact(a) / Exact(b)
    assert abs(quotient - exact) * 2 * unit <= 1


@given(NUMERICS, NUMERICS.filter(bool))
def test_numeric_remainder_has_the_sign_of_the_dividend(a: Decimal, b: Decimal) -> None:
    rest = arithmetic.numeric_mod(a, b)
    assert rest == 0 or (rest > 0) == (a > 0)
    assert abs(Exact(rest)) < abs(Exact(b))
