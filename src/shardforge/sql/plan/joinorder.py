"""The order of inner joins: greedily, the smallest next result first, over conditions that connect.

Islands of inner joins are taken apart into their inputs and conditions and put together left-deep. Outer, semi and
lateral joins keep their place and count as one input.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.plan.estimate import estimated_rows, join_share
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


def _put_together(inputs: list[Relation], conditions: list[Expression]) -> Relation:
    parts = [_Part(relation) for relation in inputs]
    everything = frozenset[ColumnId]().union(*[part.columns for part in parts])
    left = [(c, walk.references(c) & everything) for c in conditions]
    first = min(parts, key=lambda part: (not _connected(part, left), part.rows))
    parts.remove(first)
    relation, columns, rows = first.relation, first.columns, first.rows
    while parts:
        best = None
        for part in parts:
            both = columns | part.columns
            usable = [c for c, used in left if used <= both]
            size = rows * part.rows
            for condition in usable:
                size *= join_share(condition, relation, part.relation, rows, part.rows)
            rank = (not usable, max(size, 1.0))
            if best is None or rank < best[0]:
                best = (rank, part, usable)
        assert best is not None, "there is a part"
        (_, size), part, usable = best
        relation = tree.Join("inner", relation, part.relation, walk.conjunction(usable))
        columns |= part.columns
        rows = size
        left = [(c, used) for c, used in left if c not in usable]
        parts.remove(part)
    rest = walk.conjunction([c for c, _ in left])
    return relation if rest is None else tree.Filter(relation, rest)


def _connected(part: _Part, conditions: list[tuple[Expression, set[ColumnId]]]) -> bool:
    return any(used & part.columns and used - part.columns for _, used in conditions)
