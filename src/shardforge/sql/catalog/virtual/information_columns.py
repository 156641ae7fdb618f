"""information_schema.columns.

Source: PostgreSQL 15, src/backend/catalog/information_schema.sql (columns, _pg_char_max_length and its kin).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from shardforge.sql.catalog.definitions import Definitions
from shardforge.sql.catalog.descriptors import Column, Sequence, Table, View
from shardforge.sql.catalog.relations import VirtualContext, VirtualTable
from shardforge.sql.catalog.virtual.base import Record, all_tables, rows_of
from shardforge.sql.catalog.virtual.information_tables import INFORMATION, yes_no
from shardforge.sql.catalog.virtual.listings import schema_name
from shardforge.sql.types.registry import find_type, format_type

_INTEGERS: Final = {21: 16, 23: 32, 20: 64}
_FLOATS: Final = {700: 24, 701: 53}
_TIMES: Final = frozenset({1083, 1114, 1184, 1266})
_DATE, _INTERVAL, _NUMERIC = 1082, 1186, 1700


def type_facts(ctx: VirtualContext, type_oid: int, typmod: int) -> Record:
    """The columns that describe a type: lengths, precisions, names."""
    enum = ctx.snapshot.enum_by_id(type_oid)
    if enum is not None:
        array = enum.id != type_oid
        return {
            "data_type": "ARRAY" if array else "USER-DEFINED", "udt_schema": schema_name(ctx, enum.schema_id),
            "udt_name": ctx.snapshot.array_name(enum) if array else enum.name,
        }  # fmt: skip
    found = find_type(type_oid)
    name = "" if found is None else found.name
    array = found is not None and bool(found.element) and found.length == -1
    facts: Record = {
        "data_type": "ARRAY" if array else format_type(type_oid, None), "udt_schema": "pg_catalog",
        "udt_name": name,
    }  # fmt: skip
    if type_oid in (1042, 1043):
        facts["character_maximum_length"] = typmod - 4 if typmod >= 0 else None
        facts["character_octet_length"] = (typmod - 4) * 4 if typmod >= 0 else 2**30
    elif type_oid == 25:
        facts["character_octet_length"] = 2**30
    elif type_oid in _INTEGERS:
        facts.update(
            numeric_precision=_INTEGERS[type_oid], numeric_precision_radix=2, numeric_scale=0
        )
    elif type_oid in _FLOATS:
        facts.update(numeric_precision=_FLOATS[type_oid], numeric_precision_radix=2)
    elif type_oid == _NUMERIC:
        facts["numeric_precision_radix"] = 10
        if typmod >= 0:
            facts["numeric_precision"] = (typmod - 4) >> 16 & 0xFFFF
            facts["numeric_scale"] = ((typmod - 4) & 0x7FF ^ 1024) - 1024
    elif type_oid == _DATE:
        facts["datetime_precision"] = 0
    elif type_oid in _TIMES:
        facts["datetime_precision"] = typmod if typmod >= 0 else 6
    elif type_oid == _INTERVAL:
        low = typmod & 0xFFFF
        facts["datetime_precision"] = 6 if typmod < 0 or low == 0xFFFF else low
    return facts


@rows_of("columns", INFORMATION)
def columns(ctx: VirtualContext) -> Iterator[Record]:
    """Columns of tables and views, the catalog's included."""
    owned = {s.owned_by: s for s in ctx.snapshot.sequences() if s.identity}
    definitions = Definitions(ctx.snapshot, ctx.search_path)
    database = ctx.snapshot.database.name
    for (schema, name), virtual in all_tables().items():
        for column in virtual.columns:
            yield _column(ctx, database, schema, name, virtual, column, None, definitions)
    for relation in ctx.snapshot.relations():
        if not isinstance(relation, (Table, View)):
            continue
        schema = schema_name(ctx, relation.schema_id)
        for column in relation.columns:
            if not column.dropped and not column.hidden:
                sequence = owned.get((relation.id, column.id))
                yield _column(
                    ctx, database, schema, relation.name, relation, column, sequence, definitions
                )


def _column(
    ctx: VirtualContext, database: str, schema: str, name: str, relation: Table | View | VirtualTable,
    column: Column, sequence: Sequence | None, definitions: Definitions,
) -> Record:  # fmt: skip
    is_table = isinstance(relation, Table)
    record: Record = {
        "table_catalog": database, "table_schema": schema, "table_name": name, "column_name": column.name,
        "ordinal_position": column.id, "is_nullable": yes_no(not column.not_null),
        **type_facts(ctx, column.type_oid, column.typmod), "udt_catalog": database,
        "dtd_identifier": str(column.id), "is_self_referencing": "NO", "is_identity": yes_no(column.identity),
        "identity_cycle": "NO", "is_generated": "ALWAYS" if column.generated is not None else "NEVER",
        "is_updatable": yes_no(is_table),
    }  # fmt: skip
    if isinstance(relation, Table):
        record.update(_expressions(relation, column, definitions))
    if sequence is not None:
        record.update(_identity(column, sequence))
    return record


def _expressions(table: Table, column: Column, definitions: Definitions) -> dict[str, Any]:
    if column.generated is not None:
        return {"generation_expression": definitions.expression(table, column.generated)}
    if column.default is not None:
        return {"column_default": definitions.expression(table, column.default)}
    return {}


def _identity(column: Column, sequence: Sequence) -> dict[str, Any]:
    return {
        "identity_generation": "ALWAYS" if column.identity == "a" else "BY DEFAULT",
        "identity_start": str(sequence.start), "identity_increment": str(sequence.increment),
        "identity_maximum": str(sequence.maximum), "identity_minimum": str(sequence.minimum),
        "identity_cycle": yes_no(sequence.cycle),
    }  # fmt: skip
