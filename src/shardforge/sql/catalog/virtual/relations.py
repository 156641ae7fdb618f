"""pg_class, pg_attribute, pg_attrdef, pg_sequence, pg_rewrite, pg_description, pg_depend: relations and columns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from shardforge.sql.catalog.descriptors import (
    Column,
    Index,
    Sequence,
    Table,
    View,
)
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.ruleutils import relations_named
from shardforge.sql.catalog.snapshot import SYSTEM_SCHEMAS
from shardforge.sql.catalog.typenames import enums_of_type
from shardforge.sql.catalog.virtual.base import Record, all_tables, lines_of, rows_of
from shardforge.sql.ddl.index_names import column_labels
from shardforge.sql.pgdata import types as pg_types
from shardforge.sql.types.registry import find_type
from shardforge.sql.types.values import Array

CLASS: Final = 1259
ATTRDEF: Final = 2604
CONSTRAINT: Final = 2606
NAMESPACE: Final = 2615
DATABASE: Final = 1262
AUTHID: Final = 1260
TYPE: Final = 1247
REWRITE: Final = 2618
HEAP, BTREE, HASH = 2, 403, 405
SEQUENCE_COLUMNS: Final = (("last_value", 20), ("log_cnt", 20), ("is_called", 16))


@cache
def _type_facts() -> dict[int, tuple[int, bool, str, str, int]]:
    return {
        row.oid: (row.typlen, row.typbyval, row.typalign, row.typstorage, row.typcollation)
        for row in pg_types()
    }


def live(relation: Table | View) -> list[Column]:
    """The columns that pg_attribute shows: dropped ones too, hidden ones not."""
    return [column for column in relation.columns if not column.hidden]


def visible_indexes(table: Table) -> list[Index]:
    """The indexes that have a name: not the hidden row number's."""
    return [index for index in table.indexes if index.name]


def default_oid(relation_oid: int, column_id: int) -> int:
    """A stable oid for a column's pg_attrdef row, which has none of its own here."""
    return 0x4000_0000 | (relation_oid * 1601 + column_id) % 0x3FFF_FFFF


def rewrite_oid(view_oid: int) -> int:
    """A stable oid for a view's pg_rewrite row."""
    return 0x3000_0000 | view_oid % 0x0FFF_FFFF


def _class(**fields: Any) -> Record:
    record: Record = {
        "reloftype": 0, "reltype": 0, "relam": 0, "reltablespace": 0, "relpages": 0, "reltuples": -1.0,
        "relallvisible": 0, "reltoastrelid": 0, "relhasindex": False, "relisshared": False,
        "relpersistence": "p", "relnatts": 0, "relchecks": 0, "relhasrules": False, "relhastriggers": False,
        "relhassubclass": False, "relrowsecurity": False, "relforcerowsecurity": False, "relispopulated": True,
        "relreplident": "n", "relispartition": False, "relrewrite": 0, "relfrozenxid": 0, "relminmxid": 0,
    }  # fmt: skip
    record.update(fields)
    record.setdefault("relfilenode", record["oid"])
    return record


@cache
def _system_classes() -> tuple[Record, ...]:
    return tuple(
        _class(
            oid=t.id, relname=t.name, relnamespace=SYSTEM_SCHEMAS[t.schema], reltype=t.type_oid, relowner=10,
            relam=HEAP if t.kind == "r" else 0, relkind=t.kind, relnatts=len(t.columns), relfilenode=0,
            relhasrules=t.kind == "v",
        )
        for t in all_tables().values()
    )  # fmt: skip


def persistence(relation: Any) -> str:
    """pg_class.relpersistence."""
    return "t" if relation.temporary_session else "p"


