"""The catalog as one statement sees it: immutable, shared by every session of a database.

A committed DDL makes a new snapshot with a higher `version`; a session's own uncommitted DDL is an overlay: the
committed snapshot plus `changes`. No two snapshots with different contents ever have the same version in one
process, so plans may be cached by it. Look-ups are dictionary look-ups.

Names resolve as in PostgreSQL: a session's temporary schema first (relations only), then pg_catalog, then the
search path, unless the path names one of the two explicitly. Source: PostgreSQL 15, src/backend/catalog/namespace.c.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from shardforge.errors import QueryError
from shardforge.ids import TableId
from shardforge.keys import element_of
from shardforge.sql.catalog.descriptors import (
    Database,
    Enum,
    EnumLabel,
    Index,
    Role,
    Schema,
    Table,
    View,
)
from shardforge.sql.catalog.descriptors import Sequence as SequenceDescriptor
from shardforge.sql.catalog.relations import VirtualTable

_versions = itertools.count(1)

PG_CATALOG: Final = 11
INFORMATION_SCHEMA: Final = 13000
PG_TOAST: Final = 99

TEMPORARY_PREFIX: Final = "pg_temp_"
"""A session's temporary schema is this and its process id; `session_path` puts it first in the search path."""

SYSTEM_SCHEMAS: Final = {
    "pg_catalog": PG_CATALOG,
    "information_schema": INFORMATION_SCHEMA,
    "pg_toast": PG_TOAST,
}


@dataclass(frozen=True, slots=True)
class IndexRelation:
    """An index seen as a relation, with the table that it belongs to."""

    table: Table
    index: Index

    @property
    def id(self) -> TableId:
        """The index's oid."""
        return self.index.id

    @property
    def name(self) -> str:
        """The index's name."""
        return self.index.name

    @property
    def schema_id(self) -> int:
        """An index lives in its table's schema."""
        return self.table.schema_id


StoredRelation: TypeAlias = Table | View | SequenceDescriptor
Relation: TypeAlias = Table | View | SequenceDescriptor | IndexRelation | VirtualTable
Descriptor: TypeAlias = Table | View | SequenceDescriptor | Enum | Schema | Database | Role

KIND_OF: Final[dict[type, str]] = {
    Table: "relation",
    View: "relation",
    SequenceDescriptor: "relation",
    Schema: "schema",
    Database: "database",
    Role: "role",
    Enum: "type",
}


class Change(NamedTuple):
    """One object's new descriptor, or None when it is gone. `kind` as in KIND_OF."""

    kind: str
    database_id: int
    """0 for databases and roles, which all databases share."""
    id: int
    descriptor: Descriptor | None


