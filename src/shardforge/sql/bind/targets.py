"""Select lists and the clauses that may refer to them by name or position: ORDER BY, GROUP BY, DISTINCT.

Source: PostgreSQL 15, src/backend/parser/parse_target.c, parse_clause.c (findTargetlistEntrySQL92).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardforge.sql.bind.casts import resolve_unknown
from shardforge.sql.bind.columns import expand_row, expand_star, find_column, names_of
from shardforge.sql.bind.dispatch import bind, bind_in, location_of
from shardforge.sql.bind.grouping import same
from shardforge.sql.bind.names import column_name
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.bind.walk import references
from shardforge.sql.types import oids


@dataclass(slots=True, eq=False)
class Target:
    """One entry of a select list; `junk` ones are only sorted or grouped by."""

    expression: Expression
    name: str
    location: int | None
    junk: bool = False
    id: ColumnId | None = None
    origin: tuple[int, int] = (0, 0)


def bind_targets(scope: Scope, items: list[Node], clause: str = "select") -> list[Target]:
    """A select or RETURNING list, stars expanded."""
    targets: list[Target] = []
    before, scope.clause = scope.clause, clause
    try:
        for item in items:
            entry = item["ResTarget"]
            node = entry["val"]
            expanded = _expansion(scope, node)
            if expanded is None:
                name = entry["name"] if "name" in entry else column_name(node)
                targets.append(Target(bind(scope, node), name, location_of(node)))
            else:
                at = location_of(node)
                targets += [Target(expression, name, at) for name, expression in expanded]
    finally:
        scope.clause = before
    return targets


def _expansion(scope: Scope, node: Node) -> Any:
    reference = node.get("ColumnRef")
    if reference is not None:
        fields = reference["fields"]
        if "A_Star" in fields[-1]:
            return expand_star(scope, names_of(fields), reference.get("location", 0))
        return None
    indirection = node.get("A_Indirection")
    if indirection is not None and "A_Star" in indirection["indirection"][-1]:
        rest = indirection["indirection"][:-1]
        base = (
            {"A_Indirection": {**indirection, "indirection": rest}} if rest else indirection["arg"]
        )
        return expand_row(scope, bind(scope, base), location_of(node))
    return None


def resolve_unknown_targets(scope: Scope, targets: list[Target]) -> None:
    """Output columns that nothing gave a type are text."""
    for target in targets:
        if target.expression.type == oids.UNKNOWN:
            target.expression = resolve_unknown(scope, target.expression, target.location)


_WORDS = {"order": "ORDER BY", "group": "GROUP BY", "distinct_on": "DISTINCT ON"}


def find_target(scope: Scope, node: Node, targets: list[Target], clause: str) -> Target:
    """The entry that an ORDER BY, GROUP BY or DISTINCT ON item means; a junk one is added when there is none."""
    reference = node.get("ColumnRef")
    if (
        reference is not None
        and len(reference["fields"]) == 1
        and "String" in reference["fields"][0]
    ):
        name = reference["fields"][0]["String"].get("sval", "")
        location = reference.get("location", 0)
        if clause != "group" or find_column(scope, name, location) is None:
            named = _named(scope, name, targets, clause, location)
            if named is not None:
                return named
    constant: Node | None = node.get("A_Const")
    if constant is not None:
        return _by_position(scope, constant, targets, clause)
    bound = bind_in(scope, node, clause)
    location = location_of(node)
    for target in targets:
        if same(target.expression, bound):
            return target
    made = Target(bound, column_name(node), location, junk=True)
    targets.append(made)
    return made


def _named(
    scope: Scope, name: str, targets: list[Target], clause: str, location: int
) -> Target | None:
    found: Target | None = None
    for target in targets:
        if target.junk or target.name != name:
            continue
        if found is not None and not same(found.expression, target.expression):
            raise scope.shared.error(f'{_WORDS[clause]} "{name}" is ambiguous', "42702", location)
        found = found or target
    if found is not None and clause == "group":
        check_group_target(scope, found)
    return found


def check_group_target(scope: Scope, target: Target) -> None:
    """42803 when a select-list entry named by GROUP BY holds an aggregate; 42P20 for a window function."""
    used = references(target.expression)
    if used & scope.aggregates.keys():
        raise scope.shared.error(
            "aggregate functions are not allowed in GROUP BY", "42803", target.location
        )
    if any(column in used for window in scope.windows for column, _ in window.calls):
        raise scope.shared.error(
            "window functions are not allowed in GROUP BY", "42P20", target.location
        )


def _by_position(scope: Scope, constant: Node, targets: list[Target], clause: str) -> Target:
    location = constant.get("location", 0)
    if "ival" not in constant:
        raise scope.shared.error(f"non-integer constant in {_WORDS[clause]}", "42601", location)
    position = constant["ival"].get("ival", 0)
    visible = [target for target in targets if not target.junk]
    if not 1 <= position <= len(visible):
        raise scope.shared.error(
            f"{_WORDS[clause]} position {position} is not in select list", "42P10", location
        )
    target: Target = visible[position - 1]
    if clause == "group":
        check_group_target(scope, target)
    return target
