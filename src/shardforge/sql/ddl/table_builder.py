"""From a definition to a table's descriptor: columns, keys, checks and foreign keys, each added to the one before.

CREATE TABLE and ALTER TABLE share it: every function takes a `Table` and returns the next one. Nothing is written; what
must be written besides (the target of a foreign key, the sequence of a serial column) is collected in `Extras`.
Source: PostgreSQL 15, src/backend/parser/parse_utilcmd.c, src/backend/commands/{tablecmds,indexcmds}.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.ids import TableId
from shardforge.keys import can_be_key
from shardforge.sql.catalog.descriptors import (
    ROWID_COLUMN,
    ROWID_NAME,
    Check,
    Column,
    ForeignKey,
    Index,
    IndexColumn,
    Sequence,
    Table,
)
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.ddl.definition import (
    CheckDefinition,
    ColumnDefinition,
    ForeignKeyDefinition,
    KeyDefinition,
)
from shardforge.sql.ddl.names import find, missing, object_name, schema_of
from shardforge.sql.ddl.sequence_options import apply_options
from shardforge.sql.types.registry import type_by_oid

INT8 = 20


@dataclass(slots=True)
class Extras:
    """What a table's change brings along."""

    sequences: list[Sequence] = field(default_factory=list)
    targets: dict[int, Table] = field(default_factory=dict)
    """Referenced tables with their new `referenced_by`."""


def visible_columns(table: Table) -> list[Column]:
    """The columns that a user sees."""
    return [c for c in table.columns if not c.dropped and not c.hidden]


def column_named(table: Table, name: str) -> Column | None:
    """The visible column of that name."""
    return next((c for c in visible_columns(table) if c.name == name), None)


def primary_key(table: Table) -> Index | None:
    """The declared primary key; None when rows are kept under a hidden row number."""
    return next((index for index in table.indexes if index.primary and index.name), None)


def public_indexes(table: Table) -> list[Index]:
    """The indexes that a user sees: all but the hidden row number's."""
    return [index for index in table.indexes if index.name]


def next_column_id(table: Table) -> int:
    """The next attnum; those of dropped columns are not used again."""
    return max((c.id for c in table.columns if not c.hidden), default=0) + 1


def next_index_number(table: Table) -> int:
    """The next key number of an index; 1 is the rows'."""
    return max(table.index_counter, *(index.number for index in table.indexes), 1) + 1


def constraint_names(table: Table) -> set[str]:
    """The names of a table's constraints."""
    names = {index.name for index in table.indexes if index.constraint}
    names.update(check.name for check in table.checks)
    names.update(key.name for key in table.foreign_keys)
    return names


def row_layout(table: Table) -> tuple[tuple[int, int], ...]:
    """The layout of rows written from now on."""
    return tuple((c.id, c.type_oid) for c in table.columns if not c.dropped)


# ---- columns -------------------------------------------------------------------------------------


async def add_column(ddl: Ddl, table: Table, wanted: ColumnDefinition, extras: Extras) -> Table:
    """The table with one more column, its default bound and its sequence planned. Raises: 42701."""
    if any(c.name == wanted.name for c in visible_columns(table)):
        raise QueryError(
            f'column "{wanted.name}" of relation "{table.name}" already exists', "42701"
        )
    if wanted.name in SYSTEM_COLUMNS:
        raise QueryError(
            f'column name "{wanted.name}" conflicts with a system column name', "42701"
        )
    column_id = next_column_id(table)
    if column_id > 1600:
        raise QueryError("tables can have at most 1600 columns", "54011")
    default = wanted.default_text
    if wanted.serial or wanted.identity:
        sequence = await owned_sequence(ddl, table, wanted, column_id, extras)
        extras.sequences.append(sequence)
        if wanted.serial:
            default = next_value_of(sequence)
    column = Column(
        id=column_id, name=wanted.name, type_oid=wanted.type_oid, typmod=wanted.typmod,
        not_null=wanted.not_null, default=default, identity=wanted.identity,
        collation=wanted.collation,
    )  # fmt: skip
    if wanted.default is not None:
        column = replace(column, default=expressions.default(ddl, table, column, wanted.default))
    comments = table.column_comments
    if wanted.comment is not None:
        comments = {**comments, column_id: wanted.comment}
    hidden = [c for c in table.columns if c.hidden]
    others = [c for c in table.columns if not c.hidden]
    return replace(table, columns=(*others, column, *hidden), column_comments=comments)


