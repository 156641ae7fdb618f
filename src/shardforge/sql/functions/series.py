"""generate_series over integers and numerics. Source: PostgreSQL 15, src/backend/utils/adt/{int,int8,numeric}.c."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from shardforge.errors import QueryError
from shardforge.sql.functions.numeric import ONE, numeric_add
from shardforge.sql.functions.registry import implements


def _zero_step() -> QueryError:
    return QueryError("step size cannot equal zero", "22023")


@implements("generate_series_step_int4", "generate_series_step_int8")
def generate_integers(start: int, stop: int, step: int) -> range:
    """start, start + step, ... up to and with `stop`."""
    if step == 0:
        raise _zero_step()
    return range(start, stop + (1 if step > 0 else -1), step)


@implements("generate_series_int4", "generate_series_int8")
def generate_integers_by_one(start: int, stop: int) -> range:
    """start, start + 1, ... up to and with `stop`."""
    return range(start, stop + 1)


def _check_finite(value: Decimal, what: str) -> None:
    if value.is_nan():
        raise QueryError(f"{what} cannot be NaN", "22023")
    if value.is_infinite():
        raise QueryError(f"{what} cannot be infinity", "22023")


@implements("generate_series_step_numeric")
def generate_numerics(start: Decimal, stop: Decimal, step: Decimal) -> Iterator[Decimal]:
    """start, start + step, ... up to and with `stop`; the scale is the larger of the first and the step's."""
    _check_finite(start, "start value")
    _check_finite(stop, "stop value")
    _check_finite(step, "step size")
    if not step:
        raise _zero_step()
    return _numerics(start, stop, step)


def _numerics(start: Decimal, stop: Decimal, step: Decimal) -> Iterator[Decimal]:
    current = start
    while current <= stop if step > 0 else current >= stop:
        yield current
        current = numeric_add(current, step)


implements("generate_series_numeric")(lambda start, stop: generate_numerics(start, stop, ONE))
