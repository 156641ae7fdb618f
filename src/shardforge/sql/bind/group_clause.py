"""The GROUP BY clause: expressions, positions, aliases, ROLLUP, CUBE and GROUPING SETS.

Source: PostgreSQL 15, src/backend/parser/parse_clause.c (transformGroupClause).
"""

from __future__ import annotations

from shardforge.sql.bind.casts import resolve_unknown
from shardforge.sql.bind.dispatch import location_of
from shardforge.sql.bind.grouping import MAX_SETS, Keys, Set, combine, cube, rollup
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.sorting import require_equality
from shardforge.sql.bind.targets import Target, find_target


def bind_group_clause(
    scope: Scope, items: list[Node], targets: list[Target], keys: Keys, distinct: bool
) -> list[Set] | None:
    """Fill `keys`; the grouping sets, or None when there is just the one of all keys."""
    parts: list[list[Set]] = []
    plain = True
    for item in items:
        if "GroupingSet" in item:
            plain = False
            parts.append(_sets(scope, item["GroupingSet"], targets, keys))
        else:
            parts += [[(offset,)] for offset in _offsets(scope, item, targets, keys)]
    if plain:
        return None
    count = 1
    for part in parts:
        count *= len(part)
    if count > MAX_SETS:
        raise scope.shared.error(f"too many grouping sets present (maximum {MAX_SETS})", "54001")
    return combine(parts, distinct=distinct)


def _offsets(scope: Scope, node: Node, targets: list[Target], keys: Keys) -> list[int]:
    """The keys of one plain item; a row stands for its members."""
    if "RowExpr" in node and node["RowExpr"].get("row_format") == "COERCE_IMPLICIT_CAST":
        return [
            offset
            for item in node["RowExpr"].get("args", [])
            for offset in _offsets(scope, item, targets, keys)
        ]
    target = find_target(scope, node, list(targets), "group")
    target.expression = resolve_unknown(scope, target.expression, target.location)
    require_equality(scope, target.expression.type, location_of(node))
    return [keys.add(target.expression)]


def _sets(scope: Scope, node: Node, targets: list[Target], keys: Keys) -> list[Set]:
    kind = node.get("kind", "GROUPING_SET_EMPTY")
    content = node.get("content", [])
    if kind == "GROUPING_SET_EMPTY":
        return [()]
    if kind == "GROUPING_SET_SETS":
        found: list[Set] = []
        for item in content:
            if "GroupingSet" in item:
                found += _sets(scope, item["GroupingSet"], targets, keys)
            else:
                found.append(tuple(_offsets(scope, item, targets, keys)))
        return found
    members = [tuple(_offsets(scope, item, targets, keys)) for item in content]
    if kind == "GROUPING_SET_ROLLUP":
        return rollup(members)
    if kind == "GROUPING_SET_CUBE":
        if len(members) > 12:
            raise scope.shared.error(
                "CUBE is limited to 12 elements", "54011", node.get("location", 0)
            )
        return cube(members)
    return [tuple(offset for member in members for offset in member)]
