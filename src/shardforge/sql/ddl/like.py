"""CREATE TABLE (LIKE source INCLUDING ...): the source's columns, and what else is asked for.

Source: PostgreSQL 15, src/backend/parser/parse_utilcmd.c (transformTableLikeClause, expandTableLikeClause).
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from shardforge.errors import QueryError
from shardforge.ids import TableId
from shardforge.sql.catalog.descriptors import Column, Index, IndexColumn, Sharding, Table, View
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.definition import (
    CheckDefinition,
    ColumnDefinition,
    Definition,
    KeyDefinition,
)
from shardforge.sql.ddl.index_names import index_name
from shardforge.sql.ddl.names import find, missing, schema_of

COMMENTS: Final = 1
CONSTRAINTS: Final = 4
DEFAULTS: Final = 8
GENERATED: Final = 16
IDENTITY: Final = 32
INDEXES: Final = 64


async def copy_like(ddl: Ddl, node: Node, into: Definition) -> tuple[Table, int]:
    """Collect the source's columns and checks; returns what `finish_like` needs."""
    source = find(ddl, node["relation"])
    if source is None:
        raise missing(ddl, node["relation"])
    wanted = int(node.get("options", 0))
    if isinstance(source, View):
        source = Table(
            id=source.id, name=source.name, schema_id=source.schema_id, columns=source.columns,
            indexes=(), sharding=Sharding("hash"), layouts=(),
        )  # fmt: skip
    if not isinstance(source, Table):
        raise QueryError(
            f'relation "{source.name}" is invalid in LIKE clause', "42809",
            detail="This operation is not supported for sequences."
        )  # fmt: skip
    for column in build.visible_columns(source):
        into.columns.append(_column(ddl, source, column, wanted))
    if wanted & CONSTRAINTS:
        into.checks.extend(
            CheckDefinition(check.name, None, text=check.expression) for check in source.checks
        )
    if wanted & INDEXES:
        by_id = {c.id: c.name for c in source.columns}
        into.keys.extend(
            KeyDefinition(
                None, index.primary, [by_id[part.column_id] for part in index.columns],
                [by_id[i] for i in index.include],
            )
            for index in build.public_indexes(source)
            if index.constraint
        )  # fmt: skip
    return source, wanted


def _column(ddl: Ddl, source: Table, column: Column, wanted: int) -> ColumnDefinition:
    copied = ColumnDefinition(
        column.name, column.type_oid, column.typmod, not_null=column.not_null,
        collation=column.collation,
    )  # fmt: skip
    if wanted & DEFAULTS:
        copied.default_text = column.default
    if wanted & GENERATED:
        copied.generated_text = column.generated
    if wanted & IDENTITY and column.identity:
        copied.identity = column.identity
        owned = next(
            (s for s in ddl.catalog.sequences() if s.owned_by == (source.id, column.id)), None
        )
        if owned is not None:
            copied.identity_options = [
                {"DefElem": {"defname": name, "arg": {"Integer": {"ival": value}}}}
                for name, value in (
                    ("increment", owned.increment), ("minvalue", owned.minimum),
                    ("maxvalue", owned.maximum), ("start", owned.start), ("cache", owned.cache),
                )
            ]  # fmt: skip
    if wanted & COMMENTS:
        copied.comment = source.column_comments.get(column.id)
    return copied


async def finish_like(ddl: Ddl, table: Table, source: Table, wanted: int) -> Table:
    """The table with the source's plain indexes, if asked for."""
    if not wanted & INDEXES:
        return table
    ids = {
        column.id: new.id
        for column in build.visible_columns(source)
        if (new := build.column_named(table, column.name)) is not None
    }
    for index in build.public_indexes(source):
        if index.constraint:
            continue
        parts = tuple(
            part if part.column_id == 0 else replace(part, column_id=ids[part.column_id])
            for part in index.columns
        )
        table = await _add_index(ddl, table, index, parts, ids)
    return table


async def _add_index(
    ddl: Ddl, table: Table, index: Index, parts: tuple[IndexColumn, ...], ids: dict[int, int]
) -> Table:
    schema = schema_of(ddl, table)
    taken = {i.name for i in table.indexes} | {table.name}
    copied = replace(
        index, id=TableId(await ddl.new_oid()), columns=parts,
        number=build.next_index_number(table), include=tuple(ids[i] for i in index.include),
        name=ddl.free_name(schema, index_name(table, parts), taken),
    )  # fmt: skip
    return build.with_index(table, copied)
