"""What depends on an object, and what becomes of it: the plan of a DROP.

A plan starts from the objects named; `expand` follows dependencies to everything else that would break. What goes
silently with its owner (indexes, owned sequences, constraints over a dropped column) is not reported; the rest is the
DETAIL of 2BP01 under RESTRICT and the notice under CASCADE.
Source: PostgreSQL 15, src/backend/catalog/dependency.c (performMultipleDeletions, reportDependentObjects).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import (
    Column,
    ForeignKey,
    Schema,
    Sequence,
    Table,
    View,
)
from shardforge.sql.catalog.ruleutils import relations_named
from shardforge.sql.catalog.snapshot import CatalogSnapshot, StoredRelation
from shardforge.sql.ddl.context import Ddl

WORD = {Table: "table", View: "view", Sequence: "sequence"}


def visible_name(ddl: Ddl, relation: StoredRelation) -> str:
    """The relation's name, with its schema when its bare name would not find it."""
    if ddl.catalog.is_visible(relation, ddl.search_path):
        return relation.name
    schema, name = ddl.catalog.qualified_name(relation)
    return f"{schema}.{name}"


def describe(ddl: Ddl, relation: StoredRelation) -> str:
    """The relation as messages name it: `table t`."""
    return f"{WORD[type(relation)]} {visible_name(ddl, relation)}"


@dataclass(slots=True)
class DropPlan:
    """What a DROP removes; `reports` are (object, what it depends on) of everything not named and not silent."""

    relations: dict[int, StoredRelation] = field(default_factory=dict)
    schemas: dict[int, Schema] = field(default_factory=dict)
    foreign_keys: dict[int, tuple[Table, ForeignKey]] = field(default_factory=dict)
    defaults: dict[tuple[int, int], tuple[Table, Column]] = field(default_factory=dict)
    columns: dict[tuple[int, int], tuple[Table, Column]] = field(default_factory=dict)
    reports: list[tuple[str, str]] = field(default_factory=list)


class Dependents:
    """Grows a plan by everything that depends on what is in it."""

    def __init__(self, ddl: Ddl, plan: DropPlan) -> None:
        self._ddl = ddl
        self._catalog: CatalogSnapshot = ddl.catalog
        self._plan = plan

    def expand(self) -> None:
        """Add everything that depends on the plan's relations, schemas and columns."""
        for schema in list(self._plan.schemas.values()):
            self._of_schema(schema)
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
                    own = other.id == table.id and column.id in key.columns
                    if own:
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
    if len(plan.reports) == 1:
        ddl.notice(f"drop cascades to {plan.reports[0][0]}")
        return
    ddl.notice(
        f"drop cascades to {len(plan.reports)} other objects",
        detail="\n".join(f"drop cascades to {thing}" for thing, _ in plan.reports),
    )
