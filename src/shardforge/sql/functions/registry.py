"""Implementations of functions and operators, by PostgreSQL's own internal names.

The binder resolves a call to a pg_proc row; `implementation(row)` finds the Python function for it: by
`name(argument types)` with format_type's names (`@implements("lpad(text,integer)")`, for SQL-language functions and
where one internal function serves several), else by pg_proc.prosrc (`@implements("int4pl")`).

Calls are made with Python values. A strict function (proisstrict) is never called with None. VARIADIC arguments
arrive as one Array, except those of VARIADIC "any" functions (concat, format, num_nulls ...), which arrive one by
one as they were written. A set-returning function returns an iterable of values, or of tuples when it has several
output columns. With `context=True` the first argument is the `EvalContext`. With `typed=True` the decorated
function is a factory, called once when a plan is compiled: `factory(arg_types, result_type) -> callable`; with
both, the callable takes the context first. Every module of this package is imported on the first look-up, and
registers then. Aggregates and window functions are in `aggregates` and `window`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeAlias, TypeVar

from shardforge.sql.pgdata import ProcRow
from shardforge.sql.types import registry as types

Function: TypeAlias = Callable[..., Any]
Factory: TypeAlias = Callable[[tuple[int, ...], int], Function]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True, frozen=True)
class Implementation:
    """A callable for one function. `needs_context`: the EvalContext is the first argument."""

    call: Function
    needs_context: bool


@dataclass(slots=True, frozen=True)
class _Registered:
    call: Function
    context: bool
    typed: bool


_registered: dict[str, _Registered] = {}


def implements(*keys: str, context: bool = False, typed: bool = False) -> Callable[[F], F]:
    """Register the decorated function for each key: a prosrc, or `name(argument types)`."""

    def register(function: F) -> F:
        for key in keys:
            assert key not in _registered, f"{key} is implemented twice"
            _registered[key] = _Registered(function, context, typed)
        return function

    return register


def signature(proc: ProcRow) -> str:
    """`name(argument types)`, as the keys of `implements` spell it."""
    return f"{proc.proname}({','.join(types.format_type(oid, None) for oid in proc.proargtypes)})"


@cache
def _load() -> None:
    package = import_module(__package__)
    for module in iter_modules(package.__path__):
        import_module(f"{__package__}.{module.name}")


def _find(proc: ProcRow) -> _Registered | None:
    _load()
    found = _registered.get(signature(proc))
    if found is None and proc.prosrc and proc.prolang in ("internal", "c"):
        found = _registered.get(proc.prosrc)
    return found


def implementation(
    proc: ProcRow, arg_types: tuple[int, ...] | None = None, result_type: int | None = None
) -> Implementation | None:
    """The implementation of `proc` for a call with these actual types, or None when there is none.

    The types default to the declared ones; give the actual ones when the function is polymorphic.
    """
    found = _find(proc)
    if found is None:
        return None
    call = found.call
    if found.typed:
        actual = proc.proargtypes if arg_types is None else arg_types
        call = call(actual, proc.prorettype if result_type is None else result_type)
    return Implementation(call, found.context)


def is_implemented(proc: ProcRow) -> bool:
    """Whether `implementation` would find one."""
    return _find(proc) is not None


def implemented_keys() -> frozenset[str]:
    """Every registered key, for coverage reports and tests."""
    _load()
    return frozenset(_registered)
