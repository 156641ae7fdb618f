"""CASE, COALESCE, GREATEST and LEAST.

Source: PostgreSQL 15, src/backend/parser/parse_expr.c; section 10.5.
"""

from __future__ import annotations

from shardforge.sql.bind.casts import (
    choose_common_type,
    coerce_boolean,
    coerce_to_common,
    common_typmod,
    resolve_unknown,
)
from shardforge.sql.bind.dispatch import bind, binds, location_of
from shardforge.sql.bind.operators import make_operator
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.sorting import require_order
from shardforge.sql.bind.tree import Case, Coalesce, Const, Expression, MinMax
from shardforge.sql.types import oids

SRF_HINT = "You might be able to move the set-returning function into a LATERAL FROM item."


def _forbidding_sets(scope: Scope, construct: str) -> str:
    before, scope.srf_forbidden = scope.srf_forbidden, construct
    return before


@binds("CaseExpr")
def _bind_case(scope: Scope, node: Node) -> Expression:
    before = _forbidding_sets(scope, "CASE")
    subject_node = node.get("arg")
    subject = None
    if subject_node is not None:
        subject = resolve_unknown(scope, bind(scope, subject_node), location_of(subject_node))
    conditions: list[Expression] = []
    results: list[Expression] = []
    locations: list[int | None] = []
    for item in node["args"]:
        when = item["CaseWhen"]
        if subject is None:
            condition = bind(scope, when["expr"])
            at = location_of(when["expr"])
        else:
            at = when.get("location", 0)
            condition = make_operator(scope, ("=",), subject, bind(scope, when["expr"]), at)
        conditions.append(coerce_boolean(scope, condition, "CASE/WHEN", at))
        results.append(bind(scope, when["result"]))
        locations.append(location_of(when["result"]))
    default = node.get("defresult")
    otherwise = None if default is None else bind(scope, default)
    scope.srf_forbidden = before
    # PostgreSQL looks at ELSE first.
    parts = [Const(None, oids.UNKNOWN) if otherwise is None else otherwise, *results]
    sites = [None if default is None else location_of(default), *locations]
    target = choose_common_type(scope, parts, "CASE", sites)
    whens = tuple(
        (condition, coerce_to_common(scope, result, target, "CASE/WHEN", at))
        for condition, result, at in zip(conditions, results, locations, strict=True)
    )
    if otherwise is not None:
        otherwise = coerce_to_common(scope, otherwise, target, "CASE/ELSE", sites[0])
    typmod = common_typmod(parts, target)
    return Case(whens, otherwise, target, typmod)


def _common_arguments(
    scope: Scope, node: Node, construct: str
) -> tuple[tuple[Expression, ...], int, int]:
    before = _forbidding_sets(scope, construct)
    args = [bind(scope, arg) for arg in node["args"]]
    scope.srf_forbidden = before
    locations = [location_of(arg) for arg in node["args"]]
    target = choose_common_type(scope, args, construct, locations)
    typmod = common_typmod(args, target)
    made = tuple(
        coerce_to_common(scope, arg, target, construct, at)
        for arg, at in zip(args, locations, strict=True)
    )
    return made, target, typmod


@binds("CoalesceExpr")
def _bind_coalesce(scope: Scope, node: Node) -> Expression:
    return Coalesce(*_common_arguments(scope, node, "COALESCE"))


@binds("MinMaxExpr")
def _bind_min_max(scope: Scope, node: Node) -> Expression:
    greatest = node.get("op", "IS_GREATEST") == "IS_GREATEST"
    made, target, typmod = _common_arguments(scope, node, "GREATEST" if greatest else "LEAST")
    require_order(scope, target, node.get("location", 0), comparison=True)
    return MinMax(greatest, made, target, typmod)
