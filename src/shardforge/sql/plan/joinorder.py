"""The order of inner joins: greedily, the smallest next result first, over conditions that connect.

Islands of inner joins are taken apart into their inputs and conditions and put together left-deep. Outer, semi and
lateral joins keep their place and count as one input.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.plan.estimate import distinct_sizes, estimated_rows, join_share
from shardforge.sql.plan.logical import Apply, Relation, columns_of

_CHANGES = (tree.Insert, tree.Update, tree.Delete)


def order_joins(relation: Relation) -> Relation:
    """`relation` with every island of inner joins in a good order."""
    if isinstance(relation, tree.Join) and _is_island(relation):
        inputs: list[Relation] = []
        conditions: list[Expression] = []
        _take_apart(relation, inputs, conditions)
        return _put_together([order_joins(item) for item in inputs], conditions)
    updates: dict[str, Any] = {}
    for name in ("input", "left", "right", "body"):
        inner = getattr(relation, name, None)
        if inner is not None and is_dataclass(inner):
            updates[name] = order_joins(inner)
    if isinstance(relation, Apply):
        query = relation.subquery.query
        ordered = replace(query, root=order_joins(query.root))
        updates["subquery"] = replace(relation.subquery, query=ordered)
    if isinstance(relation, tree.With):
        updates["ctes"] = tuple(_cte(cte) for cte in relation.ctes)
    names = {field.name for field in fields(relation)}
    return (
        replace(relation, **{k: v for k, v in updates.items() if k in names})
        if updates
        else relation
    )


def _cte(cte: tree.Cte) -> tree.Cte:
    if isinstance(cte.query, _CHANGES):
        return cte
    if cte.recursive is not None:
        base, step, union_all = cte.recursive
        return replace(cte, recursive=(order_joins(base), order_joins(step), union_all))
    return replace(cte, query=order_joins(cte.query))


def _is_island(join: tree.Join) -> bool:
    return join.kind in ("inner", "cross") and not join.lateral


def _take_apart(relation: Relation, inputs: list[Relation], conditions: list[Expression]) -> None:
    if isinstance(relation, tree.Join) and _is_island(relation):
        _take_apart(relation.left, inputs, conditions)
        _take_apart(relation.right, inputs, conditions)
        conditions.extend(walk.conjuncts(relation.condition))
    else:
        inputs.append(relation)


class _Part:
    def __init__(self, relation: Relation) -> None:
        self.relation = relation
        self.columns = frozenset(columns_of(relation))
        self.rows = estimated_rows(relation)


class _Condition:
    def __init__(
        self, expression: Expression, columns: set[ColumnId], sizes: dict[ColumnId, float]
    ) -> None:
        self.expression = expression
        self.columns = walk.references(expression) & columns
        self.share = join_share(expression, sizes)


def _put_together(inputs: list[Relation], conditions: list[Expression]) -> Relation:
    parts = [_Part(relation) for relation in inputs]
    everything = set[ColumnId]().union(*[part.columns for part in parts])
    sizes = distinct_sizes(tuple(inputs))
    left = [_Condition(condition, everything, sizes) for condition in conditions]
    first = min(parts, key=lambda part: (not _connected(part, left), part.rows))
    parts.remove(first)
    relation, columns, rows = first.relation, set(first.columns), first.rows
    while parts:
        ranked = [(*_rank(part, columns, rows, left), part) for part in parts]
        _, rows, part = min(ranked, key=lambda item: item[:2])
        columns |= part.columns
        usable = [c for c in left if c.columns <= columns]
        relation = tree.Join(
            "inner", relation, part.relation, walk.conjunction([c.expression for c in usable])
        )
        left = [c for c in left if c not in usable]
        parts.remove(part)
    rest = walk.conjunction([c.expression for c in left])
    return relation if rest is None else tree.Filter(relation, rest)


def _rank(
    part: _Part, columns: set[ColumnId], rows: float, conditions: list[_Condition]
) -> tuple[bool, float]:
    """(nothing connects the part, rows after joining it): the smallest comes next."""
    size = rows * part.rows
    connected = False
    for condition in conditions:
        used = condition.columns
        if used.isdisjoint(part.columns):
            continue
        if used - part.columns <= columns:
            connected = True
            size *= condition.share
    return not connected, max(size, 1.0)


def _connected(part: _Part, conditions: list[_Condition]) -> bool:
    return any(
        not c.columns.isdisjoint(part.columns) and not c.columns <= part.columns for c in conditions
    )
