"""CREATE SEQUENCE and ALTER SEQUENCE.

A change of a sequence's position in a transaction (RESTART) gives it a new position row (`storage_id`), so that it is
undone by a rollback. Source: PostgreSQL 15, src/backend/commands/sequence.c.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from shardforge.errors import QueryError
from shardforge.ids import TableId
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import Sequence, Table
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.create_table import free_or_skip
from shardforge.sql.ddl.names import (
    checked_name,
    creation_schema,
    find,
    missing,
    range_name,
    refuse_kind,
    shown,
    split_name,
    strings,
)
from shardforge.sql.ddl.sequence_options import (
    apply_options,
    check_restart,
    integer_of,
    options_by_name,
)
from shardforge.sql.ddl.table_builder import column_named
from shardforge.txn.coordinator import LockStrength, WaitPolicy

_NOT_OURS = frozenset({"owned_by", "restart", "sequence_name"})


def definition_options(options: list[Node]) -> list[Node]:
    """The options that belong to the definition itself."""
    return [option for option in options if option["DefElem"]["defname"] not in _NOT_OURS]


async def create_sequence(ddl: Ddl, node: Node) -> str:
    """CREATE SEQUENCE [IF NOT EXISTS]."""
    relation = node["sequence"]
    schema = await creation_schema(ddl, relation)
    name = checked_name(relation["relname"])
    if not await free_or_skip(ddl, schema, name, skip=bool(node.get("if_not_exists"))):
        return "CREATE SEQUENCE"
    options = node.get("options", [])
    oid = await ddl.new_oid()
    sequence = Sequence(
        id=TableId(oid), name=name, schema_id=schema.id, owner=ddl.owner, storage_id=oid,
        temporary_session=schema.temporary_session,
    )  # fmt: skip
    sequence = apply_options(ddl, sequence, definition_options(options), created=True)
    given = options_by_name(options)
    if "owned_by" in given:
        sequence = replace(sequence, owned_by=_owner(ddl, sequence, given["owned_by"]))
    await ddl.put(sequence)
    return "CREATE SEQUENCE"


def _owner(ddl: Ddl, sequence: Sequence, node: Node) -> tuple[int, int] | None:
    names = strings(node["List"]["items"])
    if names == ["none"]:
        return None
    if len(names) == 1:
        raise QueryError(
            "invalid OWNED BY option", "42601",
            hint="Specify OWNED BY table.column or OWNED BY NONE.",
        )  # fmt: skip
    schema, name = split_name(ddl, names[:-1])
    table = ddl.catalog.relation(schema, name, ddl.search_path)
    if table is None:
        raise QueryError(f'relation "{shown(schema, name)}" does not exist', "42P01")
    if not isinstance(table, Table):
        raise QueryError(f'sequence cannot be owned by relation "{name}"', "42809")
    if table.schema_id != sequence.schema_id:
        raise QueryError("sequence must be in same schema as table it is linked to", "55000")
    column = column_named(table, names[-1])
    if column is None:
        raise QueryError(f'column "{names[-1]}" of relation "{table.name}" does not exist', "42703")
    return table.id, column.id


def find_sequence(ddl: Ddl, node: Node, *, missing_ok: bool = False) -> Sequence | None:
    """The sequence that a RangeVar means. Raises: 42P01, 42809."""
    found = find(ddl, node)
    if found is None:
        if not missing_ok:
            raise missing(ddl, node)
        ddl.notice(f'relation "{shown(*range_name(ddl, node))}" does not exist, skipping')
        return None
    if not isinstance(found, Sequence):
        raise refuse_kind(found, "sequence")
    return found


async def alter_sequence(ddl: Ddl, node: Node) -> str:
    """ALTER SEQUENCE with options."""
    sequence = find_sequence(ddl, node["sequence"], missing_ok=bool(node.get("missing_ok")))
    if sequence is not None:
        await change_sequence(ddl, sequence, node.get("options", []))
    return "ALTER SEQUENCE"


async def change_sequence(ddl: Ddl, sequence: Sequence, options: list[Node]) -> None:
    """Apply ALTER SEQUENCE's options, RESTART included."""
    sequence = await ddl.lock_exclusively(sequence)
    given = options_by_name(options)
    changed = apply_options(ddl, sequence, definition_options(options), created=False)
    if "owned_by" in given:
        if sequence.identity:
            raise QueryError(
                "cannot change ownership of identity sequence", "0A000",
                detail=f'Sequence "{sequence.name}" is linked to table "{_owner_name(ddl, sequence)}".',
            )  # fmt: skip
        changed = replace(changed, owned_by=_owner(ddl, changed, given["owned_by"]))
    position = await _position(ddl, sequence)
    if "restart" in given:
        value = changed.start if given["restart"] is None else integer_of(given["restart"])
        check_restart(changed, value)
        position = codec.Position(value, called=False)
    elif position is not None:
        _check_position(changed, position)
    changed = replace(changed, version=sequence.version + 1)
    await ddl.put(await restarted(ddl, changed, position))


def _owner_name(ddl: Ddl, sequence: Sequence) -> str:
    assert sequence.owned_by is not None, "an identity sequence has an owner"
    table = ddl.catalog.table_by_id(sequence.owned_by[0])
    assert table is not None, "an owned sequence goes with its table"
    return table.name


def _check_position(sequence: Sequence, position: codec.Position) -> None:
    if position.last < sequence.minimum:
        raise QueryError(
            f"RESTART value ({position.last}) cannot be less than MINVALUE ({sequence.minimum})",
            "22023",
        )
    if position.last > sequence.maximum:
        raise QueryError(
            f"RESTART value ({position.last}) cannot be greater than MAXVALUE ({sequence.maximum})",
            "22023",
        )


async def _position(ddl: Ddl, sequence: Sequence) -> codec.Position | None:
    """The sequence's position as used so far, not as reserved; None before the first use."""
    position: Any = await ddl.store.sequences.position(sequence)
    if not position.called and position.last == sequence.start:
        return None
    return codec.Position(position.last, position.called)


async def restarted(ddl: Ddl, sequence: Sequence, position: codec.Position | None) -> Sequence:
    """The sequence with a position row of its own, at `position` (None: its start)."""
    new_id = await ddl.new_oid()
    old_key, new_key = codec.sequence_key(sequence.storage_id), codec.sequence_key(new_id)
    await ddl.transaction.lock([old_key, new_key], LockStrength.UPDATE, WaitPolicy.BLOCK)
    ddl.transaction.delete(old_key)
    if position is not None:
        ddl.transaction.put(new_key, codec.encode(position))
    return replace(sequence, storage_id=new_id)
