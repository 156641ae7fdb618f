"""CREATE, ALTER and DROP DATABASE; extensions.

Source: PostgreSQL 15, src/backend/commands/dbcommands.c, extension.c.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import POSTGRES_DATABASE, Database
from shardforge.sql.catalog.store import public_schema
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import checked_name
from shardforge.sql.ddl.sequence_options import options_by_name

_TEMPLATES: Final = ("template0", "template1")
_FIXED: Final = {
    "encoding": ("utf8", "utf-8", "unicode", "default"),
    "lc_collate": ("c", "posix", "c.utf-8", "default"),
    "lc_ctype": ("c", "posix", "c.utf-8", "default"),
    "locale": ("c", "posix", "c.utf-8", "default"),
    "locale_provider": ("libc", "default"),
    "tablespace": ("pg_default", "default"),
    "template": (*_TEMPLATES, "default"),
    "allow_connections": ("true", "on", "default"),
    "is_template": ("false", "off", "default"),
    "connection_limit": ("-1", "default"),
    "strategy": ("wal_log", "file_copy", "default"),
}


def _text(arg: Node | None) -> str:
    match arg:
        case {"String": {"sval": value}}:
            return str(value)
        case {"Boolean": value}:
            return "true" if value.get("boolval") else "false"
        case {"Integer": value}:
            return str(value.get("ival", 0))
    return "default"


async def create_database(ddl: Ddl, node: Node) -> str:
    """CREATE DATABASE with its public schema. Options that would mean another encoding or template: 0A000."""
    ddl.forbid_in_block("CREATE DATABASE")
    name = checked_name(node["dbname"])
    owner = ddl.owner
    for option, arg in options_by_name(node.get("options", [])).items():
        if option == "owner":
            owner = ddl.role({"rolename": _text(arg)}).id
        elif option not in _FIXED:
            raise QueryError(f'option "{option}" not recognized', "42601")
        elif _text(arg).lower() not in _FIXED[option]:
            raise unsupported(f"{option} {_text(arg)} of a database")
    if ddl.catalog.database_named(name) is not None or name in _TEMPLATES:
        raise QueryError(f'database "{name}" already exists', "42P04")
    database = Database(await ddl.new_oid(), name, owner)
    await ddl.apply([ddl.change(database), public_schema(database.id)])
    return "CREATE DATABASE"


async def drop_database(ddl: Ddl, node: Node) -> str:
    """DROP DATABASE that nobody uses and that holds no relations of its own."""
    ddl.forbid_in_block("DROP DATABASE")
    name = node["dbname"]
    database = ddl.catalog.database_named(name)
    if database is None:
        if not node.get("missing_ok"):
            raise QueryError(f'database "{name}" does not exist', "3D000")
        ddl.notice(f'database "{name}" does not exist, skipping')
        return "DROP DATABASE"
    if database.id == ddl.database_id:
        raise QueryError("cannot drop the currently open database", "55006")
    if database.id == POSTGRES_DATABASE:
        raise unsupported('dropping database "postgres"')
    users = ddl.ctx.sessions_of(name)
    if users:
        plural = "is 1 other session" if users == 1 else f"are {users} other sessions"
        raise QueryError(
            f'database "{name}" is being accessed by other users', "55006",
            detail=f"There {plural} using the database.",
        )  # fmt: skip
    inside = ddl.store.current(name)
    for table in inside.tables():
        await ddl.mark_dropped(table)
    changes = [ddl.change(database, gone=True)]
    changes += ddl.store.contents(name)
    await ddl.apply(changes)
    return "DROP DATABASE"


async def rename_database(ddl: Ddl, old: str, new: str) -> None:
    """ALTER DATABASE RENAME TO."""
    database = ddl.catalog.database_named(old)
    if database is None:
        raise QueryError(f'database "{old}" does not exist', "3D000")
    if database.id == ddl.database_id:
        raise QueryError("current database cannot be renamed", "0A000")
    if ddl.ctx.sessions_of(old):
        raise QueryError(f'database "{old}" is being accessed by other users', "55006")
    if ddl.catalog.database_named(new) is not None:
        raise QueryError(f'database "{new}" already exists', "42P04")
    await ddl.put(replace(database, name=new))


async def create_extension(ddl: Ddl, node: Node) -> str:
    """CREATE EXTENSION: plpgsql is there in name; no other exists."""
    name = node["extname"]
    if name != "plpgsql":
        raise unsupported(f'extension "{name}"')
    if not node.get("if_not_exists"):
        raise QueryError('extension "plpgsql" already exists', "42710")
    ddl.notice('extension "plpgsql" already exists, skipping', "42710")
    return "CREATE EXTENSION"
