"""pg_database, pg_namespace, pg_tablespace, pg_extension, pg_db_role_setting."""

from __future__ import annotations

from collections.abc import Iterator

from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.snapshot import PG_CATALOG
from shardforge.sql.catalog.virtual.base import Record, rows_of
from shardforge.sql.types.values import Array


@rows_of("pg_database")
def pg_database(ctx: VirtualContext) -> Iterator[Record]:
    """Every database of the cluster."""
    for database in sorted(ctx.snapshot.databases(), key=lambda d: d.id):
        yield {
            "oid": database.id, "datname": database.name, "datdba": database.owner, "encoding": 6,
            "datlocprovider": "c", "datistemplate": False, "datallowconn": True, "datconnlimit": -1,
            "datfrozenxid": 0, "datminmxid": 1, "dattablespace": 1663, "datcollate": "C", "datctype": "C",
        }  # fmt: skip


@rows_of("pg_namespace")
def pg_namespace(ctx: VirtualContext) -> Iterator[Record]:
    """Schemas."""
    for schema in ctx.snapshot.schemas():
        yield {"oid": schema.id, "nspname": schema.name, "nspowner": schema.owner}


@rows_of("pg_tablespace")
def pg_tablespace(ctx: VirtualContext) -> Iterator[Record]:
    """PostgreSQL's two; there are no others."""
    yield {"oid": 1663, "spcname": "pg_default", "spcowner": 10}
    yield {"oid": 1664, "spcname": "pg_global", "spcowner": 10}


@rows_of("pg_extension")
def pg_extension(ctx: VirtualContext) -> Iterator[Record]:
    """plpgsql, in name."""
    yield {
        "oid": 13559, "extname": "plpgsql", "extowner": 10, "extnamespace": PG_CATALOG, "extrelocatable": False,
        "extversion": "1.0",
    }  # fmt: skip


@rows_of("pg_db_role_setting")
def pg_db_role_setting(ctx: VirtualContext) -> Iterator[Record]:
    """ALTER ROLE ... SET."""
    for role in ctx.snapshot.roles():
        if role.settings:
            settings = tuple(f"{name}={value}" for name, value in role.settings.items())
            yield {"setdatabase": 0, "setrole": role.id, "setconfig": Array(settings)}
