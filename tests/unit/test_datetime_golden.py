"""Dates, times and intervals answer as PostgreSQL 15 did: input, functions and templates, errors included."""

from __future__ import annotations

from typing import Any

import pytest

from shardforge.sql.types import interval_text
from shardforge.sql.types import registry as types
from tests.golden.calls import Settings, call, cases, check, type_oid


def settings_of(case: dict[str, Any]) -> Settings:
    return Settings(case.get("tz", "UTC"), case.get("ds", "ISO, MDY"))


def through_text(case: dict[str, Any]) -> str:
    settings, oid = settings_of(case), type_oid(case["type"])
    value = types.input_function(oid, settings)(case["text"])
    return types.output_function(oid, settings)(value)


def interval(case: dict[str, Any]) -> str:
    numbers = case.get("typmod")
    if numbers is None:
        return interval_text.format_interval(interval_text.parse_interval(case["text"]))
    typmod = interval_text.interval_typmod_in(numbers)
    fields = typmod >> 16 & interval_text.FULL_RANGE
    value = interval_text.parse_interval(case["text"], fields)
    return interval_text.format_interval(interval_text.apply_interval_typmod(typmod, value))


def function(case: dict[str, Any]) -> Any:
    args = [tuple(arg) for arg in case["args"]]
    return call(case["fn"], args, settings_of(case), case.get("ret"), case.get("decl"))


@pytest.mark.parametrize(
    ("file", "compute"),
    [
        ("datetime/input.jsonl", through_text),
        ("datetime/interval.jsonl", interval),
        ("datetime/functions.jsonl", function),
        ("datetime/format.jsonl", function),
    ],
    ids=["input", "interval", "functions", "format"],
)
def test_answers_are_postgresqls(file: str, compute: Any) -> None:
    wrong = [d for case in cases(file) if (d := check(case, lambda case=case: compute(case)))]
    assert not wrong, f"{len(wrong)} differ, first:\n" + "\n".join(wrong[:5])
