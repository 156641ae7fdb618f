"""VACUUM, ANALYZE, CHECKPOINT, CLUSTER and LOCK TABLE.

Old versions are collected in the background, so VACUUM checks its names and has nothing to do. ANALYZE counts rows.
Source: PostgreSQL 15, src/backend/commands/{vacuum,analyze,lockcmds}.c.
"""

from __future__ import annotations

from msgspec.structs import replace

from shardforge.errors import QueryError, TransactionError, unsupported
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl.backfill import count_rows
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import find, find_table, missing
from shardforge.sql.ddl.table_builder import column_named

_OPTIONS = frozenset(
    {"analyze", "verbose", "full", "freeze", "skip_locked", "disable_page_skipping", "index_cleanup",
     "process_toast", "truncate", "parallel"}
)  # fmt: skip


async def vacuum(ddl: Ddl, node: Node) -> str:
    """VACUUM and ANALYZE."""
    is_vacuum = bool(node.get("is_vacuumcmd"))
    word = "VACUUM" if is_vacuum else "ANALYZE"
    if is_vacuum:
        ddl.forbid_in_block("VACUUM")
    given = {option["DefElem"]["defname"] for option in node.get("options", [])}
    if given - _OPTIONS:
        raise QueryError(f'unrecognized {word} option "{min(given - _OPTIONS)}"', "42601")
    tables: list[Table] = []
    for item in node.get("rels", []):
        relation = item["VacuumRelation"]
        if isinstance(find(ddl, relation["relation"]), VirtualTable):
            continue
        table = find_table(ddl, relation["relation"])
        assert table is not None, "a missing table is an error here"
        for column in relation.get("va_cols", []):
            name = column["String"]["sval"]
            if column_named(table, name) is None:
                raise QueryError(
                    f'column "{name}" of relation "{table.name}" does not exist', "42703"
                )
        tables.append(table)
    if "analyze" in given or not is_vacuum:
        for table in tables if node.get("rels") else list(ddl.catalog.tables()):
            await _analyze(ddl, table)
    return word


async def _analyze(ddl: Ddl, table: Table) -> None:
    locked = await ddl.lock(table, TableLockMode.SHARE_UPDATE_EXCLUSIVE)
    rows = await count_rows(ddl, locked)
    if float(rows) != locked.row_estimate:
        await ddl.put(replace(locked, row_estimate=float(rows)))


async def checkpoint(ddl: Ddl, node: Node) -> str:
    """CHECKPOINT: everything acknowledged is durable already."""
    return "CHECKPOINT"


async def cluster(ddl: Ddl, node: Node) -> str:
    """CLUSTER: rows are always in the order of their primary key; another order cannot be had."""
    if node.get("indexname"):
        raise unsupported("CLUSTER by an index")
    return "CLUSTER"


async def lock_table(ddl: Ddl, node: Node) -> str:
    """LOCK TABLE."""
    if not ddl.ctx.in_block:
        raise TransactionError("LOCK TABLE can only be used in transaction blocks", "25P01")
    mode = TableLockMode(int(node["mode"]))
    for item in node["relations"]:
        found = find(ddl, item["RangeVar"])
        if found is None:
            raise missing(ddl, item["RangeVar"])
        if not isinstance(found, Table):
            raise QueryError(f'"{found.name}" is not a table', "42809")
        await ddl.store.locks.acquire(
            ddl.ctx.lock_owner, found.id, mode, timeout_ms=ddl.transaction.lock_timeout_ms,
            nowait=bool(node.get("nowait")), name=found.name,
        )  # fmt: skip
        ddl.ctx.catalog = ddl.store.refresh(ddl.catalog)
    return "LOCK TABLE"
