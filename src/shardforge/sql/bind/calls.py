"""Function calls: which function, its arguments in its own order with defaults and VARIADIC collected.

Source: PostgreSQL 15, src/backend/parser/parse_func.c (ParseFuncOrColumn).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shardforge.errors import QueryError
from shardforge.sql.bind import polymorphic
from shardforge.sql.bind.casts import (
    EXPLICIT,
    IMPLICIT,
    coerce_to_target,
    coerce_type,
    require_implementation,
    type_name,
)
from shardforge.sql.bind.dispatch import bind, binds, location_of
from shardforge.sql.bind.pathways import (
    array_type_of,
    category,
    is_composite,
    pathway,
)
from shardforge.sql.bind.placement import check_set_returning
from shardforge.sql.bind.resolution import (
    MISSING,
    Ambiguous,
    FunctionCandidate,
    Missing,
    has_exact_function,
    resolve_function,
)
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import ArrayExpr, Call, Expression
from shardforge.sql.bind.typenames import lookup_type, strings
from shardforge.sql.parse import parse_expression
from shardforge.sql.types import oids


@dataclass(slots=True)
class Arguments:
    """A call's arguments as written: positional ones, then those with names."""

    values: list[Expression]
    locations: list[int | None]
    names: tuple[str, ...] = ()
    variadic: bool = False
    types: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.types = tuple(value.type for value in self.values)


def bind_arguments(scope: Scope, node: Node) -> Arguments:
    """The arguments of a FuncCall node."""
    values: list[Expression] = []
    locations: list[int | None] = []
    names: list[str] = []
    for item in node.get("args", []):
        named = item.get("NamedArgExpr")
        if named is not None:
            if named["name"] in names:
                raise scope.shared.error(
                    f'argument name "{named["name"]}" used more than once',
                    "42601",
                    named.get("location", 0),
                )
            names.append(named["name"])
            item = named["arg"]
        elif names:
            raise scope.shared.error(
                "positional argument cannot follow named argument", "42601", location_of(item)
            )
        values.append(bind(scope, item))
        locations.append(location_of(item))
    return Arguments(values, locations, tuple(names), bool(node.get("func_variadic")))


def find_function(
    scope: Scope, name: Sequence[str], types: tuple[int, ...], arguments: Arguments, location: int
) -> FunctionCandidate:
    """The function for these types. Raises 42883 or 42725."""
    found: FunctionCandidate | Ambiguous | Missing = MISSING
    if _in_catalog(scope, name, location):
        found = resolve_function(name[-1], types, arguments.names, not arguments.variadic)
    if isinstance(found, FunctionCandidate):
        return found
    raise _no_function(scope, name, types, arguments, found, location)


def _in_catalog(scope: Scope, name: Sequence[str], location: int) -> bool:
    if len(name) == 1:
        return True
    schema = name[-2]
    if schema != "pg_catalog" and scope.shared.catalog.schema_by_name(schema) is None:
        raise scope.shared.error(f'schema "{schema}" does not exist', "3F000", location)
    return schema == "pg_catalog"


def signature(scope: Scope, name: Sequence[str], types: Sequence[int], names: Sequence[str]) -> str:
    """A call as PostgreSQL's errors show it: name(type, label => type)."""
    labels = [""] * (len(types) - len(names)) + [f"{label} => " for label in names]
    shown = ", ".join(
        label + type_name(scope, oid) for label, oid in zip(labels, types, strict=True)
    )
    return f"{'.'.join(name)}({shown})"


def _no_function(
    scope: Scope,
    name: Sequence[str],
    types: Sequence[int],
    arguments: Arguments,
    found: Ambiguous | Missing,
    location: int,
) -> QueryError:
    shown = signature(scope, name, types, arguments.names)
    if isinstance(found, Ambiguous):
        return scope.shared.error(
            f"function {shown} is not unique", "42725", location,
            hint="Could not choose a best candidate function. You might need to add explicit type casts.",
        )  # fmt: skip
    return scope.shared.error(
        f"function {shown} does not exist", "42883", location,
        hint="No function matches the given name and argument types. You might need to add explicit type casts.",
    )  # fmt: skip


def _as_cast(
    scope: Scope, name: Sequence[str], arguments: Arguments, location: int
) -> Expression | None:
    """A one-argument call of a type's name, where no function fits exactly: a cast without a function."""
    if len(arguments.values) != 1 or arguments.names or arguments.variadic:
        return None
    if has_exact_function(name[-1], arguments.types, (), True):
        return None
    try:
        target, _ = lookup_type(scope.shared, list(name), location)
    except QueryError:
        return None
    (source,) = arguments.types
    if source != oids.UNKNOWN:
        way = pathway(target, source, EXPLICIT)
        if way.kind == "io":
            if (source == oids.RECORD or is_composite(source)) and category(target) == "S":
                return None
        elif way.kind != "relabel":
            return None
    return coerce_to_target(
        scope, arguments.values[0], target, -1, EXPLICIT, arguments.locations[0]
    )


