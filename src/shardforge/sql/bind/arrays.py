"""ARRAY[...] and ROW(...) constructors.

Source: PostgreSQL 15, src/backend/parser/parse_expr.c (transformArrayExpr, transformRowExpr).
"""

from __future__ import annotations

from shardforge.sql.bind.casts import (
    EXPLICIT,
    choose_common_type,
    coerce_to_common,
    coerce_to_target,
    type_name,
)
from shardforge.sql.bind.columns import expand_row, expand_star, names_of
from shardforge.sql.bind.dispatch import bind, binds, location_of
from shardforge.sql.bind.pathways import array_type_of, element_of
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import ArrayExpr, Expression, RowExpr
from shardforge.sql.types import oids


@binds("A_ArrayExpr")
def _bind_array(scope: Scope, node: Node) -> Expression:
    return bind_array(scope, node, 0, -1)


def bind_array(scope: Scope, node: Node, target: int, typmod: int) -> Expression:
    """ARRAY[...]; as the array type `target` when it is not 0, which gives each element its type."""
    elements: list[Expression] = []
    locations: list[int | None] = []
    nested = False
    for item in node.get("elements", []):
        if "A_ArrayExpr" in item:
            made = bind_array(scope, item["A_ArrayExpr"], target, typmod)
            nested = True
        else:
            made = bind(scope, item)
            nested = nested or bool(element_of(made.type))
        elements.append(made)
        locations.append(location_of(item))
    location = node.get("location", 0)
    if target:
        array_type, element = target, target if nested else element_of(target)
        return ArrayExpr(
            tuple(
                _explicit(scope, e, element, typmod, at)
                for e, at in zip(elements, locations, strict=True)
            ),
            array_type,
            nested,
        )
    if not elements:
        raise scope.shared.error(
            "cannot determine type of empty array", "42P18", location,
            hint="Explicitly cast to the desired type, for example ARRAY[]::integer[].",
        )  # fmt: skip
    element = choose_common_type(scope, elements, "ARRAY", locations)
    if nested:
        array_type = element
        if not element_of(element):
            raise scope.shared.error(
                f"could not find element type for data type {type_name(scope, element)}",
                "42704",
                location,
            )
    else:
        array_type = array_type_of(element)
        if not array_type:
            raise scope.shared.error(
                f"could not find array type for data type {type_name(scope, element)}",
                "42704",
                location,
            )
    return ArrayExpr(
        tuple(
            coerce_to_common(scope, e, element, "ARRAY", at)
            for e, at in zip(elements, locations, strict=True)
        ),
        array_type,
        nested,
    )


def _explicit(
    scope: Scope, element: Expression, target: int, typmod: int, location: int | None
) -> Expression:
    made = coerce_to_target(scope, element, target, typmod, EXPLICIT, location)
    if made is None:
        raise scope.shared.error(
            f"cannot cast type {type_name(scope, element.type)} to {type_name(scope, target)}",
            "42846",
            location,
        )
    return made


@binds("RowExpr")
def _bind_row(scope: Scope, node: Node) -> Expression:
    args = tuple(bind_row_items(scope, node.get("args", [])))
    names = tuple(f"f{i}" for i in range(1, len(args) + 1))
    return RowExpr(args, names, oids.RECORD)


def bind_row_items(scope: Scope, items: list[Node]) -> list[Expression]:
    """The parts of a row constructor, stars expanded, literals left as they are."""
    found: list[Expression] = []
    for item in items:
        reference = item.get("ColumnRef")
        if reference is not None and "A_Star" in reference["fields"][-1]:
            names = names_of(reference["fields"])
            found += [e for _, e in expand_star(scope, names, reference.get("location", 0))]
        elif "A_Indirection" in item and "A_Star" in item["A_Indirection"]["indirection"][-1]:
            inner = item["A_Indirection"]
            rest = inner["indirection"][:-1]
            base = {"A_Indirection": {**inner, "indirection": rest}} if rest else inner["arg"]
            found += [e for _, e in expand_row(scope, bind(scope, base), location_of(item))]
        else:
            found.append(bind(scope, item))
    return found
