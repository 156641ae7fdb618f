"""COMMENT ON.

Source: PostgreSQL 15, src/backend/commands/comment.c.
"""

from __future__ import annotations

from typing import Final, TypeVar

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import Sequence, Table, View
from shardforge.sql.catalog.snapshot import IndexRelation
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.enum_types import comment_on_enum
from shardforge.sql.ddl.names import KINDS, WORDS, refuse_kind, shown, split_name, strings

K = TypeVar("K")
_LOCK: Final = TableLockMode.SHARE_UPDATE_EXCLUSIVE


def _put(comments: dict[K, str], key: K, text: str | None) -> dict[K, str]:
    changed = {k: v for k, v in comments.items() if k != key}
    if text is not None:
        changed[key] = text
    return changed


async def comment(ddl: Ddl, node: Node) -> str:
    """COMMENT ON an object; an empty text removes the comment."""
    kind, target = node["objtype"], node["object"]
    text = node.get("comment") or None
    if kind in KINDS:
        await _on_relation(ddl, kind, strings(target["List"]["items"]), text)
    elif kind == "OBJECT_TYPE":
        await comment_on_enum(ddl, strings(target["TypeName"]["names"]), text)
    elif kind == "OBJECT_COLUMN":
        await _on_column(ddl, strings(target["List"]["items"]), text)
    elif kind == "OBJECT_TABCONSTRAINT":
        await _on_constraint(ddl, strings(target["List"]["items"]), text)
    elif kind == "OBJECT_SCHEMA":
        schema = ddl.catalog.schema_for_lookup(target["String"]["sval"], ddl.search_path)
        await ddl.put(replace(schema, comment=text))
    elif kind == "OBJECT_DATABASE":
        await _on_database(ddl, target["String"]["sval"], text)
    elif kind == "OBJECT_ROLE":
        role = ddl.role({"rolename": target["String"]["sval"]})
        await ddl.put(replace(role, comment=text))
    elif kind == "OBJECT_EXTENSION" and target["String"]["sval"] == "plpgsql":
        ddl.notice("the comment on extension plpgsql is fixed")
    else:
        raise unsupported(f"COMMENT ON {kind.removeprefix('OBJECT_').replace('_', ' ')}")
    return "COMMENT"


async def _on_database(ddl: Ddl, name: str, text: str | None) -> None:
    database = ddl.catalog.database_named(name)
    if database is None:
        raise QueryError(f'database "{name}" does not exist', "3D000")
    await ddl.put(replace(database, comment=text))


async def _on_relation(ddl: Ddl, kind: str, names: list[str], text: str | None) -> None:
    schema, name = split_name(ddl, names)
    found = ddl.catalog.relation(schema, name, ddl.search_path)
    if found is None:
        raise QueryError(f'relation "{shown(schema, name)}" does not exist', "42P01")
    if not isinstance(found, KINDS[kind]):
        raise refuse_kind(found, WORDS[kind])
    if isinstance(found, IndexRelation):
        table = await ddl.lock(found.table, _LOCK)
        indexes = tuple(
            replace(index, comment=text) if index.id == found.id else index
            for index in table.indexes
        )
        await ddl.put(replace(table, indexes=indexes))
    elif isinstance(found, (Table, View, Sequence)):
        await ddl.put(replace(await ddl.lock(found, _LOCK), comment=text))


async def _on_column(ddl: Ddl, names: list[str], text: str | None) -> None:
    schema, name = split_name(ddl, names[:-1])
    found = ddl.catalog.relation(schema, name, ddl.search_path)
    if found is None:
        raise QueryError(f'relation "{shown(schema, name)}" does not exist', "42P01")
    if not isinstance(found, (Table, View)):
        raise QueryError(f'"{name}" is not a table, view, composite type or foreign table', "42809")
    column = next(
        (c for c in found.columns if c.name == names[-1] and not c.dropped and not c.hidden), None
    )
    if column is None:
        raise QueryError(f'column "{names[-1]}" of relation "{found.name}" does not exist', "42703")
    found = await ddl.lock(found, _LOCK)
    await ddl.put(replace(found, column_comments=_put(found.column_comments, column.id, text)))


async def _on_constraint(ddl: Ddl, names: list[str], text: str | None) -> None:
    schema, name = split_name(ddl, names[:-1])
    table = ddl.catalog.table(schema, name, ddl.search_path)
    known = {index.name for index in table.indexes if index.constraint}
    known |= {check.name for check in table.checks} | {key.name for key in table.foreign_keys}
    if names[-1] not in known:
        raise QueryError(
            f'constraint "{names[-1]}" for table "{table.name}" does not exist', "42704"
        )
    table = await ddl.lock(table, _LOCK)
    await ddl.put(
        replace(table, constraint_comments=_put(table.constraint_comments, names[-1], text))
    )
