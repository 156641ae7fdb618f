"""CREATE, ALTER and DROP ROLE (USER, GROUP); GRANT and REVOKE.

The privilege model is the superuser's: who may log in may do everything. Attributes and memberships are kept and shown.
GRANT and REVOKE of privileges therefore change nothing that is checked; they are accepted when their objects and roles
exist, with a warning, so that dumps and migrations load.
Passwords are kept only as SCRAM-SHA-256 verifiers. Source: PostgreSQL 15, src/backend/commands/user.c.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import scramp
from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import Role
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.enum_types import require_type
from shardforge.sql.ddl.names import checked_name, find, missing, strings
from shardforge.sql.ddl.sequence_options import options_by_name

_FLAGS: Final = {
    "superuser": "superuser",
    "createdb": "create_database",
    "createrole": "create_role",
    "inherit": "inherit",
    "canlogin": "login",
    "isreplication": "replication",
    "bypassrls": "bypass_rls",
}


def scram_verifier(password: str) -> str:
    """PostgreSQL's stored form of a password; one that already has that form is kept."""
    if password.startswith("SCRAM-SHA-256$"):
        return password
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    salt, stored, server, iterations = mechanism.make_auth_info(password, iteration_count=4096)

    def text(value: bytes) -> str:
        return base64.b64encode(value).decode("ascii")

    return f"SCRAM-SHA-256${iterations}:{text(salt)}${text(stored)}:{text(server)}"


def _changes(ddl: Ddl, options: list[Node]) -> tuple[dict[str, Any], dict[str, list[Node]]]:
    """(descriptor fields, role lists) of the options of CREATE or ALTER ROLE."""
    fields: dict[str, Any] = {}
    lists: dict[str, list[Node]] = {}
    for name, arg in options_by_name(options).items():
        if name in _FLAGS:
            fields[_FLAGS[name]] = bool(arg["Boolean"].get("boolval", False))
        elif name == "password":
            fields["verifier"] = _password(ddl, arg)
        elif name == "connectionlimit":
            fields["connection_limit"] = int(arg["Integer"].get("ival", 0))
        elif name == "validUntil":
            fields["valid_until"] = arg["String"]["sval"]
        elif name in ("addroleto", "rolemembers", "adminmembers"):
            lists[name] = [item["RoleSpec"] for item in arg["List"]["items"]]
        elif name != "sysid":
            raise unsupported(f'role option "{name}"')
    return fields, lists


def _password(ddl: Ddl, arg: Node | None) -> str | None:
    if arg is None:
        return None
    password = arg["String"].get("sval", "")
    if not password:
        ddl.notice("empty string is not a valid password, clearing password")
        return None
    return scram_verifier(password)


async def create_role(ddl: Ddl, node: Node) -> str:
    """CREATE ROLE, USER or GROUP."""
    name = checked_name(node["role"])
    if name.startswith("pg_") or name in ("public", "none"):
        raise QueryError(f'role name "{name}" is reserved', "42939")
    if ddl.catalog.role_named(name) is not None:
        raise QueryError(f'role "{name}" already exists', "42710")
    fields, lists = _changes(ddl, node.get("options", []))
    role = Role(await ddl.new_oid(), name, login=node["stmt_type"] == "ROLESTMT_USER")
    role = replace(role, **fields)
    groups = tuple(ddl.role(spec).id for spec in lists.get("addroleto", []))
    members = [
        ddl.role(spec) for kind in ("rolemembers", "adminmembers") for spec in lists.get(kind, [])
    ]
    changed = [replace(m, member_of=(*m.member_of, role.id)) for m in members]
    await ddl.put(replace(role, member_of=groups), *changed)
    return "CREATE ROLE"


async def alter_role(ddl: Ddl, node: Node) -> str:
    """ALTER ROLE with options, and ALTER GROUP ADD or DROP USER."""
    role = ddl.role(node["role"])
    fields, lists = _changes(ddl, node.get("options", []))
    if "rolemembers" in lists:
        add = int(node.get("action", 1)) > 0
        members = [ddl.role(spec) for spec in lists["rolemembers"]]
        await ddl.put(*(_membership(member, role, add=add) for member in members))
    if fields:
        if role.id == 10 and fields.get("superuser") is False:
            raise QueryError("the bootstrap superuser must stay a superuser", "0A000")
        await ddl.put(replace(role, **fields))
    return "ALTER ROLE"


def _membership(member: Role, group: Role, *, add: bool) -> Role:
    others = tuple(oid for oid in member.member_of if oid != group.id)
    return replace(member, member_of=(*others, group.id) if add else others)


async def alter_role_settings(ddl: Ddl, node: Node) -> str:
    """ALTER ROLE ... SET: defaults for the role's sessions."""
    if "role" not in node or node.get("database"):
        raise unsupported("ALTER ROLE ALL SET and IN DATABASE")
    role = ddl.role(node["role"])
    setting = node["setstmt"]
    settings = dict(role.settings)
    name = setting.get("name", "")
    if setting["kind"] == "VAR_RESET_ALL":
        settings = {}
    elif setting["kind"] in ("VAR_RESET", "VAR_SET_DEFAULT"):
        settings.pop(name, None)
    elif setting["kind"] == "VAR_SET_VALUE":
        if name.lower() == "shardforge.commit_key":
            raise QueryError(f'parameter "{name}" can only be set for one transaction', "55P02")
        settings[name] = ", ".join(_value(arg) for arg in setting["args"])
    else:
        raise unsupported("this form of ALTER ROLE SET")
    await ddl.put(replace(role, settings=settings))
    return "ALTER ROLE"


