"""CREATE SCHEMA, and its renaming.

Source: PostgreSQL 15, src/backend/commands/schemacmds.c.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import Schema
from shardforge.sql.catalog.snapshot import SYSTEM_SCHEMAS
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import checked_name

RunElement = Callable[[Ddl, Node], Awaitable[str]]


async def create_schema(ddl: Ddl, node: Node, run: RunElement) -> str:
    """CREATE SCHEMA [IF NOT EXISTS] [AUTHORIZATION], with the objects inside it made by `run`."""
    owner = ddl.owner
    name = node.get("schemaname")
    if "authrole" in node:
        role = ddl.role(node["authrole"])
        owner = role.id
        name = name or role.name
    assert name is not None, "the grammar wants a name or a role"
    name = checked_name(name)
    _check_name(name)
    if ddl.catalog.schema_by_name(name) is not None:
        if not node.get("if_not_exists"):
            raise QueryError(f'schema "{name}" already exists', "42P06")
        ddl.notice(f'schema "{name}" already exists, skipping', "42P06")
        return "CREATE SCHEMA"
    await ddl.put(Schema(await ddl.new_oid(), name, ddl.database_id, owner))
    for element in node.get("schemaElts", []):
        await run(ddl, _placed(element, name))
    return "CREATE SCHEMA"


def _check_name(name: str) -> None:
    if name.startswith("pg_"):
        raise QueryError(
            f'unacceptable schema name "{name}"', "42939",
            detail='The prefix "pg_" is reserved for system schemas.',
        )  # fmt: skip


def _placed(element: Node, schema: str) -> Node:
    """An element of CREATE SCHEMA with its object put into the schema."""
    fields = {
        "CreateStmt": "relation", "ViewStmt": "view", "CreateSeqStmt": "sequence",
        "IndexStmt": "relation",
    }  # fmt: skip
    ((kind, node),) = element.items()
    field = fields.get(kind)
    if field is None:
        raise unsupported("this element of CREATE SCHEMA")
    named = node[field].get("schemaname", schema)
    if named != schema:
        raise QueryError(
            f"CREATE specifies a schema ({named}) different from the one being created ({schema})",
            "42P15",
        )
    return {kind: {**node, field: {**node[field], "schemaname": schema}}}


async def rename_schema(ddl: Ddl, old: str, new: str) -> None:
    """ALTER SCHEMA RENAME TO."""
    schema = ddl.catalog.schema_for_lookup(old, ddl.search_path)
    if old in SYSTEM_SCHEMAS:
        raise QueryError(f"permission denied for schema {old}", "42501")
    if ddl.catalog.schema_by_name(new) is not None:
        raise QueryError(f'schema "{new}" already exists', "42P06")
    _check_name(new)
    inside = {relation.id for relation in ddl.catalog.relations_of_schema(schema.id)}
    if any(inside & set(view.depends_on) for view in ddl.catalog.views()):
        raise unsupported(f'renaming schema "{old}" while views depend on its relations')
    types = {enum.id for enum in ddl.catalog.enums() if enum.schema_id == schema.id}
    if any(types & set(view.depends_on_types) for view in ddl.catalog.views()):
        raise unsupported(f'renaming schema "{old}" while views depend on its types')
    await ddl.put(replace(schema, name=new))
