"""Constants, parameters, casts and the values that SQL spells without parentheses (CURRENT_DATE, USER ...)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.keys import ENUM_OIDS
from shardforge.sql.bind.arrays import bind_array
from shardforge.sql.bind.casts import (
    EXPLICIT,
    call_function,
    coerce_to_target,
    coerce_typmod,
    type_name,
)
from shardforge.sql.bind.dispatch import bind, binds
from shardforge.sql.bind.pathways import category, element_of
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import Call, Const, Expression, Param
from shardforge.sql.bind.typenames import strings, type_of_node
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.types import oids
from shardforge.sql.types.registry import input_function, stored_enum

_INT8_MAX = 2**63 - 1


@binds("A_Const")
def _bind_constant(scope: Scope, node: Node) -> Expression:
    if "sval" in node:
        literal = Const(node["sval"].get("sval", ""), oids.UNKNOWN)
        scope.shared.literals[id(literal)] = (literal, node.get("location", 0))
        return literal
    if "ival" in node:
        return Const(node["ival"].get("ival", 0), oids.INT4)
    if node.get("isnull"):
        return Const(None, oids.UNKNOWN)
    if "boolval" in node:
        return Const(node["boolval"].get("boolval", False), oids.BOOL)
    if "fval" in node:
        return _number(scope, node["fval"].get("fval", ""))
    raise scope.shared.unsupported("a bit string", node.get("location", 0))


def _number(scope: Scope, text: str) -> Const:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit():
        value = int(text)
        if -(2**31) <= value < 2**31:
            return Const(value, oids.INT4)
        if value == -(1 << 31):
            return Const(value, oids.INT4)  # the scanner saw 2147483648 before the sign
        if -_INT8_MAX - 1 <= value <= _INT8_MAX:
            return Const(value, oids.INT8)
    return Const(input_function(oids.NUMERIC, scope.shared.env.settings)(text), oids.NUMERIC)


@binds("ParamRef")
def _bind_parameter(scope: Scope, node: Node) -> Expression:
    shared = scope.shared
    number = node.get("number", 0)
    location = node.get("location", 0)
    if shared.silent or not 1 <= number <= 65535:
        raise shared.error(f"there is no parameter ${number}", "42P02", location)
    types = shared.env.parameter_types
    while len(types) < number:
        types.append(None)
    shared.parameter_sites.setdefault(number - 1, location)
    known = types[number - 1]
    if known in (None, 0, oids.UNKNOWN):
        param = Param(number - 1, oids.UNKNOWN)
        shared.untyped[id(param)] = (param, location)
        return param
    return Param(number - 1, known)


@binds("TypeCast")
def _bind_cast(scope: Scope, node: Node) -> Expression:
    target, typmod = type_of_node(scope.shared, node["typeName"])
    argument = node["arg"]
    location = node.get("location", 0)
    if location < 0:
        location = node["typeName"].get("location", 0)
    if "A_ArrayExpr" in argument and element_of(target):
        expression = bind_array(scope, argument["A_ArrayExpr"], target, typmod)
    else:
        expression = bind(scope, argument)
    if expression.type == oids.UNKNOWN and "A_Const" in argument:
        location = argument["A_Const"].get("location", 0)
    stored = _stored_enum(scope, node["typeName"], expression, target)
    if stored is not None:
        return stored
    made = coerce_to_target(scope, expression, target, typmod, EXPLICIT, location)
    if made is None:
        raise scope.shared.error(
            f"cannot cast type {type_name(scope, expression.type)} to {type_name(scope, target)}",
            "42846",
            location,
        )
    return made


def _stored_enum(scope: Scope, name: Node, expression: Expression, target: int) -> Const | None:
    """A constant of an enum (or an array of them) as only stored text spells it: its number, cast to the type's oid."""
    if target not in ENUM_OIDS or not isinstance(expression, Const):
        return None
    inner = element_of(expression.type) or expression.type
    if inner != oids.FLOAT8 or stored_enum(strings(name["names"])[-1]) is None:
        return None
    catalog: CatalogSnapshot | None = scope.shared.catalog
    enum = None if catalog is None else catalog.enum_by_id(target)
    if enum is not None:  # users may write it too, so it has to be a value of the type
        value = expression.value
        given = {value} if isinstance(value, float) else set(value.elements if value else ())
        if not given <= {None, *(label.order for label in enum.labels)}:
            return None
    return Const(expression.value, target)


# ---------------------------------------------------------------- SQL's own values

_NOW, _DATE_OF, _TIMESTAMP_OF, _TIMETZ_OF, _TIME_OF = 1299, 1178, 2027, 1388, 2019


def _call(function: int, *args: Expression) -> Callable[[Scope], Call]:
    return lambda scope: call_function(scope.shared, function, args)


def _from_now(function: int) -> Callable[[Scope], Call]:
    return lambda scope: call_function(
        scope.shared, function, (call_function(scope.shared, _NOW, ()),)
    )


_VALUES: dict[str, Callable[[Scope], Call]] = {
    "SVFOP_CURRENT_DATE": _from_now(_DATE_OF),
    "SVFOP_CURRENT_TIME": _from_now(_TIMETZ_OF),
    "SVFOP_CURRENT_TIMESTAMP": _call(_NOW),
    "SVFOP_LOCALTIME": _from_now(_TIME_OF),
    "SVFOP_LOCALTIMESTAMP": _from_now(_TIMESTAMP_OF),
    "SVFOP_CURRENT_ROLE": _call(745),
    "SVFOP_CURRENT_USER": _call(745),
    "SVFOP_USER": _call(745),
    "SVFOP_SESSION_USER": _call(746),
    "SVFOP_CURRENT_CATALOG": _call(861),
    "SVFOP_CURRENT_SCHEMA": _call(1402),
}


@binds("SQLValueFunction")
def _bind_value_function(scope: Scope, node: Node) -> Expression:
    name = node.get("op", "SVFOP_CURRENT_DATE")
    base = name.removesuffix("_N")
    made = _VALUES[base](scope)
    if base != name:
        return coerce_typmod(made, min(node.get("typmod", -1), 6), EXPLICIT, scope)
    return made


@binds("CollateClause")
def _bind_collate(scope: Scope, node: Node) -> Expression:
    names = strings(node["collname"])
    location = node.get("location", 0)
    expression = bind(scope, node["arg"])
    inner = element_of(expression.type) or expression.type
    if expression.type != oids.UNKNOWN and category(inner) != "S" and inner != oids.NAME:
        raise scope.shared.error(
            f"collations are not supported by type {type_name(scope, expression.type)}",
            "42804",
            location,
        )
    check_collation(scope, names, location)
    return expression


def check_collation(scope: Any, names: list[str], location: int | None) -> None:
    """Only byte order is here: "C", "POSIX", "default" and what is equal to them."""
    if names[-1] in ("C", "POSIX", "default", "ucs_basic") and names[:-1] in ([], ["pg_catalog"]):
        return
    raise scope.shared.error(
        f'collation "{names[-1]}" for encoding "UTF8" does not exist', "42704", location,
        hint='Only byte order is available: COLLATE "C".',
    )  # fmt: skip


@binds("SetToDefault")
def _bind_default_keyword(scope: Scope, node: Node) -> Expression:
    raise scope.shared.error(
        "DEFAULT is not allowed in this context", "42601", node.get("location", 0)
    )