@binds("FuncCall")
def _bind_call(scope: Scope, node: Node) -> Expression:
    from shardforge.sql.bind.aggregates import bind_aggregate, bind_ordered_set
    from shardforge.sql.bind.windows import bind_window_call

    name = strings(node["funcname"])
    location = node.get("location", 0)
    if node.get("agg_within_group"):
        return bind_ordered_set(scope, node, name, location)
    over = node.get("over")
    arguments = bind_arguments(scope, node)
    plain = not ("over" in node or "agg_star" in node or "agg_distinct" in node)
    if plain and not node.get("agg_order") and not node.get("agg_filter"):
        cast = _as_cast(scope, name, arguments, location)
        if cast is not None:
            return cast
    found = find_function(scope, name, arguments.types, arguments, location)
    kind = found.row.prokind
    if kind == "a":
        if over is not None:
            return bind_window_call(scope, node, found, arguments, location)
        return bind_aggregate(scope, node, found, arguments, location)
    shown = ".".join(name)
    for key, word in (
        ("agg_star", f"{shown}(*)"),
        ("agg_distinct", "DISTINCT"),
        ("agg_order", "ORDER BY"),
        ("agg_filter", "FILTER"),
    ):
        if node.get(key) and not (kind == "w" and key in ("agg_filter", "agg_star")):
            raise scope.shared.error(
                f"{word} specified, but {shown} is not an aggregate function", "42809", location
            )
    if kind == "w":
        if over is None:
            raise scope.shared.error(
                f"window function {shown} requires an OVER clause", "42809", location
            )
        return bind_window_call(scope, node, found, arguments, location)
    if over is not None:
        raise scope.shared.error(
            f"OVER specified, but {shown} is not a window function nor an aggregate function",
            "42809",
            location,
        )
    return make_call(scope, found, arguments, location)


def make_call(
    scope: Scope, found: FunctionCandidate, arguments: Arguments, location: int | None
) -> Call:
    """A call of a plain function."""
    row = found.row
    require_implementation(scope.shared, row, location)
    args, result = complete_arguments(scope, found, arguments, location)
    if row.proretset:
        check_set_returning(scope, location)
    return Call(
        row.oid, args, result, -1, row.proretset, row.provolatile, row.proisstrict, row.proname
    )


def complete_arguments(
    scope: Scope, found: FunctionCandidate, arguments: Arguments, location: int | None
) -> tuple[tuple[Expression, ...], int]:
    """(arguments as the function declares them, result type)"""
    row = found.row
    values, sites = _in_order(scope, found, arguments)
    declared = found.types if found.spread else row.proargtypes
    try:
        wanted, result = polymorphic.enforce([v.type for v in values], declared, row.prorettype)
    except QueryError as error:
        error.position = error.position or scope.shared.position(location)
        raise
    made = [
        value if value.type == target else coerce_type(scope, value, target, -1, IMPLICIT, at)
        for value, target, at in zip(values, wanted, sites, strict=True)
    ]
    if found.spread and row.provariadic != oids.ANY:
        made = _collected(scope, made, found.spread, location)
    elif arguments.variadic and row.provariadic == oids.ANY:
        raise scope.shared.unsupported(f"VARIADIC in a call of {row.proname}", location)
    return tuple(made), result


def _in_order(
    scope: Scope, found: FunctionCandidate, arguments: Arguments
) -> tuple[list[Expression], list[int | None]]:
    if found.spread or (not found.defaults and not arguments.names):
        return arguments.values, arguments.locations
    values: list[Expression] = []
    sites: list[int | None] = []
    first_default = found.row.pronargs - found.row.pronargdefaults
    for own, given in enumerate(found.order):
        if given >= 0:
            values.append(arguments.values[given])
            sites.append(arguments.locations[given])
            continue
        scope.shared.silent += 1
        try:
            default = bind(scope, parse_expression(found.row.defaults[own - first_default]))
        finally:
            scope.shared.silent -= 1
        values.append(default)
        sites.append(None)
    return values, sites


def _collected(
    scope: Scope, values: list[Expression], spread: int, location: int | None
) -> list[Expression]:
    fixed, rest = values[:-spread], values[-spread:]
    array_type = array_type_of(rest[0].type)
    if not array_type:
        raise scope.shared.error(
            f"could not find array type for data type {type_name(scope, rest[0].type)}",
            "42704",
            location,
        )
    return [*fixed, ArrayExpr(tuple(rest), array_type)]


@binds("NamedArgExpr")
def _bind_named_argument(scope: Scope, node: Node) -> Expression:
    raise scope.shared.unsupported("a named argument in this place", node.get("location", 0))