def add_generated(ddl: Ddl, table: Table, wanted: ColumnDefinition) -> Table:
    """The table with a column's generation expression, which may use every other column."""
    column = column_named(table, wanted.name)
    assert column is not None, "the column has been added"
    text = wanted.generated_text
    if wanted.generated is not None:
        text = expressions.generated(ddl, table, column, wanted.generated)
    if text is None:
        return table
    return replace_column(table, replace(column, generated=text))


def replace_column(table: Table, column: Column) -> Table:
    """The table with a changed column."""
    return replace(table, columns=tuple(column if c.id == column.id else c for c in table.columns))


SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "cmin", "xmax", "cmax", "tableoid"})


def next_value_of(sequence: Sequence) -> str:
    """The default of a serial column: the sequence by oid, so that a rename does not matter."""
    return f"nextval('{sequence.id}'::regclass)"


async def owned_sequence(
    ddl: Ddl, table: Table, wanted: ColumnDefinition, column_id: int, extras: Extras
) -> Sequence:
    schema = schema_of(ddl, table)
    taken = [s.name for s in extras.sequences] + [table.name]
    name = ddl.free_name(schema, object_name(table.name, wanted.name, "seq"), taken)
    oid = await ddl.new_oid()
    base = Sequence(
        id=TableId(oid), name=name, schema_id=table.schema_id, type_oid=wanted.type_oid,
        owned_by=(table.id, column_id), owner=table.owner, storage_id=oid,
        temporary_session=table.temporary_session, identity=bool(wanted.identity),
    )  # fmt: skip
    options = [
        option for option in wanted.identity_options
        if option["DefElem"]["defname"] not in ("sequence_name", "owned_by")
    ]  # fmt: skip
    return apply_options(ddl, base, options, created=True, identity=bool(wanted.identity))


# ---- keys ----------------------------------------------------------------------------------------


def add_rowid(table: Table) -> Table:
    """The table with the hidden row number that stands in for a primary key."""
    column = Column(ROWID_COLUMN, ROWID_NAME, INT8, not_null=True, hidden=True)
    types = {c.id: c.type_oid for c in table.columns}
    parts = [IndexColumn(i, type_oid=types[i]) for i in table.sharding.shard_key]
    parts.append(IndexColumn(ROWID_COLUMN, type_oid=INT8))
    index = Index(TableId(0), "", 1, tuple(parts), unique=True, primary=True)
    return replace(table, columns=(*table.columns, column), indexes=(index, *table.indexes))


async def add_key(ddl: Ddl, table: Table, wanted: KeyDefinition, *, state: str = "public") -> Table:
    """The table with a PRIMARY KEY or UNIQUE constraint's index (a primary key comes first).

    Raises: 42P16 second primary key, 42703 no such column, 42701 a column twice.
    """
    word = "primary key" if wanted.primary else "unique"
    if wanted.deferrable:
        raise unsupported("a deferrable primary key or unique constraint")
    if wanted.primary and primary_key(table) is not None:
        raise QueryError(f'multiple primary keys for table "{table.name}" are not allowed', "42P16")
    columns = [_key_column(table, name) for name in wanted.columns]
    for position, column in enumerate(columns):
        if column in columns[:position]:
            raise QueryError(f'column "{column.name}" appears twice in {word} constraint', "42701")
    for column in columns:
        require_order(column.type_oid)
    include = tuple(_key_column(table, name).id for name in wanted.include)
    schema = schema_of(ddl, table)
    taken = [index.name for index in table.indexes] + [table.name]
    if wanted.name is not None:
        if wanted.name in constraint_names(table):
            raise duplicate_constraint(wanted.name, table.name)
        if wanted.name in taken or ddl.catalog.relation_in(schema, wanted.name) is not None:
            raise QueryError(f'relation "{wanted.name}" already exists', "42P07")
        name = wanted.name
    else:
        if wanted.primary:
            label = object_name(table.name, None, "pkey")
        else:
            label = object_name(table.name, "_".join(wanted.columns + wanted.include), "key")
        name = ddl.free_name(schema, label, {*taken, *constraint_names(table)})
    if wanted.primary:
        for column in columns:
            table = replace_column(table, replace(column, not_null=True))
    index = Index(
        id=TableId(await ddl.new_oid()), name=name,
        number=1 if wanted.primary else next_index_number(table),
        columns=tuple(IndexColumn(c.id, type_oid=c.type_oid) for c in columns),
        unique=True, primary=wanted.primary, constraint=True, constraint_oid=await ddl.new_oid(),
        include=include, state=state,
    )  # fmt: skip
    if wanted.primary:
        return replace(table, indexes=(index, *table.indexes))
    return with_index(table, index)


