"""Which functions of a row's columns a shard elsewhere evaluates, by PostgreSQL's internal names. PURE.

All of these are immutable, take nothing but their arguments (no time zone, no setting, no catalog), do not wait, and
take time in proportion to them. What is left out on purpose: regular expressions and LIKE patterns with a % amid them
(which may take very long), what makes large values of small ones (repeat, lpad, power), and casts by text (they follow
DateStyle and its kin).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Final

from shardforge.sql import pgdata

_ORDER: Final = ("eq", "ne", "lt", "le", "gt", "ge")
_INTEGERS: Final = ("int2", "int4", "int8", "int24", "int28", "int42", "int48", "int82", "int84")
_FLOATS: Final = ("float4", "float8", "float48", "float84")
_COMPARED: Final = (
    *_INTEGERS, *_FLOATS, "array_", "bool", "bpchar", "bytea", "char", "date_", "interval_", "jsonb_", "name",
    "numeric_", "oid", "text", "text_", "time_", "timestamp_", "timetz_", "uuid_", "xid8",
)  # fmt: skip
_LIKE: Final = (
    "bytealike", "byteanlike", "nameiclike", "nameicnlike", "namelike", "namenlike", "texticlike", "texticnlike",
    "textlike", "textnlike",
)  # fmt: skip
_OTHERS: Final = """
    int2abs int4abs int8abs int2and int4and int8and int2mod int4mod int8mod int2not int4not int8not int2or int4or int8or
    int2shl int4shl int8shl int2shr int4shr int8shr int2um int4um int8um int2up int4up int8up int2xor int4xor int8xor
    float4abs float8abs float4um float8um float4up float8up dceil dfloor dround dsign dtrunc
    numeric_abs numeric_add numeric_ceil numeric_div numeric_floor numeric_mod numeric_mul numeric_round numeric_sign
    numeric_sub numeric_trunc numeric_uminus numeric_uplus
    dtof dtoi2 dtoi4 dtoi8 ftod ftoi2 ftoi4 ftoi8 i2tod i2tof i2toi4 i4tod i4tof i4toi2 i8tod i8tof i8tooid int28 int48
    int82 int84 oidtoi8 int2_numeric int4_numeric int8_numeric numeric_int2 numeric_int4 numeric_int8 float4_numeric
    float8_numeric numeric_float4 numeric_float8 bool_int4 int4_bool char_text name_text text_name
    date_mi date_mi_interval date_mii date_pl_interval date_pli interval_mi interval_pl interval_um time_mi_interval
    time_mi_time time_pl_interval timestamp_mi timestamp_mi_interval timestamp_pl_interval date_timestamp timestamp_date
    timestamp_time date_finite interval_finite timestamp_finite extract_date extract_interval extract_time
    extract_timestamp timestamp_trunc
    ascii bpcharlen bpcharoctetlen btrim btrim1 byteaoctetlen lower ltrim ltrim1 rtrim rtrim1 split_part text_left
    text_reverse text_right text_starts_with text_substr text_substr_no_len textcat textlen textoctetlen textpos upper
    json_array_element json_array_element_text json_extract_path json_extract_path_text json_object_field
    json_object_field_text json_typeof jsonb_array_element jsonb_array_element_text jsonb_array_length jsonb_contained
    jsonb_contains jsonb_exists jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text
    jsonb_object_field jsonb_object_field_text jsonb_typeof
    array_cardinality array_length array_lower array_ndims array_upper arraycontained arraycontains arrayoverlap
"""


def _names() -> Iterator[str]:
    yield from ("".join(pair) for pair in product(_COMPARED, _ORDER))
    yield from (f"name{order}text" for order in _ORDER)
    yield from (f"text{order}name" for order in _ORDER)
    yield from ("".join(pair) for pair in product(_INTEGERS, ("pl", "mi", "mul", "div")))
    yield from ("".join(pair) for pair in product(_FLOATS, ("pl", "mi", "mul", "div")))
    yield from _LIKE
    yield from _OTHERS.split()


_ESCAPED: Final = re.compile(r"\\.", re.DOTALL)

PUSHABLE: Final = frozenset(_names())
"""Internal names; a few of the products name nothing."""


@cache
def is_pushable(proc: int) -> bool:
    """Whether a shard elsewhere evaluates the function with this pg_proc oid."""
    row = pgdata.proc_by_oid(proc)
    return (
        row is not None
        and row.prolang == "internal"
        and row.prosrc in PUSHABLE
        and row.provolatile == "i"
        and row.prokind == "f"
        and not row.proretset
    )


@cache
def is_like(proc: int) -> bool:
    """Whether it is LIKE, NOT LIKE, or one of them without regard to case."""
    row = pgdata.proc_by_oid(proc)
    return row is not None and row.prosrc in _LIKE


def is_quick_pattern(pattern: str | bytes) -> bool:
    """Whether matching takes time in proportion to the text: no % but at the ends."""
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    return "%" not in _ESCAPED.sub("", text).strip("%")
