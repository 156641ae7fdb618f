"""ALTER TABLE (and ALTER INDEX, VIEW, SEQUENCE where they share its commands): commands in PostgreSQL's order.

Commands run one after the other, drops first, added constraints last, each on the descriptor that the one before it
left. Source: PostgreSQL 15, src/backend/commands/tablecmds.c (ATController and its passes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import Sequence, Table, View
from shardforge.sql.catalog.snapshot import IndexRelation
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl import alter_columns as columns
from shardforge.sql.ddl import alter_constraints as constraints
from shardforge.sql.ddl import alter_options as options
from shardforge.sql.ddl.alter_object import find_altered
from shardforge.sql.ddl.backfill import has_rows
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.rewrite import ROWS_UNDER_THE_LOCK
from shardforge.sql.ddl.storage_options import kept, read_options

Command = Callable[[Ddl, Table, Node], Awaitable[Table]]

_TAGS: Final = {
    "OBJECT_TABLE": "ALTER TABLE",
    "OBJECT_INDEX": "ALTER INDEX",
    "OBJECT_VIEW": "ALTER VIEW",
    "OBJECT_SEQUENCE": "ALTER SEQUENCE",
}


async def _nothing(ddl: Ddl, table: Table, command: Node) -> Table:
    return table


_COMMANDS: Final[dict[str, tuple[int, Command]]] = {
    "AT_DropColumn": (0, columns.drop_column),
    "AT_DropConstraint": (0, constraints.drop_constraint),
    "AT_DropNotNull": (0, columns.drop_not_null),
    "AT_DropExpression": (0, columns.drop_expression),
    "AT_DropIdentity": (0, columns.drop_identity),
    "AT_AlterColumnType": (1, columns.alter_type),
    "AT_AddColumn": (2, columns.add_column),
    "AT_ColumnDefault": (3, columns.set_default),
    "AT_SetNotNull": (3, columns.set_not_null),
    "AT_AddIdentity": (3, columns.add_identity),
    "AT_SetIdentity": (3, columns.set_identity),
    "AT_AddConstraint": (4, constraints.add_constraint),
    "AT_ValidateConstraint": (5, constraints.validate_constraint),
    "AT_SetRelOptions": (5, options.set_options),
    "AT_ResetRelOptions": (5, options.reset_options),
    "AT_SetStatistics": (5, _nothing),
    "AT_SetOptions": (5, _nothing),
    "AT_ResetOptions": (5, _nothing),
    "AT_SetStorage": (5, _nothing),
    "AT_SetLogged": (5, _nothing),
    "AT_SetUnLogged": (5, _nothing),
    "AT_DropCluster": (5, _nothing),
    "AT_ReplicaIdentity": (5, _nothing),
}
_LIGHT: Final = frozenset({"AT_ValidateConstraint", "AT_SetStatistics", "AT_SetOptions"})
_REWRITING: Final = frozenset(
    {"AT_AlterColumnType", "AT_AddColumn", "AT_AddConstraint", "AT_SetRelOptions", "AT_ResetRelOptions"}
)  # fmt: skip
"""What may write the rows again, and then admits writers. Each locks the table exclusively by itself otherwise."""


async def alter_table(ddl: Ddl, node: Node) -> str:
    """ALTER TABLE [IF EXISTS], and the same commands on an index, view or sequence."""
    kind = node.get("objtype", "OBJECT_TABLE")
    if kind not in _TAGS:
        raise unsupported(f"ALTER {kind.removeprefix('OBJECT_').replace('_', ' ')}")
    commands = [item["AlterTableCmd"] for item in node["cmds"]]
    found = find_altered(ddl, node, kind)
    if found is None:
        return _TAGS[kind]
    if not isinstance(found, Table):
        await _other_relation(ddl, found, commands)
        return _TAGS[kind]
    for command in commands:
        if command["subtype"] not in _COMMANDS and command["subtype"] != "AT_ChangeOwner":
            raise unsupported(_what(command["subtype"]))
    light = all(command["subtype"] in _LIGHT for command in commands)
    if light or await _admits_writers(ddl, found, commands):
        table = await ddl.lock(found, TableLockMode.SHARE_UPDATE_EXCLUSIVE)
    else:
        table = await ddl.lock_exclusively(found)
    for command in sorted(commands, key=lambda c: _COMMANDS.get(c["subtype"], (5, _nothing))[0]):
        if command["subtype"] == "AT_ChangeOwner":
            table = await _change_owner(ddl, table, command)
        else:
            table = await _COMMANDS[command["subtype"]][1](ddl, table, command)
    return _TAGS[kind]


async def _admits_writers(ddl: Ddl, table: Table, commands: list[Node]) -> bool:
    """Whether the table is large, and its rows may be written again beside writers: they see none of a block's work."""
    if len(commands) > 1 or commands[0]["subtype"] not in _REWRITING or not ddl.alone:
        return False
    return await has_rows(ddl, table, more_than=ROWS_UNDER_THE_LOCK)


def _what(subtype: str) -> str:
    words = "".join(f" {c}" if c.isupper() else c for c in subtype.removeprefix("AT_")).strip()
    return f"ALTER TABLE {words.upper()}"


async def _change_owner(ddl: Ddl, table: Table, command: Node) -> Table:
    owner = ddl.role(command["newowner"]).id
    owned = [
        replace(s, owner=owner, version=s.version + 1)
        for s in ddl.catalog.sequences()
        if s.owned_by is not None and s.owned_by[0] == table.id
    ]
    changed = replace(table, owner=owner, version=table.version + 1)
    await ddl.put(changed, *owned)
    return changed


async def _other_relation(
    ddl: Ddl, found: View | Sequence | IndexRelation, commands: list[Node]
) -> None:
    for command in commands:
        subtype = command["subtype"]
        if isinstance(found, IndexRelation):
            await _alter_index(ddl, found, command)
        elif subtype == "AT_ChangeOwner":
            relation: Any = await ddl.lock_exclusively(found)
            await ddl.put(
                replace(
                    relation, owner=ddl.role(command["newowner"]).id, version=relation.version + 1
                )
            )
        elif isinstance(found, View) and subtype in ("AT_SetRelOptions", "AT_ResetRelOptions"):
            raise unsupported("options of a view")
        else:
            raise QueryError(
                f"ALTER action {_what(subtype).removeprefix('ALTER TABLE ')} cannot be performed on relation"
                f' "{found.name}"',
                "42809",
                detail=f"This operation is not supported for {type(found).__name__.lower()}s.",
            )


async def _alter_index(ddl: Ddl, found: IndexRelation, command: Node) -> None:
    if command["subtype"] == "AT_SetStatistics":
        return
    if command["subtype"] not in ("AT_SetRelOptions", "AT_ResetRelOptions"):
        raise unsupported(_what(command["subtype"]).replace("TABLE", "INDEX"))
    table = await ddl.lock(found.table, TableLockMode.SHARE_UPDATE_EXCLUSIVE)
    given = dict(option.split("=", 1) for option in found.index.options)
    items = command["def"]["List"]["items"]
    if command["subtype"] == "AT_SetRelOptions":
        given.update(read_options(items, index=True))
    else:
        for item in items:
            given.pop(item["DefElem"]["defname"], None)
    indexes = tuple(
        replace(i, options=kept(given)) if i.id == found.id else i for i in table.indexes
    )
    await ddl.put(replace(table, indexes=indexes, version=table.version + 1))