class CatalogSnapshot:
    """What exists in one database (and which databases and roles exist), at one version."""

    __slots__ = (
        "_by_name",
        "_committed_enums",
        "_databases",
        "_enum_names",
        "_enums",
        "_indexes",
        "_relations",
        "_roles",
        "_row_types",
        "_schema_names",
        "_schemas",
        "base_version",
        "changes",
        "database",
        "version",
        "virtual",
    )

    def __init__(
        self,
        database: Database,
        *,
        relations: Mapping[int, StoredRelation],
        schemas: Mapping[int, Schema],
        databases: Mapping[int, Database],
        roles: Mapping[int, Role],
        enums: Mapping[int, Enum],
        virtual: Mapping[tuple[str, str], VirtualTable],
    ) -> None:
        self.version = next(_versions)
        self.base_version = self.version
        self.database = database
        self.changes: tuple[Change, ...] = ()
        """The session's own uncommitted changes, when this is an overlay."""
        self.virtual = virtual
        self._enums: dict[int, Enum] = {}
        self._committed_enums = self._enums
        self._enum_names: dict[tuple[int, str], Enum] = {}
        self._relations: dict[int, StoredRelation] = {}
        self._by_name: dict[tuple[int, str], StoredRelation | IndexRelation] = {}
        self._indexes: dict[int, IndexRelation] = {}
        self._row_types: dict[int, StoredRelation] = {}
        self._schemas: dict[int, Schema] = {}
        self._schema_names: dict[str, Schema] = {}
        self._databases = dict(databases)
        self._roles = dict(roles)
        for schema in schemas.values():
            self._add_schema(schema)
        for relation in relations.values():
            self._add_relation(relation)
        for enum in enums.values():
            self._add_enum(enum)

    # ---- derived snapshots -----------------------------------------------------------------------

    def with_changes(self, changes: Iterable[Change]) -> CatalogSnapshot:
        """This snapshot with a session's further uncommitted changes on top."""
        changes = tuple(changes)
        copy = self._copy()
        for change in changes:
            copy._apply(change)
        copy.changes = self.changes + changes
        return copy

    def advanced(self, changes: Iterable[Change]) -> CatalogSnapshot:
        """The next committed snapshot of this database."""
        copy = self._copy()
        for change in changes:
            copy._apply(change)
        copy.base_version = copy.version
        copy.changes = ()
        copy._committed_enums = copy._enums
        return copy

    def _copy(self) -> CatalogSnapshot:
        copy = CatalogSnapshot.__new__(CatalogSnapshot)
        copy.version = next(_versions)
        copy.base_version = self.base_version
        copy.database = self.database
        copy.changes = self.changes
        copy.virtual = self.virtual
        copy._committed_enums = self._committed_enums
        copy._enums = self._enums.copy()
        copy._enum_names = self._enum_names.copy()
        copy._relations = self._relations.copy()
        copy._by_name = self._by_name.copy()
        copy._indexes = self._indexes.copy()
        copy._row_types = self._row_types.copy()
        copy._schemas = self._schemas.copy()
        copy._schema_names = self._schema_names.copy()
        copy._databases = self._databases.copy()
        copy._roles = self._roles.copy()
        return copy

    def _apply(self, change: Change) -> None:
        descriptor = change.descriptor
        if change.kind == "relation":
            if change.database_id != self.database.id:
                return
            self._remove_relation(change.id)
            if isinstance(descriptor, (Table, View, SequenceDescriptor)):
                self._add_relation(descriptor)
        elif change.kind == "schema":
            if change.database_id != self.database.id:
                return
            old = self._schemas.pop(change.id, None)
            if old is not None:
                del self._schema_names[old.name]
            if isinstance(descriptor, Schema):
                self._add_schema(descriptor)
        elif change.kind == "type":
            if change.database_id != self.database.id:
                return
            gone = self._enums.pop(change.id, None)
            if gone is not None:
                del self._enum_names[gone.schema_id, gone.name]
            if isinstance(descriptor, Enum):
                self._add_enum(descriptor)
        elif change.kind == "role":
            self._roles.pop(change.id, None)
            if isinstance(descriptor, Role):
                self._roles[change.id] = descriptor
        else:
            self._databases.pop(change.id, None)
            if isinstance(descriptor, Database):
                self._databases[change.id] = descriptor
                if change.id == self.database.id:
                    self.database = descriptor

    def _add_schema(self, schema: Schema) -> None:
        self._schemas[schema.id] = schema
        self._schema_names[schema.name] = schema

    def _add_enum(self, enum: Enum) -> None:
        self._enums[enum.id] = enum
        self._enum_names[enum.schema_id, enum.name] = enum

    def _add_relation(self, relation: StoredRelation) -> None:
        self._relations[relation.id] = relation
        self._by_name[relation.schema_id, relation.name] = relation
        if isinstance(relation, Table):
            for index in relation.indexes:
                if index.name:
                    found = IndexRelation(relation, index)
                    self._indexes[index.id] = found
                    self._by_name[relation.schema_id, index.name] = found
        if not isinstance(relation, SequenceDescriptor) and relation.type_oid:
            self._row_types[relation.type_oid] = relation

    def _remove_relation(self, oid: int) -> None:
        old = self._relations.pop(oid, None)
        if old is None:
            return
        self._forget_name(old.schema_id, old.name, oid)
        if isinstance(old, Table):
            for index in old.indexes:
                self._indexes.pop(index.id, None)
                self._forget_name(old.schema_id, index.name, index.id)
        if not isinstance(old, SequenceDescriptor):
            self._row_types.pop(old.type_oid, None)

    def _forget_name(self, schema_id: int, name: str, oid: int) -> None:
        """Remove a name unless a later change of the same batch gave it to another object."""
        held = self._by_name.get((schema_id, name))
        if held is not None and held.id == oid:
            del self._by_name[schema_id, name]

    # ---- relations -------------------------------------------------------------------------------

    def relation(
        self, schema: str | None, name: str, search_path: Sequence[str] = ()
    ) -> Relation | None:
        """The relation that a name means; 3F000 when the named schema does not exist."""
        if schema is not None:
            return self.relation_in(self.schema_for_lookup(schema, search_path), name)
        if search_path and search_path[0].startswith(TEMPORARY_PREFIX):
            temporary = self._schema_names.get(search_path[0])
            if temporary is not None:
                found = self._by_name.get((temporary.id, name))
                if found is not None:
                    return found
        if "pg_catalog" not in search_path:
            virtual = self.virtual.get(("pg_catalog", name))
            if virtual is not None:
                return virtual
        for entry in search_path:
            known = self.schema_by_name(entry)
            if known is not None:
                relation = self.relation_in(known, name)
                if relation is not None:
                    return relation
        return None

    def table(
        self, schema: str | None, name: str, search_path: Sequence[str] = (), *, position: int = 0
    ) -> Table:
        """The stored table of that name. Raises: 42P01 when there is none, 42809 when it is something else."""
        found = self.relation(schema, name, search_path)
        if isinstance(found, Table):
            return found
        if found is None:
            shown = name if schema is None else f"{schema}.{name}"
            raise QueryError(f'relation "{shown}" does not exist', "42P01", position=position)
        raise QueryError(f'"{name}" is not a table', "42809", position=position)

    def relation_in(self, schema: Schema, name: str) -> Relation | None:
        """The relation of that name in one schema."""
        found = self._by_name.get((schema.id, name))
        return found if found is not None else self.virtual.get((schema.name, name))

    def relation_by_id(self, oid: int) -> Relation | None:
        """The relation with an oid; indexes and catalog tables included."""
        found = self._relations.get(oid) or self._indexes.get(oid)
        if found is not None:
            return found
        for virtual in self.virtual.values():
            if virtual.id == oid:
                return virtual
        return None

    def table_by_id(self, oid: int) -> Table | None:
        """The table with an oid."""
        found = self._relations.get(oid)
        return found if isinstance(found, Table) else None

    def sequence_by_id(self, oid: int) -> SequenceDescriptor | None:
        """The sequence with an oid."""
        found = self._relations.get(oid)
        return found if isinstance(found, SequenceDescriptor) else None

    def relations(self) -> Iterator[StoredRelation]:
        """Every stored table, view and sequence of the database."""
        return iter(self._relations.values())

    def tables(self) -> Iterator[Table]:
        """Every stored table."""
        return (r for r in self._relations.values() if isinstance(r, Table))

    def views(self) -> Iterator[View]:
        """Every view."""
        return (r for r in self._relations.values() if isinstance(r, View))

    def sequences(self) -> Iterator[SequenceDescriptor]:
        """Every sequence."""
        return (r for r in self._relations.values() if isinstance(r, SequenceDescriptor))

    def relations_of_schema(self, schema_id: int) -> list[StoredRelation]:
        """The stored relations of one schema."""
        return [r for r in self._relations.values() if r.schema_id == schema_id]

    def is_visible(self, relation: Relation, search_path: Sequence[str]) -> bool:
        """Whether the relation's bare name means it."""
        found = self.relation(None, relation.name, search_path)
        return found is not None and found.id == relation.id

    def qualified_name(self, relation: Relation) -> tuple[str, str]:
        """(schema name, relation name)."""
        if isinstance(relation, VirtualTable):
            return relation.schema, relation.name
        return self._schemas[relation.schema_id].name, relation.name

    # ---- row types -------------------------------------------------------------------------------

    def row_type(self, oid: int) -> Table | View | None:
        """The relation whose rows a composite type describes."""
        found = self._row_types.get(oid)
        return found if isinstance(found, (Table, View)) else None

    # ---- enums -----------------------------------------------------------------------------------

    def enums(self) -> Iterator[Enum]:
        """Every enum type."""
        return iter(self._enums.values())

    def enum_by_id(self, oid: int) -> Enum | None:
        """The enum with an oid, or the one whose array has it."""
        return self._enums.get(oid) or self._enums.get(element_of(oid))

    def enum_in(self, schema: Schema, name: str) -> Enum | None:
        """The enum of that name in one schema."""
        return self._enum_names.get((schema.id, name))

    def is_safe(self, enum: Enum, label: EnumLabel) -> bool:
        """Whether values may have the label: whoever can read them must know it, so it must be committed first.

        In a type that is new itself every label is: its columns are new too.
        """
        known = self._committed_enums.get(enum.id)
        return known is None or any(label.id == other.id for other in known.labels)

    def array_name(self, enum: Enum) -> str:
        """The name of the array over an enum: with as many underscores in front as make it unlike other enums'."""
        name = f"_{enum.name}".encode()[:63].decode(errors="ignore")
        while (enum.schema_id, name) in self._enum_names:
            name = f"_{name}".encode()[:63].decode(errors="ignore")
        return name

    def user_type(self, schema: str | None, name: str, search_path: Sequence[str] = ()) -> int:
        """The oid of the enum, array over one, or row type that a name means; 0 for none, or for no such schema."""
        for entry in search_path if schema is None else (schema,):
            if entry == "pg_temp" and search_path:
                entry = search_path[0]
            known = self.schema_by_name(entry)
            if known is not None:
                found = self._type_in(known, name)
                if found:
                    return found
        return 0

    def _type_in(self, schema: Schema, name: str) -> int:
        enum = self._enum_names.get((schema.id, name))
        if enum is not None:
            return enum.id
        relation = self._by_name.get((schema.id, name))
        if isinstance(relation, (Table, View)):
            return relation.type_oid
        if name.startswith("_"):
            for enum in self._enums.values():
                if enum.schema_id == schema.id and self.array_name(enum) == name:
                    return enum.id + 1
        return 0

    # ---- schemas, databases, roles ---------------------------------------------------------------

    def schema_by_name(self, name: str) -> Schema | None:
        """The schema of that name."""
        return self._schema_names.get(name)

    def schema_for_lookup(self, name: str, search_path: Sequence[str] = ()) -> Schema:
        """The schema of that name (pg_temp: the session's own), or PostgreSQL's 3F000."""
        own = search_path[0] if search_path else ""
        if name == "pg_temp" and own.startswith(TEMPORARY_PREFIX):
            name = own
        schema = self.schema_by_name(name)
        if schema is None:
            raise QueryError(f'schema "{name}" does not exist', "3F000")
        return schema

    def schema_by_id(self, oid: int) -> Schema | None:
        """The schema with an oid."""
        return self._schemas.get(oid)

    def schemas(self) -> Iterator[Schema]:
        """Every schema, the system's included."""
        return iter(self._schemas.values())

    def creation_schema(self, search_path: Sequence[str]) -> Schema:
        """Where an unqualified CREATE puts its object: the path's first existing schema, else 3F000."""
        for name in search_path:
            schema = self.schema_by_name(name)
            if schema is not None and not name.startswith(TEMPORARY_PREFIX):
                return schema
        raise QueryError("no schema has been selected to create in", "3F000")

    def current_schemas(self, search_path: Sequence[str], *, implicit: bool) -> list[str]:
        """current_schemas(): the path's existing schemas in order."""
        names = [s.name for s in map(self.schema_by_name, search_path) if s is not None]
        temporary = [name for name in names if name.startswith(TEMPORARY_PREFIX)]
        names = [name for name in names if not name.startswith(TEMPORARY_PREFIX)]
        if implicit and "pg_catalog" not in names:
            names.insert(0, "pg_catalog")
        return list(dict.fromkeys((temporary if implicit else []) + names))

    def session_path(self, search_path: Sequence[str], session_id: int) -> tuple[str, ...]:
        """The path with the session's temporary schema in front, once it has one."""
        own = f"{TEMPORARY_PREFIX}{session_id}"
        return (own, *search_path) if own in self._schema_names else tuple(search_path)

    def database_named(self, name: str) -> Database | None:
        """The database of that name."""
        return next((d for d in self._databases.values() if d.name == name), None)

    def databases(self) -> Iterator[Database]:
        """Every database."""
        return iter(self._databases.values())

    def role_named(self, name: str) -> Role | None:
        """The role of that name."""
        return next((r for r in self._roles.values() if r.name == name), None)

    def role_by_id(self, oid: int) -> Role | None:
        """The role with an oid."""
        return self._roles.get(oid)

    def roles(self) -> Iterator[Role]:
        """Every role."""
        return iter(self._roles.values())
