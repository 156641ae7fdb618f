"""float4 and float8 arithmetic and mathematics, with PostgreSQL's overflow, underflow and domain errors.

float4 results are rounded to single precision and checked there. The functions of the C library are Python's,
which call the same ones; the degree variants are exact at the angles where PostgreSQL makes them exact.
Source: PostgreSQL 15, src/backend/utils/adt/float.c, src/include/utils/float.h.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from shardforge.errors import QueryError
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.math import division_by_zero
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.floats import single

_SINGLE_MAX = 3.4028234663852886e38


def overflow() -> QueryError:
    """22003: the result is too large for the type."""
    return QueryError("value out of range: overflow", "22003")


def underflow() -> QueryError:
    """22003: the result is too close to zero for the type."""
    return QueryError("value out of range: underflow", "22003")


def out_of_domain() -> QueryError:
    """22003: the function has no value there."""
    return QueryError("input is out of range", "22003")


# ---------------------------------------------------------------- arithmetic


@implements("float8pl", "float48pl", "float84pl")
def float8pl(a: float, b: float) -> float:
    """Add."""
    result = a + b
    if math.isinf(result) and not (math.isinf(a) or math.isinf(b)):
        raise overflow()
    return result


@implements("float8mi", "float48mi", "float84mi")
def float8mi(a: float, b: float) -> float:
    """Subtract."""
    result = a - b
    if math.isinf(result) and not (math.isinf(a) or math.isinf(b)):
        raise overflow()
    return result


@implements("float8mul", "float48mul", "float84mul")
def float8mul(a: float, b: float) -> float:
    """Multiply."""
    result = a * b
    if math.isinf(result) and not (math.isinf(a) or math.isinf(b)):
        raise overflow()
    if result == 0 and a != 0 and b != 0:
        raise underflow()
    return result


@implements("float8div", "float48div", "float84div")
def float8div(a: float, b: float) -> float:
    """Divide; by zero is an error unless the dividend is NaN."""
    if b == 0:
        if math.isnan(a):
            return a
        raise division_by_zero()
    result = a / b
    if math.isinf(result) and not math.isinf(a):
        raise overflow()
    if result == 0 and a != 0 and not math.isinf(b):
        raise underflow()
    return result


def _single_result(function: Callable[[float, float], float]) -> Callable[[float, float], float]:
    def compute(a: float, b: float) -> float:
        wide = function(a, b)
        result = single(wide)
        if math.isinf(result) and not math.isinf(wide):
            raise overflow()
        if result == 0 and wide != 0:
            raise underflow()
        return result

    return compute


implements("float4pl")(_single_result(float8pl))
implements("float4mi")(_single_result(float8mi))
implements("float4mul")(_single_result(float8mul))
implements("float4div")(_single_result(float8div))
implements("float4um", "float8um")(operator.neg)
implements("float4abs", "float8abs")(abs)
implements("float4up", "float8up", "ftod")(operator.pos)


@implements("dtof")
def dtof(value: float) -> float:
    """double precision to real."""
    result = single(value)
    if math.isinf(result) and not math.isinf(value):
        raise overflow()
    if result == 0 and value != 0:
        raise underflow()
    return result


@implements("i2tof", "i4tof", "i8tof")
def integer_to_single(value: int) -> float:
    """Rounded once: through a double a bigint could be rounded twice."""
    result = single(float(value))
    if float(value) != value and abs(value) < 2**63:
        below, above = (
            single(math.nextafter(float(value), -math.inf)),
            single(math.nextafter(float(value), math.inf)),
        )
        result = min((result, below, above), key=lambda candidate: abs(int(candidate) - value))
    return result


# ---------------------------------------------------------------- rounding and roots

_BIG = 2.0**52


@implements("dround")
def dround(value: float) -> float:
    """Ties to even, as rint."""
    return math.copysign(float(round(value)), value) if abs(value) < _BIG else value


@implements("dceil")
def dceil(value: float) -> float:
    """Up to an integer."""
    return math.copysign(float(math.ceil(value)), value) if abs(value) < _BIG else value


@implements("dfloor")
def dfloor(value: float) -> float:
    """Down to an integer."""
    return float(math.floor(value)) if abs(value) < _BIG and value != 0 else value


@implements("dtrunc")
def dtrunc(value: float) -> float:
    """Toward zero to an integer."""
    return math.copysign(float(math.trunc(value)), value) if abs(value) < _BIG else value


@implements("dsign")
def dsign(value: float) -> float:
    """-1, 0 or 1; NaN has none, and PostgreSQL says 0."""
    return 1.0 if value > 0 else -1.0 if value < 0 else 0.0


@implements("dsqrt")
def dsqrt(value: float) -> float:
    """Square root."""
    if value < 0:
        raise QueryError("cannot take square root of a negative number", "2201F")
    return math.sqrt(value)


@implements("dcbrt")
def dcbrt(value: float) -> float:
    """Cube root."""
    return math.cbrt(value)


@implements("dpow")
def dpow(a: float, b: float) -> float:
    """a to the power of b, POSIX's special cases included."""
    if math.isnan(a):
        return 1.0 if b == 0 else a
    if math.isnan(b):
        return 1.0 if a == 1 else b
    if a == 0 and b < 0:
        raise QueryError("zero raised to a negative power is undefined", "2201F")
    if a < 0 and math.isfinite(b) and math.floor(b) != b:
        raise QueryError(
            "a negative number raised to a non-integer power yields a complex result", "2201F"
        )
    try:
        result = math.pow(a, b)
    except OverflowError:
        raise overflow() from None
    if math.isfinite(a) and math.isfinite(b):
        if math.isinf(result):
            raise overflow()
        if result == 0 and a != 0:
            raise underflow()
    return result


