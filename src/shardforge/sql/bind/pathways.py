"""Which type converts to which, and how: the type lattice of PostgreSQL, on oids alone. PURE.

Source: PostgreSQL 15, src/backend/parser/parse_coerce.c (find_coercion_pathway, can_coerce_type,
select_common_type), chapter 10.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from shardforge.sql import pgdata
from shardforge.sql.bind import polymorphic
from shardforge.sql.types import oids
from shardforge.sql.types.registry import find_type


class Coercion(enum.IntEnum):
    """In what situation a conversion is wanted; each allows what those before it allow."""

    IMPLICIT = 0
    ASSIGNMENT = 1
    EXPLICIT = 2


class Pathway(NamedTuple):
    """How a conversion is done: 'none', 'relabel', 'function' (with `function`, a pg_proc oid), 'io' or 'array'."""

    kind: str
    function: int = 0


NONE = Pathway("none")
RELABEL = Pathway("relabel")
BY_TEXT = Pathway("io")
ARRAY = Pathway("array")

_CONTEXTS = {"i": Coercion.IMPLICIT, "a": Coercion.ASSIGNMENT, "e": Coercion.EXPLICIT}


def category(oid: int) -> str:
    """pg_type.typcategory; row types of tables, which pg_type's own rows lack, are composite."""
    found = find_type(oid)
    return "C" if found is None else found.category


def is_preferred(oid: int) -> bool:
    """Whether the type is its category's preferred one."""
    found = find_type(oid)
    return found is not None and found.preferred


def is_composite(oid: int) -> bool:
    """Whether values are rows of a named type."""
    return find_type(oid) is None


def element_of(oid: int) -> int:
    """The element type of a true array type, else 0."""
    found = find_type(oid)
    return found.element if found is not None and found.length == -1 else 0


def array_type_of(oid: int) -> int:
    """The array type over an element type, else 0."""
    found = find_type(oid)
    return 0 if found is None else found.array


@lru_cache(maxsize=8192)
def pathway(target: int, source: int, context: Coercion) -> Pathway:
    """How a value of `source` becomes one of `target` in this context."""
    if target == source:
        return RELABEL
    row = pgdata.casts().get((source, target))
    if row is not None:
        if context < _CONTEXTS[row.castcontext]:
            return NONE
        if row.castmethod == "f":
            return Pathway("function", row.castfunc)
        return BY_TEXT if row.castmethod == "i" else RELABEL
    if target not in (oids.OIDVECTOR, oids.INT2VECTOR):
        to_element, from_element = element_of(target), element_of(source)
        if to_element and from_element and pathway(to_element, from_element, context) != NONE:
            return ARRAY
    if context >= Coercion.ASSIGNMENT and category(target) == "S":
        return BY_TEXT
    if context >= Coercion.EXPLICIT and category(source) == "S":
        return BY_TEXT
    return NONE


def can_coerce(source: int, target: int, context: Coercion = Coercion.IMPLICIT) -> bool:
    """Whether one value can be converted; polymorphic targets are for `can_coerce_all`."""
    return (
        source == target
        or target == oids.ANY
        or source == oids.UNKNOWN
        or pathway(target, source, context) != NONE
        or (source == oids.RECORD and is_composite(target))
        or (target == oids.RECORD and is_composite(source))
    )


def can_coerce_all(
    sources: Sequence[int], targets: Sequence[int], context: Coercion = Coercion.IMPLICIT
) -> bool:
    """Whether arguments of these types can be passed where these are declared."""
    generic = False
    for source, target in zip(sources, targets, strict=True):
        if source == target or target == oids.ANY:
            continue
        if target in polymorphic.TYPES:
            generic = True
        elif not can_coerce(source, target, context):
            return False
    return not generic or polymorphic.consistent(sources, targets)


def common_type(types: Sequence[int]) -> int | tuple[int, int]:
    """The type that all of `types` become in UNION, CASE and the like; the pair at odds when there is none."""
    chosen = types[0]
    if chosen != oids.UNKNOWN and all(t == chosen for t in types):
        return chosen
    for candidate in types[1:]:
        if candidate in (oids.UNKNOWN, chosen):
            continue
        if chosen == oids.UNKNOWN:
            chosen = candidate
        elif category(candidate) != category(chosen):
            return chosen, candidate
        elif (
            not is_preferred(chosen)
            and can_coerce(chosen, candidate)
            and not can_coerce(candidate, chosen)
        ):
            chosen = candidate
    return oids.TEXT if chosen == oids.UNKNOWN else chosen
