"""SET lists of UPDATE and ON CONFLICT DO UPDATE.

Source: PostgreSQL 15, src/backend/parser/analyze.c (transformUpdateTargetList), parse_target.c
(transformAssignedExpr, transformAssignmentIndirection), parse_expr.c (transformMultiAssignRef).
"""

from __future__ import annotations

from typing import Any

from shardforge.sql.bind.casts import ASSIGNMENT, coerce_to_target, type_name
from shardforge.sql.bind.dispatch import bind, location_of
from shardforge.sql.bind.pathways import element_of
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.subscripts import bind_steps
from shardforge.sql.bind.tables import assign, bind_column_default
from shardforge.sql.bind.tree import (
    ColumnId,
    ColumnRef,
    Const,
    Expression,
    FieldSelect,
    OutputColumn,
    Project,
    Query,
    RowExpr,
    Subquery,
    SubscriptAssignment,
)
from shardforge.sql.catalog.descriptors import Column, Table
from shardforge.sql.types import oids


def find_target_column(scope: Scope, table: Table, name: str, location: int | None) -> Column:
    """The column that a statement assigns to. Raises 42703."""
    for column in table.columns:
        if column.name == name and not column.dropped and not column.hidden:
            return column
    raise scope.shared.error(
        f'column "{name}" of relation "{table.name}" does not exist', "42703", location
    )


def bind_set_clause(
    scope: Scope, table: Table, items: list[Node], alias: str
) -> tuple[tuple[int, Expression], ...]:
    """(attnum, value) of each assignment; DEFAULT is the column's default, NULL when it has none."""
    assignments: dict[int, Expression] = {}
    partial: set[int] = set()
    rows = _Rows(scope)
    before, scope.clause = scope.clause, "update_source"
    for item in items:
        entry = item["ResTarget"]
        location = entry.get("location", 0)
        column = find_target_column(scope, table, entry["name"], location)
        steps = entry.get("indirection")
        value = _value(scope, table, column, entry["val"], rows, bool(steps))
        if column.id in assignments and not (steps and column.id in partial):
            raise scope.shared.error(
                f'multiple assignments to same column "{column.name}"', "42601"
            )
        if value is not None:
            _check_assignable(scope, column)
        if steps:
            assert value is not None, "checked by _value"
            base = assignments.get(column.id) or _current(scope, table, column, alias)
            partial.add(column.id)
            assignments[column.id] = _into_array(scope, column, base, steps, value, entry)
        elif value is None:
            if column.generated is None:
                default = bind_column_default(scope.shared, table, column)
                assignments[column.id] = default or Const(None, column.type_oid, column.typmod)
        else:
            assignments[column.id] = assign(scope, column, value, _site(entry["val"]))
    scope.clause = before
    return tuple(assignments.items())


def _site(node: Node) -> int | None:
    if "MultiAssignRef" in node:
        return None
    return location_of(node)


def _check_assignable(scope: Scope, column: Column) -> None:
    if column.generated is not None:
        raise scope.shared.error(
            f'column "{column.name}" can only be updated to DEFAULT', "428C9",
            detail=f'Column "{column.name}" is a generated column.',
        )  # fmt: skip
    if column.identity == "a":
        raise scope.shared.error(
            f'column "{column.name}" can only be updated to DEFAULT', "428C9",
            detail=f'Column "{column.name}" is an identity column defined as GENERATED ALWAYS.',
        )  # fmt: skip


def _value(
    scope: Scope, table: Table, column: Column, node: Node, rows: _Rows, partial: bool
) -> Expression | None:
    """The value assigned; None for DEFAULT."""
    reference = node.get("MultiAssignRef")
    if reference is not None:
        node_or_value = rows.part(reference)
        if not isinstance(node_or_value, dict):
            found: Expression = node_or_value
            return found
        node = node_or_value
    if "SetToDefault" in node:
        if partial:
            raise scope.shared.error(
                "cannot set an array element to DEFAULT",
                "0A000",
                node["SetToDefault"].get("location", 0),
            )
        return None
    return bind(scope, node)


