"""What the catalog knows: immutable descriptors, one per object, kept as rows of the meta shard.

A descriptor is never changed in place: DDL writes a new one with a higher `version`. Columns, indexes and
constraints are part of their table's descriptor, so that one row tells all that a statement on the table
needs. Expressions (defaults, checks, index expressions, view queries) are kept as SQL text and bound again when
used; names in them are resolved when they are stored. Fields are only ever added, with defaults.
"""

from __future__ import annotations

import msgspec

from shardforge.ids import TableId

ROWID_COLUMN = 2000
"""Column id of the hidden row number of a table without a primary key: above every attnum (PostgreSQL: 1600)."""

ROWID_NAME = "(rowid)"

FIRST_USER_OID = 16384
"""Smaller oids are PostgreSQL's own (pg_type, pg_proc, ...); ours are allocated from here on."""

PUBLIC_SCHEMA = 2200
SUPERUSER = 10
POSTGRES_DATABASE = 5


class Column(msgspec.Struct, frozen=True):
    """One column. `id` is PostgreSQL's attnum: 1 or more, never reused after a drop."""

    id: int
    name: str
    type_oid: int
    typmod: int = -1
    not_null: bool = False
    default: str | None = None
    identity: str = ""
    """'a' GENERATED ALWAYS, 'd' BY DEFAULT AS IDENTITY, '' none."""
    generated: str | None = None
    """Expression of a GENERATED ALWAYS AS (...) STORED column."""
    dropped: bool = False
    hidden: bool = False
    """The rowid of a table without a primary key: not in SELECT *."""
    missing: str | None = None
    """Text form of the value of rows older than the column (ADD COLUMN ... DEFAULT)."""
    collation: str = ""


class IndexColumn(msgspec.Struct, frozen=True):
    """A key column of an index: a table column, or an expression when `column_id` is 0."""

    column_id: int
    expression: str | None = None
    type_oid: int = 0
    descending: bool = False
    nulls_first: bool = False


class Index(msgspec.Struct, frozen=True):
    """An index; the primary one holds the rows themselves. `number` is its part in keys (primary: 1)."""

    id: TableId
    name: str
    number: int
    columns: tuple[IndexColumn, ...]
    unique: bool = False
    primary: bool = False
    predicate: str | None = None
    state: str = "public"
    """'public', or 'write_only' while it is being built (kept up to date, not read). Only in memory 'newer': public,
    but its entries are newer than the snapshot that is read at, so it is kept up to date and checked, not read."""
    constraint: bool = False
    """Made by PRIMARY KEY or UNIQUE rather than CREATE INDEX."""
    constraint_oid: int = 0
    include: tuple[int, ...] = ()
    method: str = "btree"
    options: tuple[str, ...] = ()
    """Storage parameters, kept as given (`fillfactor=70`); they change nothing here."""
    comment: str | None = None
    deferrable: bool = False
    initially_deferred: bool = False


class ForeignKey(msgspec.Struct, frozen=True):
    """A foreign key of this table to `target`.

    Actions: 'a' no action, 'r' restrict, 'c' cascade, 'n' set null, 'd' set default.
    """

    oid: int
    name: str
    columns: tuple[int, ...]
    target: TableId
    target_columns: tuple[int, ...]
    on_delete: str = "a"
    on_update: str = "a"
    match_full: bool = False
    deferrable: bool = False
    initially_deferred: bool = False
    validated: bool = True


class Check(msgspec.Struct, frozen=True):
    """A CHECK constraint."""

    oid: int
    name: str
    expression: str
    validated: bool = True


