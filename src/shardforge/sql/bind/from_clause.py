"""FROM: items and joins, and the namespace that they make.

Source: PostgreSQL 15, src/backend/parser/parse_clause.c (transformFromClause, transformFromClauseItem).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardforge.sql.bind.casts import (
    ASSIGNMENT,
    choose_common_type,
    coerce_boolean,
    coerce_to_common,
    coerce_to_target,
)
from shardforge.sql.bind.dispatch import bind, location_of
from shardforge.sql.bind.from_functions import bind_range_function
from shardforge.sql.bind.operators import make_operator
from shardforge.sql.bind.ranges import (
    CteItem,
    JoinItem,
    RangeItem,
    RelationItem,
    SubqueryItem,
    TableItem,
    VirtualItem,
)
from shardforge.sql.bind.scope import Node, RangeColumn, Scope, Visible
from shardforge.sql.bind.tree import (
    BoolOp,
    Coalesce,
    ColumnId,
    ColumnRef,
    Expression,
    Join,
    Query,
    Relabel,
    Relation,
    Values,
)
from shardforge.sql.bind.walk import columns_of, references
from shardforge.sql.catalog.descriptors import Sequence as SequenceDescriptor
from shardforge.sql.catalog.descriptors import Table, View
from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.parse.statements import parse_query
from shardforge.sql.types import oids

_JOINS = {
    "JOIN_INNER": "inner",
    "JOIN_LEFT": "left",
    "JOIN_RIGHT": "right",
    "JOIN_FULL": "full",
}


def bind_from(scope: Scope, items: list[Node]) -> RangeItem | None:
    """The FROM list as one item (a cross join of its members); the scope's namespace is filled."""
    whole: RangeItem | None = None
    for node in items:
        item, visible = bind_item(scope, node)
        check_names(scope, scope.namespace, visible)
        for entry in visible:
            entry.lateral_only = True
            entry.lateral_ok = True
        scope.namespace += visible
        whole = item if whole is None else cross(whole, item)
    for entry in scope.namespace:
        entry.lateral_only = False
    return whole


def cross(left: RangeItem, right: RangeItem) -> JoinItem:
    """left CROSS JOIN right"""
    return JoinItem(None, left, right, _finisher("cross", None, right))


def _finisher(kind: str, condition: Expression | None, right_item: RangeItem) -> Any:
    def finish(left: Relation, right: Relation) -> Join:
        lateral = right_item.lateral and not references(right).isdisjoint(columns_of(left))
        return Join(kind, left, right, condition, lateral)

    return finish


def check_names(scope: Scope, known: Sequence[Visible], new: Sequence[Visible]) -> None:
    """42712 for a relation name used twice."""
    for entry in new:
        if not entry.relation or entry.alias is None:
            continue
        for other in known:
            if (
                other.relation
                and other.alias == entry.alias
                and (
                    entry.item.aliased
                    or other.item.aliased
                    or entry.item.relation_id == other.item.relation_id
                )
            ):
                raise scope.shared.error(
                    f'table name "{entry.alias}" specified more than once', "42712"
                )


def bind_item(scope: Scope, node: Node) -> tuple[RangeItem, list[Visible]]:
    """One FROM item and its namespace entries."""
    for kind, inner in node.items():
        if kind == "RangeVar":
            item = bind_range_var(scope, inner)
            return item, [Visible(item.alias, item.columns, item)]
        if kind == "RangeSubselect":
            item = _bind_subselect(scope, inner)
            return item, [Visible(item.alias, item.columns, item, relation=item.alias is not None)]
        if kind == "RangeFunction":
            item = bind_range_function(scope, inner)
            rename_columns(scope, item, inner.get("alias"))
            return item, [Visible(item.alias, item.columns, item)]
        if kind == "JoinExpr":
            return _bind_join(scope, inner)
        if kind == "RangeTableSample":
            raise scope.shared.unsupported("TABLESAMPLE", inner.get("location", 0))
        raise scope.shared.unsupported(
            {"RangeTableFunc": "XMLTABLE", "JsonTable": "JSON_TABLE"}.get(kind, kind)
        )
    raise AssertionError("a FROM item has a kind")


# ---------------------------------------------------------------- named relations


