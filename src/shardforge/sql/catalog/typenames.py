"""Enum types as stored text spells them, and as people read them.

Stored text names an enum by its oid and a value by its number, so that renaming a type, its schema or a label leaves it
as it is. `visible_types` puts names and labels there; messages made where no catalog is at hand pass through it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from shardforge.errors import QueryError
from shardforge.keys import ENUM_OIDS, element_of
from shardforge.sql.catalog.descriptors import Enum, Table, View
from shardforge.sql.catalog.quoting import quote_identifier, quote_literal, quote_qualified
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.types.array import format_array, parse_array
from shardforge.sql.types.registry import STORED_ENUM

_TYPE: Final = re.compile(re.escape(STORED_ENUM) + r"(\d+)")
_CONSTANT: Final = re.compile(
    r"(?<!')'([^']*)'::float8(\[\])?::" + re.escape(STORED_ENUM) + r"(\d+)"
)


def stored_cast(value: str, *, array: bool) -> str:
    """An enum's constant, without the cast to its type: its number, or the numbers of an array."""
    return f"{quote_literal(value)}::float8{'[]' if array else ''}"


def enum_name(enum: Enum, catalog: CatalogSnapshot, search_path: Sequence[str]) -> str:
    """The type's name as SQL, with its schema when the bare name would not mean it."""
    if catalog.user_type(None, enum.name, search_path) == enum.id:
        return quote_identifier(enum.name)
    schema = catalog.schema_by_id(enum.schema_id)
    assert schema is not None, "a type's schema exists while the type does"
    return quote_qualified(schema.name, enum.name)


def visible_types(text: str, catalog: CatalogSnapshot, search_path: Sequence[str]) -> str:
    """`text` with the enums and constants of them that it spells as stored text does by their names and labels."""

    def constant(match: re.Match[str]) -> str:
        enum = catalog.enum_by_id(int(match[3]))
        if enum is None:
            return match[0]
        labels = {label.order: label.name for label in enum.labels}
        if match[2]:
            shown = format_array(parse_array(match[1], float), lambda value: labels[value])
        else:
            shown = labels[float(match[1])]
        return f"{quote_literal(shown)}::{STORED_ENUM}{enum.id}"

    def named(match: re.Match[str]) -> str:
        enum = catalog.enum_by_id(int(match[1]))
        return match[0] if enum is None else enum_name(enum, catalog, search_path)

    if STORED_ENUM not in text:
        return text
    return _TYPE.sub(named, _CONSTANT.sub(constant, text))


def enums_named(text: str) -> set[int]:
    """The oids of the enums that stored text names."""
    return {int(match[1]) for match in _TYPE.finditer(text)}


def enums_of_type(oid: int) -> set[int]:
    """The enum that a type is, or is the array over, if any."""
    return {element_of(oid) or oid} if oid in ENUM_OIDS else set()


def enums_of(relation: Table | View) -> set[int]:
    """The enums that a table or view has columns of, or names in its expressions."""
    found: set[int] = set()
    for column in relation.columns:
        if not column.dropped:
            found |= enums_of_type(column.type_oid)
            found |= enums_named(f"{column.default} {column.generated}")
    if isinstance(relation, View):
        return found.union(relation.depends_on_types)
    for check in relation.checks:
        found |= enums_named(check.expression)
    for index in relation.indexes:
        found |= enums_named(index.predicate or "")
        for part in index.columns:
            found |= enums_named(part.expression or "") | enums_of_type(part.type_oid)
    return found


@contextmanager
def naming_types(catalog: CatalogSnapshot, search_path: Sequence[str]) -> Iterator[None]:
    """Errors from inside name enum types as people do."""
    try:
        yield
    except QueryError as error:
        error.message = visible_types(error.message, catalog, search_path)
        error.detail = visible_types(error.detail, catalog, search_path)
        error.hint = visible_types(error.hint, catalog, search_path)
        raise
