"""pg_index, pg_am, pg_opclass, pg_opfamily, pg_amop."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from shardforge.sql import pgdata
from shardforge.sql.catalog.descriptors import Index, Table
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.virtual.base import Record, lines_of, rows_of
from shardforge.sql.catalog.virtual.relations import visible_indexes
from shardforge.sql.types.registry import find_type
from shardforge.sql.types.values import Array

METHODS: Final = (
    (2, "heap", 3, "t"), (403, "btree", 330, "i"), (405, "hash", 331, "i"), (783, "gist", 332, "i"),
    (2742, "gin", 333, "i"), (4000, "spgist", 334, "i"), (3580, "brin", 335, "i"),
)  # fmt: skip
_BINARY_COERCIBLE: Final = {1043: 25}


@cache
def _default_classes() -> dict[tuple[int, int], int]:
    """(access method, type) -> default operator class."""
    return {(int(f[1]), int(f[6])): int(f[0]) for f in lines_of("pg_opclass") if f[7] == "t"}


def operator_class(method: str, type_oid: int) -> int:
    """The default operator class of a type: arrays share anyarray's."""
    access = 405 if method == "hash" else 403
    classes = _default_classes()
    type_oid = _BINARY_COERCIBLE.get(type_oid, type_oid)
    found = classes.get((access, type_oid))
    if found is None:
        known = find_type(type_oid)
        is_array = known is not None and known.element and known.length == -1
        is_enum = known is not None and known.kind == "e"
        found = classes.get((access, 2277 if is_array else 3500 if is_enum else 0), 0)
    return found


def vector(values: list[int]) -> Array:
    """An int2vector or oidvector: its bounds begin at 0."""
    return Array(tuple(values), (len(values),), (0,))


@rows_of("pg_index")
def pg_index(ctx: VirtualContext) -> Iterator[Record]:
    """Every index, with its columns and options."""
    for table in ctx.snapshot.tables():
        collations = {c.id: _collation(c.type_oid) for c in table.columns}
        for index in visible_indexes(table):
            yield _index(table, index, collations)


def _collation(type_oid: int) -> int:
    return {19: 950, 25: 100, 1042: 100, 1043: 100}.get(type_oid, 0)


def _index(table: Table, index: Index, collations: dict[int, int]) -> Record:
    expressions = [part.expression for part in index.columns if part.expression is not None]
    return {
        "indexrelid": index.id, "indrelid": table.id, "indnatts": len(index.columns) + len(index.include),
        "indnkeyatts": len(index.columns), "indisunique": index.unique, "indnullsnotdistinct": False,
        "indisprimary": index.primary, "indisexclusion": False, "indimmediate": True, "indisclustered": False,
        "indisvalid": index.state == "public", "indcheckxmin": False, "indisready": True, "indislive": True,
        "indisreplident": False, "indkey": vector([p.column_id for p in index.columns] + list(index.include)),
        "indcollation": vector([collations.get(p.column_id) or _collation(p.type_oid) for p in index.columns]),
        "indclass": vector([operator_class(index.method, p.type_oid) for p in index.columns]),
        "indoption": vector([int(p.descending) | (2 if p.nulls_first else 0) for p in index.columns]),
        "indexprs": ", ".join(expressions) if expressions else None, "indpred": index.predicate,
    }  # fmt: skip


@rows_of("pg_am")
def pg_am(ctx: VirtualContext) -> Iterator[Record]:
    """Access methods by PostgreSQL's names; CREATE INDEX says which are supported."""
    for oid, name, handler, kind in METHODS:
        yield {"oid": oid, "amname": name, "amhandler": handler, "amtype": kind}


@rows_of("pg_opclass")
def pg_opclass(ctx: VirtualContext) -> Iterator[Record]:
    """Operator classes."""
    for f in lines_of("pg_opclass"):
        yield {
            "oid": int(f[0]), "opcmethod": int(f[1]), "opcname": f[2], "opcnamespace": int(f[3]),
            "opcowner": int(f[4]), "opcfamily": int(f[5]), "opcintype": int(f[6]), "opcdefault": f[7] == "t",
            "opckeytype": int(f[8]),
        }  # fmt: skip


@rows_of("pg_opfamily")
def pg_opfamily(ctx: VirtualContext) -> Iterator[Record]:
    """Operator families."""
    for f in lines_of("pg_opfamily"):
        yield {
            "oid": int(f[0]), "opfmethod": int(f[1]), "opfname": f[2], "opfnamespace": int(f[3]),
            "opfowner": int(f[4]),
        }  # fmt: skip


@rows_of("pg_amop")
def pg_amop(ctx: VirtualContext) -> Iterator[Record]:
    """Members of the btree and hash families."""
    methods = {name: oid for oid, name, _, _ in METHODS}
    families = {(int(f[1]), f[2]): int(f[0]) for f in lines_of("pg_opfamily")}
    for number, row in enumerate(pgdata.amops(), start=1):
        method = methods[row.amname]
        yield {
            "oid": 10000 + number, "amopfamily": families.get((method, row.opfname), 0),
            "amoplefttype": row.amoplefttype, "amoprighttype": row.amoprighttype,
            "amopstrategy": row.amopstrategy, "amoppurpose": "s", "amopopr": row.amopopr, "amopmethod": method,
            "amopsortfamily": 0,
        }  # fmt: skip
