"""What depends on an object, and what becomes of it: the plan of a DROP.

A plan starts from the objects named; `expand` follows dependencies to everything else that would break. What goes
silently with its owner (indexes, owned sequences, constraints over a dropped column) is not reported; the rest is the
DETAIL of 2BP01 under RESTRICT and the notice under CASCADE.
Source: PostgreSQL 15, src/backend/catalog/dependency.c (performMultipleDeletions, reportDependentObjects).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.descriptors import (
    Column,
    Enum,
    ForeignKey,
    Schema,
    Sequence,
    Table,
    View,
)
from shardforge.sql.catalog.expressions import columns_of
from shardforge.sql.catalog.ruleutils import relations_named
from shardforge.sql.catalog.snapshot import CatalogSnapshot, StoredRelation
from shardforge.sql.catalog.typenames import enum_name, enums_named, enums_of
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl.context import Ddl

WORD = {Table: "table", View: "view", Sequence: "sequence"}


def visible_name(ddl: Ddl, relation: StoredRelation) -> str:
    """The relation's name, with its schema when its bare name would not find it."""
    if ddl.catalog.is_visible(relation, ddl.search_path):
        return relation.name
    schema, name = ddl.catalog.qualified_name(relation)
    return f"{schema}.{name}"


def describe(ddl: Ddl, relation: StoredRelation | Enum) -> str:
    """The relation, or type, as messages name it: `table t`."""
    if isinstance(relation, Enum):
        return f"type {enum_name(relation, ddl.catalog, ddl.search_path)}"
    return f"{WORD[type(relation)]} {visible_name(ddl, relation)}"


def generated_from(ddl: Ddl, table: Table, column: Column) -> list[Column]:
    """The generated columns that a column of their table goes into."""
    return [
        other
        for other in table.columns
        if other.generated is not None
        and not other.dropped
        and column.id in columns_of(expressions.bind(ddl, table, other.generated))
    ]


@dataclass(slots=True)
class DropPlan:
    """What a DROP removes; `reports` are (object, what it depends on) of everything not named and not silent."""

    relations: dict[int, StoredRelation] = field(default_factory=dict)
    schemas: dict[int, Schema] = field(default_factory=dict)
    types: dict[int, Enum] = field(default_factory=dict)
    foreign_keys: dict[int, tuple[Table, ForeignKey]] = field(default_factory=dict)
    defaults: dict[tuple[int, int], tuple[Table, Column]] = field(default_factory=dict)
    columns: dict[tuple[int, int], tuple[Table, Column]] = field(default_factory=dict)
    reports: list[tuple[str, str]] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    """What depends on the plan and cannot be removed with it here."""


