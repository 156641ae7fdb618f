"""DROP TABLE, VIEW, INDEX, SEQUENCE, TYPE and SCHEMA.

Source: PostgreSQL 15, src/backend/commands/dropcmds.c, tablecmds.c (RemoveRelations).
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.ids import TableId
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import Sequence, Table
from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.catalog.snapshot import (
    SYSTEM_SCHEMAS,
    Change,
    IndexRelation,
    Relation,
    StoredRelation,
)
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.dependencies import Dependents, DropPlan, describe, settle, visible_name
from shardforge.sql.ddl.drop_column import remove_column
from shardforge.sql.ddl.drop_index import drop_indexes
from shardforge.sql.ddl.enum_types import dropped_type
from shardforge.sql.ddl.names import (
    KINDS,
    WORDS,
    refuse_kind,
    shown,
    split_name,
    strings,
    system_catalog,
)
from shardforge.txn.coordinator import LockStrength, WaitPolicy

_TAGS: Final = {
    "OBJECT_TABLE": "DROP TABLE",
    "OBJECT_VIEW": "DROP VIEW",
    "OBJECT_INDEX": "DROP INDEX",
    "OBJECT_SEQUENCE": "DROP SEQUENCE",
    "OBJECT_SCHEMA": "DROP SCHEMA",
    "OBJECT_TYPE": "DROP TYPE",
}
_REFUSED: Final = {
    "OBJECT_FUNCTION": ("function", "42883"),
    "OBJECT_PROCEDURE": ("procedure", "42883"),
    "OBJECT_AGGREGATE": ("aggregate", "42883"),
    "OBJECT_ROUTINE": ("routine", "42883"),
    "OBJECT_DOMAIN": ("type", "42704"),
    "OBJECT_TRIGGER": ("trigger", "42704"),
    "OBJECT_RULE": ("rule", "42704"),
    "OBJECT_POLICY": ("policy", "42704"),
    "OBJECT_MATVIEW": ("materialized view", "42P01"),
    "OBJECT_FOREIGN_TABLE": ("foreign table", "42P01"),
    "OBJECT_EXTENSION": ("extension", "42704"),
    "OBJECT_COLLATION": ("collation", "42704"),
    "OBJECT_PUBLICATION": ("publication", "42704"),
}


async def drop(ddl: Ddl, node: Node) -> str:
    """DROP of the kinds of objects that there are; of others: absent, so 42704 or a notice."""
    kind = node["removeType"]
    cascade = node.get("behavior") == "DROP_CASCADE"
    missing_ok = bool(node.get("missing_ok"))
    if kind not in _TAGS:
        return _drop_absent(ddl, node, kind, missing_ok=missing_ok)
    if kind == "OBJECT_TYPE":
        await _drop_types(ddl, node, cascade=cascade, missing_ok=missing_ok)
        return _TAGS[kind]
    if kind == "OBJECT_SCHEMA":
        await _drop_schemas(ddl, node, cascade=cascade, missing_ok=missing_ok)
        return _TAGS[kind]
    if node.get("concurrent"):
        ddl.forbid_in_block("DROP INDEX CONCURRENTLY")
    found = [
        relation
        for item in node["objects"]
        if (relation := _find(ddl, strings(item["List"]["items"]), kind, missing_ok=missing_ok))
    ]
    if kind == "OBJECT_INDEX":
        await drop_indexes(
            ddl, [item for item in found if isinstance(item, IndexRelation)], cascade=cascade
        )
        return _TAGS[kind]
    plan = DropPlan()
    for relation in found:
        assert not isinstance(relation, (IndexRelation, VirtualTable)), "kinds are checked"
        if isinstance(relation, Sequence) and relation.identity and relation.owned_by is not None:
            raise _required(ddl, relation)
        plan.relations[relation.id] = relation
    names = [describe(ddl, relation) for relation in plan.relations.values()]
    what = names[0] if len(names) == 1 else "desired object(s)"
    await carry_out(ddl, plan, what, cascade=cascade)
    return _TAGS[kind]


def _drop_absent(ddl: Ddl, node: Node, kind: str, *, missing_ok: bool) -> str:
    if kind not in _REFUSED:
        raise unsupported(f"DROP {kind.removeprefix('OBJECT_').replace('_', ' ')}")
    word, sqlstate = _REFUSED[kind]
    names = [_absent_name(item) for item in node["objects"]]
    if word == "extension" and "plpgsql" in names:
        raise unsupported("DROP EXTENSION plpgsql")
    if kind in ("OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"):
        raise unsupported(f"DROP {word.upper()}")
    for name in names:
        text = f'"{name}"' if "(" not in name else name
        if not missing_ok:
            raise QueryError(f"{word} {text} does not exist", sqlstate)
        ddl.notice(f"{word} {text} does not exist, skipping")
    return f"DROP {kind.removeprefix('OBJECT_').replace('_', ' ')}".replace(
        "MATVIEW", "MATERIALIZED VIEW"
    )


def _absent_name(item: Node) -> str:
    match item:
        case {"ObjectWithArgs": target}:
            rest: Node = target
            name = ".".join(strings(rest["objname"]))
            if rest.get("args_unspecified"):
                return name
            arguments: list[Node] = list(rest.get("objargs", []))
            types = [strings(argument["TypeName"]["names"])[-1] for argument in arguments]
            return f"{name}({','.join(types)})"
        case {"TypeName": {"names": parts}}:
            return ".".join(strings(parts))
        case {"List": {"items": parts}}:
            return ".".join(strings(parts))
        case {"String": {"sval": name}}:
            return str(name)
    raise unsupported("this kind of name in DROP")


def _find(ddl: Ddl, names: list[str], kind: str, *, missing_ok: bool) -> Relation | None:
    schema, name = split_name(ddl, names)
    word = WORDS[kind]
    if schema is not None and ddl.catalog.schema_by_name(schema) is None and schema != "pg_temp":
        if not missing_ok:
            raise QueryError(f'schema "{schema}" does not exist', "3F000")
        ddl.notice(f'schema "{schema}" does not exist, skipping')
        return None
    found = ddl.catalog.relation(schema, name, ddl.search_path)
    if found is None:
        text = f'{word} "{shown(schema, name)}" does not exist'
        if not missing_ok:
            raise QueryError(text, "42704" if kind == "OBJECT_INDEX" else "42P01")
        ddl.notice(text + ", skipping")
        return None
    if isinstance(found, VirtualTable):
        raise system_catalog(found)
    if not isinstance(found, KINDS[kind]):
        raise _wrong_kind(found, word)
    return found


def _wrong_kind(found: Relation, wanted: str) -> QueryError:
    error = refuse_kind(found, wanted)
    actual = "index" if isinstance(found, IndexRelation) else type(found).__name__.lower()
    error.hint = (
        f"Use DROP {actual.upper()} to remove {'an' if actual == 'index' else 'a'} {actual}."
    )
    return error


def _required(ddl: Ddl, sequence: Sequence) -> QueryError:
    assert sequence.owned_by is not None, "an identity sequence has a column"
    table = ddl.catalog.table_by_id(sequence.owned_by[0])
    assert table is not None, "an owned sequence goes with its table"
    column = next(c for c in table.columns if c.id == sequence.owned_by[1])
    place = f"column {column.name} of {describe(ddl, table)}"
    return QueryError(
        f"cannot drop sequence {visible_name(ddl, sequence)} because {place} requires it",
        "2BP01",
        hint=f"You can drop {place} instead.",
    )


async def _drop_schemas(ddl: Ddl, node: Node, *, cascade: bool, missing_ok: bool) -> None:
    plan = DropPlan()
    for item in node["objects"]:
        name = item["String"]["sval"]
        schema = ddl.catalog.schema_by_name(name)
        if schema is None:
            if not missing_ok:
                raise QueryError(f'schema "{name}" does not exist', "3F000")
            ddl.notice(f'schema "{name}" does not exist, skipping')
            continue
        if name in SYSTEM_SCHEMAS:
            raise QueryError(
                f"cannot drop schema {name} because it is required by the database system", "2BP01"
            )
        plan.schemas[schema.id] = schema
    names = [f"schema {schema.name}" for schema in plan.schemas.values()]
    what = names[0] if len(names) == 1 else "desired object(s)"
    await carry_out(ddl, plan, what, cascade=cascade)


async def _drop_types(ddl: Ddl, node: Node, *, cascade: bool, missing_ok: bool) -> None:
    plan = DropPlan()
    for item in node["objects"]:
        enum = dropped_type(ddl, item["TypeName"], missing_ok=missing_ok)
        if enum is not None:
            plan.types[enum.id] = enum
    names = [describe(ddl, enum) for enum in plan.types.values()]
    what = names[0] if len(names) == 1 else "desired object(s)"
    await carry_out(ddl, plan, what, cascade=cascade)


async def carry_out(ddl: Ddl, plan: DropPlan, what: str, *, cascade: bool) -> None:
    """Lock, expand, report and remove. Raises: 2BP01 under RESTRICT when something else depends on it."""
    for relation in list(plan.relations.values()):
        plan.relations[relation.id] = await ddl.lock_exclusively(relation)
    for enum in list(plan.types.values()):
        plan.types[enum.id] = await ddl.lock_type(enum, TableLockMode.ACCESS_EXCLUSIVE)
    Dependents(ddl, plan).expand()
    settle(ddl, plan, what, cascade=cascade)
    affected: dict[int, StoredRelation] = {t.id: t for t, _ in plan.foreign_keys.values()}
    affected |= {table.id: table for table, _ in plan.defaults.values()}
    affected |= {table.id: table for table, _ in plan.columns.values()}
    for other in [*plan.relations.values(), *affected.values()]:
        await ddl.lock_exclusively(other)
    for enum in plan.types.values():
        await ddl.lock_type(enum, TableLockMode.ACCESS_EXCLUSIVE)
    owners = [relation for relation in plan.relations.values() if isinstance(relation, Table)]
    forgotten = [key for owner in owners for key in owner.foreign_keys]
    forgotten += [key for _, key in plan.foreign_keys.values()]
    for target in filter(None, map(ddl.catalog.table_by_id, (key.target for key in forgotten))):
        await ddl.lock(target, TableLockMode.SHARE_UPDATE_EXCLUSIVE)  # no DDL may change it beside
    await remove(ddl, plan)
    for table, column in plan.columns.values():
        left = ddl.catalog.table_by_id(table.id)
        if left is not None:
            await remove_column(ddl, left, column)
    await ddl.remove(*plan.types.values())


async def remove(ddl: Ddl, plan: DropPlan) -> None:
    """Write the plan: what it removes, and the tables that lose a constraint or a default."""
    changes: list[Change] = [ddl.change(r, gone=True) for r in plan.relations.values()]
    changes += [ddl.change(schema, gone=True) for schema in plan.schemas.values()]
    changes += [ddl.change(table) for table in _survivors(ddl, plan)]
    for relation in plan.relations.values():
        await _forget_storage(ddl, relation)
    await ddl.apply(changes)


def _survivors(ddl: Ddl, plan: DropPlan) -> list[Table]:
    """The tables that stay but change: constraints and defaults gone, targets with fewer references."""
    tables: dict[int, Table] = {t.id: t for t in ddl.catalog.tables() if t.id not in plan.relations}
    changed: dict[int, Table] = {}
    for table, key in plan.foreign_keys.values():
        current = changed.get(table.id, tables.get(table.id))
        if current is not None:
            kept = tuple(k for k in current.foreign_keys if k.oid != key.oid)
            changed[table.id] = replace(current, foreign_keys=kept)
    for table, column in plan.defaults.values():
        current = changed.get(table.id, tables.get(table.id))
        if current is not None:
            columns = tuple(
                replace(c, default=None) if c.id == column.id else c for c in current.columns
            )
            changed[table.id] = replace(current, columns=columns)
    for target in tables.values():
        current = changed.get(target.id, target)
        still = referencing(current, {**tables, **changed})
        if still != current.referenced_by:
            changed[target.id] = replace(current, referenced_by=still)
    return [replace(table, version=table.version + 1) for table in changed.values()]


def referencing(target: Table, tables: dict[int, Table]) -> tuple[TableId, ...]:
    """The tables that still have a foreign key to `target`."""
    return tuple(
        oid
        for oid in target.referenced_by
        if oid in tables and any(key.target == target.id for key in tables[oid].foreign_keys)
    )


async def _forget_storage(ddl: Ddl, relation: StoredRelation) -> None:
    """Let rows and positions be removed after the commit."""
    if isinstance(relation, Table):
        await ddl.mark_dropped(relation)
    if isinstance(relation, (Table, Sequence)):
        key = codec.sequence_key(relation.storage_id)
        await ddl.transaction.lock([key], LockStrength.UPDATE, WaitPolicy.BLOCK)
        ddl.transaction.delete(key)
