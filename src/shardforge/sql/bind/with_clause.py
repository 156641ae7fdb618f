"""WITH: plain, recursive and data-modifying queries.

Source: PostgreSQL 15, src/backend/parser/parse_cte.c.
"""

from __future__ import annotations

from typing import Any

from shardforge.sql.bind.casts import type_name
from shardforge.sql.bind.pathways import common_type
from shardforge.sql.bind.scope import CteEntry, Node, Scope
from shardforge.sql.bind.select import bind_query, bind_simple
from shardforge.sql.bind.set_operations import Branch
from shardforge.sql.bind.tree import (
    Cte,
    Delete,
    Expression,
    Insert,
    OutputColumn,
    Query,
    Relation,
    Update,
    With,
)

_CHANGES = ("InsertStmt", "UpdateStmt", "DeleteStmt")


def wrap_with(entries: list[CteEntry], body: Relation) -> Relation:
    """`body` under the WITH queries that it needs: those used, and those that change data."""
    ctes = tuple(
        entry.cte
        for entry in entries
        if entry.cte is not None
        and (entry.used or isinstance(entry.cte.query, (Insert, Update, Delete)))
    )
    return With(ctes, body) if ctes else body


def bind_with(scope: Scope, node: Node, *, top: bool = False) -> list[CteEntry]:
    """The WITH queries, in order; each is in force for those after it."""
    items = [item["CommonTableExpr"] for item in node["ctes"]]
    recursive = bool(node.get("recursive"))
    seen: set[str] = set()
    for item in items:
        if item["ctename"] in seen:
            raise scope.shared.error(
                f'WITH query name "{item["ctename"]}" specified more than once',
                "42712",
                item.get("location", 0),
            )
        seen.add(item["ctename"])
    entries: list[CteEntry] = []
    for number, item in enumerate(items):
        later = [other["ctename"] for other in items[number + 1 :]] if recursive else []
        hidden = {
            name: CteEntry(
                0, name, problem="mutual recursion between WITH items is not implemented"
            )
            for name in later
        }
        scope.ctes.update(hidden)
        entry = _bind_cte(scope, item, recursive)
        for name in hidden:
            del scope.ctes[name]
        scope.ctes[item["ctename"]] = entry
        entries.append(entry)
    return entries


def _bind_cte(scope: Scope, node: Node, recursive: bool) -> CteEntry:
    name = node["ctename"]
    location = node.get("location", 0)
    for clause, word in (("search_clause", "SEARCH"), ("cycle_clause", "CYCLE")):
        if clause in node:
            raise scope.shared.unsupported(f"the {word} clause of WITH", location)
    entry = CteEntry(scope.shared.new_cte(), name)
    query = node["ctequery"]
    kind = next(iter(query))
    if kind in _CHANGES:
        return _bind_change(scope, node, entry, kind)
    if kind != "SelectStmt":
        raise scope.shared.unsupported("this statement in WITH", location)
    select = query["SelectStmt"]
    if recursive and _mentions(select, name):
        return _bind_recursive(scope, node, entry, select)
    bound = bind_query(Scope(scope.shared, scope), select)
    _describe(scope, node, entry, bound.outputs)
    entry.cte = Cte(
        entry.number,
        name,
        bound.root,
        entry.columns,
        types=tuple(t for t, _ in entry.types),
        materialized=node.get("ctematerialized", "CTEMaterializeDefault") == "CTEMaterializeAlways",
    )
    return entry


def _describe(scope: Scope, node: Node, entry: CteEntry, outputs: tuple[OutputColumn, ...]) -> None:
    names = [o.name for o in outputs]
    given = [item["String"].get("sval", "") for item in node.get("aliascolnames", [])]
    if len(given) > len(names):
        raise scope.shared.error(
            f'WITH query "{entry.label}" has {len(names)} columns available but {len(given)} columns specified',
            "42P10",
            node.get("location", 0),
        )
    entry.names = (*given, *names[len(given) :])
    entry.types = tuple((o.type, o.typmod) for o in outputs)
    entry.columns = tuple(o.column for o in outputs)
    for position, output in enumerate(outputs):
        shape = scope.shared.shapes.get(output.column)
        if shape is not None:
            entry.shapes[position] = shape


