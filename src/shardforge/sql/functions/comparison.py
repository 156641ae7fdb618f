"""Comparison: =, <>, <, <=, >, >=, the three-way support functions, and greatest/smallest, type by type.

Where Python's order of the values is PostgreSQL's, the operators are Python's own. Floats and numerics need care
for NaN, which here equals itself and is largest; char(n) ignores trailing blanks; records compare field by field.
Source: PostgreSQL 15, pg_operator and src/backend/utils/adt/{int,int8,float,numeric,varlena,varchar,rowtypes}.c.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.record import field_types, record_sort_key

_NATIVE = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
_NATIVE_PREFIXES = (
    "int2", "int4", "int8", "int24", "int42", "int28", "int82", "int48", "int84", "oid", "bool", "char", "name",
    "bytea", "text_", "uuid_", "xid8", "enum_",
)  # fmt: skip
_NATIVE_COMPARE = (
    "btint2cmp", "btint4cmp", "btint8cmp", "btint24cmp", "btint42cmp", "btint28cmp", "btint82cmp", "btint48cmp",
    "btint84cmp", "btoidcmp", "btboolcmp", "btcharcmp", "btnamecmp", "byteacmp", "bttextcmp", "uuid_cmp", "xid8cmp",
    "btnametextcmp", "bttextnamecmp", "bttext_pattern_cmp", "enum_cmp",
)  # fmt: skip

for _prefix in _NATIVE_PREFIXES:
    for _suffix, _operator in _NATIVE.items():
        if _prefix == "text_" and _suffix in ("eq", "ne"):
            continue
        implements(_prefix + _suffix)(_operator)
for _suffix, _operator in _NATIVE.items():
    implements(f"name{_suffix}text", f"text{_suffix}name")(_operator)
implements("texteq", "xideq", "cideq", "oidvectoreq")(operator.eq)
implements("textne", "xidneq", "oidvectorne")(operator.ne)
for _suffix in ("lt", "le", "gt", "ge"):
    implements(f"text_pattern_{_suffix}")(_NATIVE[_suffix])


@implements(*_NATIVE_COMPARE)
def three_way(a: Any, b: Any) -> int:
    """-1, 0 or 1 for values that Python orders as PostgreSQL does."""
    return bool(a > b) - bool(a < b)


@implements(
    "int2larger", "int4larger", "int8larger", "oidlarger", "text_larger", "xid8_larger", "enum_larger",
)  # fmt: skip
def larger(a: Any, b: Any) -> Any:
    """The greater of two values."""
    return max(b, a)


@implements(
    "int2smaller", "int4smaller", "int8smaller", "oidsmaller", "text_smaller", "xid8_smaller", "enum_smaller",
)  # fmt: skip
def smaller(a: Any, b: Any) -> Any:
    """The lesser of two values."""
    return min(b, a)


# ---------------------------------------------------------------- floats and numerics: NaN
# `x != x` holds for NaN alone. An ordered comparison with a Decimal NaN would raise.


def nan_eq(a: Any, b: Any) -> bool:
    """Equality where NaN equals itself."""
    return bool(a == b or (a != a and b != b))


def nan_ne(a: Any, b: Any) -> bool:
    """Inequality where NaN equals itself."""
    return bool(a != b and (a == a or b == b))


def nan_lt(a: Any, b: Any) -> bool:
    """Less, with NaN largest."""
    if a == a and b == b:
        return bool(a < b)
    return bool(a == a and b != b)


def nan_le(a: Any, b: Any) -> bool:
    """Less or equal, with NaN largest."""
    if a == a and b == b:
        return bool(a <= b)
    return bool(b != b)


def nan_gt(a: Any, b: Any) -> bool:
    """Greater, with NaN largest."""
    return nan_lt(b, a)


def nan_ge(a: Any, b: Any) -> bool:
    """Greater or equal, with NaN largest."""
    return nan_le(b, a)


_NAN_AWARE = {"eq": nan_eq, "ne": nan_ne, "lt": nan_lt, "le": nan_le, "gt": nan_gt, "ge": nan_ge}
for _suffix, _function in _NAN_AWARE.items():
    implements(
        f"float4{_suffix}", f"float8{_suffix}", f"float48{_suffix}", f"float84{_suffix}", f"numeric_{_suffix}"
    )(_function)  # fmt: skip


@implements("btfloat4cmp", "btfloat8cmp", "btfloat48cmp", "btfloat84cmp", "numeric_cmp")
def nan_three_way(a: float | Decimal, b: float | Decimal) -> int:
    """-1, 0 or 1, with NaN largest."""
    return nan_lt(b, a) - nan_lt(a, b)


@implements("float4larger", "float8larger", "numeric_larger")
def nan_larger(a: Any, b: Any) -> Any:
    """The greater value; NaN is greatest."""
    return a if nan_gt(a, b) else b


@implements("float4smaller", "float8smaller", "numeric_smaller")
def nan_smaller(a: Any, b: Any) -> Any:
    """The lesser value; NaN is greatest."""
    return a if nan_lt(a, b) else b


# ---------------------------------------------------------------- padded strings


def _blank_insensitive(compare: Callable[[Any, Any], Any]) -> Callable[[str, str], Any]:
    def compare_bpchar(a: str, b: str) -> Any:
        return compare(a.rstrip(" "), b.rstrip(" "))

    return compare_bpchar


for _suffix, _operator in _NATIVE.items():
    implements(f"bpchar{_suffix}")(_blank_insensitive(_operator))
    if _suffix not in ("eq", "ne"):
        implements(f"bpchar_pattern_{_suffix}")(_blank_insensitive(_operator))
implements("bpcharcmp", "btbpchar_pattern_cmp")(_blank_insensitive(three_way))


@implements("bpchar_larger")
def bpchar_larger(a: str, b: str) -> str:
    """The greater, trailing blanks aside."""
    return a if a.rstrip(" ") >= b.rstrip(" ") else b


@implements("bpchar_smaller")
def bpchar_smaller(a: str, b: str) -> str:
    """The lesser, trailing blanks aside."""
    return a if a.rstrip(" ") <= b.rstrip(" ") else b


# ---------------------------------------------------------------- vectors of oids


def _vector_operator(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compare_vectors(a: Sequence[int], b: Sequence[int]) -> Any:
        """Shorter vectors first, then oid by oid (btoidvectorcmp)."""
        return compare((len(a), *a), (len(b), *b))

    return compare_vectors


for _suffix in ("lt", "le", "gt", "ge"):
    implements(f"oidvector{_suffix}")(_vector_operator(_NATIVE[_suffix]))
implements("btoidvectorcmp")(_vector_operator(three_way))

# ---------------------------------------------------------------- records

RecordKey = tuple[Any, ...]


def _record_keys(a: Sequence[Any], b: Sequence[Any]) -> tuple[RecordKey, RecordKey]:
    left, right = field_types(a), field_types(b)
    for position, (one, other) in enumerate(zip(left, right, strict=False), 1):
        if one != other:
            from shardforge.sql.types.registry import format_type

            raise QueryError(
                f"cannot compare dissimilar column types {format_type(one)} and {format_type(other)}"
                f" at record column {position}",
                "42804",
            )
    if len(left) != len(right):
        raise QueryError("cannot compare record types with different numbers of columns", "42804")
    return record_sort_key(a), record_sort_key(b)


def _record_operator(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compare_records(a: Sequence[Any], b: Sequence[Any]) -> Any:
        return compare(*_record_keys(a, b))

    return compare_records


for _suffix, _operator in _NATIVE.items():
    implements(f"record_{_suffix}")(_record_operator(_operator))
implements("btrecordcmp")(_record_operator(three_way))
