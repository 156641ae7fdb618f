"""pg_type, pg_enum, pg_range, pg_collation: types, with the row types of tables and views, and enums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Final

from shardforge.sql import pgdata
from shardforge.sql.catalog.descriptors import Enum, Table, View
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.snapshot import PG_CATALOG
from shardforge.sql.catalog.virtual.base import Record, rows_of

COLLATIONS: Final = (
    (100, "default", "d", -1, None), (950, "C", "c", -1, "C"), (951, "POSIX", "c", -1, "POSIX"),
    (12340, "ucs_basic", "c", 6, "C"),
)  # fmt: skip
_RANGES: Final = (
    # range, subtype, multirange, collation, operator class
    (3904, 23, 4451, 0, 1978), (3906, 1700, 4532, 0, 3125), (3908, 1114, 4533, 0, 3128),
    (3910, 1184, 4534, 0, 3127), (3912, 1082, 4535, 0, 3122), (3926, 20, 4536, 0, 3124),
)  # fmt: skip


@cache
def function_named(name: str) -> int:
    """The oid of an internal function by its name; 0 for none."""
    found = pgdata.procs_named(name)
    return found[0].oid if found else 0


@cache
def _system_types() -> tuple[Record, ...]:
    return tuple(map(_system_type, pgdata.types()))


def _system_type(t: pgdata.TypeRow) -> Record:
    return {
        "oid": t.oid, "typname": t.typname, "typnamespace": PG_CATALOG, "typowner": 10, "typlen": t.typlen,
        "typbyval": t.typbyval, "typtype": t.typtype, "typcategory": t.typcategory,
        "typispreferred": t.typispreferred, "typisdefined": True, "typdelim": t.typdelim, "typrelid": 0,
        "typsubscript": function_named(t.typsubscript), "typelem": t.typelem, "typarray": t.typarray,
        "typinput": function_named(t.typinput), "typoutput": function_named(t.typoutput),
        "typreceive": function_named(t.typreceive), "typsend": function_named(t.typsend),
        "typmodin": function_named(t.typmodin), "typmodout": function_named(t.typmodout), "typanalyze": 0,
        "typalign": t.typalign, "typstorage": t.typstorage, "typnotnull": False, "typbasetype": 0,
        "typtypmod": -1, "typndims": 0, "typcollation": t.typcollation,
    }  # fmt: skip


def _row_type(relation: Table | View, *, array: bool) -> Record:
    oid, other = relation.type_oid, relation.array_type_oid
    name, prefix = relation.name, "array" if array else "record"
    return {
        "oid": other if array else oid, "typname": f"_{name}" if array else name,
        "typnamespace": relation.schema_id, "typowner": relation.owner, "typlen": -1, "typbyval": False,
        "typtype": "b" if array else "c", "typcategory": "A" if array else "C", "typispreferred": False,
        "typisdefined": True, "typdelim": ",", "typrelid": 0 if array else relation.id,
        "typsubscript": function_named("array_subscript_handler") if array else 0, "typelem": oid if array else 0,
        "typarray": 0 if array else other, "typinput": function_named(f"{prefix}_in"),
        "typoutput": function_named(f"{prefix}_out"), "typreceive": function_named(f"{prefix}_recv"),
        "typsend": function_named(f"{prefix}_send"), "typmodin": 0, "typmodout": 0, "typanalyze": 0,
        "typalign": "d", "typstorage": "x", "typnotnull": False, "typbasetype": 0, "typtypmod": -1, "typndims": 0,
        "typcollation": 0,
    }  # fmt: skip


def _enum_type(ctx: VirtualContext, enum: Enum) -> Iterator[Record]:
    common: Record = {
        "typnamespace": enum.schema_id, "typowner": enum.owner, "typispreferred": False, "typisdefined": True,
        "typdelim": ",", "typrelid": 0, "typmodin": 0, "typmodout": 0, "typalign": "i", "typnotnull": False,
        "typbasetype": 0, "typtypmod": -1, "typndims": 0, "typcollation": 0,
    }  # fmt: skip
    yield {
        **common, "oid": enum.id, "typname": enum.name, "typlen": 4, "typbyval": True, "typtype": "e",
        "typcategory": "E", "typsubscript": 0, "typelem": 0, "typarray": enum.id + 1,
        "typinput": function_named("enum_in"), "typoutput": function_named("enum_out"),
        "typreceive": function_named("enum_recv"), "typsend": function_named("enum_send"), "typanalyze": 0,
        "typstorage": "p",
    }  # fmt: skip
    yield {
        **common, "oid": enum.id + 1, "typname": ctx.snapshot.array_name(enum), "typlen": -1, "typbyval": False,
        "typtype": "b", "typcategory": "A", "typsubscript": function_named("array_subscript_handler"),
        "typelem": enum.id, "typarray": 0, "typinput": function_named("array_in"),
        "typoutput": function_named("array_out"), "typreceive": function_named("array_recv"),
        "typsend": function_named("array_send"), "typanalyze": function_named("array_typanalyze"), "typstorage": "x",
    }  # fmt: skip


@rows_of("pg_enum")
def pg_enum(ctx: VirtualContext) -> Iterator[Record]:
    """Labels in order. Where a float4 cannot tell their values apart, their order is their number in the row."""
    for enum in ctx.snapshot.enums():
        orders = [_float4(label.order) for label in enum.labels]
        if len(set(orders)) < len(orders):
            orders = [float(number) for number in range(1, len(orders) + 1)]
        for label, order in zip(enum.labels, orders, strict=True):
            yield {
                "oid": label.id, "enumtypid": enum.id, "enumsortorder": order, "enumlabel": label.name,
            }  # fmt: skip


def _float4(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


@rows_of("pg_type")
def pg_type(ctx: VirtualContext) -> Iterator[Record]:
    """PostgreSQL's types, one composite and one array type for each table and view, and enums with their arrays."""
    yield from _system_types()
    for relation in ctx.snapshot.relations():
        if isinstance(relation, (Table, View)) and relation.type_oid:
            yield _row_type(relation, array=False)
            yield _row_type(relation, array=True)
    for enum in ctx.snapshot.enums():
        yield from _enum_type(ctx, enum)


@rows_of("pg_range")
def pg_range(ctx: VirtualContext) -> Iterator[Record]:
    """Range types by PostgreSQL's oids, so that introspection finds their element types."""
    for range_oid, subtype, multirange, collation, operator_class in _RANGES:
        yield {
            "rngtypid": range_oid, "rngsubtype": subtype, "rngmultitypid": multirange,
            "rngcollation": collation, "rngsubopc": operator_class, "rngcanonical": 0, "rngsubdiff": 0,
        }  # fmt: skip


@rows_of("pg_collation")
def pg_collation(ctx: VirtualContext) -> Iterator[Record]:
    """The collations that exist here: all of them are byte order."""
    for oid, name, provider, encoding, locale in COLLATIONS:
        yield {
            "oid": oid, "collname": name, "collnamespace": PG_CATALOG, "collowner": 10,
            "collprovider": provider, "collisdeterministic": True, "collencoding": encoding,
            "collcollate": locale, "collctype": locale,
        }  # fmt: skip