def _bind_change(scope: Scope, node: Node, entry: CteEntry, kind: str) -> CteEntry:
    from shardforge.sql.bind.statements import bind_change

    if scope.parent is not None:
        raise scope.shared.error(
            "WITH clause containing a data-modifying statement must be at the top level", "0A000",
            node.get("location", 0),
        )  # fmt: skip
    bound = bind_change(Scope(scope.shared, scope), kind, node["ctequery"][kind])
    outputs = bound.returning
    entry.returns = outputs is not None
    _describe(scope, node, entry, outputs or ())
    entry.cte = Cte(
        entry.number, entry.label, bound, entry.columns, types=tuple(t for t, _ in entry.types)
    )
    return entry


# ---------------------------------------------------------------- recursion


def _mentions(node: Any, name: str) -> bool:
    """Whether a FROM item of that bare name is anywhere inside."""
    if isinstance(node, list):
        return any(_mentions(item, name) for item in node)
    if not isinstance(node, dict):
        return False
    var = node.get("RangeVar")
    if var is not None and var.get("relname") == name and "schemaname" not in var:
        return True
    return any(_mentions(value, name) for value in node.values())


def _bind_recursive(scope: Scope, node: Node, entry: CteEntry, select: Node) -> CteEntry:
    name = entry.label
    location = node.get("location", 0)
    shared = scope.shared
    if select.get("op") != "SETOP_UNION":
        raise shared.error(
            f'recursive query "{name}" does not have the form non-recursive-term UNION [ALL] recursive-term',
            "42P19",
            location,
        )
    for clause, word in (
        ("sortClause", "ORDER BY"),
        ("limitOffset", "OFFSET"),
        ("limitCount", "LIMIT"),
        ("lockingClause", "FOR UPDATE/SHARE"),
    ):
        if clause in select:
            raise shared.error(f"{word} in a recursive query is not implemented", "0A000")
    if "withClause" in select:
        raise shared.unsupported("WITH inside a recursive query", location)
    level = Scope(shared, scope)
    entry.problem = (
        f'recursive reference to query "{name}" must not appear within its non-recursive term'
    )
    level.ctes[name] = entry
    base = bind_query(Scope(shared, level), select["larg"])
    entry.problem = ""
    _describe(scope, node, entry, base.outputs)
    step = _bind_step(level, entry, select["rarg"], base)
    if entry.recursive_uses == 0:
        raise shared.error(
            f'recursive reference to query "{name}" must appear within its recursive term',
            "42P19",
            location,
        )
    entry.cte = Cte(
        entry.number,
        name,
        base.root,
        entry.columns,
        (base.root, step.root, bool(select.get("all"))),
        tuple(t for t, _ in entry.types),
        tuple(o.column for o in step.outputs),
    )
    entry.used = False
    return entry


def _bind_step(scope: Scope, entry: CteEntry, node: Node, base: Query) -> Query:
    """The recursive term, its columns brought to the base's types."""
    shared = scope.shared
    if node.get("op", "SETOP_NONE") != "SETOP_NONE" or "withClause" in node:
        branch = Branch(None, bind_query(Scope(shared, scope), node))
    else:
        child = Scope(shared, scope)
        child.resolve_unknowns = False
        select = bind_simple(child, node)
        if select.grouped and child.aggregates:
            raise shared.error(
                "aggregate functions are not allowed in a recursive query's recursive term", "42P19"
            )
        branch = Branch(select, None)
    expressions = branch.expressions()
    if len(expressions) != len(base.outputs):
        raise shared.error("each UNION query must have the same number of columns", "42601")
    for offset, (expression, output) in enumerate(zip(expressions, base.outputs, strict=True)):
        _check_type(scope, entry, offset, expression, output)
        branch.coerce(scope, offset, output.type, "UNION")
    relation, columns = branch.finish(scope)
    outputs = tuple(
        OutputColumn(column, o.name, o.type, o.typmod)
        for column, o in zip(columns, base.outputs, strict=True)
    )
    return Query(relation, outputs)


def _check_type(
    scope: Scope, entry: CteEntry, offset: int, step: Expression, base: OutputColumn
) -> None:
    found = common_type([base.type, step.type])
    if isinstance(found, tuple):
        left, right = found
        raise scope.shared.error(
            f"UNION types {type_name(scope, left)} and {type_name(scope, right)} cannot be matched",
            "42804",
        )
    wider = step.typmod if step.type == base.type else base.typmod
    if found != base.type or (base.typmod >= 0 and wider != base.typmod):
        raise scope.shared.error(
            f'recursive query "{entry.label}" column {offset + 1} has type '
            f"{type_name(scope, base.type, base.typmod)} in non-recursive term but type "
            f"{type_name(scope, found, -1)} overall",
            "42804",
            hint="Cast the output of the non-recursive term to the correct type.",
        )
