"""Conversions made explicit: an expression of one type becomes an expression of another.

Literals become values here, by the type's own input function; parameters take the first type asked of them.
Source: PostgreSQL 15, src/backend/parser/parse_coerce.c (coerce_type, coerce_type_typmod, coerce_record_to_complex).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardforge.errors import DatabaseError, unsupported
from shardforge.sql import pgdata
from shardforge.sql.bind import pathways, polymorphic
from shardforge.sql.bind.pathways import Coercion, can_coerce, common_type, pathway
from shardforge.sql.bind.regtypes import lookup_reg_literal
from shardforge.sql.bind.scope import Scope, Shared
from shardforge.sql.bind.tree import (
    ArrayCast,
    Call,
    Const,
    Expression,
    FieldSelect,
    IoCast,
    LengthCoercion,
    Param,
    Placeholder,
    Relabel,
    RowExpr,
)
from shardforge.sql.functions import registry as functions
from shardforge.sql.types import oids
from shardforge.sql.types.interval_text import FULL_RANGE, parse_interval
from shardforge.sql.types.registry import coercion, format_type, input_function

IMPLICIT, ASSIGNMENT, EXPLICIT = Coercion.IMPLICIT, Coercion.ASSIGNMENT, Coercion.EXPLICIT

_MOMENTS = ("now", "today", "tomorrow", "yesterday")
_DATETIMES = frozenset({oids.DATE, oids.TIME, oids.TIMETZ, oids.TIMESTAMP, oids.TIMESTAMPTZ})
_REG_TYPES = frozenset(
    {
        oids.REGCLASS, oids.REGTYPE, oids.REGPROC, oids.REGPROCEDURE, oids.REGOPER, oids.REGOPERATOR,
        oids.REGNAMESPACE, oids.REGROLE, oids.REGCONFIG, oids.REGDICTIONARY, oids.REGCOLLATION,
    }
)  # fmt: skip
_SAME_AS_GIVEN = frozenset(
    {oids.ANY, oids.ANYELEMENT, oids.ANYNONARRAY, oids.ANYCOMPATIBLE, oids.ANYCOMPATIBLENONARRAY}
)


def type_name(scope: Scope, oid: int, typmod: int | None = None) -> str:
    """The type's SQL name; row types of tables have their table's."""
    shown = format_type(oid, typmod)
    if shown == "???":
        relation = scope.shared.catalog.row_type(oid)
        return relation.name if relation is not None else shown
    return shown


def _literal(shared: Shared, const: Const, target: int, typmod: int, location: int | None) -> Const:
    """A literal read by the input function of `target`."""
    if const.value is None:
        return Const(None, target)
    value: Any
    try:
        if target in _REG_TYPES:
            value = lookup_reg_literal(shared, target, const.value)
        elif target == oids.INTERVAL and typmod >= 0:
            value = parse_interval(const.value, typmod >> 16 & FULL_RANGE)
        else:
            value = input_function(target, shared.env.settings)(const.value)
    except DatabaseError as error:
        if not error.position:
            error.position = shared.position(location)
        raise
    return Const(value, target)


def depends_on_now(target: int, text: Any) -> bool:
    """Whether a literal's text may name a moment such as 'today', to be asked anew by each statement."""
    return (
        target in _DATETIMES
        and isinstance(text, str)
        and any(word in text.lower() for word in _MOMENTS)
    )


def call_function(
    shared: Shared, oid: int, args: tuple[Expression, ...], location: int | None = None
) -> Call:
    """A call of a function whose arguments have its declared types already."""
    row = pgdata.proc_by_oid(oid)
    assert row is not None, f"pg_proc has {oid}"
    require_implementation(shared, row, location)
    return Call(
        oid, args, row.prorettype, -1, row.proretset, row.provolatile, row.proisstrict, row.proname
    )


_implemented: set[int] = set()


def require_implementation(
    shared: Shared, row: pgdata.ProcRow, location: int | None = None
) -> None:
    """0A000 unless the function can be run here."""
    if row.oid in _implemented:
        return
    if not functions.is_implemented(row):
        raise shared.unsupported(f"function {functions.signature(row)}", location)
    _implemented.add(row.oid)


def coerce_type(
    scope: Scope,
    expression: Expression,
    target: int,
    typmod: int,
    context: Coercion,
    location: int | None = None,
) -> Expression:
    """`expression` as `target`; the conversion is known to exist. The modifier is not enforced here."""
    source = expression.type
    if source == target or target in _SAME_AS_GIVEN:
        return expression
    if source == oids.UNKNOWN:
        return _coerce_unknown(scope, expression, target, typmod, location)
    if target in polymorphic.TYPES:
        return expression
    if target == oids.RECORD and pathways.is_composite(source):
        return Relabel(expression, target)
    if source == oids.RECORD and pathways.is_composite(target):
        return _record_to_row(scope, expression, target, context, location)
    way = pathway(target, source, context)
    return _convert(scope, expression, target, typmod, way, context, location)