@implements("dexp")
def dexp(value: float) -> float:
    """e to the power of the value."""
    try:
        result = math.exp(value)
    except OverflowError:
        raise overflow() from None
    if result == 0 and not math.isinf(value):
        raise underflow()
    return result


def _logarithm(function: Callable[[float], float]) -> Callable[[float], float]:
    def compute(value: float) -> float:
        if value == 0:
            raise QueryError("cannot take logarithm of zero", "2201E")
        if value < 0:
            raise QueryError("cannot take logarithm of a negative number", "2201E")
        return function(value)

    return compute


implements("dlog1")(_logarithm(math.log))
implements("dlog10")(_logarithm(math.log10))


# ---------------------------------------------------------------- trigonometry in radians


def _on_finite(function: Callable[[float], float]) -> Callable[[float], float]:
    """NaN passes through; infinity has no value."""

    def compute(value: float) -> float:
        if math.isnan(value):
            return value
        if math.isinf(value):
            raise out_of_domain()
        return function(value)

    return compute


def _within(
    function: Callable[[float], float], low: float, high: float
) -> Callable[[float], float]:
    def compute(value: float) -> float:
        if math.isnan(value):
            return value
        if not low <= value <= high:
            raise out_of_domain()
        return function(value)

    return compute


def _saturating(
    function: Callable[[float], float], at_overflow: Callable[[float], float]
) -> Callable[[float], float]:
    def compute(value: float) -> float:
        try:
            return function(value)
        except OverflowError:
            return at_overflow(value)

    return compute


def _cotangent(value: float) -> float:
    tangent = math.tan(value)
    return 1.0 / tangent if tangent else math.copysign(math.inf, tangent)


implements("dsin")(_on_finite(math.sin))
implements("dcos")(_on_finite(math.cos))
implements("dtan")(_on_finite(math.tan))
implements("dcot")(_on_finite(_cotangent))
implements("dasin")(_within(math.asin, -1, 1))
implements("dacos")(_within(math.acos, -1, 1))
implements("datan")(math.atan)
implements("datan2")(math.atan2)
implements("dsinh")(_saturating(math.sinh, lambda value: math.copysign(math.inf, value)))
implements("dcosh")(_saturating(math.cosh, lambda value: math.inf))
implements("dtanh")(math.tanh)
implements("dasinh")(math.asinh)


@implements("dacosh")
def dacosh(value: float) -> float:
    """Inverse hyperbolic cosine, from 1 up."""
    if value < 1:
        raise out_of_domain()
    return math.acosh(value)


@implements("datanh")
def datanh(value: float) -> float:
    """Inverse hyperbolic tangent; infinite at -1 and 1."""
    if value < -1 or value > 1:
        raise out_of_domain()
    if abs(value) == 1:
        return math.copysign(math.inf, value)
    return math.atanh(value)


_RADIANS_PER_DEGREE = 0.0174532925199432957692


@implements("degrees")
def degrees(value: float) -> float:
    """Radians to degrees."""
    return float8div(value, _RADIANS_PER_DEGREE)


@implements("radians")
def radians(value: float) -> float:
    """Degrees to radians."""
    return float8mul(value, _RADIANS_PER_DEGREE)


implements("dpi")(lambda: math.pi)

# ---------------------------------------------------------------- trigonometry in degrees

_SIN_30 = math.sin(30.0 * _RADIANS_PER_DEGREE)
_ONE_MINUS_COS_60 = 1.0 - math.cos(60.0 * _RADIANS_PER_DEGREE)
_ASIN_HALF = math.asin(0.5)
_ACOS_HALF = math.acos(0.5)
_ATAN_1 = math.atan(1.0)


def _sind_0_to_30(x: float) -> float:
    return (math.sin(x * _RADIANS_PER_DEGREE) / _SIN_30) / 2.0


def _cosd_0_to_60(x: float) -> float:
    return 1.0 - ((1.0 - math.cos(x * _RADIANS_PER_DEGREE)) / _ONE_MINUS_COS_60) / 2.0


def _sind_first_quadrant(x: float) -> float:
    return _sind_0_to_30(x) if x <= 30.0 else _cosd_0_to_60(90.0 - x)


