"""Arrays answer as PostgreSQL 15 did: literals, functions, subscripts, slices and assignment to them."""

from __future__ import annotations

from typing import Any

import pytest

from shardforge.sql.functions import arrays
from shardforge.sql.types import registry as types
from shardforge.sql.types.values import Array
from tests.golden.calls import Settings, call, cases, check, type_oid

SETTINGS = Settings()
INTEGERS = type_oid("int[]")


def through_text(case: dict[str, Any]) -> str:
    oid = type_oid(case["type"])
    return types.output_function(oid, SETTINGS)(types.input_function(oid, SETTINGS)(case["text"]))


def function(case: dict[str, Any]) -> Any:
    args = [tuple(arg) for arg in case["args"]]
    return call(case["fn"], args, SETTINGS, case.get("ret"), case.get("decl"))


def read(text: str | None) -> Array | None:
    return None if text is None else types.input_function(INTEGERS, SETTINGS)(text)


def write(value: Any) -> str | None:
    if value is None or isinstance(value, int):
        return None if value is None else str(value)
    return types.output_function(INTEGERS, SETTINGS)(value)


def subscripts(case: dict[str, Any]) -> str | None:
    array, kind = read(case.get("a")), case["kind"]
    if kind == "sub":
        return write(arrays.subscript(array, case["idx"]))
    if kind == "slice":
        return write(arrays.slice_array(array, case["bounds"]))
    if kind == "set":
        return write(arrays.assign_element(array, case["idx"], 9))
    source = read(case["src"])
    assert source is not None
    return write(arrays.assign_slice(array, case["bounds"], source))


@pytest.mark.parametrize(
    ("file", "compute"),
    [
        ("arrays/input.jsonl", through_text),
        ("arrays/functions.jsonl", function),
        ("arrays/subscripts.jsonl", subscripts),
    ],
    ids=["input", "functions", "subscripts"],
)
def test_answers_are_postgresqls(file: str, compute: Any) -> None:
    wrong = [d for case in cases(file) if (d := check(case, lambda case=case: compute(case)))]
    assert not wrong, f"{len(wrong)} differ, first:\n" + "\n".join(wrong[:5])


def test_a_null_bound_makes_a_slice_null() -> None:
    assert arrays.slice_array(Array((1, 2)), [(None, 1)], null_bound=True) is None


def test_nested_constructor_needs_equal_shapes() -> None:
    assert arrays.build_nested([Array((1, 2)), Array((3, 4))]) == Array((1, 2, 3, 4), (2, 2))
    assert arrays.build_nested([Array(()), None]) == Array(())
    with pytest.raises(Exception, match="matching dimensions"):
        arrays.build_nested([Array((1, 2)), Array((3,))])
