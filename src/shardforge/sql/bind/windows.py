"""Window function calls, WINDOW definitions and frames.

Source: PostgreSQL 15, src/backend/parser/parse_agg.c (transformWindowFuncCall), parse_clause.c
(transformWindowDefinitions, transformFrameOffset); include/nodes/parsenodes.h (FRAMEOPTION_*).
"""

from __future__ import annotations

from shardforge.sql.bind.aggregates import make_aggregate
from shardforge.sql.bind.calls import Arguments, complete_arguments
from shardforge.sql.bind.casts import (
    IMPLICIT,
    coerce_to_specific,
    coerce_type,
    resolve_unknown,
    type_name,
)
from shardforge.sql.bind.dispatch import bind_in, location_of
from shardforge.sql.bind.pathways import can_coerce
from shardforge.sql.bind.placement import check_window
from shardforge.sql.bind.resolution import FunctionCandidate
from shardforge.sql.bind.scope import Node, Scope, WindowDefinition
from shardforge.sql.bind.sorting import require_order, sort_key
from shardforge.sql.bind.tree import (
    AggregateCall,
    Call,
    ColumnRef,
    Expression,
    Frame,
    SortKey,
    WindowCall,
)
from shardforge.sql.bind.walk import nodes
from shardforge.sql.types import oids

NONDEFAULT, RANGE, ROWS, GROUPS = 0x1, 0x2, 0x4, 0x8
_STARTS = {
    0x20: "unbounded_preceding", 0x80: "unbounded_following", 0x200: "current",
    0x800: "preceding", 0x2000: "following",
}  # fmt: skip
_ENDS = {
    0x40: "unbounded_preceding", 0x100: "unbounded_following", 0x400: "current",
    0x1000: "preceding", 0x4000: "following",
}  # fmt: skip
_EXCLUDES = {0x8000: "current row", 0x10000: "group", 0x20000: "ties"}


def bind_window_call(
    scope: Scope, node: Node, found: FunctionCandidate, arguments: Arguments, location: int
) -> Expression:
    """A window function, or an aggregate over a window."""
    row = found.row
    if node.get("agg_distinct"):
        raise scope.shared.error(
            "DISTINCT is not implemented for window functions", "0A000", location
        )
    if node.get("agg_order"):
        raise scope.shared.error(
            "aggregate ORDER BY is not implemented for window functions", "0A000", location
        )
    aggregate: AggregateCall | None = None
    condition = None
    if row.prokind == "a":
        aggregate = make_aggregate(scope, node, found, arguments, location)
        args, result, condition = aggregate.args, aggregate.type, aggregate.filter
    else:
        if node.get("agg_filter"):
            raise scope.shared.error(
                "FILTER is not implemented for non-aggregate window functions", "0A000", location
            )
        args, result = complete_arguments(scope, found, arguments, location)
    check_window(scope, location)
    _check_contents(scope, args, condition, location)
    window = _window_for(scope, node["over"])
    column = scope.shared.new_column()
    window.calls.append(
        (column, WindowCall(row.oid, row.proname, args, result, aggregate, condition))
    )
    return scope.shared.reference(column, result, -1, location)


def _check_contents(
    scope: Scope, args: tuple[Expression, ...], condition: Expression | None, location: int
) -> None:
    windows = {column for window in scope.windows for column, _ in window.calls}
    for part in nodes((args, condition) if condition is not None else args):
        if isinstance(part, ColumnRef) and part.column in windows:
            inner = scope.shared.location_of(part)
            raise scope.shared.error("window function calls cannot be nested", "42P20", inner)
        if isinstance(part, Call) and part.retset:
            raise scope.shared.error(
                "window function calls cannot contain set-returning function calls", "0A000", location,
                hint="You might be able to move the set-returning function into a LATERAL FROM item.",
            )  # fmt: skip


def define_windows(scope: Scope, items: list[Node]) -> None:
    """The WINDOW clause, read before the select list so that calls find their windows."""
    for item in items:
        definition = item["WindowDef"]
        name = definition["name"]
        if any(window.name == name for window in scope.windows):
            raise scope.shared.error(
                f'window "{name}" is already defined', "42P20", definition.get("location", 0)
            )
        scope.windows.append(_make(scope, definition, name))


def _named(scope: Scope, name: str, location: int) -> WindowDefinition:
    for window in scope.windows:
        if window.name == name:
            return window
    raise scope.shared.error(f'window "{name}" does not exist', "42704", location)


def _window_for(scope: Scope, node: Node) -> WindowDefinition:
    location = node.get("location", 0)
    if "name" in node:
        return _named(scope, node["name"], location)
    made = _make(scope, node, None)
    for window in scope.windows:
        if (
            window.partition_by == made.partition_by
            and window.order_by == made.order_by
            and window.frame == made.frame
        ):
            return window
    scope.windows.append(made)
    return made


