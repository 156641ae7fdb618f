"""Type names as written in SQL to (oid, typmod).

Source: PostgreSQL 15, src/backend/parser/parse_type.c.
"""

from __future__ import annotations

from typing import Any

from shardforge.errors import DatabaseError
from shardforge.sql.bind.environment import BindEnvironment
from shardforge.sql.bind.scope import Node, Shared
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.types import oids
from shardforge.sql.types.registry import find_type, stored_enum, type_named, typmod_in


def strings(items: list[Node]) -> list[str]:
    """The texts of a list of String nodes."""
    return [item["String"].get("sval", "") for item in items]


def resolve_type_name(node: Node, env: BindEnvironment) -> tuple[int, int]:
    """(oid, typmod) of a TypeName node. Raises 42704 when there is no such type."""
    return type_of_node(Shared(env), node)


def type_of_node(shared: Shared, node: Node) -> tuple[int, int]:
    """(oid, typmod) of a TypeName node, with the statement's positions for errors."""
    location = node.get("location", 0)
    if node.get("setof"):
        raise shared.unsupported("SETOF in this place", location)
    if node.get("pct_type"):
        raise shared.unsupported("%TYPE", location)
    oid, name = lookup_type(shared, strings(node["names"]), location)
    typmod = _typmod(shared, oid, name, node.get("typmods", []), location)
    if node.get("arrayBounds"):
        found = find_type(oid)
        if found is not None and found.element and found.length == -1:
            return oid, typmod
        if found is None or not found.array:
            raise shared.error(
                f'could not find array type for data type "{name}"', "42704", location
            )
        oid = found.array
    return oid, typmod


def lookup_type(shared: Shared, names: list[str], location: int | None) -> tuple[int, str]:
    """(oid, written name) of a type: PostgreSQL's own, an enum, or the row type of a relation."""
    schema, name = (names[-2] if len(names) > 1 else None), names[-1]
    if schema in (None, "pg_catalog"):
        found = type_named(name)
        if found is not None and found.kind != "c":
            return found.oid, name
        stored = stored_enum(name) if schema else None
        catalog: CatalogSnapshot | None = shared.catalog
        if stored is not None and (catalog is None or catalog.enum_by_id(stored.oid) is not None):
            return stored.oid, name
    oid = shared.catalog.user_type(schema, name, shared.env.search_path)
    if oid:
        return oid, name
    if schema is not None and shared.catalog.schema_by_name(schema) is None:
        raise shared.error(f'schema "{schema}" does not exist', "3F000", location)
    shown = ".".join(names)
    raise shared.error(f'type "{shown}" does not exist', "42704", location)


def _typmod(shared: Shared, oid: int, name: str, items: list[Node], location: int | None) -> int:
    if not items:
        return -1
    numbers = [_modifier(shared, item, location) for item in items]
    try:
        return typmod_in(oid, numbers)
    except DatabaseError as error:
        if error.sqlstate == "42601" and "not allowed" in error.message:
            raise shared.error(
                f'type modifier is not allowed for type "{name}"', "42601", location
            ) from None
        if not error.position:
            error.position = shared.position(location)
        raise


def _modifier(shared: Shared, item: Node, location: int | None) -> int:
    constant: Any = item.get("A_Const")
    if constant is not None and "ival" in constant:
        number: int = constant["ival"].get("ival", 0)
        return number
    raise shared.error("type modifiers must be simple constants or identifiers", "42601", location)


def is_interval(oid: int) -> bool:
    """Whether literals of the type take their modifier when they are read."""
    return oid == oids.INTERVAL
