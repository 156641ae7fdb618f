"""Functions in FROM: one or several side by side, with ordinality and column definition lists.

Source: PostgreSQL 15, src/backend/parser/parse_clause.c (transformRangeFunction), parse_relation.c
(addRangeTableEntryForFunction).
"""

from __future__ import annotations

from dataclasses import replace

from shardforge.sql import pgdata
from shardforge.sql.bind.dispatch import bind, location_of
from shardforge.sql.bind.names import column_name
from shardforge.sql.bind.ranges import FunctionItem, RangeItem
from shardforge.sql.bind.rows import output_fields, relation_fields
from shardforge.sql.bind.scope import Fields, Node, RangeColumn, Scope
from shardforge.sql.bind.tree import Call, ColumnId, Expression, FunctionScan
from shardforge.sql.bind.typenames import strings, type_of_node
from shardforge.sql.bind.walk import nodes
from shardforge.sql.types import oids


def bind_range_function(scope: Scope, node: Node) -> RangeItem:
    """A RangeFunction node."""
    pairs = [
        expanded for item in node["functions"] for expanded in _expanded(item["List"]["items"])
    ]
    alias_node = node.get("alias")
    alias = None if alias_node is None else alias_node["aliasname"]
    clause, lateral = scope.clause, scope.lateral_active
    scope.clause, scope.lateral_active = "from_function", True
    had_sets = scope.has_srf
    try:
        bound = [bind(scope, function) for function, _ in pairs]
    finally:
        scope.clause, scope.lateral_active, scope.has_srf = clause, lateral, had_sets
    for expression, (function, _) in zip(bound, pairs, strict=True):
        _check_top_level(scope, expression, location_of(function))
    outer_definitions = node.get("coldeflist", [])
    if outer_definitions and len(pairs) > 1:
        raise scope.shared.error(
            "ROWS FROM() with multiple functions cannot have a column definition list", "42601",
            hint="Put a separate column definition list for each function inside ROWS FROM().",
        )  # fmt: skip
    first_name = column_name(pairs[0][0])
    item = FunctionItem(alias or first_name, lambda: scan)
    item.aliased = alias is not None
    item.lateral = True
    columns: list[RangeColumn] = []
    groups: list[tuple[ColumnId, ...]] = []
    called: list[Expression] = []
    for expression, (function, definitions) in zip(bound, pairs, strict=True):
        given = definitions or outer_definitions
        fields = _fields(scope, expression, function, given, alias if len(pairs) == 1 else None)
        called.append(
            replace(expression, columns=tuple(fields))
            if given and isinstance(expression, Call)
            else expression
        )
        group = []
        for name, type_oid, typmod in fields:
            column = RangeColumn(
                name, type_oid, typmod, item, 0, len(columns) + 1, scope.shared.new_column()
            )
            columns.append(column)
            assert column.id is not None
            group.append(column.id)
        groups.append(tuple(group))
    if len(columns) == 1 and not node.get("ordinality") and not _is_row(scope, bound[0]):
        item.scalar = columns[0]
    ordinality: ColumnId | None = None
    if node.get("ordinality"):
        ordinality = scope.shared.new_column()
        columns.append(
            RangeColumn("ordinality", oids.INT8, -1, item, 0, len(columns) + 1, ordinality)
        )
    item.columns = columns
    for column in columns:
        assert column.id is not None
        scope.own[column.id] = column
    scan = FunctionScan(tuple(called), tuple(groups), ordinality)
    return item


def _expanded(items: list[Node]) -> list[tuple[Node, list[Node]]]:
    """(function, column definitions); unnest of several arrays is several unnests."""
    function = items[0]
    definitions = items[1].get("List", {}).get("items", []) if len(items) > 1 else []
    call = function.get("FuncCall")
    if (
        call is not None
        and strings(call["funcname"])[-1] == "unnest"
        and len(call.get("args", [])) > 1
        and not definitions
    ):
        return [({"FuncCall": {**call, "args": [arg]}}, []) for arg in call["args"]]
    return [(function, definitions)]


def _check_top_level(scope: Scope, expression: Expression, location: int | None) -> None:
    for part in nodes(expression):
        if part is not expression and isinstance(part, Call) and part.retset:
            raise scope.shared.error(
                "set-returning functions must appear at top level of FROM", "0A000", location
            )


def _is_row(scope: Scope, expression: Expression) -> bool:
    return (
        expression.type == oids.RECORD or relation_fields(scope.shared, expression.type) is not None
    )


def _fields(
    scope: Scope, expression: Expression, function: Node, definitions: list[Node], alias: str | None
) -> Fields:
    row = pgdata.proc_by_oid(expression.proc) if isinstance(expression, Call) else None
    location = location_of(function)
    known = output_fields(row) if row is not None else ()
    if definitions:
        if expression.type != oids.RECORD:
            raise scope.shared.error(
                'a column definition list is only allowed for functions returning "record"',
                "42601",
                location,
            )
        if known:
            raise scope.shared.error(
                "a column definition list is redundant for a function with OUT parameters",
                "42601",
                location,
            )
        return tuple(
            (d["ColumnDef"]["colname"], *type_of_node(scope.shared, d["ColumnDef"]["typeName"]))
            for d in definitions
        )
    if known:
        return known
    fields = relation_fields(scope.shared, expression.type)
    if fields is not None:
        return fields
    if expression.type == oids.RECORD:
        raise scope.shared.error(
            'a column definition list is required for functions returning "record"',
            "42601",
            location,
        )
    return ((_scalar_name(row, function, alias), expression.type, expression.typmod),)


def _scalar_name(row: pgdata.ProcRow | None, function: Node, alias: str | None) -> str:
    if row is not None and row.proargmodes:
        outs = [
            name
            for name, mode in zip(row.proargnames, row.proargmodes, strict=False)
            if mode in ("o", "b", "t")
        ]
        if len(outs) == 1 and outs[0]:
            return outs[0]
    return alias or column_name(function)
