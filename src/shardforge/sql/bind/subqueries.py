"""Subqueries in expressions.

Source: PostgreSQL 15, src/backend/parser/parse_expr.c (transformSubLink).
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.sql.bind.arrays import bind_row_items
from shardforge.sql.bind.casts import type_name
from shardforge.sql.bind.dispatch import bind, binds
from shardforge.sql.bind.operators import compare_rows, make_operator
from shardforge.sql.bind.pathways import array_type_of, element_of
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import ColumnRef, Expression, Query, Subquery
from shardforge.sql.bind.typenames import strings
from shardforge.sql.types import oids

_FORBIDDEN = {
    "check": "check constraint",
    "default": "DEFAULT expression",
    "index": "index expression",
    "index_predicate": "index predicate",
    "generated": "column generation expression",
    "parameter": "EXECUTE parameter",
}


def _query(scope: Scope, node: Node) -> tuple[Query, Scope]:
    from shardforge.sql.bind.select import bind_query

    inner = node["subselect"].get("SelectStmt")
    if inner is None:
        raise scope.shared.unsupported("this subquery", node.get("location", 0))
    child = Scope(scope.shared, scope)
    return bind_query(child, inner), child


@binds("SubLink")
def _bind_subquery(scope: Scope, node: Node) -> Expression:
    location = node.get("location", 0)
    place = _FORBIDDEN.get(scope.clause)
    if place is not None:
        raise scope.shared.error(f"cannot use subquery in {place}", "0A000", location)
    kind = node.get("subLinkType", "EXISTS_SUBLINK")
    if kind in ("ANY_SUBLINK", "ALL_SUBLINK"):
        return _any_or_all(scope, node, kind == "ANY_SUBLINK", location)
    query, child = _query(scope, node)
    outer = tuple(child.outer)
    if kind == "EXISTS_SUBLINK":
        return Subquery("exists", query, oids.BOOL, None, outer)
    if len(query.outputs) != 1:
        raise scope.shared.error("subquery must return only one column", "42601", location)
    (column,) = query.outputs
    if kind == "EXPR_SUBLINK":
        return Subquery("scalar", query, column.type, None, outer, column.typmod)
    if kind == "ARRAY_SUBLINK":
        nested = element_of(column.type)
        array = column.type if nested else array_type_of(column.type)
        if not array:
            raise scope.shared.error(
                f"could not find array type for data type {type_name(scope, column.type)}",
                "42704",
                location,
            )
        return Subquery("array", query, array, None, outer)
    raise scope.shared.unsupported("this kind of subquery", location)


def _outputs(scope: Scope, query: Query) -> list[Expression]:
    return [ColumnRef(o.column, o.type, o.typmod) for o in query.outputs]


def _any_or_all(scope: Scope, node: Node, is_any: bool, location: int) -> Expression:
    names = strings(node["operName"]) if "operName" in node else ["="]
    left_node = node["testexpr"]
    query, child = _query(scope, node)
    if "RowExpr" in left_node:
        left = bind_row_items(scope, left_node["RowExpr"].get("args", []))
    else:
        left = [bind(scope, left_node)]
    test = _test(scope, names, left, query, location)
    kind = "any" if is_any else "all"
    return Subquery(kind, query, oids.BOOL, test, tuple(child.outer))


def _test(
    scope: Scope, names: Sequence[str], left: list[Expression], query: Query, location: int
) -> Expression:
    right = _outputs(scope, query)
    if len(left) < len(right):
        raise scope.shared.error("subquery has too many columns", "42601", location)
    if len(left) > len(right):
        raise scope.shared.error("subquery has too few columns", "42601", location)
    if len(left) == 1:
        test: Expression = make_operator(scope, names, left[0], right[0], location)
        if test.type != oids.BOOL:
            raise scope.shared.error(
                f"operator {names[-1]} must return type boolean, not type {type_name(scope, test.type)}",
                "42804",
                location,
            )
        return test
    return compare_rows(scope, names, left, right, location)


def compare_with_row(
    scope: Scope, names: Sequence[str], items: list[Node], node: Node, location: int
) -> Expression:
    """(a, b) op (SELECT x, y)"""
    left = bind_row_items(scope, items)
    query, child = _query(scope, node)
    test = _test(scope, names, left, query, location)
    return Subquery("row", query, oids.BOOL, test, tuple(child.outer))
