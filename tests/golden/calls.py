"""Calls a SQL function by name on text arguments, without a binder, for the golden files of values and functions.

A case is one JSON line: the answer PostgreSQL 15 gave (`out`, as text), or its error (`err`: SQLSTATE, message,
detail, hint). `answer` computes ours in the same form.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.functions import registry as functions
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.types import oids
from shardforge.sql.types import registry as types

GOLDEN = Path(__file__).parent
_ALIASES = {"int": "int4", "integer": "int4", "smallint": "int2", "bigint": "int8"}


class Settings:
    """The settings of one case."""

    intervalstyle = "postgres"
    extra_float_digits = 1
    bytea_output = "hex"

    def __init__(self, timezone: str = "UTC", datestyle: str = "ISO, MDY") -> None:
        self.timezone = timezone
        self.datestyle = datestyle


class _Clock:
    def wall_us(self) -> int:
        return 946_684_800_000_000


def context(settings: Settings, transaction_us: int = 760_000_000_000_000) -> EvalContext:
    """An evaluation context at a fixed moment (2024-01-31 07:06:40 UTC)."""
    return EvalContext(
        settings=settings,
        session=None,
        clock=_Clock(),
        random=random.Random(1),
        transaction_us=transaction_us,
        statement_us=transaction_us,
    )


def cases(name: str) -> Iterator[dict[str, Any]]:
    """The cases of one golden file."""
    for line in (GOLDEN / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def type_oid(name: str) -> int:
    """The oid of a type as the cases name it."""
    base = name.removesuffix("[]")
    found = types.type_named(_ALIASES.get(base, base))
    assert found is not None, name
    return found.array if name.endswith("[]") else found.oid


@cache
def _procs() -> dict[tuple[str, tuple[int, ...]], pgdata.ProcRow]:
    return {(p.proname, tuple(p.proargtypes)): p for p in pgdata.procs()}


def call(
    name: str,
    args: list[tuple[str, str | None]],
    settings: Settings,
    result: str | None = None,
    declared: list[str] | None = None,
) -> Any:
    """The text of the function's result (a list of them for a set)."""
    actual = tuple(type_oid(t) for t, _ in args)
    proc = _procs()[name, tuple(map(type_oid, declared)) if declared else actual]
    result_type = type_oid(result) if result else proc.prorettype
    found = functions.implementation(proc, actual, result_type)
    assert found is not None, f"{name} is not implemented"
    values = [
        None if text is None else types.input_function(oid, settings)(text)
        for oid, (_, text) in zip(actual, args, strict=True)
    ]
    if proc.proisstrict and None in values:
        return None
    answer = found.call(*([context(settings)] if found.needs_context else []), *values)
    if proc.proretset:
        return [_text(item, result_type, settings) for item in answer]
    return _text(answer, result_type, settings)


def _text(value: Any, oid: int, settings: Settings) -> str | None:
    if value is None:
        return None
    if oid == oids.BOOL:
        return "true" if value else "false"
    text: str = types.output_function(oid, settings)(value)
    return text


def answer(compute: Callable[[], Any]) -> tuple[Any, list[str] | None]:
    """(out, err) of a computation, as the golden files hold them."""
    try:
        return compute(), None
    except QueryError as error:
        return None, [error.sqlstate, error.message, error.detail, error.hint]


def check(case: dict[str, Any], compute: Callable[[], Any]) -> str | None:
    """None when our answer is PostgreSQL's, else what differs."""
    out, err = answer(compute)
    if (out, err) == (case.get("out"), case.get("err")):
        return None
    return f"{case}\n  ours: {out!r} {err}"