@rows_of("pg_class")
def pg_class(ctx: VirtualContext) -> Iterator[Record]:
    """Tables, indexes, sequences, views, and the catalog itself."""
    yield from _system_classes()
    for relation in ctx.snapshot.relations():
        common = {
            "oid": relation.id, "relname": relation.name, "relnamespace": relation.schema_id,
            "relowner": relation.owner, "relpersistence": persistence(relation),
        }  # fmt: skip
        if isinstance(relation, Table):
            indexes = visible_indexes(relation)
            yield _class(
                **common, reltype=relation.type_oid, relam=HEAP, relkind="r", reltuples=relation.row_estimate,
                relhasindex=bool(indexes), relnatts=len(live(relation)), relchecks=len(relation.checks),
                relhastriggers=bool(relation.foreign_keys or relation.referenced_by), relreplident="d",
                reloptions=Array(relation.options) if relation.options else None, relfilenode=relation.storage_id,
            )  # fmt: skip
            for index in indexes:
                yield _index_class(relation, index)
        elif isinstance(relation, View):
            yield _class(
                **common, reltype=relation.type_oid, relkind="v", relnatts=len(relation.columns), relhasrules=True,
                relfilenode=0, reltuples=-1.0, reloptions=Array(relation.options) if relation.options else None,
            )  # fmt: skip
        else:
            yield _class(
                **common,
                relkind="S",
                relnatts=3,
                reltuples=1.0,
                relpages=1,
                relfilenode=relation.storage_id,
            )


def _index_class(table: Table, index: Index) -> Record:
    return _class(
        oid=index.id, relname=index.name, relnamespace=table.schema_id, relowner=table.owner,
        relam=HASH if index.method == "hash" else BTREE, relkind="i", relpersistence=persistence(table),
        relnatts=len(index.columns) + len(index.include), reltuples=max(table.row_estimate, 0.0),
        reloptions=Array(index.options) if index.options else None,
    )  # fmt: skip


def _attribute(relation_oid: int, number: int, name: str, type_oid: int, **fields: Any) -> Record:
    known = find_type(type_oid)
    usual = (4, True, "i", "p", 0) if known and known.kind == "e" else (-1, False, "i", "x", 0)
    length, by_value, align, storage, collation = _type_facts().get(type_oid, usual)
    return {
        "attrelid": relation_oid, "attname": name, "atttypid": type_oid, "attstattarget": -1, "attlen": length,
        "attnum": number, "attndims": 0, "attcacheoff": -1, "atttypmod": -1, "attbyval": by_value,
        "attalign": align, "attstorage": storage, "attcompression": "", "attnotnull": False, "atthasdef": False,
        "atthasmissing": False, "attidentity": "", "attgenerated": "", "attisdropped": False, "attislocal": True,
        "attinhcount": 0, "attcollation": collation, **fields,
    }  # fmt: skip


@cache
def _system_attributes() -> tuple[Record, ...]:
    return tuple(
        _attribute(t.id, c.id, c.name, c.type_oid, attnotnull=c.not_null)
        for t in all_tables().values()
        for c in t.columns
    )


def _column(relation: Table | View, column: Column) -> Record:
    collation = {"C": 950, "POSIX": 951}.get(column.collation)
    fields: dict[str, Any] = {} if collation is None else {"attcollation": collation}
    if column.dropped:
        return _attribute(
            relation.id, column.id, column.name, 0, attisdropped=True, attlen=0, attalign="i"
        )
    known = find_type(column.type_oid)
    is_array = known is not None and known.category == "A" and known.length == -1
    return _attribute(
        relation.id, column.id, column.name, column.type_oid, atttypmod=column.typmod,
        attnotnull=column.not_null, atthasdef=column.default is not None or column.generated is not None,
        attidentity=column.identity, attgenerated="s" if column.generated is not None else "",
        atthasmissing=column.missing is not None, attndims=1 if is_array else 0, **fields,
    )  # fmt: skip


_SYSTEM_COLUMNS: Final = (
    ("tableoid", 26, -6), ("cmax", 29, -5), ("xmax", 28, -4), ("cmin", 29, -3), ("xmin", 28, -2), ("ctid", 27, -1),
)  # fmt: skip


