"""ALTER TABLE's commands on columns.

Adding a column with a constant default, and dropping one, change only the descriptor: a new row layout is added, and
older rows read the column's `missing` value. A volatile default, an identity, a generated column and a change of type
rewrite the rows. Source: PostgreSQL 15, src/backend/commands/tablecmds.c.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import bind_default, tree
from shardforge.sql.catalog.descriptors import Column, Table
from shardforge.sql.catalog.expressions import columns_of, parts
from shardforge.sql.catalog.quoting import quote_identifier
from shardforge.sql.catalog.ruleutils import expression_text
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.alter_constraints import add_foreign_key, add_key
from shardforge.sql.ddl.backfill import (
    Evaluate,
    contains_nulls,
    evaluate,
    evaluator,
    has_rows,
    verify_check,
    verify_not_null,
)
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.conversion import copied_columns
from shardforge.sql.ddl.definition import ColumnDefinition, Definition, read_column
from shardforge.sql.ddl.dependencies import (
    Dependents,
    DropPlan,
    describe,
    generated_from,
    settle,
)
from shardforge.sql.ddl.drop import remove
from shardforge.sql.ddl.drop_column import remove_column
from shardforge.sql.ddl.rewrite import rewrite
from shardforge.sql.ddl.sequence_ddl import change_sequence
from shardforge.sql.ddl.types import column_type
from shardforge.sql.parse import deparse_expression
from shardforge.sql.types.registry import format_type, output_function

_STORED_TEXT: Final = SimpleNamespace(
    timezone="UTC", datestyle="ISO, MDY", intervalstyle="postgres", extra_float_digits=1,
    bytea_output="hex",
)  # fmt: skip
"""How `Column.missing` is written; sql.execute.tablestore reads it so."""


def existing(table: Table, name: str) -> Column:
    """The column of that name. Raises: 42703."""
    column = build.column_named(table, name)
    if column is None:
        if name in build.SYSTEM_COLUMNS:
            raise QueryError(f'cannot alter system column "{name}"', "0A000")
        raise QueryError(f'column "{name}" of relation "{table.name}" does not exist', "42703")
    return column


async def _put(ddl: Ddl, table: Table) -> Table:
    table = replace(table, version=table.version + 1)
    await ddl.put(table)
    return table


# ---- ADD COLUMN ----------------------------------------------------------------------------------


async def add_column(ddl: Ddl, table: Table, command: Node) -> Table:
    """ADD COLUMN [IF NOT EXISTS], with its constraints."""
    node = command["def"]["ColumnDef"]
    if command.get("missing_ok") and build.column_named(table, node["colname"]) is not None:
        ddl.notice(
            f'column "{node["colname"]}" of relation "{table.name}" already exists, skipping',
            "42701",
        )
        return table
    definition = Definition()
    wanted = read_column(ddl, node, table.name, definition)
    extras = build.Extras()
    before = table
    table = await build.add_column(ddl, table, wanted, extras)
    table = build.add_generated(ddl, table, wanted)
    await ddl.put(*extras.sequences)
    table = await _store_column(ddl, before, table, wanted)
    for check in definition.checks:
        table = await build.add_check(ddl, table, check)
        await verify_check(ddl, table, table.checks[-1])
        table = await _put(ddl, table)
    for key in definition.keys:
        table = await add_key(ddl, table, key)
    for foreign_key in definition.foreign_keys:
        table = await add_foreign_key(ddl, table, foreign_key)
    return table


async def _store_column(ddl: Ddl, old: Table, new: Table, wanted: ColumnDefinition) -> Table:
    """Give existing rows their value of the new column, by its `missing` text or by writing them again."""
    column = existing(new, wanted.name)
    new = replace(new, layouts=(*new.layouts, build.row_layout(new)))
    value = _new_value(ddl, old, new, column)
    if value is not None and not value.constant:
        return await _rewrite_with(ddl, old, new, {column.id: value.function})
    await ddl.lock_exclusively(old)
    missing = None if value is None else await evaluate(ddl, value.function, ())
    if missing is None:
        if column.not_null and await has_rows(ddl, old):
            raise contains_nulls(ddl, new, column.name)
        return await _put(ddl, new)
    text = output_function(column.type_oid, _STORED_TEXT)(missing)
    return await _put(ddl, build.replace_column(new, replace(column, missing=text)))


class _NewValue(NamedTuple):
    """How to get a new column's value from an old row, and whether it is the same for all rows."""

    function: Evaluate
    constant: bool


