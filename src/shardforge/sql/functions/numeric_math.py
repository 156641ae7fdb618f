"""numeric functions with irrational results: sqrt, exp, ln, log, power, and the variance family's quotients.

The number of digits shown is PostgreSQL's, from the same estimates of the result's weight; the digits are the
correctly rounded ones. Source: PostgreSQL 15, src/backend/utils/adt/numeric.c (sqrt_var, exp_var, ln_var, log_var,
power_var, power_var_int and their callers).
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal

from shardforge.errors import QueryError
from shardforge.sql.functions.math import division_by_zero
from shardforge.sql.functions.numeric import (
    DISPLAY_SCALE_MAX,
    ONE,
    SIGNIFICANT_DIGITS_MIN,
    ZERO,
    numeric_div,
    numeric_mul,
)
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.numeric import (
    EXACT,
    INFINITY,
    NAN,
    WEIGHT_MAX,
    checked,
    overflow,
    rescaled,
    scale_of,
)

_RESULT_SCALE_MAX = 2 * DISPLAY_SCALE_MAX
_LOG10_E = 0.434294481903252
_GUARD_DIGITS = 20


def _context(digits: int) -> Context:
    """Working precision: the digits wanted and enough more that rounding twice is rounding once."""
    return Context(
        prec=max(digits, 1) + _GUARD_DIGITS, rounding=ROUND_HALF_EVEN, Emax=EXACT.Emax, Emin=EXACT.Emin, traps=[]
    )  # fmt: skip


def _scale(wanted: int, *operands: Decimal) -> int:
    return min(max(wanted, 0, *(scale_of(operand) for operand in operands)), DISPLAY_SCALE_MAX)


def _truncated_quotient(a: int, b: int) -> int:
    """C's integer division."""
    return a // b if a >= 0 else -(-a // b)


def ln_weight(value: Decimal) -> int:
    """estimate_ln_dweight: about how many digits ln(value) has before the point."""
    if value <= 0:
        return 0
    if Decimal("0.9") <= value <= Decimal("1.1"):
        x = EXACT.subtract(value, ONE)
        if not x:
            return 0
        return _first_digit_weight(x)
    adjusted = value.adjusted()
    digits = value.as_tuple().digits
    mantissa = int("".join(map(str, digits[:8])).ljust(8, "0"))
    logarithm = math.log(mantissa) + (adjusted - 7) * 2.302585092994046
    return int(math.log10(abs(logarithm)))


def _first_digit_weight(x: Decimal) -> int:
    """The decimal weight of the first base-10000 digit plus its own (int) log10."""
    return x.adjusted()


def _logarithm_argument(value: Decimal) -> None:
    if value == 0:
        raise QueryError("cannot take logarithm of zero", "2201E")
    if value < 0:
        raise QueryError("cannot take logarithm of a negative number", "2201E")


@implements("numeric_sqrt")
def numeric_sqrt(value: Decimal) -> Decimal:
    """Square root."""
    if value.is_nan():
        return value
    if value < 0:
        raise QueryError("cannot take square root of a negative number", "2201F")
    if value.is_infinite():
        return value
    weight = value.adjusted() // 4 if value else 0
    wanted = SIGNIFICANT_DIGITS_MIN - (_truncated_quotient((weight + 1) * 4, 2) - 1)
    return square_root(value, _scale(wanted, value))


def square_root(value: Decimal, scale: int) -> Decimal:
    """The root rounded to `scale` digits; `value` is not negative."""
    if not value:
        return rescaled(ZERO, scale)
    digits = value.adjusted() // 2 + 1 + scale
    return checked(rescaled(_context(digits).sqrt(value), scale))


@implements("numeric_exp")
def numeric_exp(value: Decimal) -> Decimal:
    """e to the power of the value."""
    if value.is_nan():
        return value
    if value.is_infinite():
        return value if value > 0 else ZERO
    weight = max(-_RESULT_SCALE_MAX, min(float(value) * _LOG10_E, _RESULT_SCALE_MAX))
    scale = _scale(SIGNIFICANT_DIGITS_MIN - int(weight), value)
    return _exponential(value, scale)


def _exponential(value: Decimal, scale: int) -> Decimal:
    magnitude = float(value) * _LOG10_E
    if magnitude > 4 * WEIGHT_MAX or magnitude >= WEIGHT_MAX:
        raise overflow()
    if magnitude < -scale - 1:
        return rescaled(ZERO, scale)
    return checked(rescaled(_context(int(magnitude) + scale + 2).exp(value), scale))


@implements("numeric_ln")
def numeric_ln(value: Decimal) -> Decimal:
    """Natural logarithm."""
    if value.is_nan():
        return value
    _logarithm_argument(value)
    if value.is_infinite():
        return value
    scale = _scale(SIGNIFICANT_DIGITS_MIN - ln_weight(value), value)
    return checked(rescaled(_context(scale + 8).ln(value), scale))


