"""PostgreSQL's convenience views: pg_tables, pg_indexes, pg_views, pg_sequences, and row counts."""

from __future__ import annotations

from collections.abc import Iterator

from shardforge.sql.catalog.definitions import Definitions
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.virtual.base import Record, all_tables, rows_of
from shardforge.sql.catalog.virtual.relations import visible_indexes


def owner_name(ctx: VirtualContext, oid: int) -> str:
    """The name of a role."""
    role = ctx.snapshot.role_by_id(oid)
    return f"unknown (OID={oid})" if role is None else role.name


def schema_name(ctx: VirtualContext, oid: int) -> str:
    """The name of a schema that exists."""
    schema = ctx.snapshot.schema_by_id(oid)
    assert schema is not None, "a relation's schema exists while the relation does"
    return schema.name


@rows_of("pg_tables")
def pg_tables(ctx: VirtualContext) -> Iterator[Record]:
    """Tables, the catalog's included."""
    flags = {"hasindexes": False, "hasrules": False, "hastriggers": False, "rowsecurity": False}
    for (schema, name), virtual in all_tables().items():
        if virtual.kind == "r":
            yield {
                **flags,
                "schemaname": schema,
                "tablename": name,
                "tableowner": owner_name(ctx, 10),
            }
    for table in ctx.snapshot.tables():
        yield {
            **flags, "schemaname": schema_name(ctx, table.schema_id), "tablename": table.name,
            "tableowner": owner_name(ctx, table.owner), "hasindexes": bool(visible_indexes(table)),
            "hastriggers": bool(table.foreign_keys or table.referenced_by),
        }  # fmt: skip


@rows_of("pg_indexes")
def pg_indexes(ctx: VirtualContext) -> Iterator[Record]:
    """Indexes with their definitions."""
    definitions = Definitions(ctx.snapshot, ctx.search_path)
    for table in ctx.snapshot.tables():
        for index in visible_indexes(table):
            yield {
                "schemaname": schema_name(ctx, table.schema_id), "tablename": table.name,
                "indexname": index.name, "indexdef": definitions.index(table, index, qualified=True),
            }  # fmt: skip


@rows_of("pg_views")
def pg_views(ctx: VirtualContext) -> Iterator[Record]:
    """Views with their queries."""
    definitions = Definitions(ctx.snapshot, ctx.search_path)
    for view in ctx.snapshot.views():
        yield {
            "schemaname": schema_name(ctx, view.schema_id), "viewname": view.name,
            "viewowner": owner_name(ctx, view.owner), "definition": definitions.view(view),
        }  # fmt: skip


@rows_of("pg_sequences")
def pg_sequences(ctx: VirtualContext) -> Iterator[Record]:
    """Sequences; last_value is known when this process has given one."""
    for s in ctx.snapshot.sequences():
        yield {
            "schemaname": schema_name(ctx, s.schema_id), "sequencename": s.name,
            "sequenceowner": owner_name(ctx, s.owner), "data_type": s.type_oid, "start_value": s.start,
            "min_value": s.minimum, "max_value": s.maximum, "increment_by": s.increment, "cycle": s.cycle,
            "cache_size": s.cache, "last_value": ctx.sequence_last_value(s),
        }  # fmt: skip


def _counts(ctx: VirtualContext) -> Iterator[Record]:
    for table in ctx.snapshot.tables():
        yield {
            "relid": table.id, "schemaname": schema_name(ctx, table.schema_id), "relname": table.name,
            "n_live_tup": max(int(table.row_estimate), 0),
        }  # fmt: skip


@rows_of("pg_stat_user_tables")
def pg_stat_user_tables(ctx: VirtualContext) -> Iterator[Record]:
    """Rows at the last ANALYZE; what is not counted is NULL."""
    yield from _counts(ctx)


@rows_of("pg_stat_all_tables")
def pg_stat_all_tables(ctx: VirtualContext) -> Iterator[Record]:
    """As pg_stat_user_tables."""
    yield from _counts(ctx)
