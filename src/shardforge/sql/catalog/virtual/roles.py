"""pg_authid, pg_roles, pg_user, pg_shadow, pg_group, pg_auth_members. Secrets are never shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import Role
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.virtual.base import Record, rows_of
from shardforge.sql.types.registry import TIMESTAMPTZ, input_function
from shardforge.sql.types.values import Array

HIDDEN = "********"


class _Utc:
    timezone = "UTC"
    datestyle = "ISO, MDY"
    intervalstyle = "postgres"
    extra_float_digits = 1
    bytea_output = "hex"


@lru_cache(maxsize=256)
def _moment(text: str) -> int | None:
    try:
        value: int = input_function(TIMESTAMPTZ.oid, _Utc())(text)
    except QueryError:
        return None
    return value


def _valid_until(role: Role) -> int | None:
    return None if role.valid_until is None else _moment(role.valid_until)


def _configuration(role: Role) -> Array | None:
    settings = tuple(f"{name}={value}" for name, value in role.settings.items())
    return Array(settings) if settings else None


@rows_of("pg_roles")
def pg_roles(ctx: VirtualContext) -> Iterator[Record]:
    """Every role."""
    for role in ctx.snapshot.roles():
        yield {
            "rolname": role.name, "rolsuper": role.superuser, "rolinherit": role.inherit,
            "rolcreaterole": role.create_role, "rolcreatedb": role.create_database, "rolcanlogin": role.login,
            "rolreplication": role.replication, "rolconnlimit": role.connection_limit, "rolpassword": HIDDEN,
            "rolvaliduntil": _valid_until(role), "rolbypassrls": role.bypass_rls,
            "rolconfig": _configuration(role), "oid": role.id,
        }  # fmt: skip


@rows_of("pg_authid")
def pg_authid(ctx: VirtualContext) -> Iterator[Record]:
    """Every role, its verifier hidden."""
    for record in pg_roles(ctx):
        role = ctx.snapshot.role_by_id(record["oid"])
        has_password = role is not None and role.verifier is not None
        yield {**record, "rolpassword": HIDDEN if has_password else None}


@rows_of("pg_user")
def pg_user(ctx: VirtualContext) -> Iterator[Record]:
    """Roles that can log in."""
    for role in ctx.snapshot.roles():
        if role.login:
            yield {
                "usename": role.name, "usesysid": role.id, "usecreatedb": role.create_database,
                "usesuper": role.superuser, "userepl": role.replication, "usebypassrls": role.bypass_rls,
                "passwd": HIDDEN, "valuntil": _valid_until(role), "useconfig": _configuration(role),
            }  # fmt: skip


@rows_of("pg_shadow")
def pg_shadow(ctx: VirtualContext) -> Iterator[Record]:
    """Roles that can log in, their verifiers hidden."""
    yield from pg_user(ctx)


@rows_of("pg_group")
def pg_group(ctx: VirtualContext) -> Iterator[Record]:
    """Roles that cannot log in, with their members."""
    for group in ctx.snapshot.roles():
        if not group.login:
            members = tuple(r.id for r in ctx.snapshot.roles() if group.id in r.member_of)
            yield {"groname": group.name, "grosysid": group.id, "grolist": Array(members)}


@rows_of("pg_auth_members")
def pg_auth_members(ctx: VirtualContext) -> Iterator[Record]:
    """Memberships."""
    for role in ctx.snapshot.roles():
        for group in role.member_of:
            yield {"roleid": group, "member": role.id, "grantor": 10, "admin_option": False}
