"""Which tables a statement uses, and the lock that keeps DDL away from each while its transaction lasts.

Besides the tables named: those that a foreign key leads to, for what is changed may be checked or cascaded there.
Source: PostgreSQL 15, table 13.2 of the manual; src/backend/utils/adt/ri_triggers.c (locks of the checks).
"""

from __future__ import annotations

from typing import NamedTuple

from shardforge.sql.bind import tree
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.catalog.expressions import parts
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.catalog.tablelocks import TableLockMode


class TableUse(NamedTuple):
    """One table and the mode to lock it in."""

    table: int
    mode: TableLockMode
    name: str


def tables_used(bound: tree.BoundStatement, catalog: CatalogSnapshot) -> tuple[TableUse, ...]:
    """Every table that running the statement may touch, each with its strongest mode, in order of oid."""
    found: dict[int, TableUse] = {}

    def use(table: Table, mode: TableLockMode) -> None:
        known = found.get(table.id)
        if known is None or known.mode < mode:
            found[table.id] = TableUse(table.id, mode, table.name)

    for part in parts(bound):
        if isinstance(part, tree.Scan):
            use(part.table, TableLockMode.ACCESS_SHARE)
        elif isinstance(part, tree.LockRows):
            for _, table in part.keys:
                use(table, TableLockMode.ROW_SHARE)
        elif isinstance(part, (tree.Insert, tree.Update, tree.Delete)):
            for table in _related(part.table, catalog):
                use(table, TableLockMode.ROW_EXCLUSIVE)
    return tuple(found[oid] for oid in sorted(found))


def _related(table: Table, catalog: CatalogSnapshot) -> list[Table]:
    """The table, those that reference it however far away, and those that any of these references."""
    seen: dict[int, Table] = {table.id: table}
    waiting = [table]
    while waiting:
        current = waiting.pop()
        for oid in current.referenced_by:
            other = catalog.table_by_id(oid)
            if other is not None and oid not in seen:
                seen[oid] = other
                waiting.append(other)
    for current in list(seen.values()):
        for key in current.foreign_keys:
            target = catalog.table_by_id(key.target)
            if target is not None:
                seen.setdefault(target.id, target)
    return list(seen.values())
