"""Stored expressions bound against their table: defaults, generated columns, checks, index keys and predicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardforge.sql.bind.casts import (
    ASSIGNMENT,
    call_function,
    coerce_boolean,
    coerce_to_target,
    resolve_unknown,
    type_name,
)
from shardforge.sql.bind.dispatch import bind_in
from shardforge.sql.bind.environment import BindEnvironment
from shardforge.sql.bind.ranges import RelationItem
from shardforge.sql.bind.scope import RangeColumn, Scope, Shared, Visible
from shardforge.sql.bind.tree import ColumnId, Const, Expression, Values
from shardforge.sql.catalog.descriptors import Column, Table
from shardforge.sql.parse import parse_expression
from shardforge.sql.types import oids

_NEXTVAL = 1574


class RowItem(RelationItem):
    """A row of a table that is at hand, its columns under ids given beforehand."""

    __slots__ = ()

    def __init__(self, table: Table, alias: str, ids: Mapping[int, ColumnId]) -> None:
        super().__init__(alias, Values((), ()))
        self.table = table
        self.relation_id = table.id
        self.relation_name = table.name
        self.row_type = table.type_oid
        self.columns = [
            RangeColumn(
                c.name, c.type_oid, c.typmod, self, table.id, c.id, ids[c.id], hidden=c.hidden
            )
            for c in table.columns
            if not c.dropped
        ]


def stored_columns(table: Table) -> list[Column]:
    """The columns that rows have: all but dropped ones, the hidden row number included."""
    return [column for column in table.columns if not column.dropped]


def new_row(shared: Shared, table: Table) -> dict[int, ColumnId]:
    """Fresh column ids for a row of the table: attnum -> id."""
    return {column.id: shared.new_column() for column in stored_columns(table)}


def open_row(scope: Scope, table: Table, alias: str, ids: Mapping[int, ColumnId]) -> Visible:
    """A namespace entry for a row at hand."""
    item = RowItem(table, alias, ids)
    for column in item.columns:
        assert column.id is not None
        scope.own[column.id] = column
    return Visible(alias, item.columns, item)


def bind_stored(
    shared: Shared, text: str, table: Table, ids: Mapping[int, ColumnId], clause: str
) -> Expression:
    """Stored text over the columns of a row."""
    scope = Scope(shared)
    scope.namespace.append(open_row(scope, table, table.name, ids))
    shared.silent += 1
    try:
        bound = bind_in(scope, parse_expression(text), clause)
        return resolve_unknown(scope, bound, None)
    finally:
        shared.silent -= 1


def bind_stored_condition(
    shared: Shared, text: str, table: Table, ids: Mapping[int, ColumnId], clause: str
) -> Expression:
    """Stored text that is a condition."""
    word = "CHECK" if clause == "check" else "WHERE"
    return coerce_boolean(Scope(shared), bind_stored(shared, text, table, ids, clause), word, None)


def assign(
    scope: Scope, column: Column, expression: Expression, location: int | None
) -> Expression:
    """`expression` as a value for `column`, by an assignment cast. Raises 42804."""
    made = coerce_to_target(scope, expression, column.type_oid, column.typmod, ASSIGNMENT, location)
    if made is None:
        raise scope.shared.error(
            f'column "{column.name}" is of type {type_name(scope, column.type_oid)} but expression is of type '
            + type_name(scope, expression.type),
            "42804",
            location,
            hint="You will need to rewrite or cast the expression.",
        )
    return made


def bind_column_default(shared: Shared, table: Table, column: Column) -> Expression | None:
    """What a column gets when it is not given: its default, its identity's next value, or None for NULL."""
    if column.identity:
        return _next_identity(shared, table, column)
    if column.default is None:
        return None
    return _bind_default(shared, column.default, column)


def _bind_default(shared: Shared, text: str, column: Column) -> Expression:
    scope = Scope(shared)
    shared.silent += 1
    try:
        bound = bind_in(scope, parse_expression(text), "default")
        made = coerce_to_target(scope, bound, column.type_oid, column.typmod, ASSIGNMENT)
    finally:
        shared.silent -= 1
    if made is None:
        raise shared.error(
            f'column "{column.name}" is of type {type_name(scope, column.type_oid)} but default expression is '
            f"of type {type_name(scope, bound.type)}",
            "42804",
            hint="You will need to rewrite or cast the expression.",
        )
    return made


def _next_identity(shared: Shared, table: Table, column: Column) -> Expression:
    for sequence in shared.catalog.sequences():
        if sequence.owned_by == (table.id, column.id) and sequence.identity:
            call = call_function(shared, _NEXTVAL, (Const(int(sequence.id), oids.REGCLASS),))
            scope = Scope(shared)
            return assign(scope, column, call, None)
    raise shared.error(f'no owned sequence found for column "{column.name}"', "XX000")


@dataclass(slots=True)
class TableParts:
    """What storing a row of a table takes, over that row's column ids."""

    generated: tuple[tuple[int, Expression], ...]
    checks: tuple[tuple[str, Expression], ...]
    index_expressions: dict[int, tuple[Expression | None, ...]]
    index_predicates: dict[int, Expression]


def bind_parts(shared: Shared, table: Table, ids: Mapping[int, ColumnId]) -> TableParts:
    """Generated columns, checks, and index expressions and predicates, over `ids`."""
    generated = []
    for column in stored_columns(table):
        if column.generated is not None:
            bound = bind_stored(shared, column.generated, table, ids, "generated")
            generated.append((column.id, assign(Scope(shared), column, bound, None)))
    checks = tuple(
        (check.name, bind_stored_condition(shared, check.expression, table, ids, "check"))
        for check in table.checks
    )
    expressions, predicates = bind_index_parts(shared, table, ids)
    return TableParts(tuple(generated), checks, expressions, predicates)


def bind_index_parts(
    shared: Shared, table: Table, ids: Mapping[int, ColumnId]
) -> tuple[dict[int, tuple[Expression | None, ...]], dict[int, Expression]]:
    """(key expressions of indexes that have some, predicates of partial indexes), by index id."""
    expressions: dict[int, tuple[Expression | None, ...]] = {}
    predicates: dict[int, Expression] = {}
    for index in table.indexes:
        if any(part.expression is not None for part in index.columns):
            expressions[index.id] = tuple(
                None
                if part.expression is None
                else bind_stored(shared, part.expression, table, ids, "index")
                for part in index.columns
            )
        if index.predicate is not None:
            predicates[index.id] = bind_stored_condition(
                shared, index.predicate, table, ids, "index_predicate"
            )
    return expressions, predicates


# ---------------------------------------------------------------- for DDL and index builds


def bind_table_expression(text: str, table: Table, env: BindEnvironment) -> Expression:
    """SQL text over a table's columns; the ids of its ColumnRefs are attnums."""
    shared = Shared(env)
    ids = {column.id: ColumnId(column.id) for column in table.columns}
    scope = Scope(shared)
    scope.namespace.append(open_row(scope, table, table.name, ids))
    bound = bind_in(scope, parse_expression(text), "check")
    return resolve_unknown(scope, bound, None)


def bind_default(text: str, column: Column, env: BindEnvironment) -> Expression:
    """SQL text as a column's default, cast as an assignment."""
    return _bind_default(Shared(env), text, column)
