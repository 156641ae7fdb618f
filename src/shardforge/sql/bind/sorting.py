"""Sort keys: operators of order, direction, and where NULLs go.

Source: PostgreSQL 15, src/backend/parser/parse_clause.c (addTargetToSortList).
"""

from __future__ import annotations

from functools import lru_cache

from shardforge.sql import pgdata
from shardforge.sql.bind.casts import type_name
from shardforge.sql.bind.pathways import element_of, is_composite
from shardforge.sql.bind.resolution import resolve_operator
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import Expression, SortKey
from shardforge.sql.types import oids


@lru_cache(maxsize=512)
def _has(oid: int, operator: str) -> bool:
    if oid == oids.RECORD or is_composite(oid):
        return True
    if element_of(oid):
        return _has(element_of(oid), operator)
    return (
        isinstance(resolve_operator(operator, oid, oid), pgdata.OperatorRow)
        and oid not in _UNORDERED
    )


_UNORDERED = frozenset({oids.JSON, 142, 600, 601, 602, 603, 604, 628, 718, oids.XID, oids.CID})
"""Types without a default btree class: json, xml and the geometric ones, xid and cid."""


def require_order(
    scope: Scope, oid: int, location: int | None, *, comparison: bool = False
) -> None:
    """42883 for a type without an order."""
    if _has(oid, "<"):
        return
    if comparison:
        raise scope.shared.error(
            f"could not identify a comparison function for type {type_name(scope, oid)}",
            "42883",
            location,
        )
    raise scope.shared.error(
        f"could not identify an ordering operator for type {type_name(scope, oid)}", "42883", location,
        hint="Use an explicit ordering operator or modify the query.",
    )  # fmt: skip


def require_equality(scope: Scope, oid: int, location: int | None) -> None:
    """42883 for a type without equality."""
    if oid in (oids.XID, oids.CID) or _has(oid, "="):
        return
    raise scope.shared.error(
        f"could not identify an equality operator for type {type_name(scope, oid)}",
        "42883",
        location,
    )


def sort_key(scope: Scope, expression: Expression, node: Node, location: int | None) -> SortKey:
    """The key of a SortBy node over an expression already bound."""
    direction = node.get("sortby_dir", "SORTBY_DEFAULT")
    descending = direction == "SORTBY_DESC"
    if direction == "SORTBY_USING":
        operator = node["useOp"][-1]["String"]["sval"]
        if operator not in ("<", ">"):
            raise scope.shared.error(
                f"operator {operator} is not a valid ordering operator", "42809", location,
                hint='Ordering operators must be "<" or ">" members of btree operator families.',
            )  # fmt: skip
        descending = operator == ">"
    require_order(scope, expression.type, location)
    nulls = node.get("sortby_nulls", "SORTBY_NULLS_DEFAULT")
    nulls_first = descending if nulls == "SORTBY_NULLS_DEFAULT" else nulls == "SORTBY_NULLS_FIRST"
    return SortKey(expression, descending, nulls_first)
