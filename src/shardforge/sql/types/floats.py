"""float4 and float8: shortest round-trip output, exact input, and an order in which NaN is the largest value.

Source: PostgreSQL 15, src/backend/utils/adt/float.c, src/common/{d2s,f2s}.c (where output turns to exponents).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal

from shardforge.errors import QueryError
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Output, TypeSettings, invalid_input, plain, unpacker
from shardforge.sql.types.boolean import WHITESPACE

_SINGLE = struct.Struct("!f")
_DOUBLE = struct.Struct("!d")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS = {
    "nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf,
    "infinity": math.inf, "+infinity": math.inf, "-infinity": -math.inf,
}  # fmt: skip


def single(value: float) -> float:
    """`value` rounded to single precision; infinite on overflow."""
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded


def _parse(text: str, type_name: str, shown: str) -> tuple[float, str]:
    stripped = text.strip(WHITESPACE)
    word = _WORDS.get(stripped.lower())
    if word is not None:
        return word, ""
    if not _NUMBER.fullmatch(stripped):
        raise invalid_input(type_name, text)
    value = float(stripped)
    if math.isinf(value) or (value == 0 and re.search("[1-9]", re.split("[eE]", stripped)[0])):
        raise QueryError(f'"{shown}" is out of range for type {type_name}', "22003")
    return value, stripped


def parse_float8(text: str) -> float:
    """float8in."""
    return _parse(text, "double precision", text.strip(WHITESPACE))[0]


def parse_float4(text: str) -> float:
    """float4in: rounded once, from the decimal digits."""
    value, digits = _parse(text, "real", text.strip(WHITESPACE))
    if not digits:
        return value
    rounded = single(value)
    if not math.isinf(rounded) and rounded != value:
        # A double halfway between two singles hides which side the digits were on.
        exact, double = Decimal(digits), Decimal(value)
        if exact != double:
            nudged = single(math.nextafter(value, math.inf if exact > double else -math.inf))
            rounded = (
                nudged if abs(Decimal(nudged) - exact) < abs(Decimal(rounded) - exact) else rounded
            )
    if math.isinf(rounded) or (rounded == 0 and value != 0):
        raise QueryError(f'"{digits}" is out of range for type real', "22003")
    return rounded


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _between(text: str, value: float, digits: int) -> bool:
    """Whether `text` lies halfway between two floats of `digits` binary digits, which PostgreSQL's printer avoids.

    Only integers beyond the mantissa's reach can be written short enough for that.
    """
    size = abs(value)
    if size < 2.0**digits:
        return False
    ulp = 1 << (math.frexp(size)[1] - digits)
    return 2 * abs(int(Decimal(text)) - int(value)) == ulp


def _inside(
    value: float, digits: int, read: Callable[[str], float], precisions: tuple[int, ...]
) -> str:
    """The closest decimal with the fewest digits that reads back as `value` without being halfway to another."""
    for precision in precisions:
        mantissa, _, exponent = f"{value:.{precision}e}".partition("e")
        unit = Decimal((0, (1,), -precision))
        around = [f"{Decimal(mantissa) + step * unit}e{int(exponent):+03d}" for step in (0, -1, 1)]
        inside = [
            text for text in around if read(text) == value and not _between(text, value, digits)
        ]
        if inside:
            return min(inside, key=lambda text: abs(int(Decimal(text)) - int(value)))
    raise AssertionError("the longest form always reads back")


def format_float8(value: float) -> str:
    """float8out with extra_float_digits above zero."""
    text = repr(value)
    if abs(value) > 9007199254740992.0 and math.isfinite(value) and _between(text, value, 53):
        return _inside(value, 53, float, (15, 16))
    if text.endswith(".0"):
        # repr turns to exponents from 1e16, PostgreSQL from 1e15.
        return _exponential(text[:-2]) if len(text) > 17 and abs(value) >= 1e15 else text[:-2]
    if text[-1] in "nf":
        return _special(value)
    if abs(value) >= 1e15 and "e" not in text:
        return _exponential(text)
    return text


def _exponential(digits: str) -> str:
    """Digits of a number of at least 1 in exponent form."""
    sign = "-" if digits[0] == "-" else ""
    whole, _, fraction = digits.lstrip("-").partition(".")
    mantissa = (whole + fraction).rstrip("0")
    rest = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
    return f"{sign}{mantissa[0]}{rest}e+{len(whole) - 1:02d}"


def format_float4(value: float) -> str:
    """float4out with extra_float_digits above zero: the fewest digits that read back as the same single."""
    if math.isnan(value) or math.isinf(value):
        return _special(value)
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    text = ""
    power_of_two = abs(math.frexp(value)[0]) == 0.5
    for precision in range(9):
        text = f"{value:.{precision}e}"
        if single(float(text)) != value:
            if not power_of_two:
                continue
            # The gap above is twice the one below: the next decimal away from zero may be nearer by that measure.
            head, _, tail = text.partition("e")
            unit = Decimal((0, (1,), -precision)).copy_sign(Decimal(head))
            text = f"{Decimal(head) + unit}e{tail}"
            if single(float(text)) != value:
                continue
        if _between(text, value, 24):
            text = _inside(value, 24, lambda text: single(float(text)), (6, 7, 8))
        break
    mantissa, _, exponent_text = text.partition("e")
    exponent = int(exponent_text)
    if -5 < exponent < 6:
        digits = max(0, len(mantissa.lstrip("-").replace(".", "")) - 1 - exponent)
        return f"{float(text):.{digits}f}"
    return f"{mantissa}e{exponent:+03d}"


def _writer(shortest: Output, digits: int) -> Callable[[TypeSettings], Output]:
    def writer(settings: TypeSettings) -> Output:
        extra = settings.extra_float_digits
        if extra > 0:
            return shortest
        precision = max(1, digits + extra)
        return lambda value: f"{value:.{precision}g}" if math.isfinite(value) else _special(value)

    return writer


def _receiver(packed: struct.Struct) -> Callable[[bytes], float]:
    unpack = unpacker(packed.format)

    def receive(data: bytes) -> float:
        value: float = unpack(data)[0]
        return value

    return receive


def float_sort_key(value: float) -> tuple[int, float]:
    """NaN equals itself and follows every other value."""
    return (1, 0.0) if value != value else (0, value)


CODECS = (
    Codec(
        oids.FLOAT4, plain(parse_float4), _writer(format_float4, 6), plain(_receiver(_SINGLE)),
        plain(_SINGLE.pack), sort_key=float_sort_key,
    ),
    Codec(
        oids.FLOAT8, plain(parse_float8), _writer(format_float8, 15), plain(_receiver(_DOUBLE)),
        plain(_DOUBLE.pack), sort_key=float_sort_key,
    ),
)  # fmt: skip
