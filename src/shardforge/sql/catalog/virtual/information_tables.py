"""information_schema: catalog name, schemata, tables, views, sequences, routines, roles.

Source: PostgreSQL 15, src/backend/catalog/information_schema.sql.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from shardforge.sql import pgdata
from shardforge.sql.catalog.definitions import Definitions
from shardforge.sql.catalog.descriptors import Table, View
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.virtual.base import Record, all_tables, rows_of
from shardforge.sql.catalog.virtual.listings import owner_name, schema_name
from shardforge.sql.types.registry import find_type, format_type

INFORMATION: Final = "information_schema"
_PRECISION: Final = {21: (16, 2, 0), 23: (32, 2, 0), 20: (64, 2, 0)}


def yes_no(value: object) -> str:
    """The standard's boolean."""
    return "YES" if value else "NO"


@rows_of("information_schema_catalog_name", INFORMATION)
def catalog_name(ctx: VirtualContext) -> Iterator[Record]:
    """The database."""
    yield {"catalog_name": ctx.snapshot.database.name}


@rows_of("schemata", INFORMATION)
def schemata(ctx: VirtualContext) -> Iterator[Record]:
    """Schemas."""
    for schema in ctx.snapshot.schemas():
        yield {
            "catalog_name": ctx.snapshot.database.name, "schema_name": schema.name,
            "schema_owner": owner_name(ctx, schema.owner),
        }  # fmt: skip


@rows_of("tables", INFORMATION)
def tables(ctx: VirtualContext) -> Iterator[Record]:
    """Tables and views, the catalog's included."""
    database = ctx.snapshot.database.name
    for (schema, name), virtual in all_tables().items():
        yield {
            "table_catalog": database, "table_schema": schema, "table_name": name,
            "table_type": "BASE TABLE" if virtual.kind == "r" else "VIEW",
            "is_insertable_into": "NO", "is_typed": "NO",
        }  # fmt: skip
    for relation in ctx.snapshot.relations():
        if isinstance(relation, (Table, View)):
            temporary = bool(relation.temporary_session)
            is_table = isinstance(relation, Table)
            kind = ("LOCAL TEMPORARY" if temporary else "BASE TABLE") if is_table else "VIEW"
            yield {
                "table_catalog": database, "table_schema": schema_name(ctx, relation.schema_id),
                "table_name": relation.name, "table_type": kind, "is_insertable_into": yes_no(is_table),
                "is_typed": "NO", "commit_action": "PRESERVE" if temporary and is_table else None,
            }  # fmt: skip


@rows_of("views", INFORMATION)
def views(ctx: VirtualContext) -> Iterator[Record]:
    """Views; none is updatable here."""
    definitions = Definitions(ctx.snapshot, ctx.search_path)
    for view in ctx.snapshot.views():
        yield {
            "table_catalog": ctx.snapshot.database.name, "table_schema": schema_name(ctx, view.schema_id),
            "table_name": view.name, "view_definition": definitions.view(view), "check_option": "NONE",
            "is_updatable": "NO", "is_insertable_into": "NO", "is_trigger_updatable": "NO",
            "is_trigger_deletable": "NO", "is_trigger_insertable_into": "NO",
        }  # fmt: skip


@rows_of("view_table_usage", INFORMATION)
def view_table_usage(ctx: VirtualContext) -> Iterator[Record]:
    """The relations that each view uses."""
    database = ctx.snapshot.database.name
    for view in ctx.snapshot.views():
        for oid in view.depends_on:
            used = ctx.snapshot.relation_by_id(oid)
            if isinstance(used, (Table, View)):
                yield {
                    "view_catalog": database, "view_schema": schema_name(ctx, view.schema_id),
                    "view_name": view.name, "table_catalog": database,
                    "table_schema": schema_name(ctx, used.schema_id), "table_name": used.name,
                }  # fmt: skip


@rows_of("view_column_usage", INFORMATION)
def view_column_usage(ctx: VirtualContext) -> Iterator[Record]:
    """The columns that each view uses."""
    database = ctx.snapshot.database.name
    for view in ctx.snapshot.views():
        for oid, column_id in view.depends_on_columns:
            used = ctx.snapshot.table_by_id(oid)
            if used is not None:
                yield {
                    "view_catalog": database, "view_schema": schema_name(ctx, view.schema_id),
                    "view_name": view.name, "table_catalog": database,
                    "table_schema": schema_name(ctx, used.schema_id), "table_name": used.name,
                    "column_name": next(c.name for c in used.columns if c.id == column_id),
                }  # fmt: skip


@rows_of("sequences", INFORMATION)
def sequences(ctx: VirtualContext) -> Iterator[Record]:
    """Sequences that are not an identity column's own."""
    for s in ctx.snapshot.sequences():
        if s.identity:
            continue
        precision, radix, scale = _PRECISION[s.type_oid]
        yield {
            "sequence_catalog": ctx.snapshot.database.name, "sequence_schema": schema_name(ctx, s.schema_id),
            "sequence_name": s.name, "data_type": format_type(s.type_oid), "numeric_precision": precision,
            "numeric_precision_radix": radix, "numeric_scale": scale, "start_value": str(s.start),
            "minimum_value": str(s.minimum), "maximum_value": str(s.maximum), "increment": str(s.increment),
            "cycle_option": yes_no(s.cycle),
        }  # fmt: skip


@cache
def _routines() -> tuple[Record, ...]:
    rows = []
    for p in pgdata.procs():
        if p.prokind not in "fp":
            continue
        result = find_type(p.prorettype)
        array = result is not None and result.element and result.length == -1
        rows.append(
            {
                "specific_schema": "pg_catalog", "specific_name": f"{p.proname}_{p.oid}",
                "routine_schema": "pg_catalog", "routine_name": p.proname, "routine_type": "FUNCTION",
                "data_type": "ARRAY" if array else format_type(p.prorettype), "type_udt_schema": "pg_catalog",
                "type_udt_name": None if result is None else result.name, "routine_body": "EXTERNAL",
                "external_name": p.prosrc, "external_language": p.prolang.upper(), "parameter_style": "GENERAL",
                "is_deterministic": yes_no(p.provolatile == "i"), "sql_data_access": "MODIFIES",
                "is_null_call": yes_no(p.proisstrict), "schema_level_routine": "YES", "max_dynamic_result_sets": 0,
                "security_type": "INVOKER", "as_locator": "NO", "is_udt_dependent": "NO", "dtd_identifier": "0",
            }
        )  # fmt: skip
    return tuple(rows)


@rows_of("routines", INFORMATION)
def routines(ctx: VirtualContext) -> Iterator[Record]:
    """PostgreSQL's functions."""
    name = ctx.snapshot.database.name
    for record in _routines():
        yield {
            **record,
            "specific_catalog": name,
            "routine_catalog": name,
            "type_udt_catalog": name,
        }


@rows_of("enabled_roles", INFORMATION)
def enabled_roles(ctx: VirtualContext) -> Iterator[Record]:
    """Every role: a superuser may take each."""
    for role in ctx.snapshot.roles():
        yield {"role_name": role.name}


@rows_of("applicable_roles", INFORMATION)
def applicable_roles(ctx: VirtualContext) -> Iterator[Record]:
    """Memberships."""
    for role in ctx.snapshot.roles():
        for oid in role.member_of:
            yield {"grantee": role.name, "role_name": owner_name(ctx, oid), "is_grantable": "NO"}
