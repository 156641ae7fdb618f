"""Aggregates answer as PostgreSQL 15 did, and window functions by their definition.

A golden line: aggregate `g` over `rows` of types `t` (already in order), with direct argument `d` for ordered sets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.functions.aggregates import aggregate
from shardforge.sql.functions.ordered_set import hypothetical_set
from shardforge.sql.functions.window import Partition, window_function
from shardforge.sql.types import registry as types
from tests.unit.test_functions_golden import SETTINGS

GOLDEN = Path(__file__).parents[1] / "golden" / "functions" / "aggregates.jsonl"
CASES = [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()]


def oid_of(name: str) -> int:
    found = types.type_named(name)
    assert found is not None
    return found.oid


def result_type(name: str, arg_types: tuple[int, ...]) -> int:
    for proc in pgdata.procs_named(name):
        if proc.prokind == "a" and proc.proargtypes == arg_types:
            return proc.prorettype
    many = name.startswith("percentile") and types.is_array(arg_types[0])
    element = arg_types[-1]
    if name == "count":
        return oid_of("int8")
    if (name == "array_agg" and not types.is_array(element)) or many:
        return types.type_by_oid(element).array
    return element


def answer(case: dict[str, Any]) -> dict[str, Any]:
    arg_types = tuple(map(oid_of, case["t"]))
    inputs = [types.input_function(oid, SETTINGS) for oid in arg_types]
    found = aggregate(case["g"], arg_types, result_type(case["g"], arg_types))
    assert found is not None
    direct = [] if case.get("d") is None else [inputs[0](case["d"])]
    readers = inputs[len(direct) :]
    try:
        state = found.init()
        for row in case["rows"]:
            values = [
                None if text is None else read(text)
                for text, read in zip(row, readers, strict=True)
            ]
            if not (found.strict and None in values):
                state = found.step(state, *values)
        result = found.final(state, *direct)
    except QueryError as error:
        return {"e": error.sqlstate, "m": error.message}
    write = types.output_function(result_type(case["g"], arg_types), SETTINGS)
    return {"r": None if result is None else write(result)}


@pytest.mark.parametrize("name", sorted({case["g"] for case in CASES}))
def test_aggregate_answers_as_postgresql(name: str) -> None:
    wrong = []
    for case in CASES:
        if case["g"] != name:
            continue
        expected = {key: case[key] for key in ("r", "e", "m") if key in case}
        if (ours := answer(case)) != expected:
            wrong.append(f"{name} {case['t']} {case['rows']}: PostgreSQL {expected}, ours {ours}")
    assert not wrong, "\n".join(wrong)


def partition(*args: tuple[Any, ...], peers: list[tuple[int, int]]) -> Partition:
    """Rows with their peers' bounds; each frame goes from the first row to the last peer."""
    return Partition(
        args,
        [start for start, _ in peers],
        [end for _, end in peers],
        lambda row: range(peers[row][1]),
    )


FOUR = [(0, 1), (1, 3), (1, 3), (3, 4)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("row_number", [1, 2, 3, 4]),
        ("rank", [1, 2, 2, 4]),
        ("dense_rank", [1, 2, 2, 3]),
        ("percent_rank", [0.0, 1 / 3, 1 / 3, 1.0]),
        ("cume_dist", [0.25, 0.75, 0.75, 1.0]),
    ],
)
def test_ranking(name: str, expected: list[Any]) -> None:
    compute = window_function(name)
    assert compute is not None
    assert compute(partition((), (), (), (), peers=FOUR)) == expected


def test_values_of_other_rows() -> None:
    rows = partition(("a",), ("b",), ("c",), ("d",), peers=FOUR)
    computed = {
        name: compute(rows)
        for name in ("lag", "lead", "first_value", "last_value")
        if (compute := window_function(name))
    }
    assert computed == {
        "lag": [None, "a", "b", "c"],
        "lead": ["b", "c", "d", None],
        "first_value": ["a"] * 4,
        "last_value": ["a", "c", "c", "d"],
    }


def test_lag_with_offset_and_default() -> None:
    compute = window_function("lag")
    assert compute is not None
    rows = partition(("a", 2, "z"), ("b", 2, "z"), ("c", 2, "z"), ("d", None, "z"), peers=FOUR)
    assert compute(rows) == ["z", "z", "a", None]


def test_nth_value_counts_within_the_frame() -> None:
    compute = window_function("nth_value")
    assert compute is not None
    assert compute(partition(("a", 2), ("b", 2), ("c", 2), ("d", None), peers=FOUR)) == [
        None,
        "b",
        "b",
        None,
    ]
    with pytest.raises(QueryError, match="must be greater than zero"):
        compute(partition(("a", 0), peers=[(0, 1)]))


def test_ntile_gives_the_first_buckets_one_more() -> None:
    compute = window_function("ntile")
    assert compute is not None
    five = [(n, n + 1) for n in range(5)]
    assert compute(partition(*[(3,)] * 5, peers=five)) == [1, 1, 2, 2, 3]
    assert compute(partition(*[(9,)] * 3, peers=five[:3])) == [1, 2, 3]


def test_hypothetical_rank() -> None:
    rank, cume = hypothetical_set("dense_rank"), hypothetical_set("cume_dist")
    assert rank is not None
    assert cume is not None
    assert rank(4, 3, 1, 2) == 3
    assert cume(4, 3, 1, 2) == 1.0
