"""Which operator or function a call means, by its name and its arguments' types. PURE.

Works on oids alone, over the full contents of pg_operator and pg_proc; results are cached for PostgreSQL's own
types. Source: PostgreSQL 15, chapter 10; src/backend/parser/parse_oper.c (oper, oper_select_candidate),
parse_func.c (func_select_candidate, func_get_detail), src/backend/catalog/namespace.c (FuncnameGetCandidates).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

from shardforge.sql import pgdata
from shardforge.sql.bind.pathways import can_coerce_all, category, is_preferred
from shardforge.sql.types import oids


class _HasTypes(Protocol):
    @property
    def types(self) -> tuple[int, ...]: ...


C = TypeVar("C", bound=_HasTypes)


@dataclass(frozen=True, slots=True)
class OperatorCandidate:
    """An operator and the types of its operands."""

    row: pgdata.OperatorRow
    types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FunctionCandidate:
    """A function as one call could use it.

    `types` has one type for each argument given; `order` gives, for each of the function's own arguments, the offset
    of the argument given for it, or -1 for its default. `spread` is how many last arguments VARIADIC collects.
    """

    row: pgdata.ProcRow
    types: tuple[int, ...]
    order: tuple[int, ...]
    spread: int = 0
    defaults: int = 0


class Ambiguous:
    """Several candidates are equally good."""


class Missing:
    """There is no candidate."""


AMBIGUOUS = Ambiguous()
MISSING = Missing()


# ---------------------------------------------------------------- choosing


def _best(candidates: list[C], score: Callable[[C], int]) -> list[C]:
    scores = [score(candidate) for candidate in candidates]
    top = max(scores)
    return [c for c, value in zip(candidates, scores, strict=True) if value == top]


def select_candidate(actual: Sequence[int], candidates: list[C]) -> C | None:
    """The one best candidate of several that all accept the arguments, or None."""
    known = [i for i, oid in enumerate(actual) if oid != oids.UNKNOWN]
    left = _best(candidates, lambda c: sum(c.types[i] == actual[i] for i in known))
    if len(left) == 1:
        return left[0]
    categories = [category(oid) for oid in actual]

    def preferred_or_equal(candidate: C) -> int:
        types = candidate.types
        return sum(
            types[i] == actual[i]
            or (category(types[i]) == categories[i] and is_preferred(types[i]))
            for i in known
        )

    left = _best(left, preferred_or_equal)
    if len(left) == 1:
        return left[0]
    unknown = [i for i, oid in enumerate(actual) if oid == oids.UNKNOWN]
    if not unknown:
        return None
    left = _by_category_of_unknowns(unknown, left)
    if len(left) == 1:
        return left[0]
    distinct = {actual[i] for i in known}
    if len(distinct) == 1:
        assumed = [actual[known[0]]] * len(actual)
        fitting = [c for c in left if can_coerce_all(assumed, c.types)]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _by_category_of_unknowns(unknown: list[int], candidates: list[C]) -> list[C]:
    """Rule 10.3.4.e: unknowns take the category string if any candidate does, else the one that all agree on."""
    wanted: dict[int, tuple[str, bool]] = {}
    for i in unknown:
        slot, has_preferred, conflict = "", False, False
        for candidate in candidates:
            oid = candidate.types[i]
            own = category(oid)
            if not slot:
                slot, has_preferred = own, is_preferred(oid)
            elif own == slot:
                has_preferred = has_preferred or is_preferred(oid)
            elif own == "S":
                slot, has_preferred = own, is_preferred(oid)
            else:
                conflict = True
        if conflict and slot != "S":
            return candidates
        wanted[i] = slot, has_preferred
    left = [
        c
        for c in candidates
        if all(
            category(c.types[i]) == slot and (not preferred or is_preferred(c.types[i]))
            for i, (slot, preferred) in wanted.items()
        )
    ]
    return left or candidates


# ---------------------------------------------------------------- operators


@lru_cache(maxsize=2048)
def _operators(name: str, kind: str) -> tuple[OperatorCandidate, ...]:
    return tuple(
        OperatorCandidate(row, (row.oprleft, row.oprright) if kind == "b" else (row.oprright,))
        for row in pgdata.operators_named(name)
        if row.oprkind == kind
    )


@lru_cache(maxsize=16384)
def resolve_operator(
    name: str, left: int | None, right: int
) -> pgdata.OperatorRow | Ambiguous | Missing:
    """The operator for operands of these types; `left` is None for a prefix operator."""
    candidates = _operators(name, "l" if left is None else "b")
    if not candidates:
        return MISSING
    actual = (right,) if left is None else (left, right)
    assumed = actual
    if left is not None:
        if left == oids.UNKNOWN and right != oids.UNKNOWN:
            assumed = (right, right)
        elif right == oids.UNKNOWN and left != oids.UNKNOWN:
            assumed = (left, left)
    for candidate in candidates:
        if candidate.types == assumed:
            return candidate.row
    fitting = [c for c in candidates if can_coerce_all(actual, c.types)]
    if not fitting:
        return MISSING
    if len(fitting) == 1:
        return fitting[0].row
    best = select_candidate(actual, fitting)
    return AMBIGUOUS if best is None else best.row


@lru_cache(maxsize=1024)
def comparison(left: int, right: int, strategy: int) -> pgdata.OperatorRow | None:
    """The btree operator of a strategy (1 to 5: < <= = >= >) that the types' `=` or `<` resolve to."""
    name = ("<", "<=", "=", ">=", ">")[strategy - 1]
    found = resolve_operator(name, left, right)
    return found if isinstance(found, pgdata.OperatorRow) else None


