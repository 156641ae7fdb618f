"""Whether a bound tree with parameters means, for given values, what another tree with constants in their places means.

Both trees were bound from the same text, so they have the same shape and the same column ids. The binder folds
conversions of constants and leaves those of parameters; a constant is therefore compared with the conversion's value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardforge.errors import DatabaseError
from shardforge.sql import pgdata
from shardforge.sql.bind import tree, walk
from shardforge.sql.functions import registry as functions
from shardforge.sql.types.registry import coercion


def differences(exact: Any, general: Any, params: Sequence[Any]) -> set[int] | None:
    """The parameters (from 0) at whose places the trees differ; None when they differ elsewhere."""
    found: set[int] = set()
    return found if _compare(exact, general, params, found) else None


def _compare(exact: Any, general: Any, params: Sequence[Any], found: set[int]) -> bool:
    if exact is general:
        return True
    kind = type(exact)
    if isinstance(exact, tree.Const) and not isinstance(general, tree.Const):
        return _is_value(exact, general, params) or _blame(general, found)
    if kind is not type(general):
        return _blame(general, found)
    if kind is tuple:
        return len(exact) == len(general) and all(
            _compare(one, other, params, found) for one, other in zip(exact, general, strict=True)
        )
    names = walk.field_names(kind)
    if names is None:
        return bool(exact == general)
    return all(
        _compare(getattr(exact, name), getattr(general, name), params, found) for name in names
    )


def _blame(general: Any, found: set[int]) -> bool:
    """Note the parameters under a node that has no counterpart; False when there are none."""
    indexes = {node.index for node in walk.nodes(general) if isinstance(node, tree.Param)}
    found |= indexes
    return bool(indexes)


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
