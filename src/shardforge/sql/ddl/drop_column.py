"""A column taken off its table, for ALTER TABLE DROP COLUMN and DROP TYPE CASCADE.

Source: PostgreSQL 15, src/backend/commands/tablecmds.c (ATExecDropColumn), src/backend/catalog/heap.c.
"""

from __future__ import annotations

from msgspec.structs import replace

from shardforge.errors import unsupported
from shardforge.sql.catalog.descriptors import Column, Index, Table
from shardforge.sql.catalog.expressions import columns_of
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.alter_constraints import drop_key, remove_foreign_key, without_check
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.ddl.drop_index import remove_index


def index_uses(ddl: Ddl, table: Table, index: Index, column_id: int) -> bool:
    """Whether an index has the column in its key, its INCLUDE list or its expressions."""
    if column_id in index.include or any(p.column_id == column_id for p in index.columns):
        return True
    texts = [p.expression for p in index.columns] + [index.predicate]
    return any(
        column_id in columns_of(expressions.bind(ddl, table, text))
        for text in texts
        if text is not None
    )


async def remove_column(ddl: Ddl, table: Table, column: Column) -> Table:
    """Take the column, with its indexes and constraints, off the table, which is locked. Raises: 0A000."""
    if column.id in table.sharding.shard_key:
        raise unsupported(f'dropping shard_key column "{column.name}"')
    for index in build.public_indexes(table):
        if index_uses(ddl, table, index, column.id):
            if index.primary:
                table = await drop_key(ddl, table, index)
            else:
                table = await remove_index(ddl, table, index)
    for check in table.checks:
        used = columns_of(expressions.bind(ddl, table, check.expression))
        if column.id in used:
            table = without_check(table, check)
    for key in table.foreign_keys:
        if column.id in key.columns:
            table = await remove_foreign_key(ddl, table, key.oid)
    gone = replace(
        column, name=f"........pg.dropped.{column.id}........", dropped=True, not_null=False,
        default=None, generated=None, identity="", missing=None,
    )  # fmt: skip
    table = build.replace_column(table, gone)
    comments = {k: v for k, v in table.column_comments.items() if k != column.id}
    table = replace(
        table, layouts=(*table.layouts, build.row_layout(table)), column_comments=comments
    )
    table = replace(table, version=table.version + 1)
    await ddl.put(table)
    return table
