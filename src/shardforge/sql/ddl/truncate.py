"""TRUNCATE: a new, empty storage for each table; the old rows are removed once the transaction commits.

Source: PostgreSQL 15, src/backend/commands/tablecmds.c (ExecuteTruncate).
"""

from __future__ import annotations

from msgspec.structs import replace

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.dependencies import visible_name
from shardforge.sql.ddl.names import find_table
from shardforge.sql.ddl.sequence_ddl import restarted


async def truncate(ddl: Ddl, node: Node) -> str:
    """TRUNCATE [RESTART IDENTITY] [CASCADE]."""
    tables: dict[int, Table] = {}
    for item in node["relations"]:
        found = find_table(ddl, item["RangeVar"])
        assert found is not None, "a missing table is an error here"
        tables[found.id] = await ddl.lock_exclusively(found)
    await _referencing(ddl, tables, cascade=node.get("behavior") == "DROP_CASCADE")
    for table in tables.values():
        await empty(ddl, table)
    if node.get("restart_seqs"):
        for sequence in list(ddl.catalog.sequences()):
            if sequence.owned_by is not None and sequence.owned_by[0] in tables:
                locked = await ddl.lock_exclusively(sequence)
                changed = await restarted(ddl, locked, None)
                await ddl.put(replace(changed, version=locked.version + 1))
    return "TRUNCATE TABLE"


async def _referencing(ddl: Ddl, tables: dict[int, Table], *, cascade: bool) -> None:
    """Add the tables that reference these under CASCADE; 0A000 without."""
    waiting = list(tables.values())
    while waiting:
        target = waiting.pop(0)
        for oid in target.referenced_by:
            other = ddl.catalog.table_by_id(oid)
            if other is None or oid in tables:
                continue
            if not cascade:
                raise QueryError(
                    "cannot truncate a table referenced in a foreign key constraint", "0A000",
                    detail=f'Table "{other.name}" references "{target.name}".',
                    hint=f'Truncate table "{other.name}" at the same time, or use TRUNCATE ... CASCADE.',
                )  # fmt: skip
            ddl.notice(f'truncate cascades to table "{visible_name(ddl, other)}"')
            tables[oid] = await ddl.lock_exclusively(other)
            waiting.append(tables[oid])


async def empty(ddl: Ddl, table: Table) -> Table:
    """Give the table a new storage without rows."""
    await ddl.mark_dropped(table)
    changed = replace(
        table, storage_id=await ddl.new_oid(), epoch=table.epoch + 1, version=table.version + 1
    )
    await ddl.put(changed)
    return changed
