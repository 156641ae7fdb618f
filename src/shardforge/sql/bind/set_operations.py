"""UNION, INTERSECT and EXCEPT.

Source: PostgreSQL 15, src/backend/parser/analyze.c (transformSetOperationStmt, transformSetOperationTree).
"""

from __future__ import annotations

from shardforge.sql.bind.casts import (
    IMPLICIT,
    choose_common_type,
    coerce_to_common,
    coerce_type,
    common_typmod,
)
from shardforge.sql.bind.dispatch import location_of
from shardforge.sql.bind.ranges import RelationItem
from shardforge.sql.bind.scope import Node, RangeColumn, Scope, Visible
from shardforge.sql.bind.select import Select, bind_limit, bind_query, bind_simple, finish
from shardforge.sql.bind.sorting import require_equality, sort_key
from shardforge.sql.bind.targets import Target, find_target
from shardforge.sql.bind.tree import (
    ColumnId,
    ColumnRef,
    Const,
    Expression,
    Limit,
    OutputColumn,
    Param,
    Project,
    Query,
    Relation,
    SetOperation,
    Sort,
    SortKey,
)
from shardforge.sql.types import oids

_OPS = {"SETOP_UNION": "union", "SETOP_INTERSECT": "intersect", "SETOP_EXCEPT": "except"}


class Branch:
    """One side of a set operation: a SELECT that is not finished yet, or a relation that is."""

    def __init__(self, select: Select | None, query: Query | None) -> None:
        self.select = select
        self.query = query
        self._casts: dict[int, int] = {}

    def names(self) -> list[str]:
        """Output names."""
        if self.select is not None:
            return [t.name for t in self.select.visible()]
        assert self.query is not None
        return [o.name for o in self.query.outputs]

    def expressions(self) -> list[Expression]:
        """Output columns, for their types."""
        if self.select is not None:
            return [t.expression for t in self.select.visible()]
        assert self.query is not None
        return [ColumnRef(o.column, o.type, o.typmod) for o in self.query.outputs]

    def locations(self) -> list[int | None]:
        """Where the output columns stand."""
        if self.select is not None:
            return [t.location for t in self.select.visible()]
        return [None] * len(self.expressions())

    def coerce(self, scope: Scope, offset: int, target: int, word: str) -> None:
        """Output column `offset` becomes `target`; literals are read as that type in place."""
        expression = self.expressions()[offset]
        if expression.type == target:
            return
        location = self.locations()[offset]
        if (
            self.select is not None
            and expression.type == oids.UNKNOWN
            and isinstance(expression, (Const, Param))
        ):
            entry = self.select.visible()[offset]
            entry.expression = coerce_to_common(scope, expression, target, word, location)
            return
        coerce_to_common(scope, expression, target, word, location)
        self._casts[offset] = target

    def finish(self, scope: Scope) -> tuple[Relation, tuple[ColumnId, ...]]:
        """The relation with its casts, and its columns."""
        query = finish(self.select) if self.select is not None else self.query
        assert query is not None
        if not self._casts:
            return query.root, tuple(o.column for o in query.outputs)
        outputs: list[tuple[ColumnId, Expression]] = []
        for offset, output in enumerate(query.outputs):
            made: Expression = ColumnRef(output.column, output.type, output.typmod)
            if offset in self._casts:
                made = coerce_type(scope, made, self._casts[offset], -1, IMPLICIT)
            outputs.append((scope.shared.new_column(), made))
        return Project(query.root, tuple(outputs)), tuple(column for column, _ in outputs)


def _branch(scope: Scope, node: Node) -> Branch:
    own_clauses = any(
        key in node
        for key in ("sortClause", "limitCount", "limitOffset", "lockingClause", "withClause")
    )
    if node.get("op", "SETOP_NONE") == "SETOP_NONE":
        child = Scope(scope.shared, scope)
        if "intoClause" in node:
            raise scope.shared.error(
                "INTO is only allowed on first SELECT of UNION/INTERSECT/EXCEPT", "42601"
            )
        if "withClause" in node:
            return Branch(None, bind_query(child, node))
        child.resolve_unknowns = False
        return Branch(bind_simple(child, node), None)
    if own_clauses:
        return Branch(None, bind_query(Scope(scope.shared, scope), node))
    return Branch(None, combine(scope, node))


