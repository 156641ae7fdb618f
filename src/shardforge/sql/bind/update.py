"""UPDATE and DELETE.

Source: PostgreSQL 15, src/backend/parser/analyze.c (transformUpdateStmt, transformDeleteStmt).
"""

from __future__ import annotations

from shardforge.sql.bind.casts import coerce_boolean
from shardforge.sql.bind.dispatch import bind_in, location_of
from shardforge.sql.bind.from_clause import bind_item, check_names, cross, key_of
from shardforge.sql.bind.ranges import RangeItem, TableItem
from shardforge.sql.bind.returning import bind_returning, open_target
from shardforge.sql.bind.scope import Node, Scope, Visible
from shardforge.sql.bind.set_clause import bind_set_clause
from shardforge.sql.bind.tables import bind_index_parts, bind_parts, new_row, open_row
from shardforge.sql.bind.tree import (
    ColumnId,
    Delete,
    Expression,
    Filter,
    OutputColumn,
    Relation,
    Update,
)
from shardforge.sql.bind.with_clause import bind_with, wrap_with


def _open(scope: Scope, node: Node, verb: str) -> tuple[TableItem, Visible]:
    table, alias = open_target(scope, node, verb)
    item = TableItem(table, alias)
    item.aliased = "alias" in node
    visible = Visible(alias, item.columns, item)
    scope.namespace = [visible]
    return item, visible


def _bind_others(scope: Scope, target: Visible, items: list[Node]) -> RangeItem:
    """The target cross-joined with the FROM or USING list; the namespace holds both."""
    whole: RangeItem = target.item
    target.lateral_only = True
    target.lateral_ok = False
    for node in items:
        item, visible = bind_item(scope, node)
        check_names(scope, scope.namespace, visible)
        for entry in visible:
            entry.lateral_only, entry.lateral_ok = True, True
        scope.namespace += visible
        whole = cross(whole, item)
    for entry in scope.namespace:
        entry.lateral_only = False
    target.lateral_ok = True
    return whole


def _all_columns(scope: Scope, item: TableItem) -> dict[int, ColumnId]:
    """Every stored column asked for: attnum -> id."""
    found = {}
    for column in item.columns:
        scope.use(column, scope, None)
        assert column.id is not None, "just used"
        found[column.attnum] = column.id
    return found


def _where(scope: Scope, node: Node) -> Expression | None:
    if "whereClause" not in node:
        return None
    condition = node["whereClause"]
    return coerce_boolean(
        scope, bind_in(scope, condition, "where"), "WHERE", location_of(condition)
    )


def _built(source: RangeItem, where: Expression | None) -> Relation:
    relation = source.build()
    return relation if where is None else Filter(relation, where)


def bind_update(scope: Scope, node: Node) -> Update:
    """An UpdateStmt node. `scope` is a fresh level."""
    shared = scope.shared
    ctes = bind_with(scope, node["withClause"]) if "withClause" in node else []
    item, target = _open(scope, node["relation"], "UPDATE")
    table = item.table
    assert table is not None
    source: RangeItem = item
    if "fromClause" in node:
        source = _bind_others(scope, target, node["fromClause"])
    where = _where(scope, node)
    old = _all_columns(scope, item)
    assignments = bind_set_clause(scope, table, node["targetList"], item.alias or table.name)
    row = new_row(shared, table)
    parts = bind_parts(shared, table, row)
    outputs: tuple[OutputColumn, ...] | None = None
    expressions: tuple[Expression, ...] = ()
    if "returningClause" in node:
        others = scope.namespace[1:]
        scope.namespace = [open_row(scope, table, item.alias or table.name, row), *others]
        outputs, expressions = bind_returning(scope, node["returningClause"])
    key = key_of(scope, item)
    return Update(
        table,
        wrap_with(ctes, _built(source, where)),
        key,
        old,
        assignments,
        row,
        parts.generated,
        parts.checks,
        parts.index_expressions,
        parts.index_predicates,
        outputs,
        expressions,
    )


def bind_delete(scope: Scope, node: Node) -> Delete:
    """A DeleteStmt node. `scope` is a fresh level."""
    ctes = bind_with(scope, node["withClause"]) if "withClause" in node else []
    item, target = _open(scope, node["relation"], "DELETE")
    table = item.table
    assert table is not None
    source: RangeItem = item
    if "usingClause" in node:
        source = _bind_others(scope, target, node["usingClause"])
    where = _where(scope, node)
    row = _all_columns(scope, item)
    index_expressions, index_predicates = bind_index_parts(scope.shared, table, row)
    outputs: tuple[OutputColumn, ...] | None = None
    expressions: tuple[Expression, ...] = ()
    if "returningClause" in node:
        outputs, expressions = bind_returning(scope, node["returningClause"])
    key = key_of(scope, item)
    return Delete(
        table,
        wrap_with(ctes, _built(source, where)),
        key,
        row,
        index_expressions,
        index_predicates,
        outputs,
        expressions,
    )
