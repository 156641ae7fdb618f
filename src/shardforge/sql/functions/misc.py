"""Functions of no family: pg_typeof, NULL counting, random UUIDs, sizes in words, names of types and functions.

Source: PostgreSQL 15, src/backend/utils/adt/{misc,dbsize,uuid,format_type,ruleutils}.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.math import out_of_range
from shardforge.sql.functions.numeric import numeric_add, numeric_div_trunc
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.numeric import EXACT, parse_numeric
from shardforge.sql.types.registry import format_type
from shardforge.sql.types.values import Array


@implements("pg_typeof", typed=True)
def pg_typeof(arg_types: tuple[int, ...], result_type: int) -> Callable[[Any], int]:
    """The type that the binder gave the argument."""
    del result_type
    return lambda value: arg_types[0]


implements("pg_num_nulls")(lambda *args: sum(arg is None for arg in args))
implements("pg_num_nonnulls")(lambda *args: sum(arg is not None for arg in args))


@implements("gen_random_uuid", context=True)
def gen_random_uuid(context: EvalContext) -> bytes:
    """A version 4 UUID."""
    bits = context.random.getrandbits(128)
    bits = bits & ~(0xF << 76) | 4 << 76
    bits = bits & ~(0x3 << 62) | 2 << 62
    return bits.to_bytes(16, "big")


# ---------------------------------------------------------------- sizes

_UNITS = (("bytes", 0), ("kB", 10), ("MB", 20), ("GB", 30), ("TB", 40), ("PB", 50))


def _unit_limit(index: int) -> int:
    return 10 * 1024 if index == 0 else 20 * 1024 - 1


def _shift(index: int) -> int:
    """Bits to the next unit; from kB on one bit more is kept, to round by."""
    return _UNITS[index + 1][1] - _UNITS[index][1] - (index == 0)


@implements("pg_size_pretty")
def pg_size_pretty(size: int) -> str:
    """Bytes in the largest unit that leaves at least 10 of it."""
    index = 0
    while index < len(_UNITS) - 1 and abs(size) >= _unit_limit(index):
        size = int(_truncated(size, 1 << _shift(index)))
        index += 1
    if index:
        size = _truncated(size + (1 if size >= 0 else -1), 2)
    return f"{size} {_UNITS[index][0]}"


def _truncated(a: int, b: int) -> int:
    return a // b if a >= 0 else -(-a // b)


@implements("pg_size_pretty_numeric")
def pg_size_pretty_numeric(size: Decimal) -> str:
    """Bytes in the largest unit that leaves at least 10 of it."""
    index = 0
    while index < len(_UNITS) - 1 and not size.is_nan() and size.copy_abs() >= _unit_limit(index):
        if size.is_infinite():
            break
        size = numeric_div_trunc(size, Decimal(1 << _shift(index)))
        index += 1
    if index:
        size = numeric_div_trunc(numeric_add(size, Decimal(1 if size >= 0 else -1)), Decimal(2))
    return f"{size:f} {_UNITS[index][0]}"


_SIZE = re.compile(
    r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(\S*)\s*", re.ASCII
)


@implements("pg_size_bytes")
def pg_size_bytes(text: str) -> int:
    """A size in words as bytes."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise QueryError(f'invalid size: "{text}"', "22023")
    number = parse_numeric(match[1])
    unit = match[2].lower()
    bits = {name.lower(): bits for name, bits in _UNITS}.get(unit, 0 if unit in ("", "b") else None)
    if bits is None:
        raise QueryError(
            f'invalid size: "{text}"',
            "22023",
            detail=f'Invalid size unit: "{match[2]}".',
            hint='Valid units are "bytes", "kB", "MB", "GB", "TB", and "PB".',
        )
    size = EXACT.multiply(number, Decimal(1 << bits)).to_integral_value(rounding="ROUND_HALF_UP")
    if not -(2**63) <= size < 2**63:
        raise out_of_range("bigint")
    return int(size)


# ---------------------------------------------------------------- types and functions by oid


@implements("format_type", context=True)
def format_type_of(context: EvalContext, oid: int | None, typmod: int | None) -> str | None:
    """A type's SQL name; the catalog knows those of enums and row types."""
    if oid is None:
        return None
    known = format_type if context.catalog is None else context.catalog.format_type
    return str(known(oid, typmod))


@implements("oidvectortypes")
def oidvectortypes(types: Array) -> str:
    """The types' names, with commas."""
    return ", ".join(format_type(oid, None) for oid in types)


def _arguments(oid: int, *, defaults: bool) -> str | None:
    proc = pgdata.proc_by_oid(oid)
    if proc is None:
        return None
    types = proc.proallargtypes or proc.proargtypes
    modes = proc.proargmodes or ("i",) * len(types)
    names = proc.proargnames or ("",) * len(types)
    first_default = proc.pronargs - proc.pronargdefaults
    shown: list[str] = []
    position = 0
    for type_oid, mode, name in zip(types, modes, names, strict=True):
        if mode == "t":
            continue
        prefix = {"o": "OUT ", "b": "INOUT ", "v": "VARIADIC "}.get(mode, "")
        text = prefix + (f"{name} " if name else "") + format_type(type_oid, None)
        if mode in "ibv":
            if defaults and position >= first_default:
                text += f" DEFAULT {proc.defaults[position - first_default]}"
            position += 1
        shown.append(text)
    return ", ".join(shown)


implements("pg_get_function_arguments")(lambda oid: _arguments(oid, defaults=True))
implements("pg_get_function_identity_arguments")(lambda oid: _arguments(oid, defaults=False))


@implements("pg_get_function_result")
def pg_get_function_result(oid: int) -> str | None:
    """The result type as CREATE FUNCTION would spell it."""
    proc = pgdata.proc_by_oid(oid)
    if proc is None:
        return None
    table = [
        f"{name} {format_type(type_oid, None)}"
        for type_oid, mode, name in zip(
            proc.proallargtypes, proc.proargmodes, proc.proargnames, strict=False
        )
        if mode == "t"
    ]
    if table:
        return f"TABLE({', '.join(table)})"
    return ("SETOF " if proc.proretset else "") + format_type(proc.prorettype, None)


@implements("pg_get_function_arg_default")
def pg_get_function_arg_default(oid: int, position: int) -> str | None:
    """The default of the n-th argument, counting inputs from 1."""
    proc = pgdata.proc_by_oid(oid)
    if proc is None:
        return None
    index = position - 1 - (proc.pronargs - proc.pronargdefaults)
    return proc.defaults[index] if 0 <= index < proc.pronargdefaults else None


@implements("pg_get_keywords")
def pg_get_keywords() -> Iterator[tuple[str, str, bool, str, str]]:
    """The grammar's keywords: word, category, whether a bare label, and both in words."""
    return iter(pgdata.keywords())
