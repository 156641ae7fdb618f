"""ALTER TABLE's commands on constraints.

A primary key is where rows live: adding or dropping one rewrites the table's storage. Every other constraint is
verified over the rows that are there, unless NOT VALID. Source: PostgreSQL 15, src/backend/commands/tablecmds.c.
"""

from __future__ import annotations

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import (
    Check,
    Index,
    Sharding,
    Table,
)
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.backfill import (
    build_index,
    verify_check,
    verify_foreign_key,
)
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.conversion import copied_columns
from shardforge.sql.ddl.definition import (
    Definition,
    ForeignKeyDefinition,
    KeyDefinition,
    read_constraint,
)
from shardforge.sql.ddl.drop_index import forget_reference, release_unique, remove_index
from shardforge.sql.ddl.rewrite import rewrite
from shardforge.sql.ddl.storage_options import read_options


async def _put(ddl: Ddl, table: Table) -> Table:
    table = replace(table, version=table.version + 1)
    await ddl.put(table)
    return table


async def add_constraint(ddl: Ddl, table: Table, command: Node) -> Table:
    """ADD [CONSTRAINT name] PRIMARY KEY | UNIQUE | CHECK | FOREIGN KEY [NOT VALID]."""
    definition = Definition()
    read_constraint(command["def"]["Constraint"], definition)
    if not any(key.primary for key in definition.keys):
        table = await ddl.lock_exclusively(table)
    for key in definition.keys:
        table = await add_key(ddl, table, key)
    for check in definition.checks:
        table = await build.add_check(ddl, table, check)
        if check.validated:
            await verify_check(ddl, table, table.checks[-1])
        table = await _put(ddl, table)
    for foreign_key in definition.foreign_keys:
        table = await add_foreign_key(ddl, table, foreign_key)
    return table


async def add_foreign_key(ddl: Ddl, table: Table, wanted: ForeignKeyDefinition) -> Table:
    """ADD FOREIGN KEY, verified over the rows unless NOT VALID."""
    extras = build.Extras()
    await build.add_foreign_key(ddl, table, wanted, extras)  # checks names before locking
    for target in extras.targets.values():
        await ddl.lock(target, TableLockMode.SHARE_ROW_EXCLUSIVE)
    extras = build.Extras()
    table = await build.add_foreign_key(ddl, table, wanted, extras)
    key = table.foreign_keys[-1]
    target = extras.targets.get(key.target, table)
    if wanted.validated:
        await verify_foreign_key(ddl, table, key, target)
    table = replace(table, version=table.version + 1)
    await ddl.put(table, *extras.targets.values())
    return table


# ---- keys ----------------------------------------------------------------------------------------


async def add_key(ddl: Ddl, table: Table, wanted: KeyDefinition) -> Table:
    """ADD PRIMARY KEY (rewrites the storage) or UNIQUE (builds an index, or takes an existing one)."""
    read_options(wanted.options, index=True)
    taken = None
    if wanted.using_index is not None:
        taken = _existing_index(ddl, table, wanted)
        by_id = {c.id: c.name for c in table.columns}
        wanted.columns = [by_id[part.column_id] for part in taken.columns]
        if wanted.name is not None and wanted.name != taken.name:
            ddl.notice(
                f'ALTER TABLE / ADD CONSTRAINT USING INDEX will rename index "{taken.name}" to'
                f' "{wanted.name}"'
            )
        wanted.name = wanted.name or taken.name
        if not wanted.primary:
            named = replace(
                taken, name=wanted.name, constraint=True, constraint_oid=await ddl.new_oid()
            )
            indexes = tuple(named if i.id == taken.id else i for i in table.indexes)
            return await _put(ddl, replace(table, indexes=indexes))
        table = await remove_index(ddl, table, taken)
    if not wanted.primary:
        table = await build.add_key(ddl, table, wanted)
        return await build_index(ddl, table, table.indexes[-1])
    return await _add_primary_key(ddl, table, wanted)


def _existing_index(ddl: Ddl, table: Table, wanted: KeyDefinition) -> Index:
    index = next((i for i in table.indexes if i.name == wanted.using_index), None)
    if index is None:
        raise QueryError(f'index "{wanted.using_index}" does not exist', "42704")
    if index.constraint:
        raise QueryError(f'index "{index.name}" is already associated with a constraint', "55000")
    word = "PRIMARY KEY" if wanted.primary else "UNIQUE"
    detail = "Cannot create a primary key or unique constraint using such an index."
    if not index.unique:
        raise QueryError(f'"{index.name}" is not a unique index', "42809", detail=detail)
    if index.predicate is not None:
        raise QueryError(f'"{index.name}" is a partial index', "42809", detail=detail)
    if any(part.column_id == 0 for part in index.columns):
        raise QueryError(f'index "{index.name}" contains expressions', "42809", detail=detail)
    if any(part.descending or part.nulls_first for part in index.columns):
        raise QueryError(
            f'index "{index.name}" column number 1 does not have default sorting behavior', "42809",
            detail=detail,
        )  # fmt: skip
    if index.include and word == "PRIMARY KEY":
        raise unsupported("a primary key from an index with INCLUDE columns")
    return index


