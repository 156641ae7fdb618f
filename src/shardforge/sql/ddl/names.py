"""Names in DDL: from parse nodes to schemas and relations, with PostgreSQL's errors; and names made up for constraints.

Source: PostgreSQL 15, src/backend/catalog/namespace.c, indexcmds.c (makeObjectName, ChooseRelationName).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import Schema, Table, View
from shardforge.sql.catalog.descriptors import Sequence as SequenceDescriptor
from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.catalog.snapshot import (
    SYSTEM_SCHEMAS,
    TEMPORARY_PREFIX,
    IndexRelation,
    Relation,
    StoredRelation,
)
from shardforge.sql.ddl.context import Ddl, Node

NAME_MAX: Final = 63

KINDS: Final[dict[str, tuple[type, ...]]] = {
    "OBJECT_TABLE": (Table,),
    "OBJECT_VIEW": (View,),
    "OBJECT_INDEX": (IndexRelation,),
    "OBJECT_SEQUENCE": (SequenceDescriptor,),
}
WORDS: Final = {
    "OBJECT_TABLE": "table",
    "OBJECT_VIEW": "view",
    "OBJECT_INDEX": "index",
    "OBJECT_SEQUENCE": "sequence",
    "OBJECT_SCHEMA": "schema",
    "OBJECT_MATVIEW": "materialized view",
    "OBJECT_FOREIGN_TABLE": "foreign table",
}


def strings(items: Iterable[Node]) -> list[str]:
    """The texts of a list of String nodes."""
    return [item["String"].get("sval", "") for item in items]


def split_name(ddl: Ddl, names: Sequence[str]) -> tuple[str | None, str]:
    """(schema or None, name) of a dotted name, which may begin with this database's name."""
    if len(names) == 1:
        return None, names[0]
    if len(names) == 3:
        if names[0] != ddl.catalog.database.name:
            dotted = ".".join(names)
            raise QueryError(f"cross-database references are not implemented: {dotted}", "0A000")
        return names[1], names[2]
    if len(names) > 3:
        raise QueryError(
            f"improper relation name (too many dotted names): {'.'.join(names)}", "42601"
        )
    return names[0], names[1]


def range_name(ddl: Ddl, node: Node) -> tuple[str | None, str]:
    """(schema or None, name) of a RangeVar."""
    catalog = node.get("catalogname")
    if catalog is not None and catalog != ddl.catalog.database.name:
        dotted = f"{catalog}.{node['schemaname']}.{node['relname']}"
        raise QueryError(f'cross-database references are not implemented: "{dotted}"', "0A000")
    return node.get("schemaname"), node["relname"]


def shown(schema: str | None, name: str) -> str:
    """A name as error messages write it."""
    return name if schema is None else f"{schema}.{name}"


def position_of(node: Node) -> int:
    """1-based position of a node in the statement; 0 when it does not say."""
    return int(node["location"]) + 1 if "location" in node else 0


def find(ddl: Ddl, node: Node) -> Relation | None:
    """The relation that a RangeVar means, or None."""
    schema, name = range_name(ddl, node)
    return ddl.catalog.relation(schema, name, ddl.search_path)


def missing(ddl: Ddl, node: Node, word: str = "relation") -> QueryError:
    """The error for a RangeVar that means nothing."""
    return QueryError(f'{word} "{shown(*range_name(ddl, node))}" does not exist', "42P01")


def find_table(ddl: Ddl, node: Node, *, missing_ok: bool = False) -> Table | None:
    """The table that a RangeVar means; with `missing_ok` a notice and None. Raises: 42P01, 42809, 42501."""
    found = find(ddl, node)
    if found is None:
        if not missing_ok:
            raise missing(ddl, node)
        ddl.notice(f'relation "{shown(*range_name(ddl, node))}" does not exist, skipping')
        return None
    if isinstance(found, VirtualTable):
        raise system_catalog(found)
    if not isinstance(found, Table):
        raise QueryError(f'"{found.name}" is not a table', "42809")
    return found


def system_catalog(relation: Relation) -> QueryError:
    """The error for an attempt to change a catalog table."""
    return QueryError(f'permission denied: "{relation.name}" is a system catalog', "42501")


def schema_of(ddl: Ddl, relation: StoredRelation | IndexRelation) -> Schema:
    """The schema that holds the relation."""
    schema = ddl.catalog.schema_by_id(relation.schema_id)
    assert schema is not None, "a relation's schema exists while the relation does"
    return schema


async def creation_schema(ddl: Ddl, node: Node) -> Schema:
    """Where a RangeVar's new object goes; makes the session's temporary schema when that is meant."""
    name, _ = range_name(ddl, node)
    temporary = node.get("relpersistence") == "t"
    if temporary and name is not None and name != "pg_temp":
        raise QueryError("cannot create temporary relation in non-temporary schema", "42P16")
    if temporary or name == "pg_temp":
        return await temporary_schema(ddl)
    if name is None:
        return ddl.catalog.creation_schema(ddl.search_path)
    schema = ddl.catalog.schema_for_lookup(name, ddl.search_path)
    if schema.name in SYSTEM_SCHEMAS:
        raise QueryError(
            f'permission denied to create "{shown(name, node["relname"])}"', "42501",
            detail="System catalog modifications are currently disallowed.",
        )  # fmt: skip
    return schema


async def temporary_schema(ddl: Ddl) -> Schema:
    """The session's temporary schema, made when this is its first temporary object."""
    name = f"{TEMPORARY_PREFIX}{ddl.ctx.session_id}"
    schema = ddl.catalog.schema_by_name(name)
    if schema is None:
        schema = Schema(
            id=await ddl.new_oid(),
            name=name,
            database_id=ddl.database_id,
            temporary_session=ddl.ctx.session_id,
        )
        await ddl.put(schema)
    return schema


def checked_name(name: str, *, what: str = "identifier") -> str:
    """`name` cut to PostgreSQL's 63 bytes, as the parser cuts identifiers."""
    encoded = name.encode()
    assert encoded, f"the parser accepts no empty {what}"
    return encoded[:NAME_MAX].decode(errors="ignore")


def object_name(first: str, second: str | None, label: str | None) -> str:
    """first_second_label, the two names cut evenly so that all fits in 63 bytes (makeObjectName)."""
    overhead = (len(label.encode()) + 1 if label else 0) + (1 if second is not None else 0)
    room = NAME_MAX - overhead
    one = first.encode()
    two = b"" if second is None else second.encode()
    while len(one) + len(two) > room:
        if len(one) > len(two):
            one = one[:-1]
        else:
            two = two[:-1]
    name = one.decode(errors="ignore")
    if second is not None:
        name += "_" + two.decode(errors="ignore")
    return f"{name}_{label}" if label else name


def refuse_kind(found: Relation, wanted: str) -> QueryError:
    """The error for a relation of another kind than the statement says."""
    article = "an" if wanted == "index" else "a"
    return QueryError(f'"{found.name}" is not {article} {wanted}', "42809")


def refuse_inheritance(node: Node) -> None:
    """0A000 for ONLY: there is no inheritance, so it is accepted where it means nothing."""
    if node.get("inhRelations"):
        raise unsupported("table inheritance (INHERITS)")
