"""CREATE TYPE ... AS ENUM and what ALTER, COMMENT and DROP say of types.

A label's value is chosen once and never changes: a new one at the end is one more than the last, one between two others
lies in the middle of theirs. So keys and rows that hold values stay as they are. Doubles can be halved some fifty times
at one place; then there is no room (0A000), where PostgreSQL would number its labels anew.
Source: PostgreSQL 15, src/backend/commands/typecmds.c, src/backend/catalog/pg_enum.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from shardforge.errors import QueryError, unsupported
from shardforge.keys import ENUM_OIDS
from shardforge.sql.catalog.descriptors import Enum, EnumLabel, Schema
from shardforge.sql.catalog.snapshot import SYSTEM_SCHEMAS
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.catalog.typenames import visible_types
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import checked_name, shown, split_name, strings
from shardforge.sql.types.registry import find_type, type_by_oid, type_named

LABEL_BYTES_MAX = 63


async def create_enum(ddl: Ddl, node: Node) -> str:
    """CREATE TYPE ... AS ENUM."""
    schema_name, name = split_name(ddl, strings(node["typeName"]))
    name = checked_name(name)
    if schema_name is None:
        schema = ddl.catalog.creation_schema(ddl.search_path)
    else:
        schema = ddl.catalog.schema_for_lookup(schema_name, ddl.search_path)
    if schema.name in SYSTEM_SCHEMAS:
        raise QueryError(
            f'permission denied to create "{shown(schema_name, name)}"', "42501",
            detail="System catalog modifications are currently disallowed.",
        )  # fmt: skip
    if schema.temporary_session:
        raise unsupported("a temporary type")
    _ensure_free(ddl, schema, name)
    oid = ENUM_OIDS.start + 2 * await ddl.new_oid()
    labels: list[EnumLabel] = []
    for text in strings(node.get("vals", [])):
        _check_label(text)
        labels.append(EnumLabel(await ddl.new_oid(), text, float(len(labels) + 1)))
    _check_distinct(oid, labels)
    await ddl.put(Enum(oid, name, schema.id, tuple(labels), ddl.owner))
    return "CREATE TYPE"


def _ensure_free(ddl: Ddl, schema: Schema, name: str) -> None:
    if ddl.catalog.user_type(schema.name, name):
        raise QueryError(f'type "{name}" already exists', "42710")


def _check_label(text: str) -> None:
    if len(text.encode()) > LABEL_BYTES_MAX:
        raise QueryError(
            f'invalid enum label "{text}"', "42602",
            detail=f"Labels must be {LABEL_BYTES_MAX} bytes or less.",
        )  # fmt: skip


def _check_distinct(oid: int, labels: Sequence[EnumLabel]) -> None:
    names = [label.name for label in labels]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise QueryError(
                'duplicate key value violates unique constraint "pg_enum_typid_label_index"', "23505",
                detail=f"Key (enumtypid, enumlabel)=({oid}, {name}) already exists.", schema="pg_catalog",
                table="pg_enum", constraint="pg_enum_typid_label_index",
            )  # fmt: skip


# ---- finding -------------------------------------------------------------------------------------


def _type_oid(ddl: Ddl, names: Sequence[str]) -> int:
    """The type of that name; 0 for none."""
    schema, name = split_name(ddl, names)
    found = type_named(name) if schema in (None, "pg_catalog") else None
    if found is not None:
        return found.oid
    if schema is not None:
        ddl.catalog.schema_for_lookup(schema, ddl.search_path)
    return ddl.catalog.user_type(schema, name, ddl.search_path)


def _missing(names: Sequence[str]) -> QueryError:
    return QueryError(f'type "{".".join(names)}" does not exist', "42704")


def _shown(ddl: Ddl, oid: int) -> str:
    row = ddl.catalog.row_type(oid)
    if row is not None:
        return row.name
    return visible_types(type_by_oid(oid).display, ddl.catalog, ddl.search_path)


async def altered_enum(ddl: Ddl, names: Sequence[str]) -> Enum:
    """The enum that an ALTER TYPE or COMMENT names, locked. Raises: 42704, 42809, 0A000."""
    oid = _type_oid(ddl, names)
    if not oid:
        raise _missing(names)
    enum = ddl.catalog.enum_by_id(oid)
    if enum is None:
        row = ddl.catalog.row_type(oid)
        if row is not None:
            raise QueryError(
                f"{row.name} is a table's row type", "42809", hint="Use ALTER TABLE instead."
            )
        raise unsupported(f"ALTER TYPE {_shown(ddl, oid)}")
    if enum.id != oid:
        raise QueryError(
            f"cannot alter array type {_shown(ddl, oid)}", "42809",
            hint=f"You can alter type {_shown(ddl, enum.id)}, which will alter the array type as well.",
        )  # fmt: skip
    return await ddl.lock_type(enum, TableLockMode.ACCESS_EXCLUSIVE)


def dropped_type(ddl: Ddl, node: Node, *, missing_ok: bool) -> Enum | None:
    """The enum that a TypeName of DROP TYPE means; None and a notice when there is none and it may.

    Raises: 42704, 2BP01.
    """
    names = strings(node["names"])
    schema, _ = split_name(ddl, names)
    if missing_ok and schema is not None and ddl.catalog.schema_by_name(schema) is None:
        ddl.notice(f'schema "{schema}" does not exist, skipping')
        return None
    oid = _type_oid(ddl, names)
    if not oid:
        if not missing_ok:
            raise _missing(names)
        ddl.notice(f'type "{".".join(names)}" does not exist, skipping')
        return None
    if node.get("arrayBounds"):
        oid = type_by_oid(oid).array or oid
    enum = ddl.catalog.enum_by_id(oid)
    what = _shown(ddl, oid)
    if enum is None:
        row = ddl.catalog.row_type(oid)
        if row is None:
            raise QueryError(
                f"cannot drop type {what} because it is required by the database system", "2BP01"
            )
        owner = f"{type(row).__name__.lower()} {row.name}"
    else:
        owner = f"type {_shown(ddl, enum.id)}"
    if enum is None or enum.id != oid:
        raise QueryError(
            f"cannot drop type {what} because {owner} requires it", "2BP01",
            hint=f"You can drop {owner} instead.",
        )  # fmt: skip
    return enum


# ---- labels --------------------------------------------------------------------------------------


async def alter_enum(ddl: Ddl, node: Node) -> str:
    """ALTER TYPE ... ADD VALUE and RENAME VALUE."""
    names = strings(node["typeName"])
    oid = _type_oid(ddl, names)
    found = find_type(oid)
    if oid and (found is None or found.kind != "e"):
        raise QueryError(f"{_shown(ddl, oid)} is not an enum", "42809")
    enum = await altered_enum(ddl, names)
    neighbor, after = node.get("newValNeighbor"), bool(node.get("newValIsAfter"))
    if neighbor is None and not after:
        labels = _renamed(ddl, enum, node.get("oldVal", ""), node.get("newVal", ""))
    else:
        text = node.get("newVal", "")
        _check_label(text)
        if any(label.name == text for label in enum.labels):
            if not node.get("skipIfNewValExists"):
                raise QueryError(f'enum label "{text}" already exists', "42710")
            ddl.notice(f'enum label "{text}" already exists, skipping', "42710")
            return "ALTER TYPE"
        place, order = place_of(enum, neighbor, after=after)
        added = EnumLabel(await ddl.new_oid(), text, order)
        labels = (*enum.labels[:place], added, *enum.labels[place:])
    await ddl.put(replace(enum, labels=labels, version=enum.version + 1))
    return "ALTER TYPE"


def _position(enum: Enum, text: str) -> int:
    for position, label in enumerate(enum.labels):
        if label.name == text:
            return position
    raise QueryError(f'"{text}" is not an existing enum label', "22023")


def place_of(enum: Enum, neighbor: str | None, *, after: bool) -> tuple[int, float]:
    """(position among the labels, value) of a new label. Raises: 22023; 0A000 when there is no value between."""
    orders = [label.order for label in enum.labels]
    place = len(orders) if neighbor is None else _position(enum, neighbor) + after
    if not orders:
        return 0, 1.0
    if place == len(orders):
        return place, orders[-1] + 1
    if place == 0:
        return 0, orders[0] - 1
    low, high = orders[place - 1], orders[place]
    middle = (low + high) / 2
    if not low < middle < high:
        raise unsupported(f'another label between "{enum.labels[place - 1].name}" and "{neighbor}"')
    return place, middle


def _renamed(ddl: Ddl, enum: Enum, old: str, new: str) -> tuple[EnumLabel, ...]:
    _check_label(new)
    position = _position(enum, old)
    if any(label.name == new for label in enum.labels):
        raise QueryError(f'enum label "{new}" already exists', "42710")
    _refuse_viewed(ddl, enum, old, f'renaming label "{old}"')
    label = replace(enum.labels[position], name=new)
    return (*enum.labels[:position], label, *enum.labels[position + 1 :])


def _refuse_viewed(ddl: Ddl, enum: Enum, word: str, what: str) -> None:
    """0A000 when a view of the type may have the word in its query, which is kept as text."""
    for view in ddl.catalog.views():
        if enum.id in view.depends_on_types and word in view.query:
            raise unsupported(
                f'{what} while view "{view.name}" may name it',
                hint="Drop the view and create it again afterwards.",
            )


# ---- the type itself -----------------------------------------------------------------------------


async def rename_enum(ddl: Ddl, names: Sequence[str], name: str) -> None:
    """ALTER TYPE ... RENAME TO."""
    enum = await altered_enum(ddl, names)
    schema = ddl.catalog.schema_by_id(enum.schema_id)
    assert schema is not None, "a type's schema exists while the type does"
    _ensure_free(ddl, schema, name)
    _refuse_viewed(ddl, enum, enum.name, f'renaming type "{enum.name}"')
    await ddl.put(replace(enum, name=name, version=enum.version + 1))


async def move_enum(ddl: Ddl, names: Sequence[str], schema_name: str) -> None:
    """ALTER TYPE ... SET SCHEMA."""
    enum = await altered_enum(ddl, names)
    schema = ddl.catalog.schema_for_lookup(schema_name, ddl.search_path)
    if schema.id == enum.schema_id:
        return
    if schema.temporary_session or schema.name in SYSTEM_SCHEMAS:
        raise QueryError("cannot move objects into or out of temporary schemas", "0A000")
    if ddl.catalog.user_type(schema.name, enum.name):
        raise QueryError(f'type "{enum.name}" already exists in schema "{schema.name}"', "42710")
    _refuse_viewed(ddl, enum, enum.name, f'moving type "{enum.name}" to another schema')
    await ddl.put(replace(enum, schema_id=schema.id, version=enum.version + 1))


async def own_enum(ddl: Ddl, names: Sequence[str], owner: int) -> None:
    """ALTER TYPE ... OWNER TO."""
    enum = await altered_enum(ddl, names)
    await ddl.put(replace(enum, owner=owner, version=enum.version + 1))


async def comment_on_enum(ddl: Ddl, names: Sequence[str], text: str | None) -> None:
    """COMMENT ON TYPE."""
    enum = await altered_enum(ddl, names)
    await ddl.put(replace(enum, comment=text, version=enum.version + 1))


def require_type(ddl: Ddl, names: Sequence[str]) -> None:
    """42704 unless there is a type of that name."""
    if not _type_oid(ddl, names):
        raise _missing(names)
