"""Polymorphic arguments and results: what anyelement, anyarray and anycompatible stand for in one call. PURE.

Source: PostgreSQL 15, src/backend/parser/parse_coerce.c (check_generic_type_consistency,
enforce_generic_type_consistency), section 38.2.5.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.errors import QueryError, unsupported
from shardforge.sql.types import oids
from shardforge.sql.types.registry import find_type, format_type

_ELEMENTS = frozenset({oids.ANYELEMENT, oids.ANYNONARRAY, oids.ANYENUM})
_COMPATIBLES = frozenset({oids.ANYCOMPATIBLE, oids.ANYCOMPATIBLENONARRAY})
_RANGES = frozenset(
    {oids.ANYRANGE, oids.ANYMULTIRANGE, oids.ANYCOMPATIBLERANGE, oids.ANYCOMPATIBLEMULTIRANGE}
)
TYPES = _ELEMENTS | _COMPATIBLES | _RANGES | {oids.ANYARRAY, oids.ANYCOMPATIBLEARRAY}


def _element(oid: int) -> int:
    found = find_type(oid)
    return found.element if found is not None and found.length == -1 else 0


def _array(oid: int) -> int:
    found = find_type(oid)
    if found is None or not found.array:
        raise QueryError(f"could not find array type for data type {format_type(oid)}", "42704")
    return found.array


def consistent(actual: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether the arguments can agree on what the polymorphic types stand for."""
    element = array = 0
    non_array = False
    compatible: list[int] = []
    for given, wanted in zip(actual, declared, strict=True):
        if wanted in _ELEMENTS:
            non_array |= wanted == oids.ANYNONARRAY
            if wanted == oids.ANYENUM and given != oids.UNKNOWN and not _is_enum(given):
                return False
            if given != oids.UNKNOWN:
                if element and given != element:
                    return False
                element = given
        elif wanted == oids.ANYARRAY:
            if given != oids.UNKNOWN:
                if array and given != array:
                    return False
                array = given
        elif wanted in _COMPATIBLES:
            if given != oids.UNKNOWN:
                if wanted == oids.ANYCOMPATIBLENONARRAY and _element(given):
                    return False
                compatible.append(given)
        elif wanted == oids.ANYCOMPATIBLEARRAY:
            if given != oids.UNKNOWN:
                if not _element(given):
                    return False
                compatible.append(_element(given))
        elif wanted in _RANGES and given != oids.UNKNOWN and not _is_range(given):
            return False
    if array and array != oids.ANYARRAY:
        inner = _element(array)
        if not inner or (element and element != inner):
            return False
        element = inner
    if non_array and element and _element(element):
        return False
    return not compatible or isinstance(_common(compatible), int)


def _is_range(oid: int) -> bool:
    found = find_type(oid)
    return found is not None and found.kind in ("r", "m")


def _is_enum(oid: int) -> bool:
    found = find_type(oid)
    return found is not None and found.kind == "e"


def _common(types: Sequence[int]) -> int | tuple[int, int]:
    from shardforge.sql.bind.pathways import can_coerce, common_type

    found = common_type(types)
    if isinstance(found, int) and not all(can_coerce(t, found) for t in types):
        return types[0], found
    return found


class _Solution:
    """What each family of polymorphic types stands for."""

    def __init__(self, actual: Sequence[int], declared: Sequence[int]) -> None:
        self.element = self.array = self.compatible = 0
        self._non_array = self._enum = False
        self._unknowns = False
        self._solve_elements(actual, declared)
        self._solve_compatible(actual, declared)

    def _solve_elements(self, actual: Sequence[int], declared: Sequence[int]) -> None:
        present = False
        for given, wanted in zip(actual, declared, strict=True):
            if wanted in _RANGES:
                raise unsupported("range types")
            if wanted not in _ELEMENTS and wanted != oids.ANYARRAY:
                continue
            present = True
            self._non_array |= wanted == oids.ANYNONARRAY
            self._enum |= wanted == oids.ANYENUM
            if given == oids.UNKNOWN:
                self._unknowns = True
            elif wanted == oids.ANYARRAY:
                self._agree("anyarray", self.array, given)
                self.array = given
            else:
                self._agree("anyelement", self.element, given)
                self.element = given
        if not present:
            return
        if self.array:
            self._reconcile()
        if not self.element:
            raise QueryError(
                "could not determine polymorphic type because input has type unknown", "42804"
            )
        if self._non_array and _element(self.element):
            raise QueryError(
                f"type matched to anynonarray is an array type: {format_type(self.element)}",
                "42804",
            )
        if self._enum and not _is_enum(self.element):
            raise QueryError(
                f"type matched to anyenum is not an enum type: {format_type(self.element)}", "42804"
            )

    def _reconcile(self) -> None:
        inner = _element(self.array)
        if self.array == oids.ANYARRAY:
            inner = oids.ANYELEMENT
        if not inner:
            raise QueryError(
                f"argument declared anyarray is not an array but type {format_type(self.array)}",
                "42804",
            )
        if self.element and self.element != inner:
            raise QueryError(
                "argument declared anyarray is not consistent with argument declared anyelement",
                "42804",
                detail=f"{format_type(self.array)} versus {format_type(self.element)}",
            )
        self.element = inner

    @staticmethod
    def _agree(name: str, known: int, given: int) -> None:
        if known and known != given:
            raise QueryError(
                f'arguments declared "{name}" are not all alike', "42804",
                detail=f"{format_type(known)} versus {format_type(given)}",
            )  # fmt: skip

    def _solve_compatible(self, actual: Sequence[int], declared: Sequence[int]) -> None:
        found = []
        present = False
        for given, wanted in zip(actual, declared, strict=True):
            if wanted in _COMPATIBLES:
                present = True
                found.append(given)
            elif wanted == oids.ANYCOMPATIBLEARRAY:
                present = True
                if given == oids.UNKNOWN:
                    continue
                if not _element(given):
                    raise QueryError(
                        "argument declared anycompatiblearray is not an array but type "
                        + format_type(given),
                        "42804",
                    )
                found.append(_element(given))
        if not present:
            return
        if not found:
            raise QueryError(
                "could not determine polymorphic type anycompatible because input has type unknown",
                "42804",
            )
        common = _common(found)
        if not isinstance(common, int):
            left, right = common
            raise QueryError(
                "arguments of anycompatible family cannot be cast to a common type", "42804",
                detail=f"{format_type(left)} versus {format_type(right)}",
            )  # fmt: skip
        self.compatible = common

    def stand_for(self, declared: int) -> int:
        """The actual type behind a declared one."""
        if declared in _ELEMENTS:
            return self.element
        if declared == oids.ANYARRAY:
            return self.array or _array(self.element)
        if declared in _COMPATIBLES:
            return self.compatible
        if declared == oids.ANYCOMPATIBLEARRAY:
            return _array(self.compatible)
        return declared


def enforce(
    actual: Sequence[int], declared: Sequence[int], result: int
) -> tuple[tuple[int, ...], int]:
    """The types that the arguments must have and the call's result type. Raises 42804 when they cannot agree."""
    if result not in TYPES and not any(wanted in TYPES for wanted in declared):
        return tuple(declared), result
    solution = _Solution(actual, declared)
    return tuple(map(solution.stand_for, declared)), solution.stand_for(result)
