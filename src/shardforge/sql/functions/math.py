"""Integer arithmetic, bit operators and conversions between integers, with PostgreSQL's overflow errors.

Division truncates toward zero, a remainder has the dividend's sign, and shift counts wrap at the type's width,
as in C. Source: PostgreSQL 15, src/backend/utils/adt/{int,int8,float,char}.c.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Decimal

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements

INT2_MIN, INT2_MAX = -(2**15), 2**15 - 1
INT4_MIN, INT4_MAX = -(2**31), 2**31 - 1
INT8_MIN, INT8_MAX = -(2**63), 2**63 - 1


def out_of_range(type_name: str) -> QueryError:
    """22003, as arithmetic words it."""
    return QueryError(f"{type_name} out of range", "22003")


def division_by_zero() -> QueryError:
    """22012."""
    return QueryError("division by zero", "22012")


# ---------------------------------------------------------------- the hot ones, written out


@implements("int4pl", "int24pl", "int42pl")
def int4pl(a: int, b: int) -> int:
    """Add, as integer."""
    result = a + b
    if -2147483648 <= result <= 2147483647:
        return result
    raise out_of_range("integer")


@implements("int4mi", "int24mi", "int42mi")
def int4mi(a: int, b: int) -> int:
    """Subtract, as integer."""
    result = a - b
    if -2147483648 <= result <= 2147483647:
        return result
    raise out_of_range("integer")


@implements("int4mul", "int24mul", "int42mul")
def int4mul(a: int, b: int) -> int:
    """Multiply, as integer."""
    result = a * b
    if -2147483648 <= result <= 2147483647:
        return result
    raise out_of_range("integer")


@implements("int8pl", "int28pl", "int82pl", "int48pl", "int84pl")
def int8pl(a: int, b: int) -> int:
    """Add, as bigint."""
    result = a + b
    if -9223372036854775808 <= result <= 9223372036854775807:
        return result
    raise out_of_range("bigint")


@implements("int8mi", "int28mi", "int82mi", "int48mi", "int84mi")
def int8mi(a: int, b: int) -> int:
    """Subtract, as bigint."""
    result = a - b
    if -9223372036854775808 <= result <= 9223372036854775807:
        return result
    raise out_of_range("bigint")


@implements("int8mul", "int28mul", "int82mul", "int48mul", "int84mul")
def int8mul(a: int, b: int) -> int:
    """Multiply, as bigint."""
    result = a * b
    if -9223372036854775808 <= result <= 9223372036854775807:
        return result
    raise out_of_range("bigint")


# ---------------------------------------------------------------- the others, made for each width


def _register_width(prefix: str, low: int, high: int, name: str) -> None:
    """Arithmetic of one integer type; the names are pg_proc's."""
    bits = high.bit_length() + 1
    wrap = 2**bits

    def within(value: int) -> int:
        if low <= value <= high:
            return value
        raise out_of_range(name)

    def wrapped(value: int) -> int:
        value %= wrap
        return value if value <= high else value - wrap

    def divide(a: int, b: int) -> int:
        if b == 0:
            raise division_by_zero()
        return within(a // b if (a >= 0) == (b > 0) else -(-a // b))

    def modulo(a: int, b: int) -> int:
        if b == 0:
            raise division_by_zero()
        result = abs(a) % abs(b)
        return result if a >= 0 else -result

    def greatest_common_divisor(a: int, b: int) -> int:
        return within(math.gcd(a, b))

    def least_common_multiple(a: int, b: int) -> int:
        return within(math.lcm(a, b))

    shift_mask = 63 if bits == 64 else 31
    if prefix == "int2":
        implements("int2pl")(lambda a, b: within(a + b))
        implements("int2mi")(lambda a, b: within(a - b))
        implements("int2mul")(lambda a, b: within(a * b))
    implements(f"{prefix}div")(divide)
    implements(f"{prefix}mod")(modulo)
    implements(f"{prefix}um")(lambda a: within(-a))
    implements(f"{prefix}abs")(lambda a: within(abs(a)))
    implements(f"{prefix}up")(operator.pos)
    implements(f"{prefix}and")(operator.and_)
    implements(f"{prefix}or")(operator.or_)
    implements(f"{prefix}xor")(operator.xor)
    implements(f"{prefix}not")(operator.invert)
    implements(f"{prefix}shl")(lambda a, count: wrapped(a << (count & shift_mask)))
    implements(f"{prefix}shr")(lambda a, count: wrapped(a >> (count & shift_mask)))
    if prefix != "int2":
        implements(f"{prefix}gcd")(greatest_common_divisor)
        implements(f"{prefix}lcm")(least_common_multiple)
        implements(f"{prefix}inc")(lambda a: within(a + 1))
    for mixed in {
        "int2": (),
        "int4": ("int24", "int42"),
        "int8": ("int28", "int82", "int48", "int84"),
    }[prefix]:
        implements(f"{mixed}div")(divide)


_register_width("int2", INT2_MIN, INT2_MAX, "smallint")
_register_width("int4", INT4_MIN, INT4_MAX, "integer")
_register_width("int8", INT8_MIN, INT8_MAX, "bigint")


@implements("int8dec")
def int8dec(a: int) -> int:
    """Subtract one."""
    return int8mi(a, 1)


# ---------------------------------------------------------------- conversions


def _narrow(low: int, high: int, name: str) -> Callable[[int], int]:
    def convert(value: int) -> int:
        if low <= value <= high:
            return value
        raise out_of_range(name)

    return convert


implements("i4toi2", "int82")(_narrow(INT2_MIN, INT2_MAX, "smallint"))
implements("int84")(_narrow(INT4_MIN, INT4_MAX, "integer"))
implements("i8tooid")(_narrow(0, 2**32 - 1, "OID"))
implements("xid8toxid")(lambda value: value % 2**32)
implements("i2toi4", "int28", "int48", "oidtoi8")(int)


def _from_float(low: int, high: int, name: str) -> Callable[[float], int]:
    def convert(value: float) -> int:
        if not math.isfinite(value):
            raise out_of_range(name)
        rounded = round(value)
        # The bound is checked on the double, where the largest bigint is 2^63 itself.
        if not low <= rounded <= high:
            raise out_of_range(name)
        return rounded

    return convert


implements("dtoi2", "ftoi2")(_from_float(INT2_MIN, INT2_MAX, "smallint"))
dtoi4 = implements("dtoi4", "ftoi4")(_from_float(INT4_MIN, INT4_MAX, "integer"))
implements("dtoi8", "ftoi8")(_from_float(INT8_MIN, INT8_MAX, "bigint"))


def _from_numeric(low: int, high: int, name: str) -> Callable[[Decimal], int]:
    def convert(value: Decimal) -> int:
        if not value.is_finite():
            what = "NaN" if value.is_nan() else "infinity"
            raise QueryError(f"cannot convert {what} to {name}", "0A000")
        if value.adjusted() > 20:
            raise out_of_range(name)
        rounded = int(value.to_integral_value(rounding="ROUND_HALF_UP"))
        if not low <= rounded <= high:
            raise out_of_range(name)
        return rounded

    return convert


implements("numeric_int2")(_from_numeric(INT2_MIN, INT2_MAX, "smallint"))
numeric_int4 = implements("numeric_int4")(_from_numeric(INT4_MIN, INT4_MAX, "integer"))
implements("numeric_int8")(_from_numeric(INT8_MIN, INT8_MAX, "bigint"))
implements("int2_numeric", "int4_numeric", "int8_numeric")(Decimal)
implements("i2tod", "i4tod", "i8tod")(float)


@implements("int4_bool")
def int4_bool(value: int) -> bool:
    """Anything but zero is true."""
    return value != 0


implements("bool_int4")(int)


@implements("chartoi4")
def chartoi4(value: str) -> int:
    """The byte as a signed number."""
    byte = ord(value) if value else 0
    return byte - 256 if byte > 127 else byte


@implements("i4tochar")
def i4tochar(value: int) -> str:
    """The "char" with this signed code."""
    if not -128 <= value <= 127:
        raise QueryError('"char" out of range', "22003")
    return chr(value % 256) if value else ""


@implements("to_hex64")
def to_hex64(value: int) -> str:
    """Hexadecimal of the two's complement, 64 bits."""
    return f"{value % 2**64:x}"


@implements("to_hex32")
def to_hex32(value: int) -> str:
    """Hexadecimal of the two's complement, 32 bits."""
    return f"{value % 2**32:x}"