def _new_value(ddl: Ddl, old: Table, new: Table, column: Column) -> _NewValue | None:
    """None: NULL."""
    if column.generated is not None:
        bound = expressions.assigned(ddl, old, column, column.generated)
        assert bound is not None, "checked when the expression was accepted"
        return _NewValue(evaluator(ddl, old, bound), constant=False)
    if column.identity:
        sequence = next(s for s in ddl.catalog.sequences() if s.owned_by == (new.id, column.id))
        text = build.next_value_of(sequence)
    elif column.default is not None:
        text = column.default
    else:
        return None
    bound = bind_default(text, column, expressions.environment(ddl, text))
    return _NewValue(evaluator(ddl, old, bound), constant=not _is_volatile(bound))


def _is_volatile(bound: tree.Expression) -> bool:
    return any(isinstance(part, tree.Call) and part.volatile == "v" for part in parts(bound))


async def _rewrite_with(ddl: Ddl, old: Table, new: Table, values: dict[int, Evaluate]) -> Table:
    """Rewrite the rows: `values` gives the columns that change, the others are copied."""
    kept = replace(new, layouts=(tuple(item for item in new.layouts[-1] if item[0] not in values),))
    copied = iter(copied_columns(old, kept))
    columns = [
        values[column_id] if column_id in values else next(copied)
        for column_id, _ in new.layouts[-1]
    ]
    return await rewrite(ddl, old, new, columns)


# ---- DROP COLUMN ---------------------------------------------------------------------------------


async def drop_column(ddl: Ddl, table: Table, command: Node) -> Table:
    """DROP COLUMN [IF EXISTS] [CASCADE]: its indexes and constraints go with it."""
    name = command["name"]
    column = build.column_named(table, name)
    if column is None:
        if name in build.SYSTEM_COLUMNS:
            raise QueryError(f'cannot drop system column "{name}"', "0A000")
        if not command.get("missing_ok"):
            raise QueryError(f'column "{name}" of relation "{table.name}" does not exist', "42703")
        ddl.notice(f'column "{name}" of relation "{table.name}" does not exist, skipping')
        return table
    cascade = command.get("behavior") == "DROP_CASCADE"
    plan = DropPlan()
    plan.columns[table.id, column.id] = (table, column)
    Dependents(ddl, plan).expand()
    dependent = generated_from(ddl, table, column)
    what = f"column {name} of {describe(ddl, table)}"
    for other in dependent:
        plan.reports.append((f"column {other.name} of {describe(ddl, table)}", what))
    settle(ddl, plan, what, cascade=cascade)
    await remove(ddl, plan)
    for gone in (column, *dependent):
        table = await remove_column(ddl, _current(ddl, table), gone)
    return table


def _current(ddl: Ddl, table: Table) -> Table:
    found = ddl.catalog.table_by_id(table.id)
    assert found is not None, "the table is locked"
    return found


# ---- type ----------------------------------------------------------------------------------------


async def alter_type(ddl: Ddl, table: Table, command: Node) -> Table:
    """ALTER COLUMN TYPE [USING]: rows are written again, except where the old values are valid as they are."""
    column = existing(table, command["name"])
    node = command["def"]["ColumnDef"]
    type_oid, typmod = column_type(ddl, node["typeName"], column.name)
    _check_no_views(ddl, table, column)
    _check_not_generated_from(ddl, table, column)
    if column.generated is not None and "raw_default" in node:
        raise QueryError(
            "cannot specify USING when altering type of generated column", "42611",
            detail=f'Column "{column.name}" is a generated column.',
        )  # fmt: skip
    if column.id in table.sharding.shard_key:
        raise unsupported(f'changing the type of shard_key column "{column.name}"')
    _check_foreign_keys(ddl, table, column, type_oid)
    changed = replace(column, type_oid=type_oid, typmod=typmod)
    bound = _conversion(ddl, table, changed, node)
    new = build.replace_column(table, changed)
    new = _with_default(ddl, table, new, column, changed)
    new = _retyped_indexes(new, column.id, type_oid)
    new = replace(new, layouts=(*new.layouts[:-1], build.row_layout(new)))
    new = _rebound(ddl, new)
    if "raw_default" not in node and _same_values(column, changed):
        await ddl.lock_exclusively(table)
        new = await _put(ddl, new)
    else:
        if _is_volatile(bound) and any(p.column_id == column.id for p in table.indexes[0].columns):
            await ddl.lock_exclusively(table)  # a row's new place could not be found again
        new = await _rewrite_with(ddl, table, new, {column.id: evaluator(ddl, table, bound)})
    _check_no_views(ddl, table, column)  # none was made before the table was locked exclusively
    return new