def with_index(table: Table, index: Index) -> Table:
    """The table with one more secondary index."""
    return replace(
        table,
        indexes=(*table.indexes, index),
        index_counter=max(table.index_counter, index.number),
    )


def _key_column(table: Table, name: str) -> Column:
    column = column_named(table, name)
    if column is None:
        if name in SYSTEM_COLUMNS:
            raise QueryError("index creation on system columns is not supported", "0A000")
        raise QueryError(f'column "{name}" named in key does not exist', "42703")
    return column


def require_order(type_oid: int) -> None:
    """42704 (or 0A000) for a type whose values cannot be index keys."""
    if can_be_key(type_oid):
        return
    found = type_by_oid(type_oid)
    if found.name == "jsonb":
        raise unsupported("an index over a jsonb column")
    raise QueryError(
        f'data type {found.display} has no default operator class for access method "btree"',
        "42704",
        hint="You must specify an operator class for the index or define a default operator class"
        " for the data type.",
    )


def duplicate_constraint(name: str, table: str) -> QueryError:
    """The error for a constraint name that the table has already."""
    return QueryError(f'constraint "{name}" for relation "{table}" already exists', "42710")


# ---- checks --------------------------------------------------------------------------------------


async def add_check(ddl: Ddl, table: Table, wanted: CheckDefinition) -> Table:
    """The table with a CHECK constraint. Raises: 42710, 42804, and what binding raises."""
    names = constraint_names(table)
    if wanted.name is not None and wanted.name in names:
        raise duplicate_constraint(wanted.name, table.name)
    if wanted.expression is not None:
        text, used = expressions.check(ddl, table, wanted.expression)
    else:
        assert wanted.text is not None, "a check has an expression"
        text, used = wanted.text, set()
    name = wanted.name
    if name is None:
        column = wanted.column
        if column is None and len(used) == 1:
            column = next(c.name for c in table.columns if c.id in used)
        name = _free(object_name(table.name, column, "check"), names)
    check = Check(await ddl.new_oid(), name, text, wanted.validated)
    return replace(table, checks=(*table.checks, check))


def _free(wanted: str, used: set[str]) -> str:
    name, number = wanted, 0
    while name in used:
        number += 1
        name = f"{wanted}{number}"
    return name


# ---- foreign keys --------------------------------------------------------------------------------


async def add_foreign_key(
    ddl: Ddl, table: Table, wanted: ForeignKeyDefinition, extras: Extras
) -> Table:
    """The table with a foreign key; its target is put into `extras`. Raises: 42830, 42804, 42P01, 42703."""
    columns = [_referencing_column(table, name) for name in wanted.columns]
    target = _target(ddl, table, wanted, extras)
    if target.temporary_session != table.temporary_session:
        kind = "temporary" if table.temporary_session else "permanent"
        raise QueryError(f"constraints on {kind} tables may reference only {kind} tables", "42P16")
    target_columns = _target_columns(target, wanted)
    if len(columns) != len(target_columns):
        raise QueryError(
            "number of referencing and referenced columns for foreign key disagree", "42830"
        )
    names = constraint_names(table)
    if wanted.name is not None and wanted.name in names:
        raise duplicate_constraint(wanted.name, table.name)
    name = wanted.name or _free(object_name(table.name, "_".join(wanted.columns), "fkey"), names)
    for column, other in zip(columns, target_columns, strict=True):
        _check_comparable(name, column, other)
    for column in columns:
        if column.generated is not None:
            _check_generated(wanted)
    key = ForeignKey(
        oid=await ddl.new_oid(), name=name, columns=tuple(c.id for c in columns), target=target.id,
        target_columns=tuple(c.id for c in target_columns), on_delete=wanted.on_delete,
        on_update=wanted.on_update, match_full=wanted.match_full, deferrable=wanted.deferrable,
        initially_deferred=wanted.initially_deferred, validated=wanted.validated,
    )  # fmt: skip
    table = replace(table, foreign_keys=(*table.foreign_keys, key))
    if target.id == table.id:
        return replace(table, referenced_by=_with(table.referenced_by, table.id))
    extras.targets[target.id] = replace(
        target, referenced_by=_with(target.referenced_by, table.id), version=target.version + 1
    )
    return table