class Dependents:
    """Grows a plan by everything that depends on what is in it."""

    def __init__(self, ddl: Ddl, plan: DropPlan) -> None:
        self._ddl = ddl
        self._catalog: CatalogSnapshot = ddl.catalog
        self._plan = plan

    def expand(self) -> None:
        """Add everything that depends on the plan's relations, schemas, types and columns."""
        for schema in list(self._plan.schemas.values()):
            self._of_schema(schema)
        for enum in list(self._plan.types.values()):
            self._of_type(enum)
        for relation in list(self._plan.relations.values()):
            self._of_relation(relation)
        for table, column in list(self._plan.columns.values()):
            self.of_column(table, column)

    def _add(self, relation: StoredRelation, because: str) -> None:
        if relation.id in self._plan.relations:
            return
        self._plan.relations[relation.id] = relation
        self._plan.reports.append((describe(self._ddl, relation), because))
        self._of_relation(relation)

    def _of_schema(self, schema: Schema) -> None:
        inside: list[StoredRelation] = []
        for enum in sorted(self._catalog.enums(), key=lambda e: e.id):
            if enum.schema_id == schema.id and enum.id not in self._plan.types:
                self._plan.types[enum.id] = enum
                self._plan.reports.append((describe(self._ddl, enum), f"schema {schema.name}"))
        for relation in sorted(self._catalog.relations_of_schema(schema.id), key=lambda r: r.id):
            if isinstance(relation, Sequence) and relation.owned_by is not None:
                owner = self._catalog.table_by_id(relation.owned_by[0])
                if owner is not None and owner.schema_id == schema.id:
                    continue
            if relation.id not in self._plan.relations:
                inside.append(relation)
                self._plan.relations[relation.id] = relation
                what = describe(self._ddl, relation)
                self._plan.reports.append((what, f"schema {schema.name}"))
        for relation in inside:
            self._of_relation(relation)

    def _of_relation(self, relation: StoredRelation) -> None:
        because = describe(self._ddl, relation)
        self._views_on(relation.id, because)
        if isinstance(relation, Table):
            self._owned_sequences(relation, None)
            for other in sorted(self._catalog.tables(), key=lambda t: t.id):
                if other.id not in self._plan.relations:
                    for key in other.foreign_keys:
                        if key.target == relation.id:
                            self._foreign_key(other, key, because)
        elif isinstance(relation, Sequence):
            self._defaults_of(relation)

    def _views_on(self, oid: int, because: str) -> None:
        for view in sorted(self._catalog.views(), key=lambda v: v.id):
            if oid in view.depends_on:
                self._add(view, because)

    def _of_type(self, enum: Enum) -> None:
        because = describe(self._ddl, enum)
        users = sorted(self._catalog.relations(), key=lambda relation: relation.id)
        for relation in users:
            if isinstance(relation, Table) and relation.id not in self._plan.relations:
                self._columns_of_type(relation, enum.id + 1, f"{because}[]")
        for relation in users:
            if isinstance(relation, Table) and relation.id not in self._plan.relations:
                if enum.id in enums_of(relation):
                    self._columns_of_type(relation, enum.id, because)
                    self._naming_type(enum, relation, because)
            elif isinstance(relation, View) and enum.id in relation.depends_on_types:
                self._add(relation, because)

    def _columns_of_type(self, table: Table, type_oid: int, because: str) -> None:
        place = describe(self._ddl, table)
        columns = [c for c in reversed(table.columns) if c.type_oid == type_oid and not c.dropped]
        for column in sorted(columns, key=lambda c: c.generated is not None):
            if (table.id, column.id) not in self._plan.columns:
                self._column(table, column, because)
                for other in generated_from(self._ddl, table, column):
                    self._column(table, other, f"column {column.name} of {place}")

    def _naming_type(self, enum: Enum, table: Table, because: str) -> None:
        """Whatever of the table names the type and does not go with a column."""
        place = describe(self._ddl, table)
        gone = {column_id for table_id, column_id in self._plan.columns if table_id == table.id}
        for column in table.columns:
            if column.id in gone or column.dropped:
                continue
            if enum.id in enums_named(column.default or ""):
                self._plan.defaults[table.id, column.id] = (table, column)
                what = f"default value for column {column.name} of {place}"
                self._plan.reports.append((what, because))
            if enum.id in enums_named(column.generated or ""):
                self._column(table, column, because)
        texts = [(f"constraint {c.name} on {place}", c.expression) for c in table.checks]
        for index in table.indexes:
            parts = [index.predicate or "", *(p.expression or "" for p in index.columns)]
            texts += [(f"index {index.name}", part) for part in parts]
        for what, text in texts:
            if enum.id not in enums_named(text):
                continue
            if gone.isdisjoint(columns_of(expressions.bind(self._ddl, table, text))):
                self._plan.stays.append(what)
                self._plan.reports.append((what, because))

    def _column(self, table: Table, column: Column, because: str) -> None:
        if (table.id, column.id) not in self._plan.columns:
            self._plan.columns[table.id, column.id] = (table, column)
            what = f"column {column.name} of {describe(self._ddl, table)}"
            self._plan.reports.append((what, because))

    def _owned_sequences(self, table: Table, column_id: int | None) -> None:
        for sequence in self._catalog.sequences():
            owned = sequence.owned_by
            if owned is None or owned[0] != table.id or sequence.id in self._plan.relations:
                continue
            if column_id is None or owned[1] == column_id:
                self._plan.relations[sequence.id] = sequence
                self._defaults_of(sequence, owner=owned)

    def _defaults_of(self, sequence: Sequence, owner: tuple[int, int] | None = None) -> None:
        for table in sorted(self._catalog.tables(), key=lambda t: t.id):
            for column in table.columns:
                if column.default is None or sequence.id not in relations_named(column.default):
                    continue
                place = (table.id, column.id)
                gone = table.id in self._plan.relations or place in self._plan.columns
                if gone or place == owner or place in self._plan.defaults:
                    continue
                self._plan.defaults[place] = (table, column)
                what = f"default value for column {column.name} of {describe(self._ddl, table)}"
                self._plan.reports.append((what, describe(self._ddl, sequence)))

    def _foreign_key(self, table: Table, key: ForeignKey, because: str) -> None:
        if key.oid not in self._plan.foreign_keys:
            self._plan.foreign_keys[key.oid] = (table, key)
            what = f"constraint {key.name} on {describe(self._ddl, table)}"
            self._plan.reports.append((what, because))

    def of_column(self, table: Table, column: Column) -> None:
        """Add what depends on one column: views, foreign keys of other tables, generated columns."""
        because = f"column {column.name} of {describe(self._ddl, table)}"
        for view in sorted(self._catalog.views(), key=lambda v: v.id):
            if (table.id, column.id) in view.depends_on_columns:
                self._add(view, because)
        for other in sorted(self._catalog.tables(), key=lambda t: t.id):
            for key in other.foreign_keys:
                if key.target == table.id and column.id in key.target_columns:
                    if any((other.id, own) in self._plan.columns for own in key.columns):
                        self._plan.foreign_keys.setdefault(key.oid, (other, key))
                    else:
                        self._foreign_key(other, key, because)
        self._owned_sequences(table, column.id)

    def of_unique(self, table: Table, columns: tuple[int, ...], because: str) -> None:
        """Add the foreign keys that need a unique index over these columns."""
        wanted = sorted(columns)
        for other in sorted(self._catalog.tables(), key=lambda t: t.id):
            for key in other.foreign_keys:
                if key.target == table.id and sorted(key.target_columns) == wanted:
                    self._foreign_key(other, key, because)


def settle(ddl: Ddl, plan: DropPlan, what: str, *, cascade: bool) -> None:
    """Raise 2BP01 for a plan with reports under RESTRICT; tell the client about them under CASCADE."""
    if not plan.reports:
        return
    if not cascade:
        raise QueryError(
            f"cannot drop {what} because other objects depend on it", "2BP01",
            detail="\n".join(f"{thing} depends on {on}" for thing, on in plan.reports),
            hint="Use DROP ... CASCADE to drop the dependent objects too.",
        )  # fmt: skip
    if plan.stays:
        raise unsupported(f"dropping {what} with {plan.stays[0]}", hint="Drop that one first.")
    if len(plan.reports) == 1:
        ddl.notice(f"drop cascades to {plan.reports[0][0]}")
        return
    ddl.notice(
        f"drop cascades to {len(plan.reports)} other objects",
        detail="\n".join(f"drop cascades to {thing}" for thing, _ in plan.reports),
    )
