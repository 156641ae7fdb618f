"""Functions of numbers, text, patterns and number formats answer as PostgreSQL 15 did, errors included.

One line of a golden file is one call: `f` the signature, `a` the arguments as text; `r` the answer as text, `rows`
those of a set-returning function, or `e` and `m` the SQLSTATE and message.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.functions import registry as functions
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.types import registry as types

GOLDEN = Path(__file__).parents[1] / "golden" / "functions"


class Settings:
    timezone = "UTC"
    datestyle = "ISO, MDY"
    intervalstyle = "postgres"
    extra_float_digits = 1
    bytea_output = "hex"

    def show(self, name: str) -> str:
        return {"client_encoding": "UTF8"}[name]


class Clock:
    def wall_us(self) -> int:
        return 0


SETTINGS = Settings()
CLOCK: Any = Clock()
SESSION = SimpleNamespace(channels=SimpleNamespace(listening=()))
CONTEXT = EvalContext(settings=SETTINGS, session=SESSION, clock=CLOCK, random=random.Random(1))


@cache
def procs_by_signature() -> dict[str, pgdata.ProcRow]:
    return {functions.signature(proc): proc for proc in pgdata.procs()}


def answer(signature: str, args: list[str | None]) -> dict[str, Any]:
    """What we say, in the golden file's form."""
    proc = procs_by_signature()[signature]
    found = functions.implementation(proc)
    assert found is not None, f"{signature} is not implemented"
    output = types.output_function(proc.prorettype, SETTINGS)

    def text(value: Any) -> str | None:
        return None if value is None else output(value)

    try:
        values = [
            None if arg is None else types.input_function(oid, SETTINGS)(arg)
            for arg, oid in zip(args, proc.proargtypes, strict=True)
        ]
        if proc.proisstrict and None in values:
            return {"r": None}
        result = found.call(CONTEXT, *values) if found.needs_context else found.call(*values)
        if proc.proretset:
            return {"rows": [text(value) for value in result]}
        return {"r": text(result)}
    except QueryError as error:
        return {"e": error.sqlstate, "m": error.message}


@pytest.mark.parametrize(
    "family", ["comparison", "numbers", "text", "number_format", "number_parse", "pattern"]
)
def test_functions_answer_as_postgresql(family: str) -> None:
    wrong = []
    lines = (GOLDEN / f"{family}.jsonl").read_text("utf-8").splitlines()
    assert len(lines) > 500, "the golden file is there and whole"
    for line in lines:
        case = json.loads(line)
        signature, args = case.pop("f"), case.pop("a")
        ours = answer(signature, args)
        if ours != case:
            wrong.append(f"{signature} {args}: PostgreSQL {case}, ours {ours}")
    assert not wrong, "\n".join(wrong[:20])
