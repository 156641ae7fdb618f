"""What SQL functions ask the catalog: names and oids, visibility, definitions, descriptions, sequences.

`CatalogFunctions` is `EvalContext.catalog`: one session's view of one snapshot. Its methods have the names that
`sql.functions.catalog_info` calls; None is NULL. Source: PostgreSQL 15, src/backend/utils/adt/{regproc,ruleutils}.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from shardforge.errors import QueryError
from shardforge.keys import ENUM_OIDS
from shardforge.sql import pgdata
from shardforge.sql.catalog.definitions import Definitions
from shardforge.sql.catalog.descriptors import Enum, EnumLabel, Table, View
from shardforge.sql.catalog.descriptors import (
    Sequence as SequenceDescriptor,
)
from shardforge.sql.catalog.quoting import quote_identifier, quote_qualified
from shardforge.sql.catalog.sequences import SequenceFunctions, SequenceState, SequenceStore
from shardforge.sql.catalog.snapshot import CatalogSnapshot, IndexRelation, Relation
from shardforge.sql.catalog.typenames import visible_types
from shardforge.sql.catalog.virtual.relations import system_descriptions
from shardforge.sql.parse import parse_type_name
from shardforge.sql.types.registry import (
    array_of,
    find_type,
    format_type,
    type_by_oid,
    type_named,
)

_PART: Final = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s".][^\s".]*))\s*(\.|$)')


def split_name(text: str) -> list[str]:
    """The parts of a dotted SQL name. Raises: 42602."""
    parts: list[str] = []
    at = 0
    while True:
        match = _PART.match(text, at)
        if match is None:
            raise QueryError("invalid name syntax", "42602")
        quoted, bare, end = match.groups()
        parts.append(bare.lower() if quoted is None else quoted.replace('""', '"'))
        at = match.end()
        if end != ".":
            return parts


class CatalogFunctions:
    """Answers about objects, from one snapshot, under one search path."""

    def __init__(
        self,
        snapshot: CatalogSnapshot,
        search_path: Sequence[str],
        sequences: tuple[SequenceStore, SequenceState] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.search_path = search_path
        self._definitions = Definitions(snapshot, search_path)
        self._labels: dict[int, dict[float, str]] = {}
        """Of enums met so far: value to label."""
        self._sequences = (
            None
            if sequences is None
            else SequenceFunctions(sequences[0], sequences[1], snapshot.sequence_by_id)
        )

    # ---- names and oids --------------------------------------------------------------------------

    def regclass_in(self, text: str) -> int:
        """The oid of the relation that a name means; '-' is 0, digits are an oid. Raises: 42P01, 3F000, 42602."""
        if text == "-":
            return 0
        if text.isdigit():
            return int(text)
        return self._relation(text).id

    def _relation(self, text: str) -> Relation:
        parts = split_name(text)
        if len(parts) == 3 and parts[0] == self.snapshot.database.name:
            parts = parts[1:]
        if len(parts) > 2:
            raise QueryError(
                f"improper relation name (too many dotted names): {'.'.join(parts)}", "42601"
            )
        schema = parts[0] if len(parts) == 2 else None
        if (
            schema is not None
            and schema != "pg_temp"
            and self.snapshot.schema_by_name(schema) is None
        ):
            raise QueryError(f'relation "{".".join(parts)}" does not exist', "42P01")
        found = self.snapshot.relation(schema, parts[-1], self.search_path)
        if found is None:
            raise QueryError(f'relation "{".".join(parts)}" does not exist', "42P01")
        return found

    def regclass_out(self, oid: int) -> str:
        """The relation's name as SQL; the number for an oid that is none."""
        return "-" if oid == 0 else self._definitions.name_by_id(oid) or str(oid)

    def regtype_in(self, text: str) -> int:
        """The oid of the type that SQL's name for it means. Raises: 42704."""
        if text == "-":
            return 0
        if text.isdigit():
            return int(text)
        node = parse_type_name(text)
        names = [part["String"]["sval"] for part in node["names"]]
        found = type_named(names[-1]) if len(names) == 1 or names[0] == "pg_catalog" else None
        if found is None:
            schema = names[0] if len(names) == 2 else None
            oid = self.snapshot.user_type(schema, names[-1], self.search_path)
            if not oid:
                raise QueryError(f'type "{".".join(names)}" does not exist', "42704")
            row = self.snapshot.row_type(oid)
            if row is not None:
                return row.array_type_oid if node.get("arrayBounds") else oid
            found = type_by_oid(oid)
        array = array_of(found) if node.get("arrayBounds") else None
        return found.oid if array is None else array.oid

    def regtype_out(self, oid: int) -> str:
        """The type's SQL name."""
        shown = self.format_type(oid, None)
        return str(oid) if shown == "???" else shown

    def format_type(self, oid: int, typmod: int | None) -> str:
        """The type's SQL name with its modifier, names of enums and row types among them; ??? for no type."""
        if oid in ENUM_OIDS and self.snapshot.enum_by_id(oid) is None:
            return "???"
        if find_type(oid) is not None or oid == 0:
            return visible_types(format_type(oid, typmod), self.snapshot, self.search_path)
        for relation in self.snapshot.relations():
            if isinstance(relation, (Table, View)) and oid in (
                relation.type_oid, relation.array_type_oid,
            ):  # fmt: skip
                name = self._definitions.name(relation)
                return name if oid == relation.type_oid else f"{name}[]"
        return "???"

    # ---- enums -----------------------------------------------------------------------------------

    def enum_labels(self, oid: int) -> list[EnumLabel]:
        """The labels of an enum type, in order. Raises: 55P04 when one of them may not be used yet."""
        enum = self._enum(oid)
        for label in enum.labels:
            self._require_safe(enum, label)
        return list(enum.labels)

    def enum_in(self, oid: int, text: str) -> float:
        """The value with a label. Raises: 22P02, 55P04."""
        enum = self._enum(oid)
        for label in enum.labels:
            if label.name == text:
                self._require_safe(enum, label)
                return label.order
        raise QueryError(
            f'invalid input value for enum {self.format_type(oid, None)}: "{text}"', "22P02"
        )

    def enum_out(self, oid: int, value: float) -> str:
        """The label of a value."""
        known = self._labels.get(oid)
        if known is None:
            labels = self._enum(oid).labels
            known = self._labels[oid] = {label.order: label.name for label in labels}
        found = known.get(value)
        if found is None:
            raise QueryError(f"cache lookup failed for enum {oid}, value {value}", "XX000")
        return found

    def _enum(self, oid: int) -> Enum:
        found = self.snapshot.enum_by_id(oid)
        if found is None:
            raise QueryError(f"cache lookup failed for type {oid}", "XX000")
        return found

    def _require_safe(self, enum: Enum, label: EnumLabel) -> None:
        if not self.snapshot.is_safe(enum, label):
            raise QueryError(
                f'unsafe use of new value "{label.name}" of enum type {self._definitions.enum_name(enum)}', "55P04",
                hint="New enum values must be committed before they can be used.",
            )  # fmt: skip

    def regnamespace_in(self, text: str) -> int:
        """The oid of a schema. Raises: 3F000."""
        if text == "-":
            return 0
        if text.isdigit():
            return int(text)
        parts = split_name(text)
        if len(parts) != 1:
            raise QueryError("invalid name syntax", "42602")
        return self.snapshot.schema_for_lookup(parts[0], self.search_path).id

    def regnamespace_out(self, oid: int) -> str:
        """The schema's name."""
        if oid == 0:
            return "-"
        schema = self.snapshot.schema_by_id(oid)
        return str(oid) if schema is None else quote_identifier(schema.name)

    def regrole_in(self, text: str) -> int:
        """The oid of a role. Raises: 42704."""
        if text == "-":
            return 0
        if text.isdigit():
            return int(text)
        parts = split_name(text)
        role = self.snapshot.role_named(parts[0]) if len(parts) == 1 else None
        if role is None:
            raise QueryError(f'role "{".".join(parts)}" does not exist', "42704")
        return role.id

    def regrole_out(self, oid: int) -> str:
        """The role's name."""
        if oid == 0:
            return "-"
        role = self.snapshot.role_by_id(oid)
        return str(oid) if role is None else quote_identifier(role.name)

    def regproc_out(self, oid: int) -> str:
        """The function's name; with its schema when the bare name is not unique, as PostgreSQL shows it."""
        if oid == 0:
            return "-"
        row = pgdata.proc_by_oid(oid)
        if row is None:
            return str(oid)
        unique = len(pgdata.procs_named(row.proname)) == 1
        return (
            quote_identifier(row.proname) if unique else quote_qualified("pg_catalog", row.proname)
        )

    # ---- visibility ------------------------------------------------------------------------------

    def table_is_visible(self, oid: int) -> bool | None:
        """Whether the bare name finds this relation; NULL for no relation."""
        relation = self.snapshot.relation_by_id(oid)
        if relation is None:
            return None
        return self.snapshot.is_visible(relation, self.search_path)

    def type_is_visible(self, oid: int) -> bool | None:
        """Whether the bare name finds this enum, row type, or the array over it."""
        enum = self.snapshot.enum_by_id(oid)
        if enum is not None:
            return self.snapshot.user_type(None, enum.name, self.search_path) == enum.id
        for relation in self.snapshot.relations():
            if isinstance(relation, (Table, View)) and oid in (
                relation.type_oid, relation.array_type_oid,
            ):  # fmt: skip
                return self.snapshot.is_visible(relation, self.search_path)
        return None

    def current_schemas(self, implicit: bool) -> list[str]:
        """The path's schemas that exist."""
        return self.snapshot.current_schemas(self.search_path, implicit=implicit)

    # ---- definitions -----------------------------------------------------------------------------

    def get_expr(self, text: str, relation: int, pretty: bool) -> str | None:
        """A stored expression (adbin, conbin, indexprs, indpred) as people read it."""
        found = self.snapshot.relation_by_id(relation)
        if isinstance(found, IndexRelation):
            found = found.table
        if not isinstance(found, Table):
            return self._definitions.visible(text)
        return self._definitions.expression(found, text, pretty=pretty)

    def get_constraintdef(self, oid: int, pretty: bool) -> str | None:
        """A constraint's clause."""
        return self._definitions.constraint(oid, pretty=pretty)

    def get_indexdef(self, oid: int, column: int, pretty: bool) -> str | None:
        """CREATE INDEX of an index, or one of its columns (from 1)."""
        found = self.snapshot.relation_by_id(oid)
        if not isinstance(found, IndexRelation):
            return None
        table, index = found.table, found.index
        if column == 0:
            return self._definitions.index(table, index, pretty=pretty, qualified=not pretty)
        if 1 <= column <= len(index.columns):
            return self._definitions.index_column(table, index.columns[column - 1], pretty=pretty)
        extra = column - len(index.columns) - 1
        if 0 <= extra < len(index.include):
            names = {c.id: c.name for c in table.columns}
            return quote_identifier(names[index.include[extra]])
        return ""

    def get_viewdef(self, oid: int, pretty: bool) -> str | None:
        """A view's query."""
        found = self.snapshot.relation_by_id(oid)
        return self._definitions.view(found) if isinstance(found, View) else None

    def get_userbyid(self, oid: int) -> str:
        """A role's name."""
        role = self.snapshot.role_by_id(oid)
        return f"unknown (OID={oid})" if role is None else role.name

    def get_serial_sequence(self, table: str, column: str) -> str | None:
        """The sequence that a serial or identity column owns, qualified. Raises: 42P01, 42703."""
        found = self._relation(table)
        if not isinstance(found, Table):
            raise QueryError(f'"{found.name}" is not a table', "42809")
        owner = next((c for c in found.columns if c.name == column and not c.dropped), None)
        if owner is None:
            raise QueryError(
                f'column "{column}" of relation "{found.name}" does not exist', "42703"
            )
        for sequence in self.snapshot.sequences():
            if sequence.owned_by == (found.id, owner.id):
                return quote_qualified(*self.snapshot.qualified_name(sequence))
        return None

    # ---- descriptions ----------------------------------------------------------------------------

    def obj_description(self, oid: int, catalog: str | None) -> str | None:
        """The comment of a relation, index, constraint, schema."""
        if catalog in (None, "pg_class"):
            relation = self.snapshot.relation_by_id(oid)
            if isinstance(relation, IndexRelation):
                return relation.index.comment
            if isinstance(relation, (Table, View, SequenceDescriptor)):
                return relation.comment
        if catalog in (None, "pg_namespace"):
            schema = self.snapshot.schema_by_id(oid)
            if schema is not None and schema.comment is not None:
                return schema.comment
        if catalog in (None, "pg_type"):
            enum = self.snapshot.enum_by_id(oid)
            if enum is not None:
                return enum.comment if enum.id == oid else None
        if catalog in (None, "pg_constraint"):
            comment = self._constraint_comment(oid)
            if comment is not None:
                return comment
        known = self.snapshot.virtual.get(("pg_catalog", catalog or ""))
        return None if known is None else system_descriptions().get((known.id, oid))

    def _constraint_comment(self, oid: int) -> str | None:
        for table in self.snapshot.tables():
            names = {i.constraint_oid: i.name for i in table.indexes if i.constraint}
            names |= {c.oid: c.name for c in table.checks}
            names |= {k.oid: k.name for k in table.foreign_keys}
            if oid in names:
                return table.constraint_comments.get(names[oid])
        return None

    def col_description(self, oid: int, column: int) -> str | None:
        """The comment of a column."""
        relation = self.snapshot.relation_by_id(oid)
        if isinstance(relation, (Table, View)):
            return relation.column_comments.get(column)
        return None

    def shobj_description(self, oid: int, catalog: str) -> str | None:
        """The comment of a database or role."""
        if catalog == "pg_database":
            return next((d.comment for d in self.snapshot.databases() if d.id == oid), None)
        role = self.snapshot.role_by_id(oid) if catalog == "pg_authid" else None
        return None if role is None else role.comment

    # ---- sequences -------------------------------------------------------------------------------

    @property
    def _own_sequences(self) -> SequenceFunctions:
        assert self._sequences is not None, "a session's catalog has its sequences"
        return self._sequences

    def nextval(self, oid: int) -> int:
        """The next value. Raises: MustWaitError; 2200H."""
        self._require_sequence(oid)
        return self._own_sequences.nextval(oid)

    def currval(self, oid: int) -> int:
        """The session's last value. Raises: 55000."""
        self._require_sequence(oid)
        return self._own_sequences.currval(oid)

    def lastval(self) -> int:
        """The value of the session's last nextval. Raises: 55000."""
        return self._own_sequences.lastval()

    def setval(self, oid: int, value: int, called: bool) -> int:
        """Set the position. Raises: MustWaitError; 22003."""
        self._require_sequence(oid)
        return self._own_sequences.setval(oid, value, called)

    def _require_sequence(self, oid: int) -> None:
        found = self.snapshot.relation_by_id(oid)
        if found is not None and not isinstance(found, SequenceDescriptor):
            raise QueryError(f'"{found.name}" is not a sequence', "42809")

    # ---- sizes: storage is not accounted by table, so they are unknown ---------------------------

    def relation_size(self, oid: int) -> int | None:
        """Unknown."""
        return None

    def indexes_size(self, oid: int) -> int | None:
        """Unknown."""
        return None

    def total_relation_size(self, oid: int) -> int | None:
        """Unknown."""
        return None

    def database_size(self, which: int | str) -> int | None:
        """Unknown."""
        return None