def bind_range_var(scope: Scope, node: Node) -> RangeItem:
    """A table, view, catalog table or WITH query by name."""
    name = node["relname"]
    schema = node.get("schemaname")
    alias_node = node.get("alias")
    alias = name if alias_node is None else alias_node["aliasname"]
    location = node.get("location", 0)
    item: RangeItem | None = None
    if schema is None:
        item = _bind_cte(scope, name, alias, location)
    if item is None:
        item = open_relation(scope, node, alias)
    item.aliased = alias_node is not None
    if alias_node is not None and "colnames" in alias_node:
        rename_columns(scope, item, alias_node)
    return item


def lookup_relation(scope: Scope, node: Node) -> Any:
    """The catalog's object for a RangeVar. Raises 42P01 or 3F000."""
    shared = scope.shared
    schema = node.get("schemaname")
    location = node.get("location", 0)
    catalog_name = node.get("catalogname")
    if catalog_name is not None and catalog_name != shared.catalog.database.name:
        raise shared.error(
            f'cross-database references are not implemented: "{catalog_name}.{schema}.{node["relname"]}"',
            "0A000",
            location,
        )
    if schema is not None and schema != "pg_temp" and shared.catalog.schema_by_name(schema) is None:
        found = None
    else:
        found = shared.catalog.relation(schema, node["relname"], shared.env.search_path)
    if found is None:
        shown = node["relname"] if schema is None else f"{schema}.{node['relname']}"
        raise shared.error(f'relation "{shown}" does not exist', "42P01", location)
    return found


def open_relation(scope: Scope, node: Node, alias: str) -> RangeItem:
    """A FROM item over a relation of the catalog."""
    found = lookup_relation(scope, node)
    if isinstance(found, Table):
        return TableItem(found, alias)
    if isinstance(found, VirtualTable):
        return VirtualItem(found, alias)
    if isinstance(found, View):
        return _open_view(scope, found, alias)
    location = node.get("location", 0)
    if isinstance(found, SequenceDescriptor):
        raise scope.shared.unsupported(
            "reading a sequence as a table", location, hint="Query pg_sequences instead."
        )
    raise scope.shared.error(
        f'cannot open relation "{found.name}"', "42809", location,
        detail="This operation is not supported for indexes.",
    )  # fmt: skip


def _open_view(scope: Scope, view: View, alias: str) -> SubqueryItem:
    query = bind_view(scope, view)
    item = SubqueryItem(scope.shared, query, alias)
    columns = [c for c in view.columns if not c.dropped]
    item.columns = [
        RangeColumn(c.name, o.type, o.typmod, item, view.id, c.id, o.column)
        for c, o in zip(columns, query.outputs, strict=False)
    ]
    item.relation_id = view.id
    item.relation_name = view.name
    item.row_type = view.type_oid
    _own(scope, item)
    return item


def bind_view(scope: Scope, view: View) -> Query:
    """The view's query, bound afresh."""
    from shardforge.sql.bind.select import bind_query

    shared = scope.shared
    path = shared.env.search_path
    shared.silent += 1
    if shared.silent > 50:
        raise shared.error("stack depth limit exceeded", "54001")
    try:
        if view.search_path:
            shared.env.search_path = view.search_path
        return bind_query(Scope(shared), parse_query(view.query)["SelectStmt"])
    finally:
        shared.silent -= 1
        shared.env.search_path = path


def _own(scope: Scope, item: RangeItem) -> None:
    """Columns that have their ids already belong to this level from the start."""
    for column in item.columns:
        if column.id is not None:
            scope.own[column.id] = column


def _bind_cte(scope: Scope, name: str, alias: str, location: int) -> RangeItem | None:
    entry = scope.find_cte(name)
    if entry is None:
        return None
    if entry.problem:
        raise scope.shared.error(entry.problem, "42P19", location)
    if not entry.returns:
        raise scope.shared.error(
            f'WITH query "{name}" does not have a RETURNING clause', "0A000", location
        )
    if entry.cte is None:
        entry.recursive_uses += 1
        if entry.recursive_uses > 1:
            raise scope.shared.error(
                f'recursive reference to query "{name}" must not appear more than once',
                "42P19",
                location,
            )
    entry.used = True
    item = CteItem(scope.shared, entry.number, alias, entry.names, entry.types, entry.columns)
    item.relation_name = name
    item.relation_id = -entry.number
    for position, shape in entry.shapes.items():
        column = item.columns[position].id
        if column is not None:
            scope.shared.shapes[column] = shape
    _own(scope, item)
    return item