def _check_no_views(ddl: Ddl, table: Table, column: Column) -> None:
    for view in ddl.catalog.views():
        if (table.id, column.id) in view.depends_on_columns:
            raise QueryError(
                "cannot alter type of a column used by a view or rule", "0A000",
                detail=f'rule _RETURN on view {view.name} depends on column "{column.name}"',
            )  # fmt: skip


def _check_not_generated_from(ddl: Ddl, table: Table, column: Column) -> None:
    for other in build.visible_columns(table):
        if other.generated is not None and column.id in columns_of(
            expressions.bind(ddl, table, other.generated)
        ):
            raise QueryError(
                "cannot alter type of a column used by a generated column", "0A000",
                detail=f'Column "{column.name}" is used by generated column "{other.name}".',
            )  # fmt: skip


def _check_foreign_keys(ddl: Ddl, table: Table, column: Column, type_oid: int) -> None:
    integers = {20, 21, 23}
    texts = {25, 1043}
    same = {column.type_oid, type_oid}
    if len(same) == 1 or same <= integers or same <= texts:
        return
    referencing = filter(None, map(ddl.catalog.table_by_id, table.referenced_by))
    keys_to = (key for other in referencing for key in other.foreign_keys if key.target == table.id)
    if any(column.id in key.columns for key in table.foreign_keys) or any(
        column.id in key.target_columns for key in keys_to
    ):
        raise unsupported(f'changing the type of column "{column.name}" used in a foreign key')


def _conversion(ddl: Ddl, table: Table, column: Column, node: Node) -> tree.Expression:
    """The new value of a row's column: USING, or the old value, assigned to the new type."""
    using = node.get("raw_default")
    display = format_type(column.type_oid)
    quoted = quote_identifier(column.name)
    text = quoted if using is None else deparse_expression(using)
    bound = expressions.assigned(ddl, table, column, text)
    if bound is not None:
        return bound
    if using is not None:
        raise QueryError(
            f'result of USING clause for column "{column.name}" cannot be cast automatically to type {display}',
            "42804", hint="You might need to add an explicit cast.",
        )  # fmt: skip
    target = format_type(column.type_oid, column.typmod)
    raise QueryError(
        f'column "{column.name}" cannot be cast automatically to type {display}', "42804",
        hint=f'You might need to specify "USING {quoted}::{target}".',
    )  # fmt: skip


def _with_default(ddl: Ddl, old: Table, new: Table, before: Column, after: Column) -> Table:
    if before.default is None or before.generated is not None:
        return new
    try:
        bind_default(before.default, after, expressions.environment(ddl, before.default))
    except QueryError:
        raise QueryError(
            f'default for column "{after.name}" cannot be cast automatically to type '
            f"{format_type(after.type_oid)}",
            "42804",
        ) from None
    return new


def _retyped_indexes(table: Table, column_id: int, type_oid: int) -> Table:
    def part(item: Any) -> Any:
        if item.column_id != column_id:
            return item
        build.require_order(type_oid)
        return replace(item, type_oid=type_oid)

    indexes = tuple(
        replace(index, columns=tuple(part(item) for item in index.columns))
        for index in table.indexes
    )
    return replace(table, indexes=indexes)


def _rebound(ddl: Ddl, new: Table) -> Table:
    """The new table's stored expressions, bound over the new types."""

    def text(expression: str) -> str:
        bound = expressions.bind(ddl, new, expression)
        return expression_text(bound, expressions.column_names(new))

    checks = tuple(replace(c, expression=text(c.expression)) for c in new.checks)
    return replace(new, checks=checks)


def _same_values(old: Column, new: Column) -> bool:
    """Whether every value of the old type is stored alike and valid in the new one."""
    texts = {25, 1043}
    if old.type_oid in texts and new.type_oid in texts:
        return new.typmod < 0 or (old.type_oid == new.type_oid and 0 <= old.typmod <= new.typmod)
    return (old.type_oid, old.typmod) == (new.type_oid, new.typmod)


# ---- defaults, NOT NULL, identity ----------------------------------------------------------------