def _cosd_first_quadrant(x: float) -> float:
    return _cosd_0_to_60(x) if x <= 60.0 else _sind_0_to_30(90.0 - x)


_TAN_45 = _sind_first_quadrant(45.0) / _cosd_first_quadrant(45.0)
_COT_45 = _cosd_first_quadrant(45.0) / _sind_first_quadrant(45.0)


def _folded(value: float) -> tuple[float, int, int]:
    """An angle in the first quadrant with the signs of its sine and its cosine."""
    angle = math.fmod(value, 360.0)
    sine = cosine = 1
    if angle < 0:
        angle, sine = -angle, -sine
    if angle > 180:
        angle, sine = 360.0 - angle, -sine
    if angle > 90:
        angle, cosine = 180.0 - angle, -cosine
    return angle, sine, cosine


@implements("dsind")
def dsind(value: float) -> float:
    """Sine of degrees."""
    value = _on_finite(float)(value)
    if math.isnan(value):
        return value
    angle, sine, _ = _folded(value)
    return sine * _sind_first_quadrant(angle)


@implements("dcosd")
def dcosd(value: float) -> float:
    """Cosine of degrees."""
    value = _on_finite(float)(value)
    if math.isnan(value):
        return value
    angle, _, cosine = _folded(value)
    return cosine * _cosd_first_quadrant(angle)


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return math.copysign(math.inf, numerator)
    return numerator / denominator


@implements("dtand")
def dtand(value: float) -> float:
    """Tangent of degrees; a zero is never negative."""
    value = _on_finite(float)(value)
    if math.isnan(value):
        return value
    angle, sine, cosine = _folded(value)
    result = (
        sine * cosine * (_ratio(_sind_first_quadrant(angle), _cosd_first_quadrant(angle)) / _TAN_45)
    )
    return result or 0.0


@implements("dcotd")
def dcotd(value: float) -> float:
    """Cotangent of degrees; a zero is never negative."""
    value = _on_finite(float)(value)
    if math.isnan(value):
        return value
    angle, sine, cosine = _folded(value)
    result = (
        sine * cosine * (_ratio(_cosd_first_quadrant(angle), _sind_first_quadrant(angle)) / _COT_45)
    )
    return result or 0.0


def _asind_quadrant(x: float) -> float:
    if x <= 0.5:
        return (math.asin(x) / _ASIN_HALF) * 30.0
    return 90.0 - (math.acos(x) / _ACOS_HALF) * 60.0


def _acosd_quadrant(x: float) -> float:
    if x <= 0.5:
        return 90.0 - (math.asin(x) / _ASIN_HALF) * 30.0
    return (math.acos(x) / _ACOS_HALF) * 60.0


implements("dasind")(
    _within(lambda x: _asind_quadrant(x) if x >= 0 else -_asind_quadrant(-x), -1, 1)
)
implements("dacosd")(
    _within(lambda x: _acosd_quadrant(x) if x >= 0 else 90.0 + _asind_quadrant(-x), -1, 1)
)
implements("datand")(lambda x: (math.atan(x) / _ATAN_1) * 45.0)
implements("datan2d")(lambda y, x: (math.atan2(y, x) / _ATAN_1) * 45.0)

# ---------------------------------------------------------------- other


@implements("width_bucket_float8")
def width_bucket_float8(operand: float, low: float, high: float, count: int) -> int:
    """The bucket of `operand` among `count` equal ones between the bounds; 0 or count + 1 outside."""
    if count <= 0:
        raise QueryError("count must be greater than zero", "2201G")
    if math.isnan(operand) or math.isnan(low) or math.isnan(high):
        raise QueryError("operand, lower bound, and upper bound cannot be NaN", "2201G")
    if math.isinf(low) or math.isinf(high):
        raise QueryError("lower and upper bounds must be finite", "2201G")
    if low == high:
        raise QueryError("lower bound cannot equal upper bound", "2201G")
    if low < high:
        if operand < low:
            return 0
        if operand >= high:
            return _bucket_above(count)
        fraction = (
            operand / (high - low) - low / (high - low)
            if math.isinf(high - low)
            else ((operand - low) / (high - low))
        )
    else:
        if operand > low:
            return 0
        if operand <= high:
            return _bucket_above(count)
        fraction = (low - operand) / (low - high)
    return min(int(count * fraction), count - 1) + 1


def _bucket_above(count: int) -> int:
    if count >= 2**31 - 1:
        raise QueryError("integer out of range", "22003")
    return count + 1


@implements("drandom", context=True)
def drandom(context: EvalContext) -> float:
    """A number in [0, 1)."""
    return context.random.random()


@implements("setseed", context=True)
def setseed(context: EvalContext, seed: float) -> str:
    """Make what follows from random() repeatable, in our own generator's sequence."""
    if not -1 <= seed <= 1:
        raise QueryError(f"setseed parameter {seed:g} is out of allowed range [-1,1]", "22023")
    context.random.seed(seed)
    return ""
