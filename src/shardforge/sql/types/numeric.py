"""numeric: text, binary form, modifiers and order. A value is a Decimal whose exponent, never above 0, is its scale.

No negative zero and no signalling NaN exists. Arithmetic is in `sql.functions.numeric`.
Source: PostgreSQL 15, src/backend/utils/adt/numeric.c (numeric_in, numeric_recv, apply_typmod).
"""

from __future__ import annotations

import re
import struct
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Coercion, bad_binary, cut_short, invalid_input, plain
from shardforge.sql.types.boolean import WHITESPACE

WEIGHT_MAX = 131_072
"""Digits before the decimal point."""
SCALE_MAX = 16_383
PRECISION_TYPMOD_MAX = 1000

EXACT = Context(
    prec=400_000, rounding=ROUND_HALF_UP, Emax=MAX_EMAX, Emin=MIN_EMIN, clamp=0, traps=[]
)
"""Enough digits for any sum or product of two values; ties round away from zero, as everywhere in numeric."""

NAN = Decimal("NaN")
INFINITY = Decimal("Infinity")
_WORDS = {
    "nan": NAN, "inf": INFINITY, "+inf": INFINITY, "-inf": -INFINITY,
    "infinity": INFINITY, "+infinity": INFINITY, "-infinity": -INFINITY,
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_PLAIN = re.compile(r"[+-]?[0-9]{1,100}(?:\.[0-9]{1,100})?")
"""What most numbers look like: nothing about them needs a closer look."""


def overflow() -> QueryError:
    """22003: no numeric can hold the value."""
    return QueryError("value overflows numeric format", "22003")


def checked(value: Decimal) -> Decimal:
    """`value` as numeric keeps it: no positive exponent, no negative zero, within the format's range."""
    if not value.is_finite():
        return value
    exponent: Any = value.as_tuple().exponent
    if not value:
        return Decimal((0, (0,), exponent)) if exponent < 0 else Decimal(0)
    if value.adjusted() >= WEIGHT_MAX:
        raise overflow()
    if exponent > 0:
        return value.quantize(Decimal(1), context=EXACT)
    if exponent < -SCALE_MAX:
        return rescaled(value, SCALE_MAX)
    return value


def scale_of(value: Decimal) -> int:
    """The display scale."""
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "finite values only"
    return -exponent


@lru_cache(maxsize=1024)
def quantum(scale: int) -> Decimal:
    """One unit of the last of `scale` digits after the point."""
    return Decimal((0, (1,), -scale))


def rescaled(value: Decimal, scale: int) -> Decimal:
    """`value` with exactly `scale` digits after the point, ties away from zero. Finite values only."""
    result = value.quantize(quantum(scale), context=EXACT)
    return result or result.copy_abs()


def parse_numeric(text: str) -> Decimal:
    """numeric_in without a modifier."""
    if _PLAIN.fullmatch(text) is not None:
        plain = Decimal(text)
        return plain or plain.copy_abs()
    stripped = text.strip(WHITESPACE)
    match = _NUMBER.fullmatch(stripped)
    if match is None:
        word = _WORDS.get(stripped.lower())
        if word is None:
            raise invalid_input("numeric", text)
        return word
    if match[1] is not None and abs(int(match[1][:9])) > 400_000:
        raise overflow()
    value = Decimal(stripped)
    if scale_of(value) > SCALE_MAX:
        raise overflow()
    return checked(value)


def format_numeric(value: Decimal) -> str:
    """numeric_out: never in exponent form."""
    return f"{value:f}"


# ---------------------------------------------------------------- modifiers


def numeric_typmod_in(numbers: list[int]) -> int:
    """numerictypmodin: (precision) or (precision, scale)."""
    if len(numbers) not in (1, 2):
        raise QueryError("invalid NUMERIC type modifier", "22023")
    precision, scale = numbers[0], numbers[1] if len(numbers) == 2 else 0
    if not 1 <= precision <= PRECISION_TYPMOD_MAX:
        raise QueryError(
            f"NUMERIC precision {precision} must be between 1 and {PRECISION_TYPMOD_MAX}", "22023"
        )
    if not -1000 <= scale <= 1000:
        raise QueryError(f"NUMERIC scale {scale} must be between -1000 and 1000", "22023")
    return ((precision << 16) | (scale & 0x7FF)) + 4


def precision_and_scale(typmod: int) -> tuple[int, int]:
    """The two numbers of a typmod; the scale may be negative."""
    packed = typmod - 4
    return (packed >> 16) & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024


def _typmod_out(typmod: int) -> str:
    return "({},{})".format(*precision_and_scale(typmod))


def numeric_coercion(typmod: int, explicit: bool) -> Coercion:
    """Round to the modifier's scale, and refuse what does not fit its precision, explicit or not."""
    del explicit
    precision, scale = precision_and_scale(typmod)
    unit = quantum(scale)
    limit = Decimal((0, (1,), precision - scale))
    field = f"A field with precision {precision}, scale {scale}"

    def coerce(value: Decimal) -> Decimal:
        if not value.is_finite():
            if value.is_nan():
                return value
            raise QueryError(
                "numeric field overflow", "22003", detail=f"{field} cannot hold an infinite value."
            )
        result = value.quantize(unit, context=EXACT)
        if result.copy_abs() >= limit:
            # With no digit before the point, PostgreSQL writes the bound as 1 and not as a power of ten.
            bound = f"10^{precision - scale}" if precision != scale else "1"
            raise QueryError(
                "numeric field overflow",
                "22003",
                detail=f"{field} must round to an absolute value less than {bound}.",
            )
        return checked(result) if scale < 0 or not result else result

    return coerce


# ---------------------------------------------------------------- binary form

_HEADER = struct.Struct("!HhHH")
_SIGNS = {0xC000: NAN, 0xD000: INFINITY, 0xF000: -INFINITY}


def receive_numeric(data: bytes) -> Decimal:
    """numeric_recv: base-10000 digits with a weight, a sign and a display scale."""
    if len(data) < 8:
        raise cut_short()
    count, weight, sign, scale = _HEADER.unpack_from(data)
    if sign in _SIGNS:
        return _SIGNS[sign]
    if sign not in (0, 0x4000):
        raise bad_binary('invalid sign in external "numeric" value')
    if len(data) < 8 + 2 * count:
        raise cut_short()
    if len(data) > 8 + 2 * count:
        raise bad_binary()
    if scale > SCALE_MAX:
        raise bad_binary('invalid scale in external "numeric" value')
    digits = struct.unpack_from(f"!{count}H", data, 8)
    if any(digit > 9999 for digit in digits):
        raise bad_binary('invalid digit in external "numeric" value')
    number = "".join(f"{digit:04d}" for digit in digits) or "0"
    value = Decimal(number).scaleb(4 * (weight - count + 1), context=EXACT)
    # Excess digits are cut, not rounded, as numeric_recv does.
    value = value.quantize(Decimal((0, (1,), -scale)), rounding="ROUND_DOWN", context=EXACT)
    return checked(value.copy_negate() if sign else value)


def send_numeric(value: Decimal) -> bytes:
    """numeric_send."""
    if not value.is_finite():
        sign = 0xC000 if value.is_nan() else 0xD000 if value > 0 else 0xF000
        # numeric_send reads an infinity's scale bits as they stand: 32.
        return _HEADER.pack(0, 0, sign, 0 if value.is_nan() else 32)
    scale = scale_of(value)
    whole, _, fraction = f"{value.copy_abs():f}".partition(".")
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    text = whole + fraction
    groups = [int(text[at : at + 4]) for at in range(0, len(text), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        del groups[0]
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    sign = 0x4000 if value < 0 else 0
    head = _HEADER.pack(len(groups), weight if groups else 0, sign, scale)
    return head + struct.pack(f"!{len(groups)}H", *groups)


def numeric_sort_key(value: Decimal) -> tuple[int, Decimal]:
    """NaN equals itself and follows even Infinity."""
    return (1, Decimal(0)) if value.is_nan() else (0, value)


CODECS = (
    Codec(
        oids.NUMERIC, plain(parse_numeric), plain(format_numeric), plain(receive_numeric),
        plain(send_numeric), sort_key=numeric_sort_key, coercion=numeric_coercion,
        typmod_in=numeric_typmod_in, typmod_out=_typmod_out,
    ),
)  # fmt: skip
