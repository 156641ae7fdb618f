"""Text input, text output, binary form and length coercion of the basic types are PostgreSQL 15's, errors included.

One line of the golden file: type `t` (with a modifier: a coercion, explicit or not by `x`), input text `v`, output `r`
and binary form `b` in hexadecimal, or SQLSTATE `e` and message `m`.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from shardforge.errors import QueryError
from shardforge.sql.types import registry as types
from tests.unit.test_functions_golden import SETTINGS

GOLDEN = Path(__file__).parents[1] / "golden" / "functions" / "types.jsonl"
CASES = [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()]


def ours(case: dict[str, Any]) -> dict[str, Any]:
    name, _, modifier = case["t"].partition("(")
    found = types.type_named({"char": "bpchar"}.get(name, name) if modifier else name)
    assert found is not None
    oid = found.oid
    try:
        typmod = -1
        if modifier:
            typmod = types.typmod_in(oid, [int(n) for n in re.findall(r"-?\d+", modifier)])
        value = types.input_function(oid, SETTINGS)(case["v"])
        value = types.apply_typmod(oid, typmod, value, case.get("x", True))
        result = {"r": types.output_function(oid, SETTINGS)(value)}
        if not modifier:
            data = types.send_function(oid, SETTINGS)(value)
            assert same(types.receive_function(oid, SETTINGS)(data), value), (
                "binary form reads back"
            )
            result["b"] = data.hex()
        return result
    except QueryError as error:
        return {"e": error.sqlstate, "m": error.message}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return str(a) == str(b)


@pytest.mark.parametrize("name", sorted({case["t"] for case in CASES}))
def test_type_is_read_and_written_as_postgresql_does(name: str) -> None:
    wrong = []
    for case in CASES:
        if case["t"] != name:
            continue
        expected = {key: case[key] for key in ("r", "b", "e", "m") if key in case}
        if (answer := ours(case)) != expected:
            wrong.append(f"{name} {case['v']!r}: PostgreSQL {expected}, ours {answer}")
    assert not wrong, "\n".join(wrong)