# ---------------------------------------------------------------- functions


def _candidate(
    row: pgdata.ProcRow, count: int, names: tuple[str, ...], *, expand: bool
) -> FunctionCandidate | None:
    """The function as a call with `count` arguments, the last of which have `names`, could use it."""
    total = row.pronargs
    if names:
        return None if expand and row.provariadic else _by_name(row, count, names)
    if expand and row.provariadic and count >= total:
        spread = count - total + 1
        types = row.proargtypes[:-1] + (row.provariadic,) * spread
        return FunctionCandidate(row, types, tuple(range(count)), spread)
    if count > total or count < total - row.pronargdefaults:
        return None
    if expand and row.provariadic and count != total:
        return None
    missing = total - count
    order = (*range(count), *([-1] * missing))
    return FunctionCandidate(row, row.proargtypes[:count], order, 0, missing)


def _by_name(row: pgdata.ProcRow, count: int, names: tuple[str, ...]) -> FunctionCandidate | None:
    total = row.pronargs
    modes = row.proargmodes or ("i",) * total
    inputs = [
        name for name, mode in zip(row.proargnames, modes, strict=False) if mode in ("i", "b", "v")
    ]
    if len(inputs) < total or count > total:
        return None
    order = [-1] * total
    positional = count - len(names)
    for i in range(positional):
        order[i] = i
    for offset, name in enumerate(names, positional):
        if name not in inputs or order[inputs.index(name)] != -1:
            return None
        order[inputs.index(name)] = offset
    if any(given == -1 and i < total - row.pronargdefaults for i, given in enumerate(order)):
        return None
    types = [0] * count
    for own, given in enumerate(order):
        if given >= 0:
            types[given] = row.proargtypes[own]
    return FunctionCandidate(row, tuple(types), tuple(order), 0, order.count(-1))


def _deduplicated(candidates: list[FunctionCandidate]) -> list[FunctionCandidate]:
    """Of candidates with the same argument types, the one that is not variadic, or needs fewer defaults."""
    by_types: dict[tuple[int, ...], FunctionCandidate] = {}
    for candidate in candidates:
        other = by_types.get(candidate.types)
        if other is None or (candidate.spread, candidate.defaults) < (other.spread, other.defaults):
            by_types[candidate.types] = candidate
    return list(by_types.values())


@lru_cache(maxsize=16384)
def function_candidates(
    name: str, count: int, names: tuple[str, ...], expand: bool
) -> tuple[FunctionCandidate, ...]:
    """Every function of that name that takes so many arguments."""
    found = [_candidate(row, count, names, expand=expand) for row in pgdata.procs_named(name)]
    return tuple(_deduplicated([c for c in found if c is not None]))


@lru_cache(maxsize=16384)
def resolve_function(
    name: str, actual: tuple[int, ...], names: tuple[str, ...] = (), expand: bool = True
) -> FunctionCandidate | Ambiguous | Missing:
    """The function for arguments of these types. A one-argument call may still mean a cast when it is missing."""
    candidates = function_candidates(name, len(actual), names, expand)
    for candidate in candidates:
        if candidate.types == actual:
            return candidate
    return _fitting(actual, candidates)


def _fitting(
    actual: tuple[int, ...], candidates: tuple[FunctionCandidate, ...]
) -> FunctionCandidate | Ambiguous | Missing:
    fitting = [c for c in candidates if can_coerce_all(actual, c.types)]
    if not fitting:
        return MISSING
    if len(fitting) == 1:
        return fitting[0]
    best = select_candidate(actual, fitting)
    return AMBIGUOUS if best is None else best


@lru_cache(maxsize=4096)
def has_exact_function(
    name: str, actual: tuple[int, ...], names: tuple[str, ...], expand: bool
) -> bool:
    """Whether a function declares exactly these argument types: it goes before a cast written as a call."""
    return any(c.types == actual for c in function_candidates(name, len(actual), names, expand))