@implements("numeric_log")
def numeric_log(base: Decimal, value: Decimal) -> Decimal:
    """Logarithm to a base."""
    if base.is_nan() or value.is_nan():
        return NAN
    _logarithm_argument(base)
    _logarithm_argument(value)
    if base.is_infinite():
        return NAN if value.is_infinite() else ZERO
    if value.is_infinite():
        return INFINITY
    wanted = SIGNIFICANT_DIGITS_MIN - (ln_weight(value) - ln_weight(base))
    scale = _scale(wanted, base, value)
    context = _context(scale + 16)
    denominator = context.ln(base)
    if not denominator:
        raise division_by_zero()
    return checked(rescaled(context.divide(context.ln(value), denominator), scale))


implements("log(numeric)", "log10(numeric)")(lambda value: numeric_log(Decimal(10), value))

# ---------------------------------------------------------------- power


def _power_special(base: Decimal, exponent: Decimal) -> Decimal:
    """POSIX's rules for NaN and infinities."""
    if base.is_nan():
        return ONE if exponent == 0 and not exponent.is_nan() else NAN
    if exponent.is_nan():
        return ONE if base == 1 else NAN
    if base == 0 and exponent < 0:
        raise QueryError("zero raised to a negative power is undefined", "2201F")
    if exponent.is_infinite():
        size = base.copy_abs()
        if size == 1:
            return ONE
        return INFINITY if (size > 1) == (exponent > 0) else ZERO
    if exponent == 0:
        return ONE
    if exponent < 0:
        return ZERO
    if base > 0:
        return INFINITY
    whole = exponent == exponent.to_integral_value()
    if not whole:
        raise _complex_result()
    return -INFINITY if int(exponent) % 2 else INFINITY


def _complex_result() -> QueryError:
    return QueryError(
        "a negative number raised to a non-integer power yields a complex result", "2201F"
    )


@implements("numeric_power")
def numeric_power(base: Decimal, exponent: Decimal) -> Decimal:
    """`base` to the power of `exponent`."""
    if not (base.is_finite() and exponent.is_finite()):
        return _power_special(base, exponent)
    if base == 0 and exponent < 0:
        raise QueryError("zero raised to a negative power is undefined", "2201F")
    whole = exponent.adjusted() < 20 and exponent == exponent.to_integral_value()
    if base < 0 and not whole and exponent != exponent.to_integral_value():
        raise _complex_result()
    if whole and -(2**31) <= exponent < 2**31:
        return _integer_power(base, int(exponent))
    return _real_power(base, exponent)


def _integer_power(base: Decimal, exponent: int) -> Decimal:
    scale = _scale(SIGNIFICANT_DIGITS_MIN, base)
    if exponent == 0:
        return rescaled(ONE, scale)
    if not base:
        return rescaled(ZERO, scale)
    if exponent in (1, 2):
        return checked(rescaled(base if exponent == 1 else EXACT.multiply(base, base), scale))
    weight = math.log10(abs(float(base.scaleb(-base.adjusted(), context=EXACT)))) + base.adjusted()
    magnitude = weight * exponent
    if magnitude > (WEIGHT_MAX + 1) * 4 or magnitude >= WEIGHT_MAX + 1:
        raise overflow()
    if magnitude + 1 < -scale or magnitude + 1 < -DISPLAY_SCALE_MAX:
        return rescaled(ZERO, scale)
    digits = max(int(magnitude) + scale, 1) + len(str(abs(exponent))) + 4
    return checked(rescaled(_context(digits).power(base, Decimal(exponent)), scale))


def _real_power(base: Decimal, exponent: Decimal) -> Decimal:
    if not base:
        return rescaled(ZERO, SIGNIFICANT_DIGITS_MIN)
    size = base.copy_abs()
    context = _context(60)
    logarithm = context.multiply(context.ln(size), exponent)
    estimate = float(logarithm)
    if abs(estimate) > _RESULT_SCALE_MAX * 3.01:
        if estimate > 0:
            raise overflow()
        return rescaled(ZERO, DISPLAY_SCALE_MAX)
    weight = estimate * _LOG10_E
    scale = _scale(SIGNIFICANT_DIGITS_MIN - int(weight), base, exponent)
    context = _context(int(abs(weight)) + scale + abs(exponent.adjusted()) + 8)
    result = context.exp(context.multiply(context.ln(size), exponent))
    if base < 0 and int(exponent) % 2:
        result = result.copy_negate()
    return checked(rescaled(result, scale))


# ---------------------------------------------------------------- variance


def variance(
    count: int, total: Decimal, squares: Decimal, *, sample: bool, root: bool
) -> Decimal | None:
    """numeric_stddev_internal: from the count, the sum and the sum of squares."""
    if count == 0 or (sample and count == 1):
        return None
    if not (total.is_finite() and squares.is_finite()):
        return NAN
    n = Decimal(count)
    numerator = EXACT.subtract(numeric_mul(n, squares), numeric_mul(total, total))
    if numerator <= 0:
        return ZERO
    denominator = numeric_mul(n, Decimal(count - 1) if sample else n)
    quotient = numeric_div(numerator, denominator)
    return square_root(quotient, scale_of(quotient)) if root else quotient
