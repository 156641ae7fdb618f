"""Removing indexes from their tables: DROP INDEX, and the index behind a dropped constraint."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import Index, Table
from shardforge.sql.catalog.snapshot import IndexRelation
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.ddl.dependencies import Dependents, DropPlan, describe, settle


async def drop_indexes(ddl: Ddl, found: Iterable[IndexRelation], *, cascade: bool) -> None:
    """DROP INDEX. Raises: 2BP01 for a constraint's index, or one that a foreign key needs."""
    for item in found:
        table = await ddl.lock_exclusively(item.table)
        index = next((i for i in table.indexes if i.id == item.index.id), None)
        if index is None:
            raise QueryError(f'index "{item.index.name}" does not exist', "42704")
        if index.constraint:
            place = f"constraint {index.name} on {describe(ddl, table)}"
            raise QueryError(
                f"cannot drop index {index.name} because {place} requires it", "2BP01",
                hint=f"You can drop {place} instead.",
            )  # fmt: skip
        await release_unique(ddl, table, index, f"index {index.name}", cascade=cascade)
        await remove_index(ddl, table, index)


async def release_unique(ddl: Ddl, table: Table, index: Index, what: str, *, cascade: bool) -> None:
    """Drop the foreign keys that only this unique index makes possible; 2BP01 under RESTRICT."""
    if not index.unique or index.predicate is not None:
        return
    columns = tuple(part.column_id for part in index.columns)
    twins = [
        other for other in table.indexes
        if other.id != index.id and other.unique and other.predicate is None
        and sorted(part.column_id for part in other.columns) == sorted(columns)
    ]  # fmt: skip
    if twins:
        return
    plan = DropPlan()
    Dependents(ddl, plan).of_unique(table, columns, f"index {index.name}")
    settle(ddl, plan, what, cascade=cascade)
    for owner, key in plan.foreign_keys.values():
        current = await ddl.lock_exclusively(owner)
        kept = tuple(k for k in current.foreign_keys if k.oid != key.oid)
        changed = replace(current, foreign_keys=kept, version=current.version + 1)
        await ddl.put(changed)
        await forget_reference(ddl, table.id, changed)


async def forget_reference(ddl: Ddl, target_id: int, owner: Table) -> None:
    """Take `owner` off its former target's list when it has no foreign key to it any more."""
    target = ddl.catalog.table_by_id(target_id)
    if target is None or any(key.target == target_id for key in owner.foreign_keys):
        return
    target = await ddl.lock(target, TableLockMode.SHARE_UPDATE_EXCLUSIVE)
    kept = tuple(oid for oid in target.referenced_by if oid != owner.id)
    if kept != target.referenced_by:
        await ddl.put(replace(target, referenced_by=kept, version=target.version + 1))


async def remove_index(ddl: Ddl, table: Table, index: Index) -> Table:
    """Take the index off its table and let its entries be removed."""
    current = ddl.catalog.table_by_id(table.id)
    assert current is not None, "the table is locked"
    kept = tuple(i for i in current.indexes if i.id != index.id)
    changed = replace(current, indexes=kept, version=current.version + 1)
    await ddl.mark_dropped(current, (index.number,))
    await ddl.put(changed)
    return changed