def _value(node: Node) -> str:
    constant = node.get("A_Const", {})
    for kind, key in (("sval", "sval"), ("fval", "fval")):
        if kind in constant:
            return str(constant[kind].get(key, ""))
    if "ival" in constant:
        return str(constant["ival"].get("ival", 0))
    if "boolval" in constant:
        return "on" if constant["boolval"].get("boolval") else "off"
    raise unsupported("this kind of value in ALTER ROLE SET")


async def drop_role(ddl: Ddl, node: Node) -> str:
    """DROP ROLE. Raises: 2BP01 while the role owns something."""
    for spec in node["roles"]:
        name = spec["RoleSpec"]["rolename"]
        role = ddl.catalog.role_named(name)
        if role is None:
            if not node.get("missing_ok"):
                raise QueryError(f'role "{name}" does not exist', "42704")
            ddl.notice(f'role "{name}" does not exist, skipping')
            continue
        if name == ddl.ctx.user:
            raise QueryError("current user cannot be dropped", "55006")
        if role.id == 10:
            raise QueryError(
                f"cannot drop role {name} because it is required by the database system", "2BP01"
            )
        _check_owns_nothing(ddl, role)
        members = [r for r in ddl.catalog.roles() if role.id in r.member_of]
        await ddl.put(*(_membership(member, role, add=False) for member in members))
        await ddl.remove(role)
    return "DROP ROLE"


def _check_owns_nothing(ddl: Ddl, role: Role) -> None:
    owned = [
        f"owner of {type(r).__name__.lower()} {r.name}"
        for r in ddl.catalog.relations()
        if r.owner == role.id
    ]
    owned += [f"owner of schema {s.name}" for s in ddl.catalog.schemas() if s.owner == role.id]
    owned += [f"owner of database {d.name}" for d in ddl.catalog.databases() if d.owner == role.id]
    if owned:
        raise QueryError(
            f'role "{role.name}" cannot be dropped because some objects depend on it', "2BP01",
            detail="\n".join(owned),
        )  # fmt: skip


async def rename_role(ddl: Ddl, old: str, new: str) -> None:
    """ALTER ROLE RENAME TO."""
    role = ddl.role({"rolename": old})
    if ddl.catalog.role_named(new) is not None:
        raise QueryError(f'role "{new}" already exists', "42710")
    if old == ddl.ctx.user:
        raise QueryError("session user cannot be renamed", "0A000")
    await ddl.put(replace(role, name=new))


async def grant(ddl: Ddl, node: Node) -> str:
    """GRANT and REVOKE of privileges: checked for existence, and said to have no effect."""
    tag = "GRANT" if node.get("is_grant") else "REVOKE"
    if node.get("targtype", "ACL_TARGET_OBJECT") == "ACL_TARGET_OBJECT":
        for item in node.get("objects", []):
            if "RangeVar" in item and find(ddl, item["RangeVar"]) is None:
                raise missing(ddl, item["RangeVar"])
            if node["objtype"] == "OBJECT_TYPE":
                require_type(ddl, strings(item["List"]["items"]))
            if node["objtype"] == "OBJECT_SCHEMA":
                ddl.catalog.schema_for_lookup(item["String"]["sval"], ddl.search_path)
    for grantee in node["grantees"]:
        if grantee["RoleSpec"]["roletype"] != "ROLESPEC_PUBLIC":
            ddl.role(grantee["RoleSpec"])
    ddl.ctx.notice(
        "WARNING", "0A000", f"{tag} has no effect: privileges are not enforced",
        detail="Every role that can log in has all privileges.",
    )  # fmt: skip
    return tag


async def grant_role(ddl: Ddl, node: Node) -> str:
    """GRANT role TO role, and REVOKE."""
    add = bool(node.get("is_grant"))
    for granted in node["granted_roles"]:
        group = ddl.role({"rolename": granted["AccessPriv"]["priv_name"]})
        for grantee in node["grantee_roles"]:
            member = ddl.role(grantee["RoleSpec"])
            if add and (member.id == group.id or _is_member(ddl, group, member)):
                raise QueryError(
                    f'role "{group.name}" is a member of role "{member.name}"', "0LP01"
                )
            await ddl.put(_membership(member, group, add=add))
    return "GRANT ROLE" if add else "REVOKE ROLE"


def _is_member(ddl: Ddl, role: Role, group: Role) -> bool:
    waiting, seen = list(role.member_of), set()
    while waiting:
        oid = waiting.pop()
        if oid == group.id:
            return True
        found = ddl.catalog.role_by_id(oid)
        if found is not None and oid not in seen:
            seen.add(oid)
            waiting.extend(found.member_of)
    return False
