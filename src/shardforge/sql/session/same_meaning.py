"""Whether a bound tree with parameters means, for given values, what another tree with constants in their places means.

Both trees were bound from the same text, so they have the same shape and the same column ids. The binder folds
conversions of constants and leaves those of parameters; a constant is therefore compared with the conversion's value,
and `folded` makes such conversions parameters of their own, so that they too are done once a statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shardforge.errors import DatabaseError
from shardforge.sql import pgdata
from shardforge.sql.bind import tree, walk
from shardforge.sql.functions import registry as functions
from shardforge.sql.types.registry import coercion


@dataclass(slots=True)
class Comparison:
    """Two trees compared. `equal` is False when they differ in more than constants and parameters."""

    params: Sequence[Any]
    equal: bool = True
    different: set[int] = field(default_factory=set)
    """The parameters (from 0) at whose places the trees differ."""
    conversions: dict[int, tree.Expression] = field(default_factory=dict)
    """Conversions that stand where the other tree has a constant, by id()."""


def compare(exact: Any, general: Any, params: Sequence[Any]) -> Comparison:
    """Compare a tree with the one that has parameters, of these values, for some of its constants."""
    made = Comparison(params)
    made.equal = _compare(exact, general, made)
    return made


def _compare(exact: Any, general: Any, made: Comparison) -> bool:
    if exact is general:
        return True
    kind = type(exact)
    if isinstance(exact, tree.Const) and not isinstance(general, tree.Const):
        if not _is_value(exact, general, made.params):
            return _blame(general, made)
        if not isinstance(general, tree.Param):
            made.conversions[id(general)] = general
        return True
    if kind is not type(general):
        return _blame(general, made)
    if kind is tuple:
        return len(exact) == len(general) and all(
            _compare(one, other, made) for one, other in zip(exact, general, strict=True)
        )
    names = walk.field_names(kind)
    if names is None:
        return bool(exact == general)
    return all(_compare(getattr(exact, name), getattr(general, name), made) for name in names)


def _blame(general: Any, made: Comparison) -> bool:
    """Note the parameters under a node that has no counterpart; False when there are none."""
    indexes = {node.index for node in walk.nodes(general) if isinstance(node, tree.Param)}
    made.different |= indexes
    return bool(indexes)


def folded(general: Any, conversions: Sequence[tree.Expression], first: int) -> Any:
    """The tree with a parameter for each of the conversions, numbered from `first`."""
    by_id = {
        id(conversion): tree.Param(first + offset, conversion.type, conversion.typmod)
        for offset, conversion in enumerate(conversions)
    }
    return _replaced(general, by_id) if by_id else general


def _replaced(value: Any, by_id: Mapping[int, tree.Param]) -> Any:
    found = by_id.get(id(value))
    if found is not None:
        return found
    if type(value) is tuple:
        items = tuple([_replaced(item, by_id) for item in value])
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    updates = {}
    for name in walk.field_names(type(value)) or ():
        before = getattr(value, name)
        after = _replaced(before, by_id)
        if after is not before:
            updates[name] = after
    return replace(value, **updates) if updates else value


def _is_value(exact: tree.Const, general: Any, params: Sequence[Any]) -> bool:
    try:
        value = _value(general, params)
    except (DatabaseError, _NotConstantError):
        return False
    # Some values are equal and yet not shown alike, such as 1.0 and 1.00.
    return (
        (exact.type, exact.typmod) == (general.type, general.typmod)
        and type(value) is type(exact.value)
        and repr(value) == repr(exact.value)
    )


def _value(expression: Any, params: Sequence[Any]) -> Any:
    """The value of a parameter or a conversion of one, by the same functions that fold a constant."""
    match expression:
        case tree.Param(index=index):
            return params[index]
        case tree.Const(value=value):
            return value
        case tree.Relabel(arg=arg):
            return _value(arg, params)
        case tree.LengthCoercion():
            value = _value(expression.arg, params)
            apply = coercion(expression.type, expression.typmod, expression.explicit)
            return value if apply is None else apply(value)
        case tree.Call(proc=proc, args=args, volatile="i", strict=True, retset=False):
            row = pgdata.proc_by_oid(proc)
            found = None if row is None else functions.implementation(row)
            if found is not None and not found.needs_context:
                return found.call(*[_value(arg, params) for arg in args])
    raise _NotConstantError


class _NotConstantError(Exception):
    """An expression that is more than a conversion."""