class _Rows:
    """Sources of multiple assignments: (a, b) = ROW(...) or (SELECT ...)."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._subquery: tuple[Subquery, tuple[OutputColumn, ...]] | None = None

    def part(self, node: Node) -> Any:
        """The node or expression for one column of a multiple assignment."""
        source = node["source"]
        number, count = node.get("colno", 1), node.get("ncolumns", 1)
        row = source.get("RowExpr")
        if row is not None:
            items = row.get("args", [])
            if len(items) != count:
                raise self._scope.shared.error(
                    "number of columns does not match number of values",
                    "42601",
                    location_of(source),
                )
            return items[number - 1]
        link = source.get("SubLink")
        if link is None or link.get("subLinkType") != "EXPR_SUBLINK":
            raise self._scope.shared.error(
                "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression",
                "0A000",
                location_of(source),
            )
        if number == 1:
            self._subquery = self._bind(link, count)
        assert self._subquery is not None, "the first column binds it"
        subquery, outputs = self._subquery
        output = outputs[number - 1]
        return FieldSelect(subquery, number - 1, output.type, output.typmod)

    def _bind(self, link: Node, count: int) -> tuple[Subquery, tuple[OutputColumn, ...]]:
        """The subquery, made to yield one row value."""
        from shardforge.sql.bind.select import bind_query

        scope = self._scope
        child = Scope(scope.shared, scope)
        query = bind_query(child, link["subselect"]["SelectStmt"])
        if len(query.outputs) != count:
            raise scope.shared.error(
                "number of columns does not match number of values",
                "42601",
                link.get("location", 0),
            )
        column: ColumnId = scope.shared.new_column()
        row = RowExpr(
            tuple(ColumnRef(o.column, o.type, o.typmod) for o in query.outputs),
            tuple(o.name for o in query.outputs),
        )
        whole = Query(
            Project(query.root, ((column, row),)), (OutputColumn(column, "row", oids.RECORD),)
        )
        return Subquery("scalar", whole, oids.RECORD, None, tuple(child.outer)), query.outputs


def _current(scope: Scope, table: Table, column: Column, alias: str) -> Expression:
    """The column's value before the assignment."""
    for visible in scope.namespace:
        if visible.item.table is table and visible.alias == alias:
            for own in visible.columns:
                if own.attnum == column.id:
                    return scope.use(own, scope, None)
    raise AssertionError("the table that is changed is in the namespace")


def _into_array(
    scope: Scope,
    column: Column,
    base: Expression,
    steps: list[Node],
    value: Expression,
    entry: Node,
) -> Expression:
    location = location_of(entry["val"])
    if not all("A_Indices" in step for step in steps):
        raise scope.shared.unsupported(
            "assignment to a field of a column", entry.get("location", 0)
        )
    element = element_of(column.type_oid)
    if not element:
        if column.type_oid == oids.JSONB:
            raise scope.shared.unsupported("assignment to a part of a jsonb column", location)
        raise scope.shared.error(
            f"cannot subscript type {type_name(scope, column.type_oid)} because it does not support "
            "subscripting",
            "42804",
            entry.get("location", 0),
        )
    indices = [step["A_Indices"] for step in steps]
    is_slice = any(step.get("is_slice") for step in indices)
    wanted = column.type_oid if is_slice else element
    made = coerce_to_target(scope, value, wanted, column.typmod, ASSIGNMENT, location)
    if made is None:
        raise scope.shared.error(
            f'subscripted assignment to "{column.name}" requires type {type_name(scope, wanted)} '
            f"but expression is of type {type_name(scope, value.type)}",
            "42804",
            location,
            hint="You will need to rewrite or cast the expression.",
        )
    pairs = bind_steps(scope, indices)
    return SubscriptAssignment(base, pairs, is_slice, made, column.type_oid, column.typmod)