async def _add_primary_key(ddl: Ddl, old: Table, wanted: KeyDefinition) -> Table:
    """Move the rows from the hidden row number to the primary key."""
    if build.primary_key(old) is not None:
        raise QueryError(f'multiple primary keys for table "{old.name}" are not allowed', "42P16")
    bare = replace(
        old, columns=tuple(c for c in old.columns if not c.hidden), indexes=old.indexes[1:]
    )
    new = await build.add_key(ddl, bare, wanted)
    new = replace(new, layouts=(build.row_layout(new),))
    check_shard_key(new, new.sharding)
    return await rewrite(ddl, old, new, copied_columns(old, new))


def check_shard_key(table: Table, sharding: Sharding) -> None:
    """42P16 unless the shard key is part of the primary key: it is part of every row's key."""
    key = build.primary_key(table)
    if key is None:
        return
    parts = {part.column_id for part in key.columns}
    for column in table.columns:
        if column.id in sharding.shard_key and column.id not in parts:
            raise QueryError(
                f'shard_key column "{column.name}" must be part of the primary key', "42P16"
            )


async def drop_key(ddl: Ddl, table: Table, index: Index) -> Table:
    """Drop a primary key or a unique constraint's index; rows of a table without key get row numbers."""
    if not index.primary:
        return await remove_index(ddl, table, index)
    bare = replace(table, indexes=table.indexes[1:])
    new = build.add_rowid(bare)
    new = replace(new, layouts=(build.row_layout(new),))
    return await rewrite(ddl, table, new, copied_columns(table, new))


# ---- DROP and VALIDATE ---------------------------------------------------------------------------


async def drop_constraint(ddl: Ddl, table: Table, command: Node) -> Table:
    """DROP CONSTRAINT [IF EXISTS] [CASCADE]."""
    name = command["name"]
    cascade = command.get("behavior") == "DROP_CASCADE"
    for index in table.indexes:
        if index.constraint and index.name == name:
            what = f"constraint {name} on table {table.name}"
            await release_unique(ddl, table, index, what, cascade=cascade)
            current = ddl.catalog.table_by_id(table.id)
            assert current is not None, "the table is locked"
            return await drop_key(ddl, current, index)
    for check in table.checks:
        if check.name == name:
            return await _put(ddl, without_check(table, check))
    for key in table.foreign_keys:
        if key.name == name:
            return await remove_foreign_key(ddl, table, key.oid)
    text = f'constraint "{name}" of relation "{table.name}" does not exist'
    if not command.get("missing_ok"):
        raise QueryError(text, "42704")
    ddl.notice(text + ", skipping")
    return table


def without_check(table: Table, check: Check) -> Table:
    """The table without one CHECK."""
    return replace(table, checks=tuple(c for c in table.checks if c.oid != check.oid))


async def remove_foreign_key(ddl: Ddl, table: Table, oid: int) -> Table:
    """The table without one foreign key; its former target forgets it."""
    gone = next(key for key in table.foreign_keys if key.oid == oid)
    kept = tuple(key for key in table.foreign_keys if key.oid != oid)
    table = await _put(ddl, replace(table, foreign_keys=kept))
    await forget_reference(ddl, gone.target, table)
    current = ddl.catalog.table_by_id(table.id)
    assert current is not None, "the table is locked"
    return current


async def validate_constraint(ddl: Ddl, table: Table, command: Node) -> Table:
    """VALIDATE CONSTRAINT of a NOT VALID check or foreign key."""
    name = command["name"]
    for check in table.checks:
        if check.name == name:
            await verify_check(ddl, table, check)
            checks = tuple(
                replace(c, validated=True) if c.oid == check.oid else c for c in table.checks
            )
            return await _put(ddl, replace(table, checks=checks))
    for key in table.foreign_keys:
        if key.name == name:
            target = ddl.catalog.table_by_id(key.target)
            assert target is not None, "a referenced table cannot be dropped alone"
            await verify_foreign_key(ddl, table, key, target)
            keys = tuple(
                replace(k, validated=True) if k.oid == key.oid else k for k in table.foreign_keys
            )
            return await _put(ddl, replace(table, foreign_keys=keys))
    if any(index.constraint and index.name == name for index in table.indexes):
        raise QueryError(
            f'constraint "{name}" of relation "{table.name}" is not a foreign key or check constraint',
            "42809",
        )
    raise QueryError(f'constraint "{name}" of relation "{table.name}" does not exist', "42704")
