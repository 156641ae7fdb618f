"""CREATE INDEX, ALTER INDEX and REINDEX.

The index is built while the table is locked against writes (SHARE): its entries are written by the DDL's own
transaction, or in transactions of their own when there are many (see `backfill`). CONCURRENTLY writers go on: see
`concurrently`.
Source: PostgreSQL 15, src/backend/commands/indexcmds.c (DefineIndex).
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.ids import TableId
from shardforge.sql.catalog.descriptors import Index, IndexColumn, Table, View
from shardforge.sql.catalog.snapshot import IndexRelation
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.backfill import build_index
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.index_names import index_name
from shardforge.sql.ddl.names import checked_name, find, find_table, schema_of, strings
from shardforge.sql.ddl.storage_options import kept, read_options
from shardforge.sql.types.registry import type_by_oid

_METHODS: Final = ("btree", "hash")
_KNOWN: Final = ("gin", "gist", "spgist", "brin")
_PATTERN_CLASSES: Final = frozenset(
    {"text_pattern_ops", "varchar_pattern_ops", "bpchar_pattern_ops"}
)


async def create_index(ddl: Ddl, node: Node) -> str:
    """CREATE [UNIQUE] INDEX [IF NOT EXISTS]; CONCURRENTLY is `concurrently`'s."""
    defined = await define_index(ddl, node)
    if defined is not None:
        await build_index(ddl, *defined)
    return "CREATE INDEX"


async def define_index(ddl: Ddl, node: Node) -> tuple[Table, Index] | None:
    """The table, locked against writes, with the new index, and that one; None: there is one of the name already."""
    found = find(ddl, node["relation"])
    if isinstance(found, View):
        raise QueryError(f'cannot create index on relation "{found.name}"', "42809",
                         detail="This operation is not supported for views.")  # fmt: skip
    table = find_table(ddl, node["relation"])
    assert table is not None, "a missing table is an error here"
    table = await ddl.lock(table, TableLockMode.SHARE)
    _check_method(node)
    options = read_options(node.get("options", []), index=True)
    schema = schema_of(ddl, table)
    if "idxname" in node:
        name = checked_name(node["idxname"])
        if ddl.catalog.relation_in(schema, name) is not None:
            if not node.get("if_not_exists"):
                raise QueryError(f'relation "{name}" already exists', "42P07")
            ddl.notice(f'relation "{name}" already exists, skipping', "42P07")
            return None
    else:
        name = ""
    parts = tuple(_part(ddl, table, item["IndexElem"]) for item in node["indexParams"])
    if not name:
        name = ddl.free_name(schema, index_name(table, parts))
    predicate = node.get("whereClause")
    index = Index(
        id=TableId(await ddl.new_oid()), name=name, number=build.next_index_number(table),
        columns=parts, unique=bool(node.get("unique")),
        predicate=None if predicate is None else expressions.predicate(ddl, table, predicate),
        include=tuple(_included(table, item["IndexElem"]) for item in node.get("indexIncludingParams", [])),
        method=node.get("accessMethod", "btree"), options=kept(options),
    )  # fmt: skip
    if node.get("nulls_not_distinct"):
        raise unsupported("NULLS NOT DISTINCT")
    return build.with_index(table, index), index


def _check_method(node: Node) -> None:
    method = node.get("accessMethod", "btree")
    if method in _KNOWN:
        raise unsupported(f"access method {method}")
    if method not in _METHODS:
        raise QueryError(f'access method "{method}" does not exist', "42704")
    if method == "hash":
        if node.get("unique"):
            raise QueryError('access method "hash" does not support unique indexes', "0A000")
        if len(node["indexParams"]) > 1:
            raise QueryError('access method "hash" does not support multicolumn indexes', "0A000")
        if node.get("indexIncludingParams"):
            raise QueryError('access method "hash" does not support included columns', "0A000")


def _part(ddl: Ddl, table: Table, node: Node) -> IndexColumn:
    descending = node.get("ordering") == "SORTBY_DESC"
    nulls = node.get("nulls_ordering", "SORTBY_NULLS_DEFAULT")
    nulls_first = descending if nulls == "SORTBY_NULLS_DEFAULT" else nulls == "SORTBY_NULLS_FIRST"
    column_id, expression = 0, None
    if "name" in node:
        column = build.column_named(table, node["name"])
        if column is None:
            if node["name"] in build.SYSTEM_COLUMNS:
                raise QueryError("index creation on system columns is not supported", "0A000")
            raise QueryError(f'column "{node["name"]}" does not exist', "42703")
        column_id, type_oid = column.id, column.type_oid
    else:
        expression, type_oid = expressions.index_key(ddl, table, node["expr"])
    _check_class(node, type_oid)
    build.require_order(type_oid)
    return IndexColumn(column_id, expression, type_oid, descending, nulls_first)


def _check_class(node: Node, type_oid: int) -> None:
    """Operator classes that mean the order we have are accepted: the default, and the pattern classes (C collation)."""
    if node.get("collation") and strings(node["collation"])[-1] not in ("C", "POSIX", "default"):
        name = strings(node["collation"])[-1]
        raise QueryError(f'collation "{name}" for encoding "UTF8" does not exist', "42704")
    given = strings(node.get("opclass", []))
    if not given:
        return
    name = given[-1]
    found = type_by_oid(type_oid)
    defaults = {
        f"{found.name}_ops",
        f"{found.display.split(' ')[0]}_ops",
        "text_ops",
        "varchar_ops",
    }
    if name not in defaults | _PATTERN_CLASSES:
        raise QueryError(
            f'operator class "{name}" does not exist for access method "btree"', "42704"
        )


def _included(table: Table, node: Node) -> int:
    if "name" not in node:
        raise QueryError("expressions are not supported in included columns", "0A000")
    column = build.column_named(table, node["name"])
    if column is None:
        raise QueryError(f'column "{node["name"]}" does not exist', "42703")
    return column.id


async def reindex(ddl: Ddl, node: Node) -> str:
    """REINDEX: entries are kept exact by every write, so there is nothing to rebuild; names are checked."""
    kind = node["kind"]
    if kind in ("REINDEX_OBJECT_INDEX", "REINDEX_OBJECT_TABLE"):
        found = find(ddl, node["relation"])
        name = node["relation"]["relname"]
        if found is None:
            raise QueryError(f'relation "{name}" does not exist', "42P01")
        if kind == "REINDEX_OBJECT_INDEX" and not isinstance(found, IndexRelation):
            raise QueryError(f'"{name}" is not an index', "42809")
        if kind == "REINDEX_OBJECT_TABLE" and not isinstance(found, Table):
            raise QueryError(f'"{name}" is not a table or materialized view', "42809")
    elif kind == "REINDEX_OBJECT_SCHEMA":
        ddl.catalog.schema_for_lookup(node["name"], ddl.search_path)
    elif node.get("name", ddl.catalog.database.name) != ddl.catalog.database.name:
        raise QueryError("can only reindex the currently open database", "0A000")
    return "REINDEX"


async def rename_index(ddl: Ddl, found: IndexRelation, name: str) -> None:
    """ALTER INDEX RENAME: a constraint's index and the constraint are one object here."""
    table = await ddl.lock_exclusively(found.table)
    ddl.ensure_free(schema_of(ddl, table), name)
    indexes = tuple(
        replace(index, name=name) if index.id == found.index.id else index
        for index in table.indexes
    )
    await ddl.put(replace(table, indexes=indexes, version=table.version + 1))
