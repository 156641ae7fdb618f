"""Subqueries in expressions become part of the tree: semi and anti joins where that is exact, else an `Apply`.

    WHERE EXISTS (SELECT ... WHERE inner.x = outer.x AND p)   ->  semi join on inner.x = outer.x, p inside
    WHERE NOT EXISTS (...)                                    ->  anti join
    WHERE a IN (SELECT b ...)                                 ->  semi join on a = b (a condition: NULL is false)
    anything else                                             ->  Apply below the node, and a column in its place

NOT IN stays an Apply: a NULL among the values makes it NULL, which no join says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from shardforge.errors import unsupported
from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.expressions import LazyColumn
from shardforge.sql.plan.comparisons import EQUAL, as_comparison
from shardforge.sql.plan.logical import Apply, ColumnIds, Relation, columns_of, free_columns

_LAZY = (tree.Case, tree.Coalesce, tree.BoolOp)


def extract_subqueries(relation: Relation, ids: ColumnIds) -> Relation:
    """`relation` without subqueries in expressions."""
    return _Extraction(ids).relation(relation)


def extract_from(values: Any, relation: Relation, ids: ColumnIds) -> tuple[Any, Relation]:
    """Expressions over `relation`, and it, with what their subqueries need."""
    return _Extraction(ids).over(values, relation)


class _Extraction:
    def __init__(self, ids: ColumnIds) -> None:
        self._ids = ids
        self._roots: dict[int, tuple[Relation, Relation]] = {}
        """By identity, queries of subqueries before and after: what is tried as a join may end as an `Apply`."""

    # ---- relations -------------------------------------------------------------------------------

    def relation(self, relation: Relation) -> Relation:
        match relation:
            case tree.Filter(input=inner, condition=condition):
                return self._filter(self.relation(inner), walk.conjuncts(condition))
            case tree.Join():
                return self._join(relation)
            case tree.Values():
                return self._values(relation)
            case tree.FunctionScan():
                return self._function_scan(relation)
            case tree.SetOperation(left=left, right=right):
                return replace(relation, left=self.relation(left), right=self.relation(right))
            case tree.With(ctes=ctes, body=body):
                return replace(relation, ctes=tuple(map(self._cte, ctes)), body=self.relation(body))
            case tree.Limit(input=inner):
                if walk.has((relation.limit, relation.offset), tree.Subquery):
                    raise unsupported("a subquery in LIMIT or OFFSET")
                return replace(relation, input=self.relation(inner))
            case tree.Aggregate():
                return self._over_fields(relation, "keys", "calls")
            case tree.Window():
                return self._over_fields(relation, "partition_by", "order_by", "calls", "frame")
            case tree.Project() | tree.ProjectSet():
                return self._over_fields(relation, "outputs")
            case tree.Sort():
                return self._keeping_columns(relation, "keys")
            case tree.Distinct():
                return self._keeping_columns(relation, "on")
            case tree.LockRows(input=inner):
                return replace(relation, input=self.relation(inner))
        return relation

    def _cte(self, cte: tree.Cte) -> tree.Cte:
        if isinstance(cte.query, tree.Insert | tree.Update | tree.Delete):
            return cte
        recursive = cte.recursive
        if recursive is not None:
            base, step, union_all = recursive
            recursive = (self.relation(base), self.relation(step), union_all)
            return replace(cte, recursive=recursive)
        return replace(cte, query=self.relation(cte.query))

    def _over_fields(self, relation: Relation, *names: str) -> Relation:
        """A node that computes: its subqueries go below it."""
        values = tuple(getattr(relation, name) for name in names)
        inner = self.relation(relation.input)
        if not walk.has(values, tree.Subquery):
            return replace(relation, input=inner)
        values, inner = self.over(values, inner)
        return replace(relation, input=inner, **dict(zip(names, values, strict=True)))

    def _keeping_columns(self, relation: Relation, name: str) -> Relation:
        """A node that passes its input's columns on: those of subqueries are dropped again above it."""
        changed = self._over_fields(relation, name)
        before = columns_of(relation.input)
        if len(columns_of(changed.input)) == len(before):
            return changed
        return tree.Project(
            changed, tuple((column, tree.ColumnRef(column, 0)) for column in before)
        )

    def _values(self, relation: tree.Values) -> Relation:
        if not walk.has(relation.rows, tree.Subquery):
            return relation
        parts: list[Relation] = []
        for row in relation.rows:
            values, inner = self.over(row, tree.Values((), ((),)))
            columns = tuple(self._ids.take() for _ in row)
            parts.append(tree.Project(inner, tuple(zip(columns, values, strict=True))))
        result = parts[0]
        for part in parts[1:]:
            left, right = columns_of(result), columns_of(part)
            columns = tuple(self._ids.take() for _ in left)
            result = tree.SetOperation("union", True, result, part, left, right, columns, ())
        outputs = zip(relation.columns, columns_of(result), strict=True)
        return tree.Project(result, tuple((made, tree.ColumnRef(c, 0)) for made, c in outputs))

    def _function_scan(self, relation: tree.FunctionScan) -> Relation:
        if not walk.has(relation.functions, tree.Subquery):
            return relation
        functions, inner = self.over(relation.functions, tree.Values((), ((),)))
        scan = replace(relation, functions=functions)
        columns = walk.columns_of(scan)
        join = tree.Join("cross", inner, scan, None, lateral=True)
        return tree.Project(join, tuple((column, tree.ColumnRef(column, 0)) for column in columns))

    def _join(self, join: tree.Join) -> Relation:
        left, right = self.relation(join.left), self.relation(join.right)
        plain: list[Expression] = []
        nested: list[Expression] = []
        for part in walk.conjuncts(join.condition):
            (nested if walk.has(part, tree.Subquery) else plain).append(part)
        if not nested:
            return replace(join, left=left, right=right)
        if join.kind in ("inner", "cross"):
            joined = replace(
                join, kind="inner", left=left, right=right, condition=walk.conjunction(plain)
            )
            return self._filter(joined, nested)
        before = columns_of(left) + columns_of(right)
        for part in nested:
            condition, left, right = self._beside(part, left, right)
            plain.append(condition)
        result = replace(join, left=left, right=right, condition=walk.conjunction(plain))
        return tree.Project(result, tuple((column, tree.ColumnRef(column, 0)) for column in before))

    def _beside(
        self, part: Expression, left: Relation, right: Relation
    ) -> tuple[Expression, Relation, Relation]:
        """An outer join's condition: its subqueries must be about one side alone."""
        used = _outer_of(part)
        if not used & set(columns_of(right)):
            condition, left = self.over(part, left)
        elif not used & set(columns_of(left)):
            condition, right = self.over(part, right)
        else:
            raise unsupported("a subquery over both sides of an outer join in its condition")
        return condition, left, right

    # ---- conditions ------------------------------------------------------------------------------

    def _filter(self, inner: Relation, conditions: list[Expression]) -> Relation:
        columns = columns_of(inner)
        rest: list[Expression] = []
        later: list[Expression] = []
        for condition in conditions:
            (later if walk.has(condition, tree.Subquery) else rest).append(condition)
        result: Relation = inner
        if rest:
            result = tree.Filter(result, _all(rest))
        for condition in later:
            joined = self._semi_join(result, condition)
            if joined is not None:
                result = joined
                continue
            value, result = self.over(condition, result)
            result = tree.Filter(result, value)
        if len(columns_of(result)) == len(columns):
            return result
        return tree.Project(
            result, tuple((column, tree.ColumnRef(column, 0)) for column in columns)
        )

    def _semi_join(self, left: Relation, condition: Expression) -> Relation | None:
        kind = "semi"
        if isinstance(condition, tree.BoolOp) and condition.op == "not":
            kind, condition = "anti", condition.args[0]
        if not isinstance(condition, tree.Subquery):
            return None
        root = self._root(condition)
        if condition.kind == "exists":
            found = _decorrelated(root, set(), keep=False)
            if found is None or not found[1]:
                return None
            right, parts = found
        elif condition.kind == "any" and kind == "semi":
            comparison = as_comparison(condition.test)
            if comparison is None or comparison.strategy != EQUAL:
                return None
            if walk.has(condition.test, tree.Subquery) or walk.is_volatile(condition.test):
                return None
            outputs = {output.column for output in condition.query.outputs}
            found = _decorrelated(root, outputs, keep=True)
            if found is None:
                return None
            right, parts = found[0], [*found[1], comparison_of(condition.test)]
        else:
            return None
        return tree.Join(kind, left, right, _all(parts))

    # ---- expressions -----------------------------------------------------------------------------

    def over(self, values: Any, relation: Relation) -> tuple[Any, Relation]:
        """`values` with columns for their subqueries, and `relation` yielding those."""

        def changer(*, lazy: bool) -> Callable[[Any], Any]:
            def change(node: Any) -> Any:
                nonlocal relation
                if isinstance(node, tree.Subquery):
                    subquery = self._subquery(node)
                    if subquery.test is not None:
                        subquery = replace(subquery, test=walk.rewrite(subquery.test, change))
                    column = self._ids.take()
                    relation = Apply(relation, column, subquery, lazy)
                    ref = tree.ColumnRef(column, node.type, node.typmod)
                    return LazyColumn(ref, node.type, node.typmod) if lazy else ref
                if not lazy and isinstance(node, _LAZY):
                    inside = changer(lazy=True)
                    return walk.rewrite(node, lambda n: None if n is node else inside(n))
                return None

            return change

        change = changer(lazy=False)
        return _each(values, change), relation

    def _subquery(self, subquery: tree.Subquery) -> tree.Subquery:
        return replace(subquery, query=replace(subquery.query, root=self._root(subquery)))

    def _root(self, subquery: tree.Subquery) -> Relation:
        before = subquery.query.root
        known = self._roots.get(id(before))
        if known is None:
            known = self._roots[id(before)] = (before, self.relation(before))
        return known[1]