def _coerce_unknown(
    scope: Scope, expression: Expression, target: int, typmod: int, location: int | None
) -> Expression:
    shared = scope.shared
    if isinstance(expression, Const):
        if target in polymorphic.TYPES:
            raise shared.error(
                f"cannot accept a value of type {format_type(target)}", "0A000", location
            )
        site = shared.literals.get(id(expression))
        if site is not None:
            location = site[1]
        if depends_on_now(target, expression.value):
            return IoCast(Const(expression.value, oids.TEXT), target)
        return _literal(shared, expression, target, typmod, location)
    if isinstance(expression, Param):
        kept = shared.env.kept_literals
        if kept is not None and (target in _REG_TYPES or (target == oids.INTERVAL and typmod >= 0)):
            kept.add(expression.index)
        return _type_parameter(shared, expression, target, location)
    if isinstance(expression, Relabel):
        return _coerce_unknown(scope, expression.arg, target, typmod, location)
    return IoCast(expression, target)


def _type_parameter(shared: Shared, param: Param, target: int, location: int | None) -> Param:
    types = shared.env.parameter_types
    known = types[param.index]
    if known in (None, 0, oids.UNKNOWN):
        types[param.index] = target
    elif known != target:
        raise shared.error(
            f"inconsistent types deduced for parameter ${param.index + 1}", "42P08",
            shared.parameter_sites.get(param.index),
            detail=f"{format_type(known or 0)} versus {format_type(target)}",
        )  # fmt: skip
    shared.untyped.pop(id(param), None)
    return Param(param.index, target)


def _record_to_row(
    scope: Scope, expression: Expression, target: int, context: Coercion, location: int | None
) -> Expression:
    relation = scope.shared.catalog.row_type(target)
    columns = [c for c in relation.columns if not c.dropped and not c.hidden] if relation else []
    if not isinstance(expression, RowExpr) or relation is None:
        raise scope.shared.unsupported("a cast of an anonymous record to a row type", location)
    if len(expression.args) != len(columns):
        many = len(expression.args) > len(columns)
        raise scope.shared.error(
            f"cannot cast type record to {type_name(scope, target)}", "42846", location,
            detail="Input has too many columns." if many else "Input has too few columns.",
        )  # fmt: skip
    args = []
    for number, (arg, column) in enumerate(zip(expression.args, columns, strict=True), 1):
        made = coerce_to_target(scope, arg, column.type_oid, column.typmod, context, location)
        if made is None:
            raise scope.shared.error(
                f"cannot cast type record to {type_name(scope, target)}", "42846", location,
                detail=f"Cannot cast type {type_name(scope, arg.type)} to "
                f"{type_name(scope, column.type_oid)} in column {number}.",
            )  # fmt: skip
        args.append(made)
    return RowExpr(tuple(args), tuple(c.name for c in columns), target)


def _convert(
    scope: Scope,
    expression: Expression,
    target: int,
    typmod: int,
    way: pathways.Pathway,
    context: Coercion,
    location: int | None,
) -> Expression:
    if way.kind == "relabel":
        if isinstance(expression, Const):
            return Const(expression.value, target)
        return Relabel(expression, target)
    if way.kind == "io":
        return IoCast(expression, target)
    if way.kind == "function":
        return _by_function(scope, expression, target, typmod, way.function, context, location)
    if way.kind == "array":
        source_element, element = pathways.element_of(expression.type), pathways.element_of(target)
        inner = coerce_type(scope, Placeholder(source_element), element, typmod, context, location)
        return ArrayCast(expression, inner, target)
    raise AssertionError(f"no conversion from {expression.type} to {target}")


def _by_function(
    scope: Scope,
    expression: Expression,
    target: int,
    typmod: int,
    function: int,
    context: Coercion,
    location: int | None,
) -> Expression:
    row = pgdata.proc_by_oid(function)
    assert row is not None, f"pg_proc has {function}"
    args: list[Expression] = [expression]
    if row.pronargs >= 2:
        args.append(Const(typmod, oids.INT4))
    if row.pronargs >= 3:
        args.append(Const(context == EXPLICIT, oids.BOOL))
    folded = _folded(row, args, target)
    if folded is not None:
        return folded
    call = call_function(scope.shared, function, tuple(args), location)
    if call.type != target:
        return Relabel(call, target)
    return call


def _folded(row: pgdata.ProcRow, args: Sequence[Expression], target: int) -> Const | None:
    """An immutable conversion of a constant, done now; None when it is not one, or fails (it may never run)."""
    if row.provolatile != "i" or not row.proisstrict:
        return None
    values = [arg.value for arg in args if isinstance(arg, Const)]
    if len(values) < len(args):
        return None
    if None in values:
        return Const(None, target)
    found = functions.implementation(row)
    if found is None or found.needs_context:
        return None
    try:
        return Const(found.call(*values), target)
    except DatabaseError:
        return None