@rows_of("pg_attribute")
def pg_attribute(ctx: VirtualContext) -> Iterator[Record]:
    """Columns of every relation; system columns (negative attnum) of tables."""
    yield from _system_attributes()
    for relation in ctx.snapshot.relations():
        if isinstance(relation, Sequence):
            for number, (name, type_oid) in enumerate(SEQUENCE_COLUMNS, start=1):
                yield _attribute(relation.id, number, name, type_oid, attnotnull=True)
            continue
        for column in live(relation):
            yield _column(relation, column)
        if isinstance(relation, Table):
            for name, type_oid, number in _SYSTEM_COLUMNS:
                yield _attribute(relation.id, number, name, type_oid, attnotnull=True)
            for index in visible_indexes(relation):
                yield from _index_attributes(relation, index)


def _index_attributes(table: Table, index: Index) -> Iterator[Record]:
    by_id = {column.id: column for column in table.columns}
    labels = column_labels(table, index.columns)
    for number, (part, label) in enumerate(zip(index.columns, labels, strict=True), start=1):
        typmod = by_id[part.column_id].typmod if part.column_id else -1
        yield _attribute(index.id, number, label, part.type_oid, atttypmod=typmod)
    for number, column_id in enumerate(index.include, start=len(index.columns) + 1):
        column = by_id[column_id]
        yield _attribute(index.id, number, column.name, column.type_oid, atttypmod=column.typmod)


@rows_of("pg_attrdef")
def pg_attrdef(ctx: VirtualContext) -> Iterator[Record]:
    """Defaults and generation expressions; adbin is the stored text, which pg_get_expr reads."""
    for table in ctx.snapshot.tables():
        for column in table.columns:
            text = column.generated if column.generated is not None else column.default
            if text is not None and not column.dropped:
                yield {
                    "oid": default_oid(table.id, column.id), "adrelid": table.id, "adnum": column.id,
                    "adbin": text,
                }  # fmt: skip


@rows_of("pg_sequence")
def pg_sequence(ctx: VirtualContext) -> Iterator[Record]:
    """Definitions of sequences."""
    for s in ctx.snapshot.sequences():
        yield {
            "seqrelid": s.id, "seqtypid": s.type_oid, "seqstart": s.start, "seqincrement": s.increment,
            "seqmax": s.maximum, "seqmin": s.minimum, "seqcache": s.cache, "seqcycle": s.cycle,
        }  # fmt: skip


@rows_of("pg_rewrite")
def pg_rewrite(ctx: VirtualContext) -> Iterator[Record]:
    """The _RETURN rule of each view."""
    for view in ctx.snapshot.views():
        yield {
            "oid": rewrite_oid(view.id), "rulename": "_RETURN", "ev_class": view.id, "ev_type": "1",
            "ev_enabled": "O", "is_instead": True, "ev_qual": "<>", "ev_action": view.query,
        }  # fmt: skip


def _described(objoid: int, classoid: int, text: str | None, sub: int = 0) -> Iterator[Record]:
    if text is not None:
        yield {"objoid": objoid, "classoid": classoid, "objsubid": sub, "description": text}


@cache
def system_descriptions() -> dict[tuple[int, int], str]:
    """(catalog oid, object oid) -> PostgreSQL's own description of a type, function, operator, ..."""
    return {(int(f[1]), int(f[0])): f[2] for f in lines_of("pg_description")}


@rows_of("pg_description")
def pg_description(ctx: VirtualContext) -> Iterator[Record]:
    """Comments of relations, columns, constraints, indexes and schemas; PostgreSQL's of its own objects."""
    for (classoid, objoid), text in system_descriptions().items():
        yield from _described(objoid, classoid, text)
    for relation in ctx.snapshot.relations():
        yield from _described(relation.id, CLASS, relation.comment)
        if isinstance(relation, (Table, View)):
            for column_id, text in relation.column_comments.items():
                yield from _described(relation.id, CLASS, text, column_id)
        if isinstance(relation, Table):
            for index in relation.indexes:
                yield from _described(index.id, CLASS, index.comment)
            oids = {i.name: i.constraint_oid for i in relation.indexes if i.constraint}
            oids |= {c.name: c.oid for c in relation.checks}
            oids |= {k.name: k.oid for k in relation.foreign_keys}
            for name, text in relation.constraint_comments.items():
                yield from _described(oids[name], CONSTRAINT, text)
    for schema in ctx.snapshot.schemas():
        yield from _described(schema.id, NAMESPACE, schema.comment)
    for enum in ctx.snapshot.enums():
        yield from _described(enum.id, TYPE, enum.comment)


