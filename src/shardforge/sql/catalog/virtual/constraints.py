"""pg_constraint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from shardforge.sql.catalog.descriptors import Check, ForeignKey, Index, Table
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.catalog.virtual.base import Record, rows_of
from shardforge.sql.catalog.virtual.relations import visible_indexes
from shardforge.sql.pgdata import btree_operators
from shardforge.sql.types.values import Array

EQUAL: Final = 3


def _constraint(table: Table, **fields: Any) -> Record:
    return {
        "connamespace": table.schema_id, "condeferrable": False, "condeferred": False, "convalidated": True,
        "conrelid": table.id, "contypid": 0, "conindid": 0, "conparentid": 0, "confrelid": 0, "confupdtype": " ",
        "confdeltype": " ", "confmatchtype": " ", "conislocal": True, "coninhcount": 0, "connoinherit": False,
        **fields,
    }  # fmt: skip


@rows_of("pg_constraint")
def pg_constraint(ctx: VirtualContext) -> Iterator[Record]:
    """Primary keys, unique constraints, checks and foreign keys of every table."""
    for table in ctx.snapshot.tables():
        for index in visible_indexes(table):
            if index.constraint:
                yield _key(table, index)
        for check in table.checks:
            yield _check(table, check)
        for key in table.foreign_keys:
            yield _foreign_key(ctx.snapshot, table, key)


def _key(table: Table, index: Index) -> Record:
    columns = tuple(part.column_id for part in index.columns) + index.include
    return _constraint(
        table, oid=index.constraint_oid, conname=index.name, contype="p" if index.primary else "u",
        conindid=index.id, conkey=Array(columns), connoinherit=True,
    )  # fmt: skip


def _check(table: Table, check: Check) -> Record:
    from shardforge.sql.catalog.definitions import columns_of_check

    used = columns_of_check(table, check)
    return _constraint(
        table, oid=check.oid, conname=check.name, contype="c", convalidated=check.validated,
        conkey=Array(tuple(sorted(used))) if used else None, conbin=check.expression,
    )  # fmt: skip


def referenced_index(target: Table, columns: tuple[int, ...]) -> Index | None:
    """The unique index that a foreign key to these columns relies on."""
    wanted = sorted(columns)
    for index in target.indexes:
        found = sorted(part.column_id for part in index.columns)
        if index.unique and index.predicate is None and found == wanted:
            return index
    return None


def _foreign_key(snapshot: CatalogSnapshot, table: Table, key: ForeignKey) -> Record:
    target = snapshot.table_by_id(key.target)
    index = None if target is None else referenced_index(target, key.target_columns)
    own = {c.id: c.type_oid for c in table.columns}
    other = {} if target is None else {c.id: c.type_oid for c in target.columns}
    equal = btree_operators()
    mixed, left, right = [], [], []
    for column_id, target_id in zip(key.columns, key.target_columns, strict=True):
        a, b = (25 if t == 1043 else t for t in (other.get(target_id, 0), own[column_id]))
        left.append(equal.get((a, a, EQUAL), 0))
        mixed.append(equal.get((a, b, EQUAL), left[-1]))
        right.append(equal.get((b, b, EQUAL), 0))
    return _constraint(
        table, oid=key.oid, conname=key.name, contype="f", condeferrable=key.deferrable,
        condeferred=key.initially_deferred, convalidated=key.validated, conindid=0 if index is None else index.id,
        confrelid=key.target, confupdtype=key.on_update, confdeltype=key.on_delete,
        confmatchtype="f" if key.match_full else "s", connoinherit=True, conkey=Array(key.columns),
        confkey=Array(key.target_columns), conpfeqop=Array(tuple(mixed)), conppeqop=Array(tuple(left)),
        conffeqop=Array(tuple(right)),
    )  # fmt: skip
