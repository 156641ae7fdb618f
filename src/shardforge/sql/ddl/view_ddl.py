"""CREATE VIEW: the query is bound once for its columns, and stored as text with its names resolved.

Tables are given their schemas and `*` is written out, so that neither the search path nor a later column changes what
the view means. Source: PostgreSQL 15, src/backend/commands/view.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.ids import TableId
from shardforge.sql.bind import bind_statement, tree
from shardforge.sql.catalog.descriptors import Column, Schema, View
from shardforge.sql.catalog.expressions import parts
from shardforge.sql.catalog.typenames import enums_of_type
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import checked_name, creation_schema, strings, temporary_schema
from shardforge.sql.ddl.view_query import resolve_query
from shardforge.sql.parse import deparse_statement
from shardforge.sql.types.registry import format_type


async def create_view(ddl: Ddl, node: Node) -> str:
    """CREATE [OR REPLACE] [TEMP] VIEW."""
    if node.get("withCheckOption", "NO_CHECK_OPTION") != "NO_CHECK_OPTION":
        raise unsupported("WITH CHECK OPTION of a view")
    relation = node["view"]
    name = checked_name(relation["relname"])
    schema = await creation_schema(ddl, relation)
    query, used = resolve_query(ddl, node["query"])
    if not schema.temporary_session and _uses_temporary(ddl, used):
        if "schemaname" in relation:
            raise QueryError("cannot create temporary relation in non-temporary schema", "42P16")
        ddl.notice(f'view "{name}" will be a temporary view')
        schema = await temporary_schema(ddl)
    text = deparse_statement(query)
    bound = bind_statement(query, expressions.environment(ddl, text))
    assert isinstance(bound, tree.Query), "a view's query is a SELECT or VALUES"
    columns = _columns(bound, strings(node.get("aliases", [])))
    view = View(
        id=TableId(await ddl.new_oid()), name=name, schema_id=schema.id, query=text, columns=columns,
        owner=ddl.owner, depends_on=tuple(TableId(oid) for oid in sorted(used)), search_path=ddl.search_path,
        depends_on_columns=tuple(sorted(_columns_used(bound, used))), type_oid=await ddl.new_oid(),
        array_type_oid=await ddl.new_oid(), temporary_session=schema.temporary_session,
        options=_options(node.get("options", [])), depends_on_types=_types_used(bound),
    )  # fmt: skip
    await _put(ddl, schema, view, replace_ok=bool(node.get("replace")))
    return "CREATE VIEW"


def _options(options: list[Node]) -> tuple[str, ...]:
    kept = []
    for option in options:
        name = option["DefElem"]["defname"]
        if name not in ("security_barrier", "security_invoker"):
            raise QueryError(f'unrecognized parameter "{name}"', "22023")
        kept.append(f"{name}=true")
    return tuple(kept)


def _uses_temporary(ddl: Ddl, used: set[int]) -> bool:
    return any(getattr(ddl.catalog.relation_by_id(oid), "temporary_session", 0) for oid in used)


def _columns(bound: tree.Query, aliases: list[str]) -> tuple[Column, ...]:
    outputs = bound.outputs
    if len(aliases) > len(outputs):
        raise QueryError("CREATE VIEW specifies more column names than columns", "42601")
    columns: list[Column] = []
    for position, output in enumerate(outputs):
        name = aliases[position] if position < len(aliases) else output.name
        if any(column.name == name for column in columns):
            raise QueryError(f'column "{name}" specified more than once', "42701")
        type_oid = 25 if output.type == 705 else output.type
        if type_oid == 2249:
            raise QueryError(f'column "{name}" has pseudo-type record', "42P16")
        columns.append(Column(position + 1, name, type_oid, output.typmod))
    return tuple(columns)


def _columns_used(bound: tree.Query, used: set[int]) -> Iterator[tuple[int, int]]:
    for part in parts(bound):
        if isinstance(part, tree.Scan) and part.table.id in used:
            for _, attnum in part.columns:
                if attnum > 0:
                    yield part.table.id, attnum


def _types_used(bound: tree.Query) -> tuple[int, ...]:
    """The enums that a query's columns and expressions are of."""
    found: set[int] = set()
    for part in parts(bound):
        if isinstance(getattr(part, "type", None), int):
            found |= enums_of_type(part.type)
    return tuple(sorted(found))


async def _put(ddl: Ddl, schema: Schema, view: View, *, replace_ok: bool) -> None:
    old = ddl.catalog.relation_in(schema, view.name)
    if old is None:
        ddl.ensure_no_type(schema, view.name)
        await ddl.put(view)
        return
    if not replace_ok:
        raise QueryError(f'relation "{view.name}" already exists', "42P07")
    if not isinstance(old, View):
        raise QueryError(f'"{view.name}" is not a view', "42809")
    old = await ddl.lock_exclusively(old)
    _check_replacement(old, view)
    if old.id in _all_used(ddl, view):
        raise QueryError(
            f'infinite recursion detected in rules for relation "{view.name}"', "42P17"
        )
    await ddl.put(
        replace(
            view, id=old.id, type_oid=old.type_oid, array_type_oid=old.array_type_oid, owner=old.owner,
            comment=old.comment, column_comments=old.column_comments, version=old.version + 1,
        )
    )  # fmt: skip


def _all_used(ddl: Ddl, view: View) -> set[int]:
    seen: set[int] = set()
    waiting = list(view.depends_on)
    while waiting:
        oid = waiting.pop()
        if oid not in seen:
            seen.add(oid)
            found: Any = ddl.catalog.relation_by_id(oid)
            if isinstance(found, View):
                waiting.extend(found.depends_on)
    return seen


def _check_replacement(old: View, new: View) -> None:
    """A replaced view keeps its columns; new ones may follow. Raises: 42P16."""
    if len(new.columns) < len(old.columns):
        raise QueryError("cannot drop columns from view", "42P16")
    for before, after in zip(old.columns, new.columns, strict=False):
        if before.name != after.name:
            raise QueryError(
                f'cannot change name of view column "{before.name}" to "{after.name}"', "42P16",
                hint="Use ALTER VIEW ... RENAME COLUMN ... to change name of view column instead.",
            )  # fmt: skip
        if (before.type_oid, before.typmod) != (after.type_oid, after.typmod):
            was, now = (format_type(c.type_oid, c.typmod) for c in (before, after))
            raise QueryError(
                f'cannot change data type of view column "{before.name}" from {was} to {now}',
                "42P16",
            )