def _make(scope: Scope, node: Node, name: str | None) -> WindowDefinition:
    base = None
    options = node.get("frameOptions", 0)
    location = node.get("location", 0)
    if "refname" in node:
        base = _named(scope, node["refname"], location)
    order_nodes = node.get("orderClause", [])
    partition_nodes = node.get("partitionClause", [])
    if base is not None:
        if partition_nodes:
            raise scope.shared.error(
                f'cannot override PARTITION BY clause of window "{base.name}"', "42P20", location
            )
        if order_nodes and base.order_by:
            raise scope.shared.error(
                f'cannot override ORDER BY clause of window "{base.name}"', "42P20", location
            )
        if base.has_frame:
            raise scope.shared.error(
                f'cannot copy window "{base.name}" because it has a frame clause', "42P20", location
            )
    partition = base.partition_by if base else _partition(scope, partition_nodes)
    order = base.order_by if base and base.order_by else _order(scope, order_nodes)
    frame = _frame(scope, node, options, order)
    return WindowDefinition(name, partition, order, frame, [], bool(options & NONDEFAULT))


def _window_expression(scope: Scope, node: Node) -> Expression:
    """An expression of PARTITION BY or ORDER BY: constants are constants here, not positions."""
    made = resolve_unknown(scope, bind_in(scope, node, "window"), location_of(node))
    windows = {column for window in scope.windows for column, _ in window.calls}
    for part in nodes(made):
        if isinstance(part, ColumnRef) and part.column in windows:
            raise scope.shared.error(
                "window functions are not allowed in window definitions", "42P20", location_of(node)
            )
    return made


def _partition(scope: Scope, items: list[Node]) -> tuple[Expression, ...]:
    found = tuple(_window_expression(scope, item) for item in items)
    for expression, item in zip(found, items, strict=True):
        require_order(scope, expression.type, location_of(item))
    return found


def _order(scope: Scope, items: list[Node]) -> tuple[SortKey, ...]:
    found = []
    for item in items:
        sort = item["SortBy"]
        expression = _window_expression(scope, sort["node"])
        found.append(sort_key(scope, expression, sort, location_of(sort["node"])))
    return tuple(found)


def _frame(scope: Scope, node: Node, options: int, order: tuple[SortKey, ...]) -> Frame:
    location = node.get("location", 0)
    mode = "rows" if options & ROWS else "groups" if options & GROUPS else "range"
    if not options & NONDEFAULT:
        return Frame()
    start = next((word for bit, word in _STARTS.items() if options & bit), "unbounded_preceding")
    end = next((word for bit, word in _ENDS.items() if options & bit), "current")
    exclude = next((word for bit, word in _EXCLUDES.items() if options & bit), "")
    if mode == "groups" and not order:
        raise scope.shared.error("GROUPS mode requires an ORDER BY clause", "42P20", location)
    offsets = [_offset(scope, node.get(key), mode, order) for key in ("startOffset", "endOffset")]
    return Frame(mode, start, end, offsets[0], offsets[1], exclude)


def _offset(
    scope: Scope, node: Node | None, mode: str, order: tuple[SortKey, ...]
) -> Expression | None:
    if node is None:
        return None
    location = location_of(node)
    bound = bind_in(scope, node, f"frame_{mode}")
    if any(isinstance(part, ColumnRef) and part.column in scope.own for part in nodes(bound)):
        raise scope.shared.error(
            f"argument of {mode.upper()} must not contain variables", "42P10", location
        )
    if mode != "range":
        return coerce_to_specific(scope, bound, oids.INT8, mode.upper(), location)
    if len(order) != 1:
        raise scope.shared.error(
            "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
            "42P20",
            location,
        )
    return _range_offset(scope, bound, order[0].expression.type, location)


_RANGE_OFFSETS = {
    oids.INT2: oids.INT8, oids.INT4: oids.INT8, oids.INT8: oids.INT8, oids.FLOAT4: oids.FLOAT8,
    oids.FLOAT8: oids.FLOAT8, oids.NUMERIC: oids.NUMERIC, oids.DATE: oids.INTERVAL,
    oids.TIMESTAMP: oids.INTERVAL, oids.TIMESTAMPTZ: oids.INTERVAL, oids.INTERVAL: oids.INTERVAL,
    oids.TIME: oids.INTERVAL, oids.TIMETZ: oids.INTERVAL,
}  # fmt: skip


def _range_offset(scope: Scope, bound: Expression, key: int, location: int | None) -> Expression:
    target = _RANGE_OFFSETS.get(key)
    if target is None:
        raise scope.shared.error(
            "RANGE with offset PRECEDING/FOLLOWING is not supported for column type "
            + type_name(scope, key),
            "0A000",
            location,
        )
    if not can_coerce(bound.type, target):
        raise scope.shared.error(
            "RANGE with offset PRECEDING/FOLLOWING is not supported for column type "
            f"{type_name(scope, key)} and offset type {type_name(scope, bound.type)}",
            "0A000",
            location,
            hint="Cast the offset value to an appropriate type.",
        )
    return coerce_type(scope, bound, target, -1, IMPLICIT, location)
