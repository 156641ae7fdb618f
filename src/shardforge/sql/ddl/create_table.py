"""CREATE TABLE, and the table of CREATE TABLE AS and SELECT INTO.

Source: PostgreSQL 15, src/backend/commands/tablecmds.c (DefineRelation), src/backend/parser/parse_utilcmd.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.ids import TableId
from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.catalog.descriptors import Schema, Sharding, Table
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.alter_options import sharding_for
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.definition import (
    ColumnDefinition,
    Definition,
    read_column,
    read_constraint,
)
from shardforge.sql.ddl.like import copy_like, finish_like
from shardforge.sql.ddl.names import checked_name, creation_schema, strings
from shardforge.sql.ddl.storage_options import kept, read_options
from shardforge.sql.types.registry import supported, type_by_oid

Options = dict[str, Any]


async def create_table(ddl: Ddl, node: Node) -> str:
    """CREATE [TEMP] TABLE [IF NOT EXISTS]."""
    _refuse(node)
    relation = node["relation"]
    schema = await creation_schema(ddl, relation)
    name = checked_name(relation["relname"])
    if not await free_or_skip(ddl, schema, name, skip=bool(node.get("if_not_exists"))):
        return "CREATE TABLE"
    options = read_options(node.get("options", []))
    definition = Definition()
    likes: list[tuple[Table, int]] = []
    for element in node.get("tableElts", []):
        match element:
            case {"ColumnDef": column}:
                read_column(ddl, column, name, definition)
            case {"Constraint": constraint}:
                read_constraint(constraint, definition)
            case {"TableLikeClause": like}:
                likes.append(await copy_like(ddl, like, definition))
            case _:
                raise unsupported("this element of CREATE TABLE")
    table, extras = await _build(ddl, schema, name, definition, options)
    for source, wanted in likes:
        table = await finish_like(ddl, table, source, wanted)
    await _write(ddl, table, extras)
    return "CREATE TABLE"


def _refuse(node: Node) -> None:
    if node.get("partspec") or node.get("partbound"):
        raise unsupported("table partitioning (PARTITION BY)")
    if node.get("inhRelations"):
        raise unsupported("table inheritance (INHERITS)")
    if node.get("ofTypename"):
        raise unsupported("a typed table (OF)")
    if node.get("accessMethod", "heap") != "heap":
        raise QueryError(f'access method "{node["accessMethod"]}" does not exist', "42704")
    if node.get("tablespacename", "pg_default") != "pg_default":
        raise QueryError(f'tablespace "{node["tablespacename"]}" does not exist', "42704")
    if node.get("oncommit", "ONCOMMIT_NOOP") not in ("ONCOMMIT_NOOP", "ONCOMMIT_PRESERVE_ROWS"):
        raise unsupported("ON COMMIT DROP and ON COMMIT DELETE ROWS")


async def free_or_skip(ddl: Ddl, schema: Schema, name: str, *, skip: bool) -> bool:
    """Whether the name is free; a taken one is a notice with `skip`, else 42P07.

    With `skip` the outcome of a transaction that is taking it is waited for.
    """
    if ddl.catalog.relation_in(schema, name) is None:
        ddl.ensure_no_type(schema, name)
        if not skip or await ddl.claim_name(schema, name):
            return True
    if not skip:
        raise QueryError(f'relation "{name}" already exists', "42P07")
    ddl.notice(f'relation "{name}" already exists, skipping', "42P07")
    return False


async def _build(
    ddl: Ddl, schema: Schema, name: str, definition: Definition, options: Options
) -> tuple[Table, build.Extras]:
    """The descriptor of a new table."""
    oid = await ddl.new_oid()
    table = Table(
        id=TableId(oid), name=name, schema_id=schema.id, columns=(), indexes=(),
        sharding=Sharding("hash"), layouts=(), owner=ddl.owner, type_oid=await ddl.new_oid(),
        array_type_oid=await ddl.new_oid(), storage_id=oid, options=kept(options),
        temporary_session=schema.temporary_session,
    )  # fmt: skip
    extras = build.Extras()
    seen: set[str] = set()
    for column in definition.columns:
        if column.name in seen:
            raise QueryError(f'column "{column.name}" specified more than once', "42701")
        seen.add(column.name)
        table = await build.add_column(ddl, table, column, extras)
    for column in definition.columns:
        table = build.add_generated(ddl, table, column)
    for check in definition.checks:
        table = await build.add_check(ddl, table, check)
    for key in sorted(definition.keys, key=lambda key: not key.primary):
        if key.using_index is not None:
            raise QueryError("cannot use an existing index in CREATE TABLE", "0A000")
        read_options(key.options, index=True)
        table = await build.add_key(ddl, table, key)
    table = replace(table, sharding=sharding_for(ddl, table, options))
    if build.primary_key(table) is None:
        table = build.add_rowid(table)
    table = replace(table, layouts=(build.row_layout(table),))
    for foreign_key in definition.foreign_keys:
        table = await build.add_foreign_key(ddl, table, foreign_key, extras)
    return table, extras


async def _write(ddl: Ddl, table: Table, extras: build.Extras) -> None:
    for target in extras.targets.values():
        await ddl.lock(target, TableLockMode.SHARE_ROW_EXCLUSIVE)
    await ddl.put(*extras.sequences, table, *extras.targets.values())


async def create_table_for_query(
    ddl: Ddl, into: Node, columns: Sequence[OutputColumn], *, if_not_exists: bool
) -> bool:
    """The empty table of CREATE TABLE AS or SELECT INTO; False when it exists already and may."""
    _refuse(into)
    relation = into["rel"]
    schema = await creation_schema(ddl, relation)
    name = checked_name(relation["relname"])
    if not await free_or_skip(ddl, schema, name, skip=if_not_exists):
        return False
    given = strings(into.get("colNames", []))
    if len(given) > len(columns):
        raise QueryError("too many column names were specified", "42601")
    definition = Definition()
    for position, column in enumerate(columns):
        column_name = given[position] if position < len(given) else column.name
        type_oid = 25 if column.type == 705 else column.type
        found = type_by_oid(type_oid)
        if found.kind == "p":
            raise QueryError(f'column "{column_name}" has pseudo-type {found.display}', "42P16")
        if not supported(type_oid):
            raise unsupported(f"type {found.display}")
        definition.columns.append(ColumnDefinition(column_name, type_oid, column.typmod))
    options = read_options(into.get("options", []))
    table, extras = await _build(ddl, schema, name, definition, options)
    await _write(ddl, table, extras)
    return True
