"""Whole statements: what `bind_statement` does around the binding of each kind."""

from __future__ import annotations

from shardforge.errors import too_deep, unsupported
from shardforge.sql.bind.casts import ASSIGNMENT, coerce_to_target, resolve_unknown, type_name
from shardforge.sql.bind.dispatch import bind_in, location_of
from shardforge.sql.bind.environment import BindEnvironment
from shardforge.sql.bind.insert import bind_insert
from shardforge.sql.bind.scope import Node, Scope, Shared
from shardforge.sql.bind.select import bind_query
from shardforge.sql.bind.tree import BoundStatement, Delete, Expression, Insert, Update
from shardforge.sql.bind.update import bind_delete, bind_update
from shardforge.sql.catalog.typenames import naming_types

_SHOWN = {"MergeStmt": "MERGE"}


def bind_change(scope: Scope, kind: str, node: Node) -> Insert | Update | Delete:
    """An INSERT, UPDATE or DELETE node."""
    if kind == "InsertStmt":
        return bind_insert(scope, node)
    if kind == "UpdateStmt":
        return bind_update(scope, node)
    return bind_delete(scope, node)


def bind_statement(node: Node, env: BindEnvironment) -> BoundStatement:
    """The bound form of a SELECT, VALUES, INSERT, UPDATE or DELETE. Fills `env.parameter_types`."""
    shared = Shared(env)
    scope = Scope(shared)
    ((kind, inner),) = node.items()
    with naming_types(env.catalog, env.search_path):
        try:
            if kind == "SelectStmt":
                bound: BoundStatement = bind_query(scope, inner)
            elif kind in ("InsertStmt", "UpdateStmt", "DeleteStmt"):
                bound = bind_change(scope, kind, inner)
            else:
                raise unsupported(_SHOWN.get(kind, kind))
        except RecursionError:
            raise too_deep() from None
        check_parameters(shared)
        return bound


def check_parameters(shared: Shared) -> None:
    """42P18 (42P08 when only some uses tell) for a parameter whose type is not known."""
    types = shared.env.parameter_types
    for param, location in shared.untyped.values():
        known = types[param.index]
        if known not in (None, 0):
            raise shared.error(
                f"could not determine data type of parameter ${param.index + 1}", "42P08", location
            )
    for index, known in enumerate(types):
        if known in (None, 0):
            raise shared.error(f"could not determine data type of parameter ${index + 1}", "42P18")


def bind_scalar(node: Node, env: BindEnvironment, *, target_type: int = 0) -> Expression:
    """An expression on its own, such as an EXECUTE argument, as `target_type` when that is given."""
    shared = Shared(env)
    scope = Scope(shared)
    location = location_of(node)
    bound = bind_in(scope, node, "parameter")
    if not target_type:
        return resolve_unknown(scope, bound, location)
    made = coerce_to_target(scope, bound, target_type, -1, ASSIGNMENT, location)
    if made is None:
        raise shared.error(
            f"parameter of type {type_name(scope, bound.type)} cannot be coerced to the expected type "
            + type_name(scope, target_type),
            "42804",
            location,
            hint="You will need to rewrite or cast the expression.",
        )
    return made
