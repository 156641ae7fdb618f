"""numeric arithmetic, exact and with PostgreSQL's result scales.

A sum has the larger scale, a product the sum of scales, a quotient at least 16 significant digits; ties round away
from zero. Functions with irrational results are in `numeric_math`.
Source: PostgreSQL 15, src/backend/utils/adt/numeric.c (select_div_scale and the numeric_* functions).
"""

from __future__ import annotations

import math
from decimal import ROUND_DOWN, Context, Decimal
from functools import lru_cache
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.math import division_by_zero, out_of_range
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.floats import single
from shardforge.sql.types.numeric import (
    EXACT,
    INFINITY,
    NAN,
    SCALE_MAX,
    WEIGHT_MAX,
    checked,
    numeric_coercion,
    overflow,
    rescaled,
    scale_of,
)

SIGNIFICANT_DIGITS_MIN = 16
DISPLAY_SCALE_MAX = 1000
ZERO = Decimal(0)
ONE = Decimal(1)

_add, _subtract, _multiply = EXACT.add, EXACT.subtract, EXACT.multiply


@implements("numeric_add")
def numeric_add(a: Decimal, b: Decimal) -> Decimal:
    """Add; the scale is the larger one."""
    result = _add(a, b)
    return result if result and result.adjusted() < 100_000 else checked(result)


@implements("numeric_sub")
def numeric_sub(a: Decimal, b: Decimal) -> Decimal:
    """Subtract; the scale is the larger one."""
    result = _subtract(a, b)
    return result if result and result.adjusted() < 100_000 else checked(result)


@implements("numeric_mul")
def numeric_mul(a: Decimal, b: Decimal) -> Decimal:
    """Multiply; the scale is the sum of scales."""
    result = _multiply(a, b)
    return checked(result)


def _leading(value: Decimal) -> tuple[int, int]:
    """Weight and value of the first base-10000 digit; (0, 0) for zero."""
    if not value:
        return 0, 0
    adjusted = value.adjusted()
    weight = adjusted // 4
    count = adjusted - 4 * weight + 1
    digits = value.as_tuple().digits[:count]
    first = 0
    for digit in digits:
        first = first * 10 + digit
    return weight, first * 10 ** (count - len(digits))


def select_div_scale(a: Decimal, b: Decimal) -> int:
    """The scale of a quotient: at least 16 significant digits, and neither operand's scale lost."""
    weight_a, first_a = _leading(a)
    weight_b, first_b = _leading(b)
    quotient_weight = weight_a - weight_b - (first_a <= first_b)
    scale = SIGNIFICANT_DIGITS_MIN - 4 * quotient_weight
    return min(max(scale, scale_of(a), scale_of(b), 0), DISPLAY_SCALE_MAX)


def divide_to_scale(a: Decimal, b: Decimal, scale: int) -> Decimal:
    """a / b rounded once to `scale` digits, ties away from zero. b is not zero."""
    digits = a.adjusted() - b.adjusted() + scale + 3
    # Truncation keeps the digit that decides the rounding, so that it happens once.
    result = rescaled(_truncating(max(digits, 3)).divide(a, b), scale)
    return result if result.adjusted() < 100_000 else checked(result)


@lru_cache(maxsize=512)
def _truncating(digits: int) -> Context:
    return Context(prec=digits, rounding=ROUND_DOWN, Emax=EXACT.Emax, Emin=EXACT.Emin, traps=[])


def _divide_special(a: Decimal, b: Decimal) -> Decimal | None:
    """The quotient when an operand is NaN or infinite, or the divisor zero."""
    if a.is_nan() or b.is_nan():
        return NAN
    if a.is_infinite():
        if b.is_infinite():
            return NAN
        if not b:
            raise division_by_zero()
        return a if b > 0 else a.copy_negate()
    if b.is_infinite():
        return ZERO
    if not b:
        raise division_by_zero()
    return None