class Sharding(msgspec.Struct, frozen=True):
    """How rows become keys: 'hash' of the primary key, 'range' order, or 'colocated' by `shard_key`."""

    kind: str
    shard_key: tuple[int, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """A table with its columns, indexes and constraints. `indexes[0]` is the primary index."""

    id: TableId
    name: str
    schema_id: int
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    sharding: Sharding
    layouts: tuple[tuple[tuple[int, int], ...], ...]
    """Every stored row layout, oldest first: (column id, type oid) pairs; see storage.rowcodec."""
    checks: tuple[Check, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    owner: int = 10
    version: int = 1
    comment: str | None = None
    column_comments: dict[int, str] = {}
    referenced_by: tuple[TableId, ...] = ()
    """Tables with a foreign key to this one."""
    type_oid: int = 0
    array_type_oid: int = 0
    temporary_session: int = 0
    epoch: int = 0
    """Part of the table's identity in keys: TRUNCATE and rewrites give the table a new storage id."""
    storage_id: int = 0
    """The table number in keys; differs from `id` after TRUNCATE or a rewrite."""
    options: tuple[str, ...] = ()
    """Storage parameters, kept as given; only shard_key and sharding mean something here (see `sharding`)."""
    constraint_comments: dict[str, str] = {}
    index_counter: int = 1
    """The highest key number an index ever had: numbers are not used again."""
    row_estimate: float = -1.0
    """Rows at the last ANALYZE; -1 when never counted."""

    def stored(self) -> tuple[object, ...]:
        """All that decides how rows are stored and read."""
        return (self.storage_id, self.columns, self.indexes, self.sharding, self.layouts)


class View(msgspec.Struct, frozen=True):
    """A view: its query as SQL text, names fully resolved at creation."""

    id: TableId
    name: str
    schema_id: int
    query: str
    columns: tuple[Column, ...]
    owner: int = 10
    version: int = 1
    depends_on: tuple[TableId, ...] = ()
    search_path: tuple[str, ...] = ()
    comment: str | None = None
    depends_on_columns: tuple[tuple[int, int], ...] = ()
    """(relation id, column id) of every column that the query uses."""
    column_comments: dict[int, str] = {}
    type_oid: int = 0
    array_type_oid: int = 0
    temporary_session: int = 0
    options: tuple[str, ...] = ()
    depends_on_types: tuple[int, ...] = ()
    """The enums that the query or its columns use."""


class Sequence(msgspec.Struct, frozen=True):
    """A sequence's definition; its position is a row of its own."""

    id: TableId
    name: str
    schema_id: int
    type_oid: int = 20
    start: int = 1
    increment: int = 1
    minimum: int = 1
    maximum: int = 2**63 - 1
    cycle: bool = False
    cache: int = 1
    owned_by: tuple[int, int] | None = None
    """(table id, column id) of the serial or identity column."""
    owner: int = 10
    version: int = 1
    storage_id: int = 0
    """Number of its position row; a new one starts it afresh when a transaction changes it."""
    comment: str | None = None
    temporary_session: int = 0
    identity: bool = False
    """Made by GENERATED ... AS IDENTITY: an internal part of its column."""


class EnumLabel(msgspec.Struct, frozen=True):
    """A label of an enum: `order` is its stored value, its own for ever; labels are ordered by it."""

    id: int
    """pg_enum.oid."""
    name: str
    order: float


class Enum(msgspec.Struct, frozen=True):
    """An enum type. Its oid tells that it is one (see `keys.ENUM_OIDS`); the array over it has the next."""

    id: int
    name: str
    schema_id: int
    labels: tuple[EnumLabel, ...]
    """In order."""
    owner: int = 10
    version: int = 1
    comment: str | None = None


class Schema(msgspec.Struct, frozen=True):
    """A namespace of one database."""

    id: int
    name: str
    database_id: int
    owner: int = 10
    comment: str | None = None
    temporary_session: int = 0


class Database(msgspec.Struct, frozen=True):
    """A database: a set of schemas. Sessions see one."""

    id: int
    name: str
    owner: int = 10
    comment: str | None = None


class Role(msgspec.Struct, frozen=True):
    """A user or group. `verifier` is PostgreSQL's SCRAM-SHA-256 secret text."""

    id: int
    name: str
    superuser: bool = False
    login: bool = True
    create_database: bool = False
    create_role: bool = False
    inherit: bool = True
    verifier: str | None = None
    member_of: tuple[int, ...] = ()
    connection_limit: int = -1
    settings: dict[str, str] = {}
    comment: str | None = None
    replication: bool = False
    bypass_rls: bool = False
    valid_until: str | None = None
