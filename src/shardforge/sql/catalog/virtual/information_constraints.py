"""information_schema: table_constraints, key_column_usage, referential_constraints, check_constraints and usages.

NOT NULL appears as a check constraint, as in PostgreSQL. Source: PostgreSQL 15, information_schema.sql.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shardforge.sql.catalog.definitions import Definitions, columns_of_check
from shardforge.sql.catalog.descriptors import Column, Table
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.virtual.base import Record, rows_of
from shardforge.sql.catalog.virtual.constraints import referenced_index
from shardforge.sql.catalog.virtual.information_tables import INFORMATION, yes_no
from shardforge.sql.catalog.virtual.listings import schema_name
from shardforge.sql.catalog.virtual.relations import visible_indexes

_ACTIONS: Final = {
    "a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT",
}  # fmt: skip


def _place(ctx: VirtualContext, table: Table, prefix: str) -> Record:
    return {
        f"{prefix}_catalog": ctx.snapshot.database.name,
        f"{prefix}_schema": schema_name(ctx, table.schema_id),
    }


def _not_null(table: Table) -> Iterator[tuple[str, Column]]:
    for column in table.columns:
        if column.not_null and not column.dropped and not column.hidden:
            yield f"{table.schema_id}_{table.id}_{column.id}_not_null", column


@rows_of("table_constraints", INFORMATION)
def table_constraints(ctx: VirtualContext) -> Iterator[Record]:
    """Every constraint of every table."""
    for table in ctx.snapshot.tables():
        common = {
            **_place(ctx, table, "constraint"), **_place(ctx, table, "table"), "table_name": table.name,
            "is_deferrable": "NO", "initially_deferred": "NO", "enforced": "YES",
        }  # fmt: skip
        for index in visible_indexes(table):
            if index.constraint:
                kind = "PRIMARY KEY" if index.primary else "UNIQUE"
                yield {
                    **common, "constraint_name": index.name, "constraint_type": kind,
                    "nulls_distinct": None if index.primary else "YES",
                }  # fmt: skip
        for check in table.checks:
            yield {**common, "constraint_name": check.name, "constraint_type": "CHECK"}
        for key in table.foreign_keys:
            yield {
                **common, "constraint_name": key.name, "constraint_type": "FOREIGN KEY",
                "is_deferrable": yes_no(key.deferrable), "initially_deferred": yes_no(key.initially_deferred),
            }  # fmt: skip
        for name, _ in _not_null(table):
            yield {**common, "constraint_name": name, "constraint_type": "CHECK"}


@rows_of("key_column_usage", INFORMATION)
def key_column_usage(ctx: VirtualContext) -> Iterator[Record]:
    """Columns of primary keys, unique constraints and foreign keys, in order."""
    for table in ctx.snapshot.tables():
        names = {c.id: c.name for c in table.columns}
        common = {
            **_place(ctx, table, "constraint"), **_place(ctx, table, "table"), "table_name": table.name
        }  # fmt: skip
        for index in visible_indexes(table):
            if index.constraint:
                for position, part in enumerate(index.columns, start=1):
                    yield {
                        **common, "constraint_name": index.name, "column_name": names[part.column_id],
                        "ordinal_position": position,
                    }  # fmt: skip
        for key in table.foreign_keys:
            target = ctx.snapshot.table_by_id(key.target)
            unique = None if target is None else referenced_index(target, key.target_columns)
            order = [] if unique is None else [part.column_id for part in unique.columns]
            for position, column_id in enumerate(key.columns, start=1):
                target_id = key.target_columns[position - 1]
                yield {
                    **common, "constraint_name": key.name, "column_name": names[column_id],
                    "ordinal_position": position,
                    "position_in_unique_constraint": order.index(target_id) + 1 if order else None,
                }  # fmt: skip


@rows_of("referential_constraints", INFORMATION)
def referential_constraints(ctx: VirtualContext) -> Iterator[Record]:
    """Foreign keys."""
    for table in ctx.snapshot.tables():
        for key in table.foreign_keys:
            target = ctx.snapshot.table_by_id(key.target)
            assert target is not None, "a referenced table cannot be dropped alone"
            index = referenced_index(target, key.target_columns)
            unique = (
                {**_place(ctx, target, "unique_constraint"), "unique_constraint_name": index.name}
                if index is not None and index.constraint
                else {}
            )
            yield {
                **_place(ctx, table, "constraint"), "constraint_name": key.name, **unique,
                "match_option": "FULL" if key.match_full else "NONE",
                "update_rule": _ACTIONS[key.on_update], "delete_rule": _ACTIONS[key.on_delete],
            }  # fmt: skip


@rows_of("check_constraints", INFORMATION)
def check_constraints(ctx: VirtualContext) -> Iterator[Record]:
    """CHECK constraints, and NOT NULL in their form."""
    definitions = Definitions(ctx.snapshot, ctx.search_path)
    for table in ctx.snapshot.tables():
        place = _place(ctx, table, "constraint")
        for check in table.checks:
            clause = f"({definitions.expression(table, check.expression)})"
            yield {**place, "constraint_name": check.name, "check_clause": clause}
        for name, column in _not_null(table):
            yield {**place, "constraint_name": name, "check_clause": f"{column.name} IS NOT NULL"}


def _usages(ctx: VirtualContext) -> Iterator[tuple[Table, str, Table, tuple[int, ...]]]:
    """(constraint's table, its name, the table it is about, the columns): of a foreign key, the referenced ones."""
    for table in ctx.snapshot.tables():
        for index in visible_indexes(table):
            if index.constraint:
                yield table, index.name, table, tuple(p.column_id for p in index.columns)
        for check in table.checks:
            yield table, check.name, table, tuple(sorted(columns_of_check(table, check)))
        for key in table.foreign_keys:
            target = ctx.snapshot.table_by_id(key.target)
            if target is not None:
                yield table, key.name, target, key.target_columns


@rows_of("constraint_column_usage", INFORMATION)
def constraint_column_usage(ctx: VirtualContext) -> Iterator[Record]:
    """The columns that constraints are about."""
    for owner, name, table, ids in _usages(ctx):
        names = {c.id: c.name for c in table.columns}
        for column_id in ids:
            yield {
                **_place(ctx, table, "table"), "table_name": table.name, "column_name": names[column_id],
                **_place(ctx, owner, "constraint"), "constraint_name": name,
            }  # fmt: skip


@rows_of("constraint_table_usage", INFORMATION)
def constraint_table_usage(ctx: VirtualContext) -> Iterator[Record]:
    """The tables that keys are about."""
    for owner, name, table, _ in _usages(ctx):
        if not any(check.name == name for check in owner.checks):
            yield {
                **_place(ctx, table, "table"), "table_name": table.name,
                **_place(ctx, owner, "constraint"), "constraint_name": name,
            }  # fmt: skip