async def set_default(ddl: Ddl, table: Table, command: Node) -> Table:
    """SET DEFAULT and DROP DEFAULT."""
    column = existing(table, command["name"])
    if column.identity:
        raise QueryError(
            f'column "{column.name}" of relation "{table.name}" is an identity column', "42601",
            hint="" if "def" in command else "Use ALTER TABLE ... ALTER COLUMN ... DROP IDENTITY instead.",
        )  # fmt: skip
    if column.generated is not None:
        raise QueryError(
            f'column "{column.name}" of relation "{table.name}" is a generated column', "42601",
            hint="" if "def" in command else "Use ALTER TABLE ... ALTER COLUMN ... DROP EXPRESSION instead.",
        )  # fmt: skip
    default = None
    if "def" in command:
        default = expressions.default(ddl, table, column, command["def"])
    return await _put(ddl, build.replace_column(table, replace(column, default=default)))


async def set_not_null(ddl: Ddl, table: Table, command: Node) -> Table:
    """SET NOT NULL, verified over the rows."""
    column = existing(table, command["name"])
    if column.not_null:
        return table
    await verify_not_null(ddl, table, column.id, column.name)
    return await _put(ddl, build.replace_column(table, replace(column, not_null=True)))


async def drop_not_null(ddl: Ddl, table: Table, command: Node) -> Table:
    """DROP NOT NULL. Raises: 42P16 for a primary key column, 42601 for an identity column."""
    column = existing(table, command["name"])
    if column.identity:
        raise QueryError(
            f'column "{column.name}" of relation "{table.name}" is an identity column', "42601"
        )
    key = build.primary_key(table)
    if key is not None and any(part.column_id == column.id for part in key.columns):
        raise QueryError(f'column "{column.name}" is in a primary key', "42P16")
    return await _put(ddl, build.replace_column(table, replace(column, not_null=False)))


async def drop_expression(ddl: Ddl, table: Table, command: Node) -> Table:
    """DROP EXPRESSION [IF EXISTS]: the stored values stay."""
    column = existing(table, command["name"])
    if column.generated is None:
        text = f'column "{column.name}" of relation "{table.name}" is not a stored generated column'
        if not command.get("missing_ok"):
            raise QueryError(text, "55000")
        ddl.notice(text + ", skipping")
        return table
    return await _put(ddl, build.replace_column(table, replace(column, generated=None)))


async def add_identity(ddl: Ddl, table: Table, command: Node) -> Table:
    """ADD GENERATED ... AS IDENTITY."""
    column = existing(table, command["name"])
    node = command["def"]["Constraint"]
    place = f'column "{column.name}" of relation "{table.name}"'
    if not column.not_null:
        raise QueryError(f"{place} must be declared NOT NULL before identity can be added", "55000")
    if column.identity:
        raise QueryError(f"{place} is already an identity column", "55000")
    if column.default is not None:
        raise QueryError(f"{place} already has a default value", "55000")
    if column.type_oid not in (20, 21, 23):
        raise QueryError("identity column type must be smallint, integer, or bigint", "22023")
    wanted = ColumnDefinition(
        column.name, column.type_oid, -1, identity=node["generated_when"],
        identity_options=node.get("options", []),
    )  # fmt: skip
    sequence = await build.owned_sequence(ddl, table, wanted, column.id, build.Extras())
    await ddl.put(sequence)
    changed = replace(column, identity=node["generated_when"])
    return await _put(ddl, build.replace_column(table, changed))


async def set_identity(ddl: Ddl, table: Table, command: Node) -> Table:
    """SET GENERATED, RESTART and sequence options of an identity column."""
    column = existing(table, command["name"])
    if not column.identity:
        raise QueryError(
            f'column "{column.name}" of relation "{table.name}" is not an identity column', "55000"
        )
    options = command["def"]["List"]["items"]
    others = []
    for option in options:
        element = option["DefElem"]
        if element["defname"] == "generated":
            column = replace(column, identity=chr(element["arg"]["Integer"]["ival"]))
        else:
            others.append(option)
    if others:
        sequence = next(s for s in ddl.catalog.sequences() if s.owned_by == (table.id, column.id))
        await change_sequence(ddl, sequence, others)
    return await _put(ddl, build.replace_column(_current(ddl, table), column))


async def drop_identity(ddl: Ddl, table: Table, command: Node) -> Table:
    """DROP IDENTITY [IF EXISTS]."""
    column = existing(table, command["name"])
    if not column.identity:
        text = f'column "{column.name}" of relation "{table.name}" is not an identity column'
        if not command.get("missing_ok"):
            raise QueryError(text, "55000")
        ddl.notice(text + ", skipping")
        return table
    sequence = next(s for s in ddl.catalog.sequences() if s.owned_by == (table.id, column.id))
    table = await _put(ddl, build.replace_column(table, replace(column, identity="")))
    plan = DropPlan()
    plan.relations[sequence.id] = sequence
    await remove(ddl, plan)
    return _current(ddl, table)