def coerce_typmod(
    expression: Expression, typmod: int, context: Coercion, scope: Scope
) -> Expression:
    """`expression` cut to its type's modifier."""
    if typmod < 0 or expression.typmod == typmod:
        return expression
    target = expression.type
    element = pathways.element_of(target)
    if element:
        if coercion(element, typmod, context == EXPLICIT) is None:
            return expression
        inner = LengthCoercion(Placeholder(element), element, typmod, context == EXPLICIT)
        return ArrayCast(expression, inner, target, typmod)
    apply = coercion(target, typmod, context == EXPLICIT)
    if apply is None:
        return expression
    if isinstance(expression, Const):
        if expression.value is None:
            return Const(None, target, typmod)
        try:
            return Const(apply(expression.value), target, typmod)
        except DatabaseError:
            pass  # It fails only if it is ever evaluated.
    return LengthCoercion(expression, target, typmod, context == EXPLICIT)


def coerce_to_target(
    scope: Scope,
    expression: Expression,
    target: int,
    typmod: int,
    context: Coercion,
    location: int | None = None,
) -> Expression | None:
    """`expression` as `target` with its modifier, or None when there is no such conversion."""
    if expression.type == target:
        return coerce_typmod(expression, typmod, context, scope)
    if not can_coerce(expression.type, target, context):
        return None
    made = coerce_type(scope, expression, target, typmod, context, location)
    return coerce_typmod(made, typmod, context, scope)


def coerce_boolean(
    scope: Scope, expression: Expression, construct: str, location: int | None
) -> Expression:
    """A condition: boolean, not returning a set."""
    return coerce_to_specific(scope, expression, oids.BOOL, construct, location)


def coerce_to_specific(
    scope: Scope, expression: Expression, target: int, construct: str, location: int | None
) -> Expression:
    """An operand of a construct that takes one type only, such as LIMIT; not returning a set."""
    if expression.type != target:
        made = coerce_to_target(scope, expression, target, -1, ASSIGNMENT, location)
        if made is None:
            raise scope.shared.error(
                f"argument of {construct} must be type {type_name(scope, target)}, not type "
                + type_name(scope, expression.type),
                "42804",
                location,
            )
        expression = made
    if returns_set(expression):
        raise scope.shared.error(
            f"argument of {construct} must not return a set", "42804", location
        )
    return expression


def returns_set(expression: Expression) -> bool:
    """Whether the expression itself is a set-returning call."""
    return isinstance(expression, Call) and expression.retset


def choose_common_type(
    scope: Scope,
    expressions: Sequence[Expression],
    construct: str,
    locations: Sequence[int | None],
) -> int:
    """The common type of a construct's parts. Raises 42804 when there is none."""
    found = common_type([e.type for e in expressions])
    if isinstance(found, int):
        return found
    left, right = found
    at = next(
        (loc for e, loc in zip(expressions, locations, strict=False) if e.type == right), None
    )
    raise scope.shared.error(
        f"{construct} types {type_name(scope, left)} and {type_name(scope, right)} cannot be matched",
        "42804",
        at,
    )


def coerce_to_common(
    scope: Scope, expression: Expression, target: int, construct: str, location: int | None
) -> Expression:
    """One part of a construct as the common type."""
    if expression.type == target:
        return expression
    if not can_coerce(expression.type, target):
        raise scope.shared.error(
            f"{construct} could not convert type {type_name(scope, expression.type)} to "
            + type_name(scope, target),
            "42846",
            location,
        )
    return coerce_type(scope, expression, target, -1, IMPLICIT, location)


def common_typmod(expressions: Sequence[Expression], target: int) -> int:
    """The modifier that all parts share, if they had the common type to begin with."""
    first = expressions[0].typmod
    if first >= 0 and all(e.type == target and e.typmod == first for e in expressions):
        return first
    return -1


def resolve_unknown(scope: Scope, expression: Expression, location: int | None) -> Expression:
    """An expression that nothing gave a type is text."""
    if expression.type != oids.UNKNOWN:
        return expression
    return coerce_type(scope, expression, oids.TEXT, -1, IMPLICIT, location)


def field_of(expression: Expression, offset: int, type_oid: int, typmod: int) -> Expression:
    """A field of a row value; of a row constructor, simply its part."""
    if isinstance(expression, RowExpr):
        return expression.args[offset]
    return FieldSelect(expression, offset, type_oid, typmod)


def check_supported_type(oid: int) -> None:
    """0A000 for a type whose values cannot be handled here."""
    from shardforge.sql.types.registry import find_type, supported

    found = find_type(oid)
    if found is not None and not supported(oid):
        raise unsupported(f"type {found.display}")