@implements("numeric_div")
def numeric_div(a: Decimal, b: Decimal) -> Decimal:
    """Divide."""
    if not b or not (a.is_finite() and b.is_finite()):
        special = _divide_special(a, b)
        assert special is not None
        return special
    return divide_to_scale(a, b, select_div_scale(a, b))


@implements("numeric_div_trunc")
def numeric_div_trunc(a: Decimal, b: Decimal) -> Decimal:
    """The integer quotient, toward zero."""
    if not b or not (a.is_finite() and b.is_finite()):
        special = _divide_special(a, b)
        assert special is not None
        return special
    return checked(EXACT.divide_int(a, b))


@implements("numeric_mod")
def numeric_mod(a: Decimal, b: Decimal) -> Decimal:
    """The remainder, with the dividend's sign."""
    if a.is_nan() or b.is_nan():
        return NAN
    if a.is_infinite():
        if not b:
            raise division_by_zero()
        return NAN
    if b.is_infinite():
        return a
    if not b:
        raise division_by_zero()
    return rescaled(EXACT.remainder(a, b), max(scale_of(a), scale_of(b)))


# ---------------------------------------------------------------- one operand


@implements("numeric_uminus")
def numeric_uminus(a: Decimal) -> Decimal:
    """Negate; zero has no sign."""
    return a.copy_negate() if a and not a.is_nan() else a


@implements("numeric_uplus")
def numeric_uplus(a: Decimal) -> Decimal:
    """The same."""
    return a


@implements("numeric_abs")
def numeric_abs(a: Decimal) -> Decimal:
    """Absolute value."""
    return a.copy_abs()


@implements("numeric_sign")
def numeric_sign(a: Decimal) -> Decimal:
    """-1, 0, 1 or NaN."""
    if a.is_nan():
        return a
    return ONE if a > 0 else -ONE if a < 0 else ZERO


@implements("numeric_inc")
def numeric_inc(a: Decimal) -> Decimal:
    """Add one."""
    return numeric_add(a, ONE)


@implements("numeric_round")
def numeric_round(a: Decimal, scale: int) -> Decimal:
    """Round to `scale` digits, which may be negative; ties away from zero."""
    if not a.is_finite():
        return a
    return _to_scale(a, scale, "ROUND_HALF_UP")


@implements("numeric_trunc")
def numeric_trunc(a: Decimal, scale: int) -> Decimal:
    """Cut to `scale` digits, which may be negative."""
    if not a.is_finite():
        return a
    return _to_scale(a, scale, "ROUND_DOWN")


def _to_scale(a: Decimal, scale: int, rounding: str) -> Decimal:
    scale = max(-WEIGHT_MAX, min(scale, SCALE_MAX))
    return checked(a.quantize(Decimal((0, (1,), -scale)), rounding=rounding, context=EXACT))


# round(numeric) and trunc(numeric) are SQL-language functions in pg_proc.
implements("round(numeric)")(lambda a: numeric_round(a, 0))
implements("trunc(numeric)")(lambda a: numeric_trunc(a, 0))


@implements("numeric_ceil")
def numeric_ceil(a: Decimal) -> Decimal:
    """Up to an integer."""
    return _to_scale(a, 0, "ROUND_CEILING") if a.is_finite() else a


@implements("numeric_floor")
def numeric_floor(a: Decimal) -> Decimal:
    """Down to an integer."""
    return _to_scale(a, 0, "ROUND_FLOOR") if a.is_finite() else a


@implements("numeric_scale")
def numeric_scale(a: Decimal) -> int | None:
    """The display scale; NULL for NaN and infinities."""
    return scale_of(a) if a.is_finite() else None


@implements("numeric_min_scale")
def numeric_min_scale(a: Decimal) -> int | None:
    """The least scale that loses nothing."""
    if not a.is_finite():
        return None
    exponent: Any = a.normalize(EXACT).as_tuple().exponent
    return max(0, -exponent) if a else 0


@implements("numeric_trim_scale")
def numeric_trim_scale(a: Decimal) -> Decimal:
    """Without trailing zeros after the point."""
    least = numeric_min_scale(a)
    return a if least is None else rescaled(a, least)


