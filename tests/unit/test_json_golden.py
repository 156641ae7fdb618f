"""json, jsonb and jsonpath answer as PostgreSQL 15 did, errors and their details included."""

from __future__ import annotations

from typing import Any

import pytest

from shardforge.sql.types import registry as types
from tests.golden.calls import Settings, call, cases, check, type_oid

SETTINGS = Settings()


def through_text(case: dict[str, Any]) -> str:
    oid = type_oid(case["type"])
    return types.output_function(oid, SETTINGS)(types.input_function(oid, SETTINGS)(case["text"]))


def function(case: dict[str, Any]) -> Any:
    args = [tuple(arg) for arg in case["args"]]
    return call(case["fn"], args, SETTINGS, case.get("ret"), case.get("decl"))


@pytest.mark.parametrize(
    ("file", "compute"),
    [
        ("json/input.jsonl", through_text),
        ("json/functions.jsonl", function),
        ("json/jsonpath.jsonl", function),
    ],
    ids=["input", "functions", "jsonpath"],
)
def test_answers_are_postgresqls(file: str, compute: Any) -> None:
    wrong = [d for case in cases(file) if (d := check(case, lambda case=case: compute(case)))]
    assert not wrong, f"{len(wrong)} differ, first:\n" + "\n".join(wrong[:5])
