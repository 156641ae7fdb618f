"""Where aggregates, window functions and set-returning functions may stand.

Source: PostgreSQL 15, src/backend/parser/parse_agg.c (check_agglevels_and_constraints, transformWindowFuncCall),
parse_func.c (check_srf_call_placement).
"""

from __future__ import annotations

from shardforge.sql.bind.scope import Scope

CLAUSES = {
    "where": "WHERE",
    "join": "JOIN conditions",
    "from_subselect": "FROM clause of their own query level",
    "from_function": "functions in FROM",
    "group": "GROUP BY",
    "having": "HAVING",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "values": "VALUES",
    "insert": "VALUES",
    "returning": "RETURNING",
    "update_source": "UPDATE",
    "filter": "FILTER",
    "check": "check constraints",
    "default": "DEFAULT expressions",
    "index": "index expressions",
    "index_predicate": "index predicates",
    "generated": "column generation expressions",
    "window": "window definitions",
    "frame_rows": "window ROWS",
    "frame_range": "window RANGE",
    "frame_groups": "window GROUPS",
    "conflict": "ON CONFLICT",
    "parameter": "EXECUTE parameters",
}

_AGGREGATES_ALLOWED = frozenset({"select", "order", "distinct_on", "having", "window", ""})
_WINDOWS_ALLOWED = frozenset({"select", "order", "distinct_on", ""})
_SETS_ALLOWED = frozenset(
    {"select", "order", "distinct_on", "group", "from_function", "insert", ""}
)


def check_aggregate(home: Scope, location: int | None) -> None:
    """42803 where the clause of the aggregate's own query level takes none."""
    if home.clause in _AGGREGATES_ALLOWED:
        return
    place = CLAUSES[home.clause]
    raise home.shared.error(f"aggregate functions are not allowed in {place}", "42803", location)


def check_window(scope: Scope, location: int | None) -> None:
    """42P20 where the clause takes no window function."""
    if scope.clause not in _WINDOWS_ALLOWED:
        place = CLAUSES[scope.clause]
        raise scope.shared.error(f"window functions are not allowed in {place}", "42P20", location)


def check_set_returning(scope: Scope, location: int | None) -> None:
    """0A000 where the clause, or the construct around, takes no set."""
    if scope.srf_forbidden:
        raise scope.shared.error(
            f"set-returning functions are not allowed in {scope.srf_forbidden}", "0A000", location,
            hint="You might be able to move the set-returning function into a LATERAL FROM item.",
        )  # fmt: skip
    if scope.clause not in _SETS_ALLOWED:
        place = CLAUSES[scope.clause]
        raise scope.shared.error(
            f"set-returning functions are not allowed in {place}", "0A000", location
        )
    scope.has_srf = True