# ---------------------------------------------------------------- integers in disguise


def _aligned(a: Decimal, b: Decimal) -> tuple[int, int, int]:
    scale = max(scale_of(a), scale_of(b))
    return int(a.scaleb(scale, context=EXACT)), int(b.scaleb(scale, context=EXACT)), scale


@implements("numeric_gcd")
def numeric_gcd(a: Decimal, b: Decimal) -> Decimal:
    """The greatest number that divides both a whole number of times."""
    if not (a.is_finite() and b.is_finite()):
        return NAN
    left, right, scale = _aligned(a, b)
    return checked(Decimal(math.gcd(left, right)).scaleb(-scale, context=EXACT))


@implements("numeric_lcm")
def numeric_lcm(a: Decimal, b: Decimal) -> Decimal:
    """The least positive number that both divide."""
    if not (a.is_finite() and b.is_finite()):
        return NAN
    left, right, scale = _aligned(a, b)
    return checked(Decimal(math.lcm(left, right)).scaleb(-scale, context=EXACT))


@implements("numeric_fac")
def numeric_fac(n: int) -> Decimal:
    """n factorial."""
    if n < 0:
        raise QueryError("factorial of a negative number is undefined", "22003")
    if n > 32177:
        raise overflow()
    return Decimal(math.factorial(n))


@implements("width_bucket_numeric")
def width_bucket_numeric(operand: Decimal, low: Decimal, high: Decimal, count: int) -> int:
    """The bucket of `operand` among `count` equal ones between the bounds; 0 or count + 1 outside."""
    if count <= 0:
        raise QueryError("count must be greater than zero", "2201G")
    if operand.is_nan() or low.is_nan() or high.is_nan():
        raise QueryError("operand, lower bound, and upper bound cannot be NaN", "2201G")
    if low.is_infinite() or high.is_infinite():
        raise QueryError("lower and upper bounds must be finite", "2201G")
    if low == high:
        raise QueryError("lower bound cannot equal upper bound", "2201G")
    ascending = low < high
    if (operand < low) if ascending else (operand > low):
        return 0
    if (operand >= high) if ascending else (operand <= high):
        if count >= 2**31 - 1:
            raise out_of_range("integer")
        return count + 1
    offset, width = _subtract(operand, low).copy_abs(), _subtract(high, low).copy_abs()
    return int(EXACT.divide_int(_multiply(offset, Decimal(count)), width)) + 1


# ---------------------------------------------------------------- conversions


@implements("numeric")
def numeric_typmod(value: Decimal, typmod: int) -> Any:
    """The length coercion to numeric(p, s)."""
    return value if typmod < 4 else numeric_coercion(typmod, True)(value)


@implements("float8_numeric")
def float8_numeric(value: float) -> Decimal:
    """15 significant digits, as PostgreSQL takes them."""
    return _from_float(value, 15)


@implements("float4_numeric")
def float4_numeric(value: float) -> Decimal:
    """6 significant digits, as PostgreSQL takes them."""
    return _from_float(value, 6)


def _from_float(value: float, digits: int) -> Decimal:
    if math.isnan(value):
        return NAN
    if math.isinf(value):
        return INFINITY if value > 0 else -INFINITY
    return checked(Decimal(f"{value:.{digits}g}"))


@implements("numeric_float8")
def numeric_float8(value: Decimal) -> float:
    """To the nearest double."""
    if not value.is_finite():
        return float(value)
    result = float(value)
    if math.isinf(result) or (result == 0 and value):
        raise QueryError(f'"{value:f}" is out of range for type double precision', "22003")
    return result


@implements("numeric_float4")
def numeric_float4(value: Decimal) -> float:
    """To the nearest single."""
    if not value.is_finite():
        return float(value)
    result = single(float(value))
    if math.isinf(result) or (result == 0 and value):
        raise QueryError(f'"{value:f}" is out of range for type real', "22003")
    return result
