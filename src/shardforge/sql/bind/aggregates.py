"""Aggregate calls and GROUPING: found in an expression, computed by the query level that their arguments belong to.

The call is kept with its level's `Scope`; the expression gets a reference to its column.
Source: PostgreSQL 15, src/backend/parser/parse_agg.c (transformAggregateCall, check_agg_arguments).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shardforge.sql import pgdata
from shardforge.sql.bind.calls import Arguments, complete_arguments, find_function
from shardforge.sql.bind.casts import (
    choose_common_type,
    coerce_boolean,
    coerce_to_common,
    resolve_unknown,
)
from shardforge.sql.bind.dispatch import bind, bind_in, binds, location_of
from shardforge.sql.bind.placement import CLAUSES, check_aggregate
from shardforge.sql.bind.resolution import FunctionCandidate
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.sorting import require_equality, require_order, sort_key
from shardforge.sql.bind.tree import AggregateCall, Call, ColumnRef, Expression, SortKey
from shardforge.sql.bind.walk import nodes
from shardforge.sql.types import oids


def bind_aggregate(
    scope: Scope, node: Node, found: FunctionCandidate, arguments: Arguments, location: int
) -> Expression:
    """An aggregate used as such."""
    row = found.row
    made = make_aggregate(scope, node, found, arguments, location)
    return _place(scope, made, row, location)


def make_aggregate(
    scope: Scope, node: Node, found: FunctionCandidate, arguments: Arguments, location: int
) -> AggregateCall:
    """The call itself, for an aggregate or for a window."""
    row = found.row
    name = row.proname
    kind = pgdata.aggregates()[row.oid].aggkind
    if kind != "n":
        raise scope.shared.error(
            f"WITHIN GROUP is required for ordered-set aggregate {name}", "42809", location
        )
    star = bool(node.get("agg_star"))
    if not arguments.values and not star:
        raise scope.shared.error(
            f"{name}(*) must be used to call a parameterless aggregate function", "42809", location
        )
    args, result = complete_arguments(scope, found, arguments, location)
    order = tuple(bind_order(scope, node.get("agg_order", []), args, arguments))
    distinct = bool(node.get("agg_distinct"))
    if distinct:
        sites = [location_of(item["SortBy"]["node"]) for item in node.get("agg_order", [])]
        _check_distinct(scope, args, order, sites, location)
    return AggregateCall(
        row.oid, name, args, result, distinct, order, bind_filter(scope, node), star
    )


def bind_order(
    scope: Scope, items: list[Node], args: Iterable[Expression], arguments: Arguments
) -> Iterable[SortKey]:
    """ORDER BY inside an aggregate: expressions only, no positions."""
    given = dict(zip(map(id, arguments.values), args, strict=False))
    for item in items:
        sort = item["SortBy"]
        location = location_of(sort["node"])
        bound = bind(scope, sort["node"])
        # The same expression as an argument: order by what was passed, as PostgreSQL does.
        same = next((v for v in arguments.values if v == bound), None)
        if same is not None and id(same) in given:
            bound = given[id(same)]
        bound = resolve_unknown(scope, bound, location)
        yield sort_key(scope, bound, sort, location)


def _check_distinct(
    scope: Scope,
    args: tuple[Expression, ...],
    order: tuple[SortKey, ...],
    sites: list[int | None],
    location: int,
) -> None:
    for key, at in zip(order, sites, strict=True):
        if key.expression not in args:
            raise scope.shared.error(
                "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
                "42P10",
                at,
            )
    for arg in args:
        require_equality(scope, arg.type, location)
        require_order(scope, arg.type, location)


def bind_filter(scope: Scope, node: Node) -> Expression | None:
    """FILTER (WHERE ...)"""
    condition = node.get("agg_filter")
    if condition is None:
        return None
    return coerce_boolean(
        scope, bind_in(scope, condition, "filter"), "FILTER", location_of(condition)
    )


def _place(scope: Scope, made: AggregateCall, row: pgdata.ProcRow, location: int) -> Expression:
    """Hand the call to its level and refer to it."""
    home = home_of(scope, made)
    check_aggregate(home, location)
    for part in nodes(made):
        if isinstance(part, ColumnRef) and part.column in home.aggregates:
            inner = scope.shared.location_of(part)
            raise scope.shared.error("aggregate function calls cannot be nested", "42803", inner)
    _check_contents(scope, home, made, location)
    for column, other in home.aggregates.items():
        if other == made and not _volatile(made) and repr(other) == repr(made):
            scope.leave(home, column)
            return scope.shared.reference(column, made.type, made.typmod, location)
    column = scope.shared.new_column()
    home.aggregates[column] = made
    scope.leave(home, column)
    return scope.shared.reference(column, made.type, made.typmod, location)


def _check_contents(scope: Scope, home: Scope, made: AggregateCall, location: int) -> None:
    windows = {column for window in home.windows for column, _ in window.calls}
    for part in nodes(made):
        if isinstance(part, ColumnRef) and part.column in windows:
            raise scope.shared.error(
                "aggregate function calls cannot contain window function calls", "42803",
                scope.shared.location_of(part),
            )  # fmt: skip
    if any(isinstance(n, Call) and n.retset for arg in made.args for n in nodes(arg)):
        raise scope.shared.error(
            "aggregate function calls cannot contain set-returning function calls", "0A000", location,
            hint="You might be able to move the set-returning function into a LATERAL FROM item.",
        )  # fmt: skip


def _volatile(made: AggregateCall) -> bool:
    return any(isinstance(n, Call) and n.volatile == "v" for n in nodes(made))


def home_of(scope: Scope, made: Any) -> Scope:
    """The innermost level that owns a column used; this one when none is used."""
    used = {n.column for n in nodes(made) if isinstance(n, ColumnRef)}
    if used:
        for level in scope.levels():
            if used & level.own.keys() or used & level.aggregates.keys():
                return level
    return scope


# ---------------------------------------------------------------- ordered sets


def bind_ordered_set(scope: Scope, node: Node, name: list[str], location: int) -> Expression:
    """percentile_cont(...) WITHIN GROUP (ORDER BY ...) and its like."""
    if "over" in node:
        raise scope.shared.error(
            f"OVER is not supported for ordered-set aggregate {name[-1]}", "0A000", location
        )
    if node.get("agg_distinct"):
        raise scope.shared.error("cannot use DISTINCT with WITHIN GROUP", "42601", location)
    direct_nodes = node.get("args", [])
    sorts = [item["SortBy"] for item in node.get("agg_order", [])]
    values = [bind(scope, item) for item in (*direct_nodes, *(sort["node"] for sort in sorts))]
    sites = [location_of(item) for item in (*direct_nodes, *(sort["node"] for sort in sorts))]
    arguments = Arguments(values, sites)
    found = find_function(scope, name, arguments.types, arguments, location)
    shown = ".".join(name)
    if found.row.prokind != "a":
        raise scope.shared.error(
            f"WITHIN GROUP specified, but {shown} is not an aggregate function", "42809", location
        )
    row = pgdata.aggregates()[found.row.oid]
    if row.aggkind == "n":
        raise scope.shared.error(
            f"{shown} is not an ordered-set aggregate, so it cannot have WITHIN GROUP",
            "42809",
            location,
        )
    count = len(direct_nodes)
    if row.aggkind == "h":
        args = _hypothetical(scope, shown, arguments, count, location)
        result = found.row.prorettype
    else:
        if row.aggnumdirectargs != count:
            raise scope.shared.error(
                f"function {shown} does not exist", "42883", location,
                hint=f"There is an ordered-set aggregate {shown}, but it requires "
                f"{row.aggnumdirectargs} direct arguments, not {count}.",
            )  # fmt: skip
        args, result = complete_arguments(scope, found, arguments, location)
    keys = tuple(
        sort_key(scope, resolve_unknown(scope, arg, at), sort, at)
        for arg, sort, at in zip(args[count:], sorts, sites[count:], strict=True)
    )
    made = AggregateCall(
        found.row.oid,
        found.row.proname,
        tuple(key.expression for key in keys),
        result,
        False,
        keys,
        bind_filter(scope, node),
        False,
        args[:count],
    )
    return _place(scope, made, found.row, location)


def _hypothetical(
    scope: Scope, name: str, arguments: Arguments, count: int, location: int
) -> tuple[Expression, ...]:
    """Direct and sorted arguments brought to common types, pair by pair."""
    values = arguments.values
    if len(values) != 2 * count:
        raise scope.shared.error(
            f"function {name} does not exist", "42883", location,
            hint=f"To use the hypothetical-set aggregate {name}, the number of hypothetical direct arguments "
            f"(here {count}) must match the number of ordering columns (here {len(values) - count}).",
        )  # fmt: skip
    made = list(values)
    for i in range(count):
        direct, key = values[i], values[count + i]
        sites = [arguments.locations[count + i], arguments.locations[i]]
        target = choose_common_type(scope, [key, direct], "WITHIN GROUP", sites)
        made[i] = coerce_to_common(scope, direct, target, "WITHIN GROUP", sites[1])
        made[count + i] = coerce_to_common(scope, key, target, "WITHIN GROUP", sites[0])
    return tuple(made)


# ---------------------------------------------------------------- GROUPING


@binds("GroupingFunc")
def _bind_grouping(scope: Scope, node: Node) -> Expression:
    location = node.get("location", 0)
    args = tuple(bind(scope, item) for item in node["args"])
    if len(args) > 31:
        raise scope.shared.error("GROUPING must have fewer than 32 arguments", "54023", location)
    home = home_of(scope, args)
    if home.clause not in ("select", "order", "having", "distinct_on", "window"):
        raise scope.shared.error(
            f"grouping operations are not allowed in {CLAUSES.get(home.clause, home.clause)}",
            "42803",
            location,
        )
    column = scope.shared.new_column()
    home.grouping[column] = args
    scope.leave(home, column)
    return scope.shared.reference(column, oids.INT4, -1, location)