def combine(scope: Scope, node: Node) -> Query:
    """The bare set operation, without ORDER BY and LIMIT."""
    op = _OPS[node["op"]]
    left, right = _branch(scope, node["larg"]), _branch(scope, node["rarg"])
    return join_branches(scope, op, bool(node.get("all")), left, right)


def join_branches(scope: Scope, op: str, keep_all: bool, left: Branch, right: Branch) -> Query:
    """Two branches brought to common types."""
    word = op.upper()
    a, b = left.expressions(), right.expressions()
    if len(a) != len(b):
        raise scope.shared.error(
            f"each {word} query must have the same number of columns", "42601",
            next((at for at in right.locations() if at is not None), None),
        )  # fmt: skip
    types: list[int] = []
    typmods: list[int] = []
    for offset, (x, y) in enumerate(zip(a, b, strict=True)):
        sites = [left.locations()[offset], right.locations()[offset]]
        target = choose_common_type(scope, [x, y], word, sites)
        typmods.append(common_typmod([x, y], target))
        left.coerce(scope, offset, target, word)
        right.coerce(scope, offset, target, word)
        if not (op == "union" and keep_all):
            require_equality(scope, target, sites[0])
        types.append(target)
    names = left.names()
    left_relation, left_columns = left.finish(scope)
    right_relation, right_columns = right.finish(scope)
    columns = tuple(scope.shared.new_column() for _ in types)
    relation = SetOperation(
        op,
        keep_all,
        left_relation,
        right_relation,
        left_columns,
        right_columns,
        columns,
        tuple(types),
    )
    outputs = tuple(
        OutputColumn(column, name, type_oid, typmod)
        for column, name, type_oid, typmod in zip(columns, names, types, typmods, strict=True)
    )
    return Query(relation, outputs)


def bind_set_operation(scope: Scope, node: Node) -> Query:
    """A set operation with its ORDER BY and LIMIT."""
    if "lockingClause" in node:
        raise scope.shared.error("FOR UPDATE is not allowed with UNION/INTERSECT/EXCEPT", "0A000")
    query = combine(scope, node)
    relation = query.root
    if "sortClause" in node:
        relation = Sort(relation, _sort(scope, node["sortClause"], query))
    limit, offset = bind_limit(scope, node)
    if limit is not None or offset is not None:
        ties = node.get("limitOption") == "LIMIT_OPTION_WITH_TIES"
        relation = Limit(relation, limit, offset, ties)
    return Query(relation, query.outputs)


def _sort(scope: Scope, items: list[Node], query: Query) -> tuple[SortKey, ...]:
    """Keys over the result's columns, which only names and positions may mean."""
    item = RelationItem(None, query.root)
    item.columns = [
        RangeColumn(o.name, o.type, o.typmod, item, 0, i, o.column)
        for i, o in enumerate(query.outputs, 1)
    ]
    scope.namespace.append(Visible(None, item.columns, item, relation=False))
    targets = [
        Target(ColumnRef(o.column, o.type, o.typmod), o.name, None, id=o.column)
        for o in query.outputs
    ]
    keys = []
    for each in items:
        sort = each["SortBy"]
        known = len(targets)
        target = find_target(scope, sort["node"], targets, "order")
        if len(targets) > known:
            raise scope.shared.error(
                "invalid UNION/INTERSECT/EXCEPT ORDER BY clause", "0A000", location_of(sort["node"]),
                detail="Only result column names can be used, not expressions or functions.",
                hint="Add the expression/function to every SELECT, or move the UNION into a FROM clause.",
            )  # fmt: skip
        keys.append(sort_key(scope, target.expression, sort, location_of(sort["node"])))
    scope.namespace.pop()
    return tuple(keys)