def rename_columns(scope: Scope, item: RangeItem, alias: Node | None) -> None:
    """Column names of an alias: `t(a, b)`."""
    if alias is None or "colnames" not in alias:
        return
    names = [c["String"].get("sval", "") for c in alias["colnames"]]
    columns = [c for c in item.columns if not c.hidden]
    if len(names) > len(columns):
        kind = "join expression" if isinstance(item, JoinItem) else "table"
        raise scope.shared.error(
            f'{kind} "{item.alias}" has {len(columns)} columns available but {len(names)} columns specified',
            "42P10",
        )
    for column, name in zip(columns, names, strict=False):
        column.name = name


def _bind_subselect(scope: Scope, node: Node) -> RangeItem:
    from shardforge.sql.bind.select import bind_query

    alias_node = node.get("alias")
    alias = None if alias_node is None else alias_node["aliasname"]
    lateral = bool(node.get("lateral"))
    if alias is None:
        raise scope.shared.error(
            "subquery in FROM must have an alias", "42601", None,
            hint="For example, FROM (SELECT ...) [AS] foo.",
        )  # fmt: skip
    before, clause = scope.lateral_active, scope.clause
    scope.lateral_active, scope.clause = lateral, "from_subselect"
    child = Scope(scope.shared, scope)
    try:
        query = bind_query(child, node["subquery"]["SelectStmt"])
    finally:
        scope.lateral_active, scope.clause = before, clause
    item = SubqueryItem(scope.shared, query, alias)
    item.aliased = True
    item.lateral = lateral
    rename_columns(scope, item, alias_node)
    _own(scope, item)
    return item


# ---------------------------------------------------------------- joins


def _bind_join(scope: Scope, node: Node) -> tuple[RangeItem, list[Visible]]:
    kind = _JOINS[node.get("jointype", "JOIN_INNER")]
    left, left_visible = bind_item(scope, node["larg"])
    outside = scope.namespace
    for entry in left_visible:
        entry.lateral_only = True
        entry.lateral_ok = kind in ("inner", "left")
    scope.namespace = [*outside, *left_visible]
    try:
        right, right_visible = bind_item(scope, node["rarg"])
    finally:
        scope.namespace = outside
    check_names(scope, left_visible, right_visible)
    visible = [*left_visible, *right_visible]
    for entry in visible:
        entry.lateral_only = False
    left_columns = _star_columns(left_visible)
    right_columns = _star_columns(right_visible)
    names = _using_names(node, left_columns, right_columns)
    merged: list[RangeColumn] = []
    condition: Expression | None = None
    if names is not None:
        condition = _using(scope, kind, names, left_columns, right_columns, merged)
    elif "quals" in node:
        condition = _on(scope, node["quals"], visible)
    if kind in ("left", "full"):
        _mark_nullable(right)
    if kind in ("right", "full"):
        _mark_nullable(left)
    shown = "cross" if kind == "inner" and condition is None else kind
    return _joined(scope, node, shown, condition, (left, right), visible, merged, names)


def _joined(
    scope: Scope,
    node: Node,
    kind: str,
    condition: Expression | None,
    sides: tuple[RangeItem, RangeItem],
    visible: list[Visible],
    merged: list[RangeColumn],
    names: list[str] | None,
) -> tuple[RangeItem, list[Visible]]:
    alias_node = node.get("alias")
    alias = None if alias_node is None else alias_node["aliasname"]
    left, right = sides
    item = JoinItem(alias, left, right, _finisher(kind, condition, right))
    item.lateral = left.lateral or right.lateral
    used = set(names or ())
    others = [c for c in _star_columns(visible) if c.name not in used]
    if alias is None and not merged:
        item.columns = others
        return item, visible
    item.columns = [*merged, *others]
    if alias is not None:
        item.aliased = True
        scope.hidden.update(entry.alias for entry in visible if entry.alias is not None)
        item.columns = [
            RangeColumn(c.name, c.type, c.typmod, item, c.table, c.attnum, source=c)
            for c in item.columns
        ]
        rename_columns(scope, item, alias_node)
        return item, [Visible(alias, item.columns, item)]
    for entry in visible:
        entry.unqualified = False
    entries = [*visible, Visible(None, item.columns, item, relation=False)]
    using_alias = node.get("join_using_alias")
    if using_alias is not None:
        named = RelationItem(using_alias["aliasname"], Values((), ()))
        named.columns = merged
        entries.append(Visible(named.alias, merged, named, unqualified=False))
    return item, entries


