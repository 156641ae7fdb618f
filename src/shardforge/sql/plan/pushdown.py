"""Conditions go as far down as they can: into joins, below projections and groupings, to the tables.

A condition that is volatile stays where it is. An outer join whose NULL-extended rows a condition above rejects is
an inner join. Right joins are turned into left joins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.expressions import LazyColumn
from shardforge.sql.plan.logical import Apply, Relation, columns_of, substitute

Conditions = list[Expression]


def push_down_conditions(relation: Relation) -> Relation:
    """`relation` with every condition at its lowest place."""
    return _push(relation, [])


def _push(relation: Relation, conditions: Conditions) -> Relation:
    match relation:
        case tree.Filter(input=inner, condition=condition):
            parts = walk.conjuncts(condition)
            staying = [part for part in parts if walk.is_volatile(part)]
            moving = [part for part in parts if not walk.is_volatile(part)]
            return _filtered(_push(inner, moving + conditions), staying)
        case tree.Project(input=inner, outputs=outputs):
            down, up = _through(conditions, dict(outputs), set(dict(outputs)))
            return _filtered(replace(relation, input=_push(inner, down)), up)
        case tree.Join():
            return _join(relation, conditions)
        case Apply(input=inner, column=column):
            down, up = _split(conditions, lambda used: column not in used)
            return _filtered(_apply(replace(relation, input=_push(inner, down))), up)
        case tree.Aggregate(input=inner, keys=keys, sets=sets):
            own = set(columns_of(relation))
            down, up = (
                ([], conditions) if sets is not None else _through(conditions, dict(keys), own)
            )
            return _filtered(replace(relation, input=_push(inner, down)), up)
        case tree.Window(input=inner, partition_by=partition_by):
            fixed = {e.column for e in partition_by if isinstance(e, tree.ColumnRef)}
            own = {column for column, _ in relation.calls}
            inputs = set(columns_of(inner))
            down, up = _split(
                conditions, lambda used: used & (inputs | own) <= fixed and bool(used)
            )
            return _filtered(replace(relation, input=_push(inner, down)), up)
        case tree.Sort(input=inner) | tree.Distinct(input=inner, on=()):
            return replace(relation, input=_push(inner, conditions))
        case tree.SetOperation():
            return _set_operation(relation, conditions)
        case tree.With(ctes=ctes, body=body):
            return replace(relation, ctes=tuple(map(_cte, ctes)), body=_push(body, conditions))
        case (
            tree.Limit(input=inner) | tree.LockRows(input=inner) | tree.ProjectSet(input=inner)
            | tree.Distinct(input=inner)
        ):  # fmt: skip
            return _filtered(replace(relation, input=_push(inner, [])), conditions)
    return _filtered(relation, conditions)


def _filtered(relation: Relation, conditions: Conditions) -> Relation:
    condition = walk.conjunction(conditions)
    return relation if condition is None else tree.Filter(relation, condition)


def _apply(apply: Apply) -> Apply:
    subquery = apply.subquery
    query = replace(subquery.query, root=_push(subquery.query.root, []))
    return replace(apply, subquery=replace(subquery, query=query))


def _cte(cte: tree.Cte) -> tree.Cte:
    if isinstance(cte.query, tree.Insert | tree.Update | tree.Delete):
        return cte
    if cte.recursive is not None:
        base, step, union_all = cte.recursive
        return replace(cte, recursive=(_push(base, []), _push(step, []), union_all))
    return replace(cte, query=_push(cte.query, []))


def _split(conditions: Conditions, goes_down) -> tuple[Conditions, Conditions]:  # type: ignore[no-untyped-def]
    down: Conditions = []
    up: Conditions = []
    for condition in conditions:
        (down if goes_down(walk.references(condition)) else up).append(condition)
    return down, up


def _through(
    conditions: Conditions, outputs: dict[ColumnId, Expression], own: set[ColumnId]
) -> tuple[Conditions, Conditions]:
    """Conditions over a node's `own` columns, those that are about `outputs` alone rewritten to be computed below."""
    down: Conditions = []
    up: Conditions = []
    for condition in conditions:
        used = [outputs[column] for column in walk.references(condition) if column in outputs]
        known = walk.references(condition) & own <= outputs.keys()
        if known and used and not any(_costly(value) for value in used):
            down.append(substitute(condition, outputs))
        else:
            up.append(condition)
    return down, up


def _costly(value: Expression) -> bool:
    return walk.is_volatile(value) or walk.has(value, LazyColumn, tree.Subquery)