@rows_of("pg_shdescription")
def pg_shdescription(ctx: VirtualContext) -> Iterator[Record]:
    """Comments of databases and roles."""
    for database in ctx.snapshot.databases():
        if database.comment is not None:
            yield {"objoid": database.id, "classoid": DATABASE, "description": database.comment}
    for role in ctx.snapshot.roles():
        if role.comment is not None:
            yield {"objoid": role.id, "classoid": AUTHID, "description": role.comment}


def _depends(
    classid: int,
    objid: int,
    refclassid: int,
    refobjid: int,
    kind: str,
    sub: int = 0,
    refsub: int = 0,
) -> Record:
    return {
        "classid": classid, "objid": objid, "objsubid": sub, "refclassid": refclassid, "refobjid": refobjid,
        "refobjsubid": refsub, "deptype": kind,
    }  # fmt: skip


@rows_of("pg_depend")
def pg_depend(ctx: VirtualContext) -> Iterator[Record]:
    """Dependencies among the objects that users make."""
    for relation in ctx.snapshot.relations():
        yield _depends(CLASS, relation.id, NAMESPACE, relation.schema_id, "n")
        if isinstance(relation, Sequence) and relation.owned_by is not None:
            table_id, column_id = relation.owned_by
            kind = "i" if relation.identity else "a"
            yield _depends(CLASS, relation.id, CLASS, table_id, kind, refsub=column_id)
        elif isinstance(relation, View):
            rule = rewrite_oid(relation.id)
            yield _depends(REWRITE, rule, CLASS, relation.id, "i")
            for oid in relation.depends_on:
                yield _depends(REWRITE, rule, CLASS, oid, "n")
            for table_id, column_id in relation.depends_on_columns:
                yield _depends(REWRITE, rule, CLASS, table_id, "n", refsub=column_id)
        elif isinstance(relation, Table):
            yield from _table_depends(relation)
        if isinstance(relation, Table | View):
            for column in live(relation):
                for enum_oid in enums_of_type(column.type_oid):
                    yield _depends(CLASS, relation.id, TYPE, enum_oid, "n", sub=column.id)
    for enum in ctx.snapshot.enums():
        yield _depends(TYPE, enum.id, NAMESPACE, enum.schema_id, "n")


def _table_depends(table: Table) -> Iterator[Record]:
    for column in table.columns:
        text = column.generated if column.generated is not None else column.default
        if text is None or column.dropped:
            continue
        oid = default_oid(table.id, column.id)
        yield _depends(ATTRDEF, oid, CLASS, table.id, "a", refsub=column.id)
        for used in relations_named(text):
            yield _depends(ATTRDEF, oid, CLASS, used, "n")
    for index in visible_indexes(table):
        if index.constraint:
            yield _depends(CLASS, index.id, CONSTRAINT, index.constraint_oid, "i")
            owner, owner_class = index.constraint_oid, CONSTRAINT
        else:
            owner, owner_class = index.id, CLASS
        for part in index.columns:
            if part.column_id:
                yield _depends(owner_class, owner, CLASS, table.id, "a", refsub=part.column_id)
    for check in table.checks:
        yield _depends(CONSTRAINT, check.oid, CLASS, table.id, "a")
    for key in table.foreign_keys:
        for column_id in key.columns:
            yield _depends(CONSTRAINT, key.oid, CLASS, table.id, "a", refsub=column_id)
        for column_id in key.target_columns:
            yield _depends(CONSTRAINT, key.oid, CLASS, key.target, "n", refsub=column_id)
