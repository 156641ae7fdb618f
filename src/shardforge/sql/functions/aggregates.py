"""Aggregate functions: how a state begins, takes a row, and ends as a value.

`aggregate(name, arg_types, result_type)` finds the implementation; other modules of this package add theirs with
`@implements_aggregate(name)`. The executor leaves out rows with a NULL argument when `strict`. Ordered-set aggregates
(percentile_cont, mode ...) collect their sorted, non-NULL input in a list and end with their direct arguments:
`final(state, *direct)`; hypothetical-set ones (rank(...) WITHIN GROUP) are `hypothetical_set`.
Statistics over floats are by the Youngs-Cramer recurrence, as PostgreSQL computes them, so that digits agree.
Source: PostgreSQL 15, src/backend/utils/adt/{numeric,float,int8,orderedsetaggs,array_userfuncs}.c.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeAlias

from shardforge.errors import QueryError, unsupported
from shardforge.sql.functions.comparison import nan_larger, nan_smaller
from shardforge.sql.functions.float_math import float8pl, overflow
from shardforge.sql.functions.math import out_of_range
from shardforge.sql.functions.numeric import numeric_add, numeric_div
from shardforge.sql.functions.numeric_math import variance
from shardforge.sql.types import oids
from shardforge.sql.types.floats import single
from shardforge.sql.types.numeric import EXACT
from shardforge.sql.types.registry import is_array, sort_key
from shardforge.sql.types.values import Array


@dataclass(slots=True, frozen=True)
class AggregateImplementation:
    """One aggregate for one list of argument types. With `needs_context`, `init` takes the EvalContext."""

    init: Callable[..., Any]
    step: Callable[..., Any]
    final: Callable[..., Any]
    strict: bool = True
    needs_context: bool = False
    ordered_set: bool = False
    """The state is the sorted list of input values; `final` takes the direct arguments too."""


AggregateFactory: TypeAlias = Callable[[tuple[int, ...], int], AggregateImplementation | None]
_factories: dict[str, AggregateFactory] = {}


def implements_aggregate(*names: str) -> Callable[[AggregateFactory], AggregateFactory]:
    """Register `factory(arg_types, result_type)` for aggregates of these names; it returns None for other types."""

    def register(factory: AggregateFactory) -> AggregateFactory:
        for name in names:
            assert name not in _factories, f"{name} is implemented twice"
            _factories[name] = factory
        return factory

    return register


@cache
def _load() -> None:
    package = import_module(__package__)
    for module in iter_modules(package.__path__):
        import_module(f"{__package__}.{module.name}")


def aggregate(
    name: str, arg_types: tuple[int, ...], result_type: int = 0
) -> AggregateImplementation | None:
    """The implementation of an aggregate, or None. `arg_types` are the actual types, direct arguments first."""
    _load()
    factory = _factories.get(name)
    return None if factory is None else factory(arg_types, result_type)


def _same(state: Any) -> Any:
    return state


def _nothing() -> None:
    return None


# ---------------------------------------------------------------- count, sum, avg


@implements_aggregate("count")
def _count(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del result_type
    if not arg_types:
        return AggregateImplementation(int, lambda state: state + 1, _same)
    return AggregateImplementation(int, lambda state, value: state + 1, _same)


def _bigint(total: int | None) -> int | None:
    if total is not None and not -(2**63) <= total < 2**63:
        raise out_of_range("bigint")
    return total


def _add_first(state: Any, value: Any) -> Any:
    return value if state is None else state + value


@implements_aggregate("sum")
def _sum(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation | None:
    del result_type
    oid = arg_types[0]
    if oid in (oids.INT2, oids.INT4):
        return AggregateImplementation(_nothing, _add_first, _bigint)
    if oid == oids.INT8:
        return AggregateImplementation(
            _nothing, _add_first, lambda total: None if total is None else Decimal(total)
        )
    if oid == oids.NUMERIC:
        return _folded(numeric_add)
    if oid == oids.FLOAT8:
        return _folded(float8pl)
    if oid == oids.FLOAT4:
        return _folded(lambda a, b: _finite_single(float8pl(a, b)))
    if oid == oids.INTERVAL:
        return _folded(_interval_add())
    return None


def _folded(combine: Callable[[Any, Any], Any]) -> AggregateImplementation:
    def step(state: Any, value: Any) -> Any:
        return value if state is None else combine(state, value)

    return AggregateImplementation(_nothing, step, _same)


def _finite_single(value: float) -> float:
    result = single(value)
    if math.isinf(result) and not math.isinf(value):
        raise overflow()
    return result


def _interval_add() -> Callable[[Any, Any], Any]:
    return by_source("interval_pl")


def by_source(source: str) -> Callable[..., Any]:
    """The function registered under a prosrc; aggregates of other families' types are built from theirs."""
    from shardforge.sql import pgdata
    from shardforge.sql.functions.registry import implementation

    proc = next(row for row in pgdata.procs_named(source))
    found = implementation(proc)
    if found is None:
        raise unsupported(f"function {source}")
    return found.call


