"""OVERLAPS where a period is given as its start and length.

Source: PostgreSQL 15, section 9.9; pg_proc defines these in SQL as (s, s + length) OVERLAPS (...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.datetime_arithmetic import (
    add_in_zone,
    time_pl_interval,
    timestamp_pl_interval,
    zone_of,
)
from shardforge.sql.functions.datetime_compare import overlaps
from shardforge.sql.functions.registry import implements

Add = Callable[[EvalContext, Any, Any], Any]


def _zoned(ctx: EvalContext, value: Any, span: Any) -> Any:
    return add_in_zone(zone_of(ctx), value, span)


_ADD: dict[str, Add] = {
    "time without time zone": lambda _ctx, value, span: time_pl_interval(value, span),
    "timestamp without time zone": lambda _ctx, value, span: timestamp_pl_interval(value, span),
    "timestamp with time zone": _zoned,
}


def _end(add: Add, ctx: EvalContext, start: Any, length: Any) -> Any:
    return None if start is None or length is None else add(ctx, start, length)


def _make(add: Add, first_length: bool, second_length: bool) -> Callable[..., bool | None]:
    def call(ctx: EvalContext, start1: Any, end1: Any, start2: Any, end2: Any) -> bool | None:
        if first_length:
            end1 = _end(add, ctx, start1, end1)
        if second_length:
            end2 = _end(add, ctx, start2, end2)
        return overlaps(start1, end1, start2, end2)

    return call


for _type, _add in _ADD.items():
    for _first, _second in ((True, True), (True, False), (False, True)):
        _ends = ["interval" if is_length else _type for is_length in (_first, _second)]
        implements(f"overlaps({_type},{_ends[0]},{_type},{_ends[1]})", context=True)(
            _make(_add, _first, _second)
        )
