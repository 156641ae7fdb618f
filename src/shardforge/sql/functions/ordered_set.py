"""Ordered-set aggregates (percentile_cont, percentile_disc, mode) and hypothetical-set ones (rank ... WITHIN GROUP).

Their input arrives sorted by the WITHIN GROUP order, without NULLs. A hypothetical-set aggregate is a function of
how many rows come before the hypothetical one. Source: PostgreSQL 15, src/backend/utils/adt/orderedsetaggs.c.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.aggregates import (
    AggregateImplementation,
    append,
    by_source,
    implements_aggregate,
)
from shardforge.sql.types import oids
from shardforge.sql.types.registry import is_array, sort_key
from shardforge.sql.types.values import Array

Pick = Callable[[list[Any], float], Any]


def _checked(fraction: float) -> float:
    if math.isnan(fraction) or not 0 <= fraction <= 1:
        raise QueryError(f"percentile value {fraction:g} is not between 0 and 1", "22003")
    return fraction


def _discrete(values: list[Any], fraction: float) -> Any:
    return values[max(math.ceil(fraction * len(values)), 1) - 1]


def _interpolator(low_to_high: Callable[[Any, Any, float], Any]) -> Pick:
    def pick(values: list[Any], fraction: float) -> Any:
        row = fraction * (len(values) - 1)
        first, second = math.floor(row), math.ceil(row)
        if first == second:
            return values[first]
        return low_to_high(values[first], values[second], row - first)

    return pick


def _between_floats(low: float, high: float, proportion: float) -> float:
    return low + (proportion * (high - low))


def _between_intervals(low: Any, high: Any, proportion: float) -> Any:
    add, subtract, multiply = (by_source(f"interval_{name}") for name in ("pl", "mi", "mul"))
    return add(low, multiply(subtract(high, low), proportion))


def _percentile(pick: Pick, direct_type: int) -> AggregateImplementation:
    def final(values: list[Any] | None, fraction: float | None) -> Any:
        if fraction is None:
            return None
        _checked(fraction)
        return pick(values, fraction) if values else None

    def final_many(values: list[Any] | None, fractions: Array | None) -> Any:
        if fractions is None or not values:
            return None
        picked = tuple(
            None if fraction is None else pick(values, _checked(fraction))
            for fraction in fractions.elements
        )
        return Array(picked, fractions.dims, fractions.lower)

    return AggregateImplementation(
        lambda: None, append, final_many if is_array(direct_type) else final, ordered_set=True
    )


@implements_aggregate("percentile_disc")
def _percentile_disc(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del result_type
    return _percentile(_discrete, arg_types[0])


@implements_aggregate("percentile_cont")
def _percentile_cont(
    arg_types: tuple[int, ...], result_type: int
) -> AggregateImplementation | None:
    del result_type
    between = {oids.FLOAT8: _between_floats, oids.INTERVAL: _between_intervals}.get(arg_types[1])
    return None if between is None else _percentile(_interpolator(between), arg_types[0])


@implements_aggregate("mode")
def _mode(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del result_type
    key = sort_key(arg_types[0])

    def final(values: list[Any] | None) -> Any:
        best, best_count = None, 0
        for _, group in groupby(values or (), key):
            members = list(group)
            if len(members) > best_count:
                best, best_count = members[0], len(members)
        return best

    return AggregateImplementation(lambda: None, append, final, ordered_set=True)


HypotheticalSet = Callable[[int, int, int, int], Any]


def hypothetical_set(name: str) -> HypotheticalSet | None:
    """rank, dense_rank, percent_rank or cume_dist of a row that is not there.

    The function takes the number of rows, of rows before the hypothetical one, of its peers, and of distinct rows
    before it.
    """
    return _HYPOTHETICAL.get(name)


_HYPOTHETICAL: dict[str, HypotheticalSet] = {
    "rank": lambda total, before, peers, distinct: before + 1,
    "dense_rank": lambda total, before, peers, distinct: distinct + 1,
    "percent_rank": lambda total, before, peers, distinct: before / total if total else 0.0,
    "cume_dist": lambda total, before, peers, distinct: (before + peers + 1) / (total + 1),
}
