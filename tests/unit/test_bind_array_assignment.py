"""Assignment to array elements and slices: PostgreSQL 15's answers."""

from __future__ import annotations

import pytest

from shardforge.errors import QueryError
from shardforge.sql.execute.expressions.array_assignment import set_element, set_slice
from shardforge.sql.types.values import Array


@pytest.mark.parametrize(
    ("array", "at", "expected"),
    [
        (None, [3], Array((9,), (1,), (3,))),
        (Array(()), [1, 2], Array((9,), (1, 1), (1, 2))),
        (Array((1, 2)), [1], Array((9, 2))),
        (Array((1, 2)), [4], Array((1, 2, None, 9))),
        (Array((1, 2)), [-1], Array((9, None, 1, 2), (4,), (-1,))),
        (Array((1, 2, 3, 4), (2, 2)), [2, 1], Array((1, 2, 9, 4), (2, 2))),
    ],
)
def test_element(array: Array | None, at: list[int], expected: Array) -> None:
    assert set_element(array, at, 9) == expected


@pytest.mark.parametrize(
    ("array", "bounds", "expected"),
    [
        (None, (2, 3), Array((7, 8), (2,), (2,))),
        (Array((1, 2, 3)), (2, 3), Array((1, 7, 8))),
        (Array((1, 2, 3)), (None, 2), Array((7, 8, 3))),
        (Array((1, 2, 3)), (5, 6), Array((1, 2, 3, None, 7, 8))),
        (Array((1, 2, 3)), (1, 1), Array((7, 2, 3))),
    ],
)
def test_slice(array: Array | None, bounds: tuple[int | None, int | None], expected: Array) -> None:
    assert set_slice(array, [bounds], Array((7, 8))) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: set_element(Array((1, 2)), [1, 1], 9), "wrong number of array subscripts"),
        (lambda: set_element(Array((1, 2), (1, 2)), [2, 1], 9), "array subscript out of range"),
        (lambda: set_slice(Array((1, 2)), [(1, 3)], Array((7, 8))), "source array too small"),
        (
            lambda: set_slice(Array((1, 2)), [(3, 1)], Array((7, 8))),
            "upper bound cannot be less than lower bound",
        ),
        (
            lambda: set_slice(None, [(None, 1)], Array((7, 8))),
            "array slice subscript must provide both boundaries",
        ),
    ],
)
def test_errors(call: object, message: str) -> None:
    with pytest.raises(QueryError) as raised:
        call()  # type: ignore[operator]
    assert (raised.value.sqlstate, raised.value.message) == ("2202E", message)
