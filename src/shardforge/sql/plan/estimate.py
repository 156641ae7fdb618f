"""How many rows a relation may have: coarse, from table sizes and the shape of conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.plan.access import EQUAL_SHARE, RANGE_SHARE, best_path, table_rows
from shardforge.sql.plan.comparisons import EQUAL, as_comparison, without_relabel
from shardforge.sql.plan.logical import Apply, Given, Relation

FUNCTION_ROWS = 100.0
CTE_ROWS = 100.0


def selectivity(condition: Expression) -> float:
    """The share of rows for which a condition may be true."""
    match condition:
        case tree.BoolOp(op="and", args=args):
            share = 1.0
            for arg in args:
                share *= selectivity(arg)
            return share
        case tree.BoolOp(op="or", args=args):
            return min(1.0, sum(selectivity(arg) for arg in args))
        case tree.BoolOp(op="not", args=(arg,)):
            return 1.0 - selectivity(arg)
        case tree.NullTest(negated=negated):
            return 0.95 if negated else 0.05
        case tree.Const(value=value):
            return 1.0 if value else 0.0
        case tree.ScalarArrayOp(array=tree.ArrayExpr(elements=elements), use_or=True):
            return min(1.0, len(elements) * EQUAL_SHARE)
    comparison = as_comparison(condition)
    if comparison is None:
        return 0.5
    return EQUAL_SHARE if comparison.strategy == EQUAL else RANGE_SHARE


def filtered(rows: float, conditions: Sequence[Expression]) -> float:
    """Rows left after conditions."""
    for condition in conditions:
        rows *= selectivity(condition)
    return max(rows, 1.0)


def estimated_rows(relation: Relation) -> float:
    """Rows of a relation of the tree, conditions already pushed down."""
    match relation:
        case tree.Scan(table=table):
            return table_rows(table)
        case tree.Filter(input=tree.Scan() as scan, condition=condition):
            conditions = walk.conjuncts(condition)
            path = best_path(scan, conditions, lambda index: index.predicate is None)
            rest = [c for c in conditions if c not in path.access.conditions]
            return filtered(path.rows, rest)
        case tree.Filter(input=inner, condition=condition):
            return filtered(estimated_rows(inner), walk.conjuncts(condition))
        case tree.Values(rows=rows):
            return float(len(rows))
        case tree.Join(kind=kind, left=left, right=right, condition=condition):
            parts = walk.conjuncts(condition)
            sizes = distinct_sizes(relation)
            return joined_rows(kind, estimated_rows(left), estimated_rows(right), parts, sizes)
        case tree.Aggregate(input=inner, keys=keys):
            return max(estimated_rows(inner) * 0.1, 1.0) if keys else 1.0
        case tree.Limit(input=inner, limit=tree.Const(value=int() as limit)):
            return min(estimated_rows(inner), float(limit))
        case tree.SetOperation(left=left, right=right):
            return estimated_rows(left) + estimated_rows(right)
        case tree.With(body=body):
            return estimated_rows(body)
        case tree.FunctionScan():
            return FUNCTION_ROWS
        case tree.CteScan() | tree.VirtualScan() | Given():
            return CTE_ROWS
        case Apply(input=inner):
            return estimated_rows(inner)
    inner = getattr(relation, "input", None)
    return CTE_ROWS if inner is None else estimated_rows(inner)


def joined_rows(
    kind: str,
    left_rows: float,
    right_rows: float,
    conditions: Sequence[Expression],
    sizes: Mapping[ColumnId, float],
) -> float:
    """Rows of a join of inputs of these sizes."""
    if kind in ("semi", "anti"):
        return max(left_rows * 0.5, 1.0)
    rows = left_rows * right_rows
    for condition in conditions:
        rows *= join_share(condition, sizes)
    if kind in ("left", "full"):
        rows = max(rows, left_rows)
    return max(rows, 1.0)


def join_share(condition: Expression, sizes: Mapping[ColumnId, float]) -> float:
    """The share of pairs that a join condition lets through: one in as many as the larger side has values."""
    comparison = as_comparison(condition)
    if comparison is None or comparison.strategy != EQUAL:
        return selectivity(condition)
    known = []
    for side in (comparison.left, comparison.right):
        column = without_relabel(side)
        if isinstance(column, tree.ColumnRef) and column.column in sizes:
            known.append(sizes[column.column])
    return 1.0 / max(known, default=1.0 / EQUAL_SHARE)


def distinct_sizes(relation: Relation) -> dict[ColumnId, float]:
    """How many different values each column of the tables under a relation may have."""
    sizes: dict[ColumnId, float] = {}
    for node in walk.nodes(relation):
        if isinstance(node, tree.Scan):
            rows = table_rows(node.table)
            unique = {
                index.columns[0].column_id
                for index in node.table.indexes
                if index.unique and len(index.columns) == 1
            }
            for column, attnum in node.columns:
                sizes[column] = max(rows if attnum in unique else rows * 0.1, 1.0)
    return sizes