# ---------------------------------------------------------------- joins


def _join(join: tree.Join, conditions: Conditions) -> Relation:
    if join.kind == "right":
        join = replace(join, kind="left", left=join.right, right=join.left)
    left_columns, right_columns = set(columns_of(join.left)), set(columns_of(join.right))
    kind = join.kind
    if kind == "left" and any(rejects_null(c, right_columns) for c in conditions):
        kind = "inner"
    elif kind == "full":
        keeps_left = any(rejects_null(c, left_columns) for c in conditions)
        keeps_right = any(rejects_null(c, right_columns) for c in conditions)
        if keeps_left and keeps_right:
            kind = "inner"
        elif keeps_left:
            kind = "left"
        elif keeps_right and not join.lateral:
            return _join(replace(join, kind="right"), conditions)
    own = walk.conjuncts(join.condition)
    if kind in ("inner", "cross"):
        return _inner(join, own + conditions, left_columns, right_columns)
    to_left, staying = _split(conditions, lambda used: not used & right_columns and bool(used))
    if kind == "full":
        to_left, staying = [], conditions
        to_right: Conditions = []
        at_join = own
    else:
        to_right, at_join = _split(
            own, lambda used: not used & left_columns and bool(used & right_columns)
        )
        volatile = [part for part in to_right if walk.is_volatile(part)]
        if volatile:
            to_right, at_join = [], own
    joined = replace(
        join, kind=kind, left=_push(join.left, to_left), right=_push(join.right, to_right),
        condition=walk.conjunction(at_join),
    )  # fmt: skip
    return _filtered(joined, staying)


def _inner(
    join: tree.Join, conditions: Conditions, left: set[ColumnId], right: set[ColumnId]
) -> Relation:
    to_left: Conditions = []
    to_right: Conditions = []
    here: Conditions = []
    for condition in conditions:
        used = walk.references(condition)
        if walk.is_volatile(condition):
            here.append(condition)
        elif not used & right:
            to_left.append(condition)
        elif not used & left:
            to_right.append(condition)
        else:
            here.append(condition)
    return replace(
        join, kind="inner", left=_push(join.left, to_left), right=_push(join.right, to_right),
        condition=walk.conjunction(here),
    )  # fmt: skip


def rejects_null(condition: Expression, columns: set[ColumnId]) -> bool:
    """Whether the condition cannot be true when all of `columns` are NULL."""
    match condition:
        case tree.BoolOp(op="and", args=args):
            return any(rejects_null(arg, columns) for arg in args)
        case tree.BoolOp(op="or", args=args):
            return all(rejects_null(arg, columns) for arg in args)
        case tree.BoolOp(op="not", args=(arg,)):
            return _null_with(arg, columns)
        case tree.NullTest(arg=arg, negated=True, row=False):
            return _null_with(arg, columns)
        case tree.BooleanTest(arg=arg, test="true" | "false", negated=False):
            return _null_with(arg, columns)
    return _null_with(condition, columns)


def _null_with(expression: Expression, columns: set[ColumnId]) -> bool:
    """Whether the expression is NULL when all of `columns` are."""
    match expression:
        case tree.ColumnRef(column=column):
            return column in columns
        case tree.Call(strict=True, args=args, retset=False):
            return any(_null_with(arg, columns) for arg in args)
        case tree.Relabel(arg=arg) | tree.IoCast(arg=arg) | tree.LengthCoercion(arg=arg):
            return _null_with(arg, columns)
        case tree.ScalarArrayOp(left=left, array=tree.ArrayExpr(elements=elements)) if elements:
            return _null_with(left, columns)
        case tree.BoolOp(op="not", args=(arg,)):
            return _null_with(arg, columns)
    return False


# ---------------------------------------------------------------- set operations


def _set_operation(operation: tree.SetOperation, conditions: Conditions) -> Relation:
    def renamed(names: Iterable[ColumnId]) -> dict[ColumnId, Expression]:
        pairs = zip(operation.columns, names, strict=True)
        types = operation.types or (0,) * len(operation.columns)
        return {
            made: tree.ColumnRef(column, oid)
            for (made, column), oid in zip(pairs, types, strict=True)
        }

    left = renamed(operation.left_columns)
    right = renamed(operation.right_columns)
    return replace(
        operation,
        left=_push(operation.left, [substitute(c, left) for c in conditions]),
        right=_push(operation.right, [substitute(c, right) for c in conditions]),
    )