def comparison_of(test: Expression | None) -> Expression:
    """The test of an IN, which there is."""
    assert test is not None, "IN has a test"
    return test


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_each(item, change) for item in value)
    if isinstance(value, (*walk.EXPRESSIONS, tree.Frame)):
        return walk.rewrite(value, change)
    return value


def _all(parts: list[Expression]) -> Expression:
    condition = walk.conjunction(parts)
    assert condition is not None, "there is a condition"
    return condition


def _outer_of(value: Any) -> frozenset[ColumnId]:
    """Columns that the subqueries under `value` take from outside, their tests included."""
    found: set[ColumnId] = set()
    for node in walk.nodes(value):
        if isinstance(node, tree.Subquery):
            found |= free_columns(node)
    return frozenset(found)


def _decorrelated(
    root: Relation, outputs: set[ColumnId], *, keep: bool
) -> tuple[Relation, list[Expression]] | None:
    """The subquery without its correlated conditions, and those; None when it is correlated otherwise.

    `keep`: the output columns are needed, and the conditions' columns are passed up beside them.
    """
    match root:
        case tree.Project(input=inner) if not keep:
            return _decorrelated(inner, outputs, keep=False)
        case tree.Sort(input=inner):
            return _decorrelated(inner, outputs, keep=keep)
        case tree.Distinct(input=inner, on=()) if not keep:
            return _decorrelated(inner, outputs, keep=False)
        case tree.Project(input=inner) if not walk.is_volatile(root.outputs):
            if _correlated(root.outputs, inner):
                return None
            found = _decorrelated(inner, outputs, keep=True)
            if found is None:
                return None
            below, parts = found
            have = {column for column, _ in root.outputs}
            wanted = walk.references(parts) & set(columns_of(below)) - have
            extra = tuple((column, tree.ColumnRef(column, 0)) for column in sorted(wanted))
            return replace(root, input=below, outputs=root.outputs + extra), parts
        case tree.Filter(input=inner, condition=condition):
            found = _decorrelated(inner, outputs, keep=True)
            if found is None:
                return None
            below, parts = found
            own: list[Expression] = []
            for part in walk.conjuncts(condition):
                outside = walk.references(part) - set(columns_of(below))
                if outside and (walk.is_volatile(part) or walk.has(part, LazyColumn)):
                    return None
                (parts if outside else own).append(part)
            return (tree.Filter(below, _all(own)) if own else below), parts
    return None if free_columns(root) else (root, [])


def _correlated(values: Any, inner: Relation) -> bool:
    return bool(walk.references(values) - set(columns_of(inner)))