def _star_columns(visible: Sequence[Visible]) -> list[RangeColumn]:
    return [c for entry in visible if entry.unqualified for c in entry.columns if not c.hidden]


def _mark_nullable(item: RangeItem) -> None:
    item.nullable = True
    if isinstance(item, JoinItem):
        _mark_nullable(item.left)
        _mark_nullable(item.right)


def _on(scope: Scope, node: Node, visible: list[Visible]) -> Expression:
    outside, scope.namespace = scope.namespace, visible
    clause, scope.clause = scope.clause, "join"
    try:
        return coerce_boolean(scope, bind(scope, node), "JOIN/ON", location_of(node))
    finally:
        scope.namespace, scope.clause = outside, clause


def _using_names(node: Node, left: list[RangeColumn], right: list[RangeColumn]) -> list[str] | None:
    if node.get("isNatural"):
        theirs = {c.name for c in right}
        return [name for name in dict.fromkeys(c.name for c in left) if name in theirs]
    if "usingClause" in node:
        return [item["String"].get("sval", "") for item in node["usingClause"]]
    return None


def _only(scope: Scope, columns: list[RangeColumn], name: str, side: str) -> RangeColumn:
    found = [c for c in columns if c.name == name]
    if not found:
        raise scope.shared.error(
            f'column "{name}" specified in USING clause does not exist in {side} table', "42703"
        )
    if len(found) > 1:
        raise scope.shared.error(
            f'common column name "{name}" appears more than once in {side} table', "42702"
        )
    return found[0]


def _using(
    scope: Scope,
    kind: str,
    names: list[str],
    left: list[RangeColumn],
    right: list[RangeColumn],
    merged: list[RangeColumn],
) -> Expression | None:
    """The join condition of USING; `merged` gets the merged columns."""
    tests: list[Expression] = []
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise scope.shared.error(
                f'column name "{name}" appears more than once in USING clause', "42701"
            )
        seen.add(name)
        a, b = _only(scope, left, name, "left"), _only(scope, right, name, "right")
        x, y = scope.use(a, scope, None), scope.use(b, scope, None)
        test = coerce_to_target(
            scope, make_operator(scope, ("=",), x, y, None), oids.BOOL, -1, ASSIGNMENT
        )
        assert test is not None, "= yields boolean"
        tests.append(test)
        merged.append(_merge(scope, kind, name, (a, x), (b, y)))
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else BoolOp("and", tuple(tests))


def _merge(
    scope: Scope,
    kind: str,
    name: str,
    left: tuple[RangeColumn, Expression],
    right: tuple[RangeColumn, Expression],
) -> RangeColumn:
    (a, x), (b, y) = left, right
    target = choose_common_type(scope, [x, y], "JOIN/USING", [None, None])
    typmod = x.typmod if x.type == y.type == target and x.typmod == y.typmod else -1
    x = coerce_to_common(scope, x, target, "JOIN/USING", None)
    y = coerce_to_common(scope, y, target, "JOIN/USING", None)
    if kind == "full":
        expression: Expression = Coalesce((x, y), target, typmod)
        return RangeColumn(name, target, typmod, a.item, expression=expression)
    column, made = (b, y) if kind == "right" else (a, x)
    if kind == "inner" and not isinstance(x, (ColumnRef, Relabel)) and isinstance(y, ColumnRef):
        column, made = b, y
    if isinstance(made, ColumnRef) and made.type == column.type and column.expression is None:
        return RangeColumn(
            name,
            column.type,
            column.typmod,
            column.item,
            column.table,
            column.attnum,
            source=column,
        )
    return RangeColumn(name, target, typmod, column.item, expression=made)


def key_of(scope: Scope, item: RangeItem) -> ColumnId:
    """The row key of a table in FROM, asked for."""
    reference = scope.use(item.key_column(), scope, None)
    assert isinstance(reference, ColumnRef), "a row key is a plain column"
    return reference.column
