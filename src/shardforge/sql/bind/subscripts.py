"""Subscripts and slices of arrays, and subscripts of jsonb.

Source: PostgreSQL 15, src/backend/parser/parse_node.c (transformContainerSubscripts), arraysubs.c, jsonbsubs.c.
"""

from __future__ import annotations

from shardforge.sql.bind.casts import (
    ASSIGNMENT,
    EXPLICIT,
    IMPLICIT,
    coerce_to_target,
    coerce_type,
    type_name,
)
from shardforge.sql.bind.dispatch import bind, location_of
from shardforge.sql.bind.pathways import can_coerce, element_of
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import Const, Expression, Subscript
from shardforge.sql.types import oids

_Pair = tuple[Expression | None, Expression | None]


def subscript(
    scope: Scope, base: Expression, steps: list[Node], location: int | None
) -> Expression:
    """base[i][j:k]..."""
    if base.type == oids.JSONB:
        return _json_subscript(scope, base, steps)
    element = element_of(base.type)
    if not element:
        raise scope.shared.error(
            f"cannot subscript type {type_name(scope, base.type)} because it does not support "
            "subscripting",
            "42804",
            location,
        )
    is_slice = any(step.get("is_slice") for step in steps)
    pairs = bind_steps(scope, steps)
    result = base.type if is_slice else element
    return Subscript(base, pairs, is_slice, result, base.typmod)


def bind_steps(scope: Scope, steps: list[Node]) -> tuple[_Pair, ...]:
    """The bounds of each step, as integers; in a slice, a plain index i means 1:i."""
    is_slice = any(step.get("is_slice") for step in steps)
    pairs: list[_Pair] = []
    for step in steps:
        lower = _index(scope, step.get("lidx"))
        upper = _index(scope, step.get("uidx"))
        if is_slice and not step.get("is_slice"):
            lower = Const(1, oids.INT4)
        pairs.append((lower, upper))
    return tuple(pairs)


def _index(scope: Scope, node: Node | None) -> Expression | None:
    if node is None:
        return None
    bound = bind(scope, node)
    made = coerce_to_target(scope, bound, oids.INT4, -1, ASSIGNMENT, location_of(node))
    if made is None:
        raise scope.shared.error(
            "array subscript must have type integer", "42804", location_of(node)
        )
    return made


def _json_subscript(scope: Scope, base: Expression, steps: list[Node]) -> Expression:
    pairs: list[_Pair] = []
    for step in steps:
        node = step["uidx"] if "uidx" in step else step.get("lidx", {})
        location = location_of(node)
        if step.get("is_slice"):
            raise scope.shared.error("jsonb subscript does not support slices", "42804", location)
        bound = bind(scope, node)
        target = oids.TEXT
        if bound.type != oids.UNKNOWN:
            fits = [t for t in (oids.INT4, oids.TEXT) if can_coerce(bound.type, t, IMPLICIT)]
            if len(fits) != 1:
                raise scope.shared.error(
                    f"subscript type {type_name(scope, bound.type)} is not supported", "42804",
                    location,
                    hint="jsonb subscript must be coercible to either integer or text.",
                )  # fmt: skip
            target = fits[0]
        pairs.append((None, coerce_type(scope, bound, target, -1, EXPLICIT, location)))
    return Subscript(base, tuple(pairs), False, oids.JSONB)