def _with(ids: tuple[TableId, ...], added: TableId) -> tuple[TableId, ...]:
    return ids if added in ids else (*ids, added)


def _check_generated(wanted: ForeignKeyDefinition) -> None:
    for word, action in (("DELETE", wanted.on_delete), ("UPDATE", wanted.on_update)):
        if action in "nd" or (word == "UPDATE" and action == "c"):
            raise QueryError(
                f"invalid ON {word} action for foreign key constraint containing generated column",
                "42601",
            )


def _referencing_column(table: Table, name: str) -> Column:
    column = column_named(table, name)
    if column is None:
        raise QueryError(
            f'column "{name}" referenced in foreign key constraint does not exist', "42703"
        )
    return column


def _target(ddl: Ddl, table: Table, wanted: ForeignKeyDefinition, extras: Extras) -> Table:
    schema = schema_of(ddl, table)
    named = wanted.target.get("schemaname")
    if wanted.target["relname"] == table.name and named in (None, schema.name):
        own = ddl.catalog.relation(named, table.name, ddl.search_path)
        if own is None or own.id == table.id:
            return table
    found = find(ddl, wanted.target)
    if found is None:
        raise missing(ddl, wanted.target)
    if not isinstance(found, Table):
        raise QueryError(f'referenced relation "{found.name}" is not a table', "42809")
    return extras.targets.get(found.id, found)


def _target_columns(target: Table, wanted: ForeignKeyDefinition) -> list[Column]:
    if not wanted.target_columns:
        key = primary_key(target)
        if key is None:
            raise QueryError(
                f'there is no primary key for referenced table "{target.name}"', "42704"
            )
        by_id = {c.id: c for c in target.columns}
        return [by_id[part.column_id] for part in key.columns]
    columns = [_referencing_column(target, name) for name in wanted.target_columns]
    ids = sorted(c.id for c in columns)
    for index in target.indexes:
        plain = all(part.column_id and part.expression is None for part in index.columns)
        if (
            index.unique and index.predicate is None and plain and index.state == "public"
            and sorted(part.column_id for part in index.columns) == ids
        ):  # fmt: skip
            return columns
    raise QueryError(
        f'there is no unique constraint matching given keys for referenced table "{target.name}"',
        "42830",
    )


_INTEGERS = frozenset({20, 21, 23})
_COMPARABLE = (
    frozenset({20, 21, 23, 1700}),
    frozenset({700, 701}),
    frozenset({25, 1043}),
    frozenset({1082, 1114, 1184}),
)


def _check_comparable(name: str, column: Column, target: Column) -> None:
    """A foreign key needs an equality between its types, and the same key for equal values.

    PostgreSQL allows a few mixed pairs whose values we would have to convert; the integers are one family here.
    """
    if column.type_oid == target.type_oid:
        return
    pair = {column.type_oid, target.type_oid}
    if pair <= _INTEGERS or pair <= {25, 1043}:
        return
    if any(pair <= family for family in _COMPARABLE) or pair <= {20, 21, 23, 700, 701, 1700}:
        raise unsupported(
            f'foreign key constraint "{name}" between columns of types '
            f"{type_by_oid(column.type_oid).display} and {type_by_oid(target.type_oid).display}"
        )
    raise QueryError(
        f'foreign key constraint "{name}" cannot be implemented', "42804",
        detail=f'Key columns "{column.name}" and "{target.name}" are of incompatible types: '
        f"{type_by_oid(column.type_oid).display} and {type_by_oid(target.type_oid).display}.",
    )  # fmt: skip
