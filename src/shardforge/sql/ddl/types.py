"""Types in DDL: from a TypeName node to (oid, typmod), with PostgreSQL's errors.

Source: PostgreSQL 15, src/backend/parser/parse_type.c.
"""

from __future__ import annotations

from typing import Final

from shardforge.errors import QueryError, unsupported
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import position_of, shown, split_name, strings
from shardforge.sql.types.registry import (
    array_of,
    find_type,
    is_array,
    supported,
    type_by_oid,
    type_named,
    typmod_in,
)

SERIALS: Final = {
    "serial": 23, "serial4": 23, "bigserial": 20, "serial8": 20, "smallserial": 21, "serial2": 21,
}  # fmt: skip


def serial_type(node: Node) -> int:
    """The integer type behind serial and its kin; 0 for any other type."""
    names = strings(node.get("names", []))
    if len(names) != 1:
        return 0
    oid = SERIALS.get(names[0], 0)
    if oid and node.get("arrayBounds"):
        raise QueryError(
            f"array of {names[0]} is not implemented", "0A000", position=position_of(node)
        )
    return oid


def column_type(ddl: Ddl, node: Node, column: str) -> tuple[int, int]:
    """(oid, typmod) of a column's type. Raises: 42704 unknown, 42P16 pseudo-type, 0A000 not supported."""
    oid, typmod = type_name(ddl, node)
    found = type_by_oid(oid)
    if found.kind == "p":
        raise QueryError(f'column "{column}" has pseudo-type {found.display}', "42P16")
    if not supported(oid):
        raise unsupported(f"type {found.display}", position=position_of(node))
    return oid, typmod


def type_name(ddl: Ddl, node: Node) -> tuple[int, int]:
    """(oid, typmod) of a TypeName. Raises: 42704, 42601."""
    if node.get("setof"):
        raise QueryError("SETOF is not allowed here", "42601", position=position_of(node))
    if node.get("pct_type"):
        raise unsupported("%TYPE", position=position_of(node))
    if "typeOid" in node:
        return int(node["typeOid"]), int(node.get("typemod", -1))
    schema, name = split_name(ddl, strings(node["names"]))
    if schema is not None and schema != "pg_catalog":
        ddl.catalog.schema_for_lookup(schema, ddl.search_path)
        found = None
    else:
        found = type_named(name)
    if found is None:
        found = find_type(ddl.catalog.user_type(schema, name, ddl.search_path))
    if found is None:
        if ddl.catalog.relation(schema, name, ddl.search_path) is not None:
            raise unsupported("a column of a composite type", position=position_of(node))
        raise QueryError(
            f'type "{shown(schema, name)}" does not exist', "42704", position=position_of(node)
        )
    modifiers = [_modifier(item) for item in node.get("typmods", [])]
    typmod = typmod_in(found.oid, modifiers) if modifiers else -1
    if node.get("arrayBounds") and not is_array(found.oid):
        array = array_of(found)
        if array is None:
            raise QueryError(
                f"could not find array type for data type {found.display}", "42704",
                position=position_of(node),
            )  # fmt: skip
        found = array
    return found.oid, typmod


def _modifier(node: Node) -> int:
    constant = node.get("A_Const")
    if constant is None or "ival" not in constant:
        raise QueryError("type modifiers must be simple constants or identifiers", "42601")
    return int(constant["ival"].get("ival", 0))
