"""Who is connected and what they hold: pg_stat_activity, pg_locks, pg_settings, prepared statements, cursors, zones."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.virtual.base import Record, rows_of
from shardforge.sql.types.values import Array, Interval

_MODES = {
    1: "AccessShareLock", 2: "RowShareLock", 3: "RowExclusiveLock", 4: "ShareUpdateExclusiveLock",
    5: "ShareLock", 6: "ShareRowExclusiveLock", 7: "ExclusiveLock", 8: "AccessExclusiveLock",
}  # fmt: skip
_ROW_MODES = ("AccessShareLock", "RowShareLock", "ExclusiveLock", "AccessExclusiveLock")
"""The table-lock modes by which PostgreSQL's tupleLockExtraInfo calls the four strengths, weakest first."""


@rows_of("pg_stat_activity")
def pg_stat_activity(ctx: VirtualContext) -> Iterator[Record]:
    """One row per connection."""
    databases = {d.name: d.id for d in ctx.snapshot.databases()}
    for a in ctx.activity():
        role = ctx.snapshot.role_named(a.user)
        yield {
            "datid": databases.get(a.database), "datname": a.database, "pid": a.pid,
            "usesysid": None if role is None else role.id, "usename": a.user,
            "application_name": a.application_name, "client_addr": a.client_addr, "client_port": a.client_port,
            "backend_start": a.backend_start, "xact_start": a.xact_start, "query_start": a.query_start,
            "state_change": a.state_change, "state": a.state, "query": a.query, "backend_type": "client backend",
        }  # fmt: skip


@rows_of("pg_stat_ssl")
def pg_stat_ssl(ctx: VirtualContext) -> Iterator[Record]:
    """Whether each connection is encrypted."""
    for a in ctx.activity():
        yield {"pid": a.pid, "ssl": a.ssl, "version": a.ssl_version, "cipher": a.ssl_cipher}


@rows_of("pg_stat_gssapi")
def pg_stat_gssapi(ctx: VirtualContext) -> Iterator[Record]:
    """GSSAPI is never used."""
    for a in ctx.activity():
        yield {
            "pid": a.pid,
            "gss_authenticated": False,
            "encrypted": False,
            "credentials_delegated": False,
        }


@rows_of("pg_locks")
def pg_locks(ctx: VirtualContext) -> Iterator[Record]:
    """Locks on tables, on numbers, and on rows: of these PostgreSQL lists only those that are waited for."""
    for pid, table, mode, granted in ctx.table_locks():
        yield {
            "locktype": "relation", "database": ctx.snapshot.database.id, "relation": table, "pid": pid,
            "mode": _MODES[mode], "granted": granted, "fastpath": False,
        }  # fmt: skip
    for lock in ctx.row_locks():
        yield {
            "locktype": "tuple", "database": ctx.snapshot.database.id, "relation": lock.table, "pid": lock.pid,
            "virtualtransaction": str(lock.transaction), "mode": _ROW_MODES[lock.strength],
            "granted": lock.granted, "fastpath": False,
        }  # fmt: skip
    for advisory in ctx.advisory_locks():
        yield {
            "locktype": "advisory", "database": advisory.database, "classid": advisory.classid,
            "objid": advisory.objid, "objsubid": advisory.objsubid, "pid": advisory.pid,
            "mode": "ShareLock" if advisory.shared else "ExclusiveLock",
            "granted": advisory.granted, "fastpath": False,
        }  # fmt: skip


@rows_of("pg_settings")
def pg_settings(ctx: VirtualContext) -> Iterator[Record]:
    """The session's parameters."""
    for name, value, description in ctx.settings.all():
        yield {
            "name": name, "setting": value, "category": "Customized Options" if "." in name else "ShardForge",
            "short_desc": description, "context": "user", "vartype": "string", "source": "default",
            "boot_val": value, "reset_val": value, "pending_restart": False,
        }  # fmt: skip


@rows_of("pg_prepared_statements")
def pg_prepared_statements(ctx: VirtualContext) -> Iterator[Record]:
    """The session's prepared statements."""
    for name, text, moment, types, from_sql in ctx.prepared_statements():
        yield {
            "name": name, "statement": text, "prepare_time": moment, "parameter_types": Array(types),
            "from_sql": from_sql, "generic_plans": 0, "custom_plans": 0,
        }  # fmt: skip


@rows_of("pg_cursors")
def pg_cursors(ctx: VirtualContext) -> Iterator[Record]:
    """The session's cursors."""
    for name, text, holdable, binary, scrollable, moment in ctx.cursors():
        yield {
            "name": name, "statement": text, "is_holdable": holdable, "is_binary": binary,
            "is_scrollable": scrollable, "creation_time": moment,
        }  # fmt: skip


@rows_of("pg_timezone_names")
def pg_timezone_names(ctx: VirtualContext) -> Iterator[Record]:
    """Every time zone, with its offset at the statement's time."""
    moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=ctx.statement_us)
    for name in sorted(zoneinfo.available_timezones()):
        local = moment.astimezone(zoneinfo.ZoneInfo(name))
        offset, saving = local.utcoffset(), local.dst()
        micros = 0 if offset is None else int(offset.total_seconds()) * 1_000_000
        yield {
            "name": name, "abbrev": local.tzname(), "utc_offset": Interval(0, 0, micros), "is_dst": bool(saving),
        }  # fmt: skip
