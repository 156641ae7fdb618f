"""ALTER ... RENAME TO, SET SCHEMA and OWNER TO, of every kind of object.

Stored expressions name columns: renaming one rewrites them. Views are stored as text: what they name cannot be renamed
while they exist (0A000), except that PostgreSQL would follow the rename.
Source: PostgreSQL 15, src/backend/commands/{alter,tablecmds}.c.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import Column, Sequence, Table, View
from shardforge.sql.catalog.snapshot import IndexRelation
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.create_index import rename_index
from shardforge.sql.ddl.databases import rename_database
from shardforge.sql.ddl.enum_types import move_enum, own_enum, rename_enum
from shardforge.sql.ddl.names import (
    WORDS,
    checked_name,
    find,
    range_name,
    refuse_kind,
    schema_of,
    shown,
    strings,
    system_catalog,
)
from shardforge.sql.ddl.roles import rename_role
from shardforge.sql.ddl.schema_ddl import rename_schema

Stored = Table | View | Sequence
_KIND = {
    "OBJECT_TABLE": (
        Table,
        View,
        Sequence,
        IndexRelation,
    ),  # PostgreSQL lets ALTER TABLE name any of them
    "OBJECT_VIEW": (View,),
    "OBJECT_SEQUENCE": (Sequence,),
    "OBJECT_INDEX": (IndexRelation, Table, View, Sequence),
}
_TAG = {
    "OBJECT_TABLE": "ALTER TABLE",
    "OBJECT_VIEW": "ALTER VIEW",
    "OBJECT_SEQUENCE": "ALTER SEQUENCE",
    "OBJECT_INDEX": "ALTER INDEX",
    "OBJECT_SCHEMA": "ALTER SCHEMA",
    "OBJECT_DATABASE": "ALTER DATABASE",
    "OBJECT_ROLE": "ALTER ROLE",
    "OBJECT_TYPE": "ALTER TYPE",
}


def find_altered(ddl: Ddl, node: Node, kind: str) -> Stored | IndexRelation | None:
    """The relation that an ALTER names; None (and a notice) when it is absent and may be."""
    found = find(ddl, node["relation"])
    if found is None:
        text = f'relation "{shown(*range_name(ddl, node["relation"]))}" does not exist'
        if not node.get("missing_ok"):
            raise QueryError(text, "42P01")
        ddl.notice(text + ", skipping")
        return None
    if not isinstance(found, (Table, View, Sequence, IndexRelation)):
        raise system_catalog(found)
    if not isinstance(found, _KIND[kind]):
        raise refuse_kind(found, WORDS[kind])
    return found


async def rename(ddl: Ddl, node: Node) -> str:
    """RENAME of a relation, column, constraint, type, schema, database or role."""
    kind, name = node["renameType"], checked_name(node["newname"])
    if kind == "OBJECT_COLUMN":
        await _rename_column(ddl, node, name)
        return _TAG[node["relationType"]]
    if kind == "OBJECT_TABCONSTRAINT":
        await _rename_constraint(ddl, node, name)
        return "ALTER TABLE"
    if kind == "OBJECT_SCHEMA":
        await rename_schema(ddl, node["subname"], name)
    elif kind == "OBJECT_DATABASE":
        await rename_database(ddl, node["subname"], name)
    elif kind == "OBJECT_ROLE":
        await rename_role(ddl, node["subname"], name)
    elif kind == "OBJECT_TYPE":
        await rename_enum(ddl, strings(node["object"]["List"]["items"]), name)
    elif kind in _KIND:
        found = find_altered(ddl, node, kind)
        if isinstance(found, IndexRelation):
            await rename_index(ddl, found, name)
        elif found is not None:
            await _rename_relation(ddl, found, name)
    else:
        raise unsupported(f"ALTER {kind.removeprefix('OBJECT_')} RENAME")
    return _TAG[kind]


def _refuse_viewed(ddl: Ddl, oid: int, what: str) -> None:
    view = next((v for v in ddl.catalog.views() if oid in v.depends_on), None)
    if view is not None:
        raise unsupported(
            f'{what} while view "{view.name}" depends on it',
            hint="Drop the view and create it again afterwards.",
        )


async def _rename_relation(ddl: Ddl, relation: Stored, name: str) -> None:
    locked: Any = await ddl.lock_exclusively(relation)
    _refuse_viewed(ddl, locked.id, f'renaming "{locked.name}"')
    ddl.ensure_free(schema_of(ddl, locked), name)
    await ddl.put(replace(locked, name=name, version=locked.version + 1))


async def _rename_column(ddl: Ddl, node: Node, name: str) -> None:
    found = find_altered(ddl, node, node.get("relationType", "OBJECT_TABLE"))
    if found is None:
        return
    if not isinstance(found, (Table, View)):
        raise QueryError(f'cannot rename columns of relation "{found.name}"', "42809")
    relation: Any = await ddl.lock_exclusively(found)
    old = node["subname"]
    live = [c for c in relation.columns if not c.dropped and not c.hidden]
    column = next((c for c in live if c.name == old), None)
    if column is None:
        if old in build.SYSTEM_COLUMNS:
            raise QueryError(f'cannot rename system column "{old}"', "0A000")
        raise QueryError(f'column "{old}" does not exist', "42703")
    if any(c.name == name for c in live):
        raise QueryError(f'column "{name}" of relation "{relation.name}" already exists', "42701")
    if isinstance(relation, View) or any(
        (relation.id, column.id) in v.depends_on_columns for v in ddl.catalog.views()
    ):
        _refuse_viewed(ddl, relation.id, f'renaming column "{old}" of "{relation.name}"')
    columns = tuple(replace(c, name=name) if c.id == column.id else c for c in relation.columns)
    changed = replace(relation, columns=columns, version=relation.version + 1)
    if isinstance(changed, Table):
        changed = retexted(ddl, relation, changed)
    await ddl.put(changed)


def retexted(ddl: Ddl, old: Table, new: Table) -> Table:
    """`new` with its stored expressions written over its own column names."""

    def text(expression: str | None) -> Any:
        return None if expression is None else expressions.renamed(ddl, old, new, expression)

    columns: tuple[Column, ...] = tuple(
        replace(c, generated=text(c.generated)) if c.generated is not None else c
        for c in new.columns
    )
    checks = tuple(replace(c, expression=text(c.expression)) for c in new.checks)
    indexes = tuple(
        replace(
            index, predicate=text(index.predicate),
            columns=tuple(
                part if part.expression is None else replace(part, expression=text(part.expression))
                for part in index.columns
            ),
        )
        for index in new.indexes
    )  # fmt: skip
    return replace(new, columns=columns, checks=checks, indexes=indexes)


async def _rename_constraint(ddl: Ddl, node: Node, name: str) -> None:
    found = find_altered(ddl, node, "OBJECT_TABLE")
    if found is None:
        return
    if not isinstance(found, Table):
        raise refuse_kind(found, "table")
    table = await ddl.lock_exclusively(found)
    old = node["subname"]
    names = build.constraint_names(table)
    if old not in names:
        raise QueryError(f'constraint "{old}" for table "{table.name}" does not exist', "42704")
    if name in names:
        raise build.duplicate_constraint(name, table.name)
    for index in table.indexes:
        if index.constraint and index.name == old:
            ddl.ensure_free(schema_of(ddl, table), name)
    await ddl.put(
        replace(
            table, version=table.version + 1,
            indexes=tuple(
                replace(i, name=name) if i.constraint and i.name == old else i for i in table.indexes
            ),
            checks=tuple(replace(c, name=name) if c.name == old else c for c in table.checks),
            foreign_keys=tuple(
                replace(k, name=name) if k.name == old else k for k in table.foreign_keys
            ),
            constraint_comments={
                (name if key == old else key): text for key, text in table.constraint_comments.items()
            },
        )
    )  # fmt: skip


async def alter_schema(ddl: Ddl, node: Node) -> str:
    """ALTER ... SET SCHEMA; owned sequences move along."""
    kind = node["objectType"]
    if kind == "OBJECT_TYPE":
        await move_enum(ddl, strings(node["object"]["List"]["items"]), node["newschema"])
        return _TAG[kind]
    if kind not in _KIND:
        raise unsupported(f"ALTER {kind.removeprefix('OBJECT_')} SET SCHEMA")
    found = find_altered(ddl, node, kind)
    if found is None:
        return _TAG[kind]
    if isinstance(found, IndexRelation):
        raise refuse_kind(found, "table, view, or sequence")
    schema = ddl.catalog.schema_for_lookup(node["newschema"], ddl.search_path)
    relation: Any = await ddl.lock_exclusively(found)
    if isinstance(relation, Sequence) and relation.owned_by is not None:
        table = ddl.catalog.table_by_id(relation.owned_by[0])
        assert table is not None, "an owned sequence goes with its table"
        raise QueryError(
            "cannot move an owned sequence into another schema", "0A000",
            detail=f'Sequence "{relation.name}" is linked to table "{table.name}".',
        )  # fmt: skip
    if bool(schema.temporary_session) != bool(relation.temporary_session):
        raise QueryError("cannot move objects into or out of temporary schemas", "0A000")
    if schema.id == relation.schema_id:
        return _TAG[kind]
    _refuse_viewed(ddl, relation.id, f'moving "{relation.name}" to another schema')
    moved = [
        relation,
        *(s for s in ddl.catalog.sequences() if s.owned_by and s.owned_by[0] == relation.id),
    ]
    names = [r.name for r in moved]
    if isinstance(relation, Table):
        names += [index.name for index in build.public_indexes(relation)]
    for name in names:
        if ddl.catalog.relation_in(schema, name) is not None:
            raise QueryError(f'relation "{name}" already exists in schema "{schema.name}"', "42P07")
    await ddl.put(*(replace(r, schema_id=schema.id, version=r.version + 1) for r in moved))
    return _TAG[kind]


async def alter_owner(ddl: Ddl, node: Node) -> str:
    """ALTER SCHEMA, DATABASE and TYPE OWNER TO (a relation's comes as ALTER TABLE)."""
    kind, owner = node["objectType"], ddl.role(node["newowner"])
    name = node["object"].get("String", {}).get("sval", "")
    if kind == "OBJECT_SCHEMA":
        schema = ddl.catalog.schema_for_lookup(name, ddl.search_path)
        await ddl.put(replace(schema, owner=owner.id))
    elif kind == "OBJECT_DATABASE":
        database = ddl.catalog.database_named(name)
        if database is None:
            raise QueryError(f'database "{name}" does not exist', "3D000")
        await ddl.put(replace(database, owner=owner.id))
    elif kind == "OBJECT_TYPE":
        await own_enum(ddl, strings(node["object"]["List"]["items"]), owner.id)
    else:
        raise unsupported(f"ALTER {kind.removeprefix('OBJECT_')} OWNER TO")
    return _TAG[kind]