@implements_aggregate("avg")
def _avg(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation | None:
    del result_type
    oid = arg_types[0]
    if oid in (oids.INT2, oids.INT4, oids.INT8):
        return AggregateImplementation(
            lambda: (0, 0),
            lambda state, value: (state[0] + 1, state[1] + value),
            lambda state: numeric_div(Decimal(state[1]), Decimal(state[0])) if state[0] else None,
        )
    if oid == oids.NUMERIC:
        return AggregateImplementation(
            lambda: (0, Decimal(0)),
            lambda state, value: (state[0] + 1, numeric_add(state[1], value)),
            lambda state: numeric_div(state[1], Decimal(state[0])) if state[0] else None,
        )
    if oid in (oids.FLOAT4, oids.FLOAT8):
        return AggregateImplementation(
            _Moments, _Moments.step, lambda state: state.sum / state.count if state.count else None
        )
    if oid == oids.INTERVAL:
        add, divide = _interval_add(), by_source("interval_div")
        return AggregateImplementation(
            lambda: (0, None),
            lambda state, value: (
                state[0] + 1,
                value if state[1] is None else add(state[1], value),
            ),
            lambda state: divide(state[1], float(state[0])) if state[0] else None,
        )
    return None


# ---------------------------------------------------------------- min, max


@implements_aggregate("max")
def _max(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del result_type
    return _extreme(arg_types[0], operator.gt, nan_larger)


@implements_aggregate("min")
def _min(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del result_type
    return _extreme(arg_types[0], operator.lt, nan_smaller)


def _extreme(
    oid: int, better: Callable[[Any, Any], bool], nan_aware: Callable[[Any, Any], Any]
) -> AggregateImplementation:
    if oid in (oids.FLOAT4, oids.FLOAT8, oids.NUMERIC):
        return _folded(nan_aware)
    key = sort_key(oid)
    if key is None:
        return _folded(lambda state, value: value if better(value, state) else state)

    def step(state: Any, value: Any) -> Any:
        candidate = key(value)
        return (candidate, value) if state is None or better(candidate, state[0]) else state

    return AggregateImplementation(
        _nothing, step, lambda state: None if state is None else state[1]
    )


# ---------------------------------------------------------------- booleans and bits


@implements_aggregate("bool_and", "every")
def _bool_and(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del arg_types, result_type
    return _folded(lambda state, value: state and value)


@implements_aggregate("bool_or")
def _bool_or(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del arg_types, result_type
    return _folded(lambda state, value: state or value)


def _bitwise(combine: Callable[[Any, Any], Any]) -> AggregateFactory:
    def factory(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation | None:
        del result_type
        return _folded(combine) if arg_types[0] in (oids.INT2, oids.INT4, oids.INT8) else None

    return factory


implements_aggregate("bit_and")(_bitwise(operator.and_))
implements_aggregate("bit_or")(_bitwise(operator.or_))
implements_aggregate("bit_xor")(_bitwise(operator.xor))


# ---------------------------------------------------------------- strings and arrays


@implements_aggregate("string_agg")
def _string_agg(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del result_type
    empty: Any = b"" if arg_types[0] == oids.BYTEA else ""

    def step(state: list[Any] | None, value: Any, delimiter: Any) -> list[Any] | None:
        if value is None:
            return state
        if state is None:
            return [value]
        if delimiter is not None:
            state.append(delimiter)
        state.append(value)
        return state

    return AggregateImplementation(
        _nothing, step, lambda state: None if state is None else empty.join(state), strict=False
    )


def append(state: list[Any] | None, value: Any) -> list[Any]:
    """Collect the input in a list; None before the first row."""
    if state is None:
        return [value]
    state.append(value)
    return state


@implements_aggregate("array_agg")
def _array_agg(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation:
    del result_type
    final = _stacked if is_array(arg_types[0]) else _array_of
    return AggregateImplementation(_nothing, append, final, strict=False)


def _array_of(state: list[Any] | None) -> Array | None:
    return None if state is None else Array(tuple(state))


def _stacked(state: list[Array | None] | None) -> Array | None:
    if state is None:
        return None
    first = state[0]
    elements: list[Any] = []
    for item in state:
        if item is None:
            raise QueryError("cannot accumulate null arrays", "22004")
        if not item.dims:
            raise QueryError("cannot accumulate empty arrays", "2202E")
        assert first is not None, "tested above"
        if item.dims != first.dims:
            raise QueryError("cannot accumulate arrays of different dimensionality", "2202E")
        elements += item.elements
    assert first is not None, "tested above"
    return Array(tuple(elements), (len(state), *first.dims), (1, *first.lower))


# ---------------------------------------------------------------- variance and regression


class _Moments:
    """Count, sum and sum of squared deviations of floats (float8_accum)."""

    __slots__ = ("count", "squares", "sum")

    def __init__(self) -> None:
        self.count = 0.0
        self.sum = 0.0
        self.squares = 0.0

    def step(self, value: float) -> _Moments:
        """Take one more value."""
        before = self.count
        previous_sum = self.sum
        self.count = count = before + 1.0
        self.sum = total = previous_sum + value
        if before > 0.0:
            deviation = value * count - total
            self.squares += deviation * deviation / (count * before)
            if math.isinf(total) or math.isinf(self.squares):
                if not math.isinf(previous_sum) and not math.isinf(value):
                    raise overflow()
                self.squares = math.nan
        elif math.isnan(value) or math.isinf(value):
            self.squares = math.nan
        return self


class _NumericMoments:
    """Count, sum and sum of squares, exact (numeric's accumulators)."""

    __slots__ = ("count", "squares", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum: Any = 0
        self.squares: Any = 0

    def step(self, value: int) -> _NumericMoments:
        """Take one more integer."""
        self.count += 1
        self.sum += value
        self.squares += value * value
        return self

    def step_numeric(self, value: Any) -> _NumericMoments:
        """Take one more numeric."""
        self.count += 1
        self.sum = EXACT.add(self.sum, value)
        self.squares = EXACT.add(self.squares, EXACT.multiply(value, value))
        return self


def _variance(*, sample: bool, root: bool) -> AggregateFactory:
    def final_float(state: _Moments) -> float | None:
        divisor = state.count - 1.0 if sample else state.count
        if divisor <= 0.0:
            return None
        result = state.squares / divisor
        return math.sqrt(result) if root else result

    def final_numeric(state: _NumericMoments) -> Any:
        return variance(
            state.count, Decimal(state.sum), Decimal(state.squares), sample=sample, root=root
        )

    def factory(arg_types: tuple[int, ...], result_type: int) -> AggregateImplementation | None:
        del result_type
        oid = arg_types[0]
        if oid in (oids.FLOAT4, oids.FLOAT8):
            return AggregateImplementation(_Moments, _Moments.step, final_float)
        if oid == oids.NUMERIC:
            return AggregateImplementation(
                _NumericMoments, _NumericMoments.step_numeric, final_numeric
            )
        return AggregateImplementation(_NumericMoments, _NumericMoments.step, final_numeric)

    return factory


implements_aggregate("variance", "var_samp")(_variance(sample=True, root=False))
implements_aggregate("stddev", "stddev_samp")(_variance(sample=True, root=True))
implements_aggregate("var_pop")(_variance(sample=False, root=False))
implements_aggregate("stddev_pop")(_variance(sample=False, root=True))


class _Regression:
    """Sums of two variables and their squared and mixed deviations (float8_regr_accum)."""

    __slots__ = ("count", "sum_x", "sum_y", "xx", "xy", "yy")

    def __init__(self) -> None:
        self.count = self.sum_x = self.sum_y = self.xx = self.yy = self.xy = 0.0

    def step(self, y: float, x: float) -> _Regression:
        """Take one more pair."""
        before, sum_x, sum_y = self.count, self.sum_x, self.sum_y
        self.count = count = before + 1.0
        self.sum_x += x
        self.sum_y += y
        if before > 0.0:
            from_x, from_y = x * count - self.sum_x, y * count - self.sum_y
            scale = 1.0 / (count * before)
            self.xx += from_x * from_x * scale
            self.yy += from_y * from_y * scale
            self.xy += from_x * from_y * scale
            self._check_overflow(x, y, sum_x, sum_y)
        else:
            if not math.isfinite(x):
                self.xx = self.xy = math.nan
            if not math.isfinite(y):
                self.yy = self.xy = math.nan
        return self

    def _check_overflow(self, x: float, y: float, sum_x: float, sum_y: float) -> None:
        sums = (self.sum_x, self.sum_y, self.xx, self.yy, self.xy)
        if not any(map(math.isinf, sums)):
            return
        x_was_finite = not math.isinf(sum_x) and not math.isinf(x)
        y_was_finite = not math.isinf(sum_y) and not math.isinf(y)
        if (
            ((math.isinf(self.sum_x) or math.isinf(self.xx)) and x_was_finite)
            or ((math.isinf(self.sum_y) or math.isinf(self.yy)) and y_was_finite)
            or (math.isinf(self.xy) and x_was_finite and y_was_finite)
        ):
            raise overflow()
        if math.isinf(self.xx):
            self.xx = math.nan
        if math.isinf(self.yy):
            self.yy = math.nan
        if math.isinf(self.xy):
            self.xy = math.nan


def _correlation(s: _Regression) -> float | None:
    if s.xx == 0 or s.yy == 0:
        return None
    return s.xy / math.sqrt(s.xx * s.yy)


def _r2(s: _Regression) -> float | None:
    if s.xx == 0:
        return None
    return 1.0 if s.yy == 0 else (s.xy * s.xy) / (s.xx * s.yy)


_REGRESSIONS: dict[str, tuple[int, Callable[[_Regression], float | None]]] = {
    "regr_sxx": (1, lambda s: s.xx),
    "regr_syy": (1, lambda s: s.yy),
    "regr_sxy": (1, lambda s: s.xy),
    "regr_avgx": (1, lambda s: s.sum_x / s.count),
    "regr_avgy": (1, lambda s: s.sum_y / s.count),
    "covar_pop": (1, lambda s: s.xy / s.count),
    "covar_samp": (2, lambda s: s.xy / (s.count - 1.0)),
    "corr": (1, _correlation),
    "regr_r2": (1, _r2),
    "regr_slope": (1, lambda s: None if s.xx == 0 else s.xy / s.xx),
    "regr_intercept": (
        1,
        lambda s: None if s.xx == 0 else (s.sum_y - s.sum_x * s.xy / s.xx) / s.count,
    ),
}


def _regression(rows_min: int, value: Callable[[_Regression], float | None]) -> AggregateFactory:
    made = AggregateImplementation(
        _Regression,
        _Regression.step,
        lambda state: value(state) if state.count >= rows_min else None,
    )
    return lambda arg_types, result_type: made


for _name, (_rows_min, _value) in _REGRESSIONS.items():
    implements_aggregate(_name)(_regression(_rows_min, _value))
implements_aggregate("regr_count")(
    lambda arg_types, result_type: AggregateImplementation(
        int, lambda state, y, x: state + 1, _same
    )
)
