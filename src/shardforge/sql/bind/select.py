"""SELECT: its clauses bound in PostgreSQL's order, then put together as relations.

    WITH > LIMIT > lock > sort > DISTINCT > select list > windows > HAVING > grouping > WHERE > FROM

Source: PostgreSQL 15, src/backend/parser/analyze.c (transformSelectStmt, transformValuesClause).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardforge.sql.bind.arrays import bind_row_items
from shardforge.sql.bind.casts import (
    choose_common_type,
    coerce_boolean,
    coerce_to_common,
    coerce_to_specific,
    common_typmod,
)
from shardforge.sql.bind.dispatch import bind_in, location_of
from shardforge.sql.bind.from_clause import bind_from
from shardforge.sql.bind.group_clause import bind_group_clause
from shardforge.sql.bind.grouping import Keys, Regrouping, Set
from shardforge.sql.bind.locking import Locks, bind_locking
from shardforge.sql.bind.ranges import RangeItem, RelationItem
from shardforge.sql.bind.rows import fields_of
from shardforge.sql.bind.scope import Node, RangeColumn, Scope, Visible
from shardforge.sql.bind.sorting import require_equality, require_order, sort_key
from shardforge.sql.bind.targets import (
    Target,
    bind_targets,
    find_target,
    resolve_unknown_targets,
)
from shardforge.sql.bind.tree import (
    Call,
    ColumnId,
    ColumnRef,
    Const,
    Distinct,
    Expression,
    Filter,
    Limit,
    OutputColumn,
    Project,
    ProjectSet,
    Query,
    Relation,
    Sort,
    SortKey,
    Values,
    Window,
)
from shardforge.sql.bind.walk import nodes, references
from shardforge.sql.bind.windows import define_windows
from shardforge.sql.types import oids

ONE_ROW = Values((), ((),))


@dataclass(slots=True, eq=False)
class Select:
    """A simple SELECT whose clauses are bound; its select list may still be coerced before `finish`."""

    scope: Scope
    source: RangeItem | None
    targets: list[Target]
    where: Expression | None = None
    having: Expression | None = None
    sort: list[tuple[Target, SortKey]] = field(default_factory=list)
    keys: Keys = field(default_factory=Keys)
    sets: list[Set] | None = None
    grouped: bool = False
    distinct: bool = False
    distinct_on: list[Target] = field(default_factory=list)
    limit: tuple[Expression | None, Expression | None, bool] | None = None
    locks: Locks | None = None

    def visible(self) -> list[Target]:
        """The entries that the query returns."""
        return [target for target in self.targets if not target.junk]


def bind_query(scope: Scope, node: Node, *, resolve: bool = True) -> Query:
    """Any SELECT, VALUES or set operation, with its WITH clause. `scope` is a fresh level of its own."""
    from shardforge.sql.bind.set_operations import bind_set_operation
    from shardforge.sql.bind.with_clause import bind_with, wrap_with

    if "intoClause" in node:
        raise scope.shared.error("SELECT ... INTO is not allowed here", "42601")
    scope.resolve_unknowns = resolve
    ctes = bind_with(scope, node["withClause"]) if "withClause" in node else []
    if node.get("op", "SETOP_NONE") != "SETOP_NONE":
        query = bind_set_operation(scope, node)
    else:
        query = finish(bind_simple(scope, node))
    return Query(wrap_with(ctes, query.root), query.outputs) if ctes else query


def bind_simple(scope: Scope, node: Node) -> Select:
    """A SELECT or VALUES without set operation; its WITH clause is bound already."""
    if "valuesLists" in node:
        return _bind_values(scope, node)
    source = bind_from(scope, node["fromClause"]) if "fromClause" in node else None
    if "windowClause" in node:
        define_windows(scope, node["windowClause"])
    select = Select(scope, source, bind_targets(scope, node.get("targetList", [])))
    if "whereClause" in node:
        select.where = _condition(scope, node["whereClause"], "where", "WHERE")
    if "havingClause" in node:
        select.having = _condition(scope, node["havingClause"], "having", "HAVING")
    if "sortClause" in node:
        _bind_sort(select, node["sortClause"])
    if "groupClause" in node:
        select.sets = bind_group_clause(
            scope, node["groupClause"], select.targets, select.keys, bool(node.get("groupDistinct"))
        )
    select.grouped = bool(
        "groupClause" in node or select.having is not None or scope.aggregates or scope.grouping
    )
    if "distinctClause" in node:
        _bind_distinct(select, node["distinctClause"])
    _bind_limit(select, node)
    if scope.resolve_unknowns:
        resolve_unknown_targets(scope, select.targets)
    if "lockingClause" in node:
        _check_lockable(select, node)
        select.locks = bind_locking(scope, node["lockingClause"], source)
    return select


def _condition(scope: Scope, node: Node, clause: str, word: str) -> Expression:
    return coerce_boolean(scope, bind_in(scope, node, clause), word, location_of(node))


def _bind_sort(select: Select, items: list[Node]) -> None:
    scope = select.scope
    for item in items:
        sort = item["SortBy"]
        target = find_target(scope, sort["node"], select.targets, "order")
        if target.expression.type == oids.UNKNOWN:
            resolve_unknown_targets(scope, [target])
        select.sort.append(
            (target, sort_key(scope, target.expression, sort, location_of(sort["node"])))
        )


def _bind_distinct(select: Select, items: list[Node]) -> None:
    scope = select.scope
    if items and items[0]:
        sites: list[int | None] = []
        for item in items:
            target = find_target(scope, item, select.targets, "distinct_on")
            if target.expression.type == oids.UNKNOWN:
                resolve_unknown_targets(scope, [target])
            if target not in select.distinct_on:
                select.distinct_on.append(target)
                sites.append(location_of(item))
            require_equality(scope, target.expression.type, location_of(item))
        _check_distinct_on(select, sites)
        return
    select.distinct = True
    resolve_unknown_targets(scope, select.targets)
    for target, _ in select.sort:
        if target.junk:
            raise scope.shared.error(
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list", "42P10",
                target.location,
            )  # fmt: skip
    for target in select.visible():
        require_equality(scope, target.expression.type, target.location)


def _check_distinct_on(select: Select, sites: list[int | None]) -> None:
    """The DISTINCT ON expressions are the first ORDER BY ones, in any order."""
    left = list(select.distinct_on)
    for target, _ in select.sort:
        if not left:
            return
        if target in left:
            left.remove(target)
        elif target not in select.distinct_on:
            raise select.scope.shared.error(
                "SELECT DISTINCT ON expressions must match initial ORDER BY expressions", "42P10",
                sites[select.distinct_on.index(left[0])],
            )  # fmt: skip


def _bind_limit(select: Select, node: Node) -> None:
    limit, offset = bind_limit(select.scope, node)
    if limit is not None or offset is not None:
        ties = node.get("limitOption") == "LIMIT_OPTION_WITH_TIES"
        select.limit = (limit, offset, ties)


def bind_limit(scope: Scope, node: Node) -> tuple[Expression | None, Expression | None]:
    """LIMIT and OFFSET."""
    ties = node.get("limitOption") == "LIMIT_OPTION_WITH_TIES"
    found: list[Expression | None] = []
    for key, clause in (("limitCount", "limit"), ("limitOffset", "offset")):
        item = node.get(key)
        if item is None:
            found.append(None)
            continue
        word = clause.upper()
        bound = bind_in(scope, item, clause)
        made = coerce_to_specific(scope, bound, oids.INT8, word, location_of(item))
        if not references(made).isdisjoint(scope.own):
            raise scope.shared.error(
                f"argument of {word} must not contain variables", "42P10", location_of(item)
            )
        if ties and clause == "limit" and isinstance(made, Const) and made.value is None:
            raise scope.shared.error(
                "row count cannot be null in FETCH FIRST ... WITH TIES clause", "2201W"
            )
        found.append(None if isinstance(made, Const) and made.value is None else made)
    return found[0], found[1]


def _check_lockable(select: Select, node: Node) -> None:
    strength = node["lockingClause"][0]["LockingClause"]["strength"]
    word = {
        "LCS_FORUPDATE": "FOR UPDATE",
        "LCS_FORNOKEYUPDATE": "FOR NO KEY UPDATE",
        "LCS_FORSHARE": "FOR SHARE",
        "LCS_FORKEYSHARE": "FOR KEY SHARE",
    }[strength]
    scope = select.scope
    problem = None
    if "distinctClause" in node:
        problem = "DISTINCT clause"
    elif "groupClause" in node:
        problem = "GROUP BY clause"
    elif select.having is not None:
        problem = "HAVING clause"
    elif scope.aggregates:
        problem = "aggregate functions"
    elif any(window.calls for window in scope.windows):
        problem = "window functions"
    elif scope.has_srf:
        problem = "set-returning functions in the target list"
    if problem is not None:
        raise scope.shared.error(f"{word} is not allowed with {problem}", "0A000")


# ---------------------------------------------------------------- VALUES


def _bind_values(scope: Scope, node: Node) -> Select:
    columns, types, rows = bind_value_lists(scope, node["valuesLists"])
    item = RelationItem("*VALUES*", Values(tuple(columns), rows))
    item.columns = [
        RangeColumn(f"column{i}", type_oid, typmod, item, 0, i, column)
        for i, (column, (type_oid, typmod)) in enumerate(zip(columns, types, strict=True), 1)
    ]
    for column in item.columns:
        assert column.id is not None
        scope.own[column.id] = column
    scope.namespace.append(Visible(item.alias, item.columns, item))
    targets = [Target(scope.use(c, scope, None), c.name, None) for c in item.columns]
    select = Select(scope, item, targets)
    if "sortClause" in node:
        _bind_sort(select, node["sortClause"])
    _bind_limit(select, node)
    if "lockingClause" in node:
        raise scope.shared.error("FOR UPDATE cannot be applied to VALUES", "0A000")
    return select


def bind_value_lists(
    scope: Scope, lists: list[Node]
) -> tuple[list[ColumnId], list[tuple[int, int]], tuple[tuple[Expression, ...], ...]]:
    """VALUES rows brought to common types: (column ids, (type, typmod) of each, rows)."""
    rows = bind_rows(scope, lists)
    columns: list[list[Expression]] = []
    types: list[tuple[int, int]] = []
    for offset in range(len(rows[0])):
        parts = [row[offset] for row in rows]
        sites = [_site(each["List"]["items"], offset, len(rows[0])) for each in lists]
        target = choose_common_type(scope, parts, "VALUES", sites)
        typmod = common_typmod(parts, target)
        columns.append(
            [
                coerce_to_common(scope, part, target, "VALUES", at)
                for part, at in zip(parts, sites, strict=True)
            ]
        )
        types.append((target, typmod))
    ids = [scope.shared.new_column() for _ in columns]
    return ids, types, tuple(zip(*columns, strict=True)) if columns else ((),) * len(rows)


def _site(items: list[Node], offset: int, width: int) -> int | None:
    return location_of(items[offset]) if len(items) == width else None


def bind_rows(scope: Scope, lists: list[Node]) -> list[list[Expression]]:
    """The rows of VALUES, each with its own types."""
    before, scope.clause = scope.clause, "values"
    rows: list[list[Expression]] = []
    for each in lists:
        items = each["List"]["items"]
        row = bind_row_items(scope, items)
        if rows and len(row) != len(rows[0]):
            raise scope.shared.error(
                "VALUES lists must all be the same length", "42601", location_of(items[0])
            )
        rows.append(row)
    scope.clause = before
    return rows


# ---------------------------------------------------------------- putting together


def finish(select: Select) -> Query:
    """The relations of a bound SELECT."""
    scope = select.scope
    regrouping = None
    if select.grouped:
        regrouping = _regroup(select)
        scope.has_srf = scope.has_srf and any(_has_set(t.expression) for t in select.targets)
    relation: Relation = ONE_ROW if select.source is None else select.source.build()
    if select.where is not None:
        relation = Filter(relation, select.where)
    if regrouping is not None:
        relation = regrouping.relation(relation)
        if select.having is not None:
            relation = Filter(relation, select.having)
    for window in scope.windows:
        if window.calls:
            relation = Window(
                relation,
                window.partition_by,
                window.order_by,
                window.frame,
                tuple(window.calls),
            )
    return _top(select, relation)


def _has_set(expression: Expression) -> bool:
    return any(isinstance(part, Call) and part.retset for part in nodes(expression))


def _regroup(select: Select) -> Regrouping:
    scope = select.scope
    regrouping = Regrouping(scope, select.keys.expressions, select.sets)
    for target in select.targets:
        target.expression = regrouping.apply(target.expression)
    if select.having is not None:
        select.having = regrouping.apply(select.having)
    for window in scope.windows:
        window.partition_by = regrouping.apply(window.partition_by)
        window.order_by = regrouping.apply(window.order_by)
        window.frame = regrouping.apply(window.frame)
        window.calls = [(column, regrouping.apply(call)) for column, call in window.calls]
    return regrouping


def _top(select: Select, relation: Relation) -> Query:
    scope = select.scope
    shared = scope.shared
    for target in select.targets:
        target.id = shared.new_column()
        expression = target.expression
        if expression.type == oids.RECORD:
            shape = fields_of(shared, expression)
            if shape is not None:
                shared.shapes[target.id] = shape
        if isinstance(expression, ColumnRef):
            owned = scope.own.get(expression.column)
            if owned is not None:
                target.origin = (owned.table, owned.attnum)
    outputs = tuple((t.id, t.expression) for t in select.targets if t.id is not None)
    if select.locks is not None:
        outputs += select.locks.passed_through()
    relation = ProjectSet(relation, outputs) if scope.has_srf else Project(relation, outputs)
    if select.distinct:
        relation = Distinct(relation)
    keys = [
        SortKey(_output(target), key.descending, key.nulls_first) for target, key in select.sort
    ]
    if select.distinct_on and not keys:
        keys = [_default_key(scope, target) for target in select.distinct_on]
    if keys:
        relation = Sort(relation, tuple(keys))
    if select.distinct_on:
        relation = Distinct(relation, tuple(_output(t) for t in select.distinct_on))
    if select.locks is not None:
        relation = select.locks.wrap(relation)
    if select.limit is not None:
        relation = Limit(relation, *select.limit)
    return Query(relation, tuple(_column(target) for target in select.targets if not target.junk))


def _default_key(scope: Scope, target: Target) -> SortKey:
    require_order(scope, target.expression.type, target.location)
    return SortKey(_output(target), False, False)


def _output(target: Target) -> ColumnRef:
    assert target.id is not None, "numbered by _top"
    return ColumnRef(target.id, target.expression.type, target.expression.typmod)


def _column(target: Target) -> OutputColumn:
    assert target.id is not None, "numbered by _top"
    expression = target.expression
    return OutputColumn(target.id, target.name, expression.type, expression.typmod, *target.origin)
