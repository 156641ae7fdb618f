"""The options of a sequence: from CREATE and ALTER SEQUENCE, serial and identity columns.

Source: PostgreSQL 15, src/backend/commands/sequence.c (init_params).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import Sequence
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.types import type_name

LIMITS: Final = {21: 2**15, 23: 2**31, 20: 2**63}
_TYPE_NAMES: Final = {21: "smallint", 23: "integer", 20: "bigint"}


def integer_of(node: Node) -> int:
    """The value of a numeric option."""
    if "Integer" in node:
        return int(node["Integer"].get("ival", 0))
    if "Float" in node:
        text = node["Float"]["fval"]
        try:
            value = int(text)
        except ValueError:
            raise QueryError(f"invalid integer value: {text}", "22023") from None
        if not -(2**63) <= value < 2**63:
            raise QueryError(f'value "{text}" is out of range for type bigint', "22003")
        return value
    raise QueryError("a sequence option takes an integer", "42601")


def options_by_name(
    options: list[Node], *, allowed: frozenset[str] | None = None
) -> dict[str, Any]:
    """DefElems as name -> argument node (None: given without one). Raises: 42601 for one given twice."""
    found: dict[str, Any] = {}
    for option in options:
        element = option["DefElem"]
        name = element["defname"]
        if name in found:
            raise QueryError("conflicting or redundant options", "42601")
        if allowed is not None and name not in allowed:
            raise QueryError(f'option "{name}" not recognized', "42601")
        found[name] = element.get("arg")
    return found


def apply_options(
    ddl: Ddl, base: Sequence, options: list[Node], *, created: bool, identity: bool = False
) -> Sequence:
    """`base` with the options applied (OWNED BY and RESTART are the caller's). Raises: 22023, 42601."""
    given = options_by_name(options)
    if identity and "as" in given:
        raise QueryError("identity column type must be smallint, integer, or bigint", "22023")
    type_oid = base.type_oid
    if "as" in given:
        type_oid = _sequence_type(ddl, given["as"]["TypeName"])
    increment = _integer(given, "increment", base.increment)
    if increment == 0:
        raise QueryError("INCREMENT must not be zero", "22023")
    reset_max, reset_min = _resets(base, type_oid, created=created)
    limit = LIMITS[type_oid]
    default_max = limit - 1 if increment > 0 else -1
    default_min = 1 if increment > 0 else -limit
    maximum = _bound(given, "maxvalue", base.maximum, default_max, reset=reset_max)
    minimum = _bound(given, "minvalue", base.minimum, default_min, reset=reset_min)
    _check_bounds(type_oid, minimum, maximum)
    start = base.start
    if given.get("start") is not None:
        start = integer_of(given["start"])
    elif created:
        start = minimum if increment > 0 else maximum
    _check_start("START", start, minimum, maximum)
    cache = _integer(given, "cache", base.cache)
    if cache <= 0:
        raise QueryError(f"CACHE ({cache}) must be greater than zero", "22023")
    cycle = base.cycle
    if "cycle" in given:
        cycle = bool(given["cycle"]["Boolean"].get("boolval", False))
    return msgspec.structs.replace(
        base, type_oid=type_oid, increment=increment, maximum=maximum, minimum=minimum,
        start=start, cache=cache, cycle=cycle,
    )  # fmt: skip


def check_restart(sequence: Sequence, value: int) -> None:
    """22023 for a RESTART outside the sequence's bounds."""
    _check_start("RESTART", value, sequence.minimum, sequence.maximum)


def _integer(given: dict[str, Any], name: str, default: int) -> int:
    return default if given.get(name) is None else integer_of(given[name])


def _sequence_type(ddl: Ddl, node: Node) -> int:
    oid, _ = type_name(ddl, node)
    if oid not in LIMITS:
        raise QueryError("sequence type must be smallint, integer, or bigint", "22023")
    return oid


def _resets(base: Sequence, type_oid: int, *, created: bool) -> tuple[bool, bool]:
    """Whether a change of type moves the bounds: those that were the old type's own limits follow."""
    if created:
        return True, True
    if type_oid == base.type_oid:
        return False, False
    old = LIMITS[base.type_oid]
    return base.maximum == old - 1, base.minimum == -old


def _bound(given: dict[str, Any], name: str, current: int, default: int, *, reset: bool) -> int:
    if given.get(name) is not None:
        return integer_of(given[name])
    return default if reset or name in given else current


def _check_bounds(type_oid: int, minimum: int, maximum: int) -> None:
    limit, display = LIMITS[type_oid], _TYPE_NAMES[type_oid]
    if not -limit <= maximum < limit:
        raise QueryError(
            f"MAXVALUE ({maximum}) is out of range for sequence data type {display}", "22023"
        )
    if not -limit <= minimum < limit:
        raise QueryError(
            f"MINVALUE ({minimum}) is out of range for sequence data type {display}", "22023"
        )
    if minimum >= maximum:
        raise QueryError(f"MINVALUE ({minimum}) must be less than MAXVALUE ({maximum})", "22023")


def _check_start(what: str, start: int, minimum: int, maximum: int) -> None:
    if start < minimum:
        raise QueryError(
            f"{what} value ({start}) cannot be less than MINVALUE ({minimum})", "22023"
        )
    if start > maximum:
        raise QueryError(
            f"{what} value ({start}) cannot be greater than MAXVALUE ({maximum})", "22023"
        )
