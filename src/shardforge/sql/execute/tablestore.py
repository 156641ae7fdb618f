"""A table as keys and bytes: its row keys, index entries and row codec. The one place where rows meet the key space.

Row key: the table's prefix and the primary key columns. Index entry: key = the index's prefix, its columns, and the
encoded primary key unless the index is unique and no column is NULL; value = the row key. Design section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from shardforge import keys
from shardforge.sql.catalog.descriptors import Index, Table
from shardforge.sql.types.registry import input_function
from shardforge.storage.rowcodec import RowCodec

KeyOf = Callable[[Sequence[Any]], bytes]
_STORED_TEXT = SimpleNamespace(
    timezone="UTC", datestyle="ISO, MDY", intervalstyle="postgres", extra_float_digits=1, bytea_output="hex"
)
"""Settings under which `Column.missing` was written."""


class IndexKeys:
    """The keys of one index: prefixes for look-ups, full keys for entries."""

    def __init__(self, table: Table, index: Index, primary_types: list[tuple[int, bool, bool]]) -> None:
        self.index = index
        self.columns = [(_type_of(table, c.column_id, c.type_oid), c.descending, c.nulls_first) for c in index.columns]
        self._storage = table.storage_id or table.id
        self._kind = table.sharding.kind
        self._number = index.number
        self._width = len(self.columns)
        self._encode = keys.key_encoder(self.columns)
        self._unique = index.unique
        self._shard_positions: list[int] | None = None
        self.hashed = False
        if self._kind == "colocated":
            ids = [c.column_id for c in index.columns]
            if all(column in ids for column in table.sharding.shard_key):
                self._shard_positions = [ids.index(column) for column in table.sharding.shard_key]
                self._shard_types = [self.columns[p][0] for p in self._shard_positions]
            else:
                self.hashed = True
        elif self._kind == "hash":
            self.hashed = True
        self._full = keys.hashed_key_encoder(self.columns, self._storage, self._number) if self.hashed else None
        self._range_prefix = keys.range_prefix(self._storage, self._number)
        self._hash_of = keys.hasher([oid for oid, _, _ in self.columns]) if self.hashed else None

    def key(self, values: Sequence[Any]) -> bytes:
        """The key of exactly these column values."""
        if self._full is not None:
            return self._full(values)
        return self._place(values) + self._encode(values)

    def _place(self, values: Sequence[Any]) -> bytes:
        if self._shard_positions is not None:
            shard_key = [values[p] for p in self._shard_positions]
            return keys.colocated_prefix(shard_key, self._shard_types, self._storage, self._number)
        return self._range_prefix

    def entry(self, values: Sequence[Any], primary: bytes) -> tuple[bytes, bool]:
        """The key of an index entry, and whether it must be unique. `primary` is the encoded primary key."""
        if self._unique and None not in values:
            return self.key(values), True
        if self._unique and not any(v is None for v in values):
            return self.key(values), True
        return self.key(values) + primary, False

    def spans(
        self, equal: Sequence[Any], lower: tuple[Any, bool] | None, upper: tuple[Any, bool] | None
    ) -> list[tuple[bytes, bytes]]:
        """The key spans of entries whose first columns are `equal` and whose next is within the bounds."""
        count = len(equal)
        head = keys.key_encoder(self.columns[:count])(equal) if count else b""
        return [self._bounded(place + head, count, lower, upper) for place in self._places(equal)]

    def _places(self, equal: Sequence[Any]) -> list[bytes]:
        if self.hashed:
            if len(equal) == self._width and self._hash_of is not None:
                return [keys.hash_prefix(self._hash_of(equal) >> 10, self._storage, self._number)]
            return [keys.hash_prefix(b, self._storage, self._number) for b in range(keys.BUCKETS)]
        if self._shard_positions is not None:
            if max(self._shard_positions) < len(equal):
                return [self._place(equal)]
            return []
        return [self._range_prefix]

    def _bounded(
        self, start: bytes, position: int, lower: tuple[Any, bool] | None, upper: tuple[Any, bool] | None
    ) -> tuple[bytes, bytes]:
        first, last = start, keys.prefix_end(start)
        if lower is None and upper is None:
            return first, last
        column = self.columns[position]
        encode = keys.key_encoder([column])
        if column[1]:
            lower, upper = upper, lower
        if lower is not None:
            bound = start + encode((lower[0],))
            first = bound if lower[1] else keys.prefix_end(bound)
        elif not column[2]:
            pass
        if upper is not None:
            bound = start + encode((upper[0],))
            last = keys.prefix_end(bound) if upper[1] else bound
        return first, max(first, last)


def _type_of(table: Table, column_id: int, expression_type: int) -> int:
    if column_id == 0:
        return expression_type
    return next(c.type_oid for c in table.columns if c.id == column_id)


class TableStore:
    """Everything about where a table's rows are. Made once per descriptor (`table_store`)."""

    def __init__(self, table: Table) -> None:
        self.table = table
        layout = table.layouts[-1]
        missing = {
            c.id: input_function(c.type_oid, _STORED_TEXT)(c.missing) for c in table.columns if c.missing is not None
        }
        self.codec = RowCodec(table.layouts, missing)
        self.positions = {column_id: position for position, (column_id, _) in enumerate(layout)}
        """Place of each live column (by attnum) in a decoded row."""
        self.width = len(layout)
        primary = table.indexes[0]
        types = [(_type_of(table, c.column_id, c.type_oid), c.descending, c.nulls_first) for c in primary.columns]
        self.primary = IndexKeys(table, primary, types)
        self.primary_positions = [self.positions[c.column_id] for c in primary.columns]
        self.secondary = [IndexKeys(table, index, types) for index in table.indexes[1:]]
        self._encode_primary = keys.key_encoder(types)

    def row_key(self, row: Sequence[Any]) -> bytes:
        """The key of a row given as all its live columns."""
        return self.primary.key([row[p] for p in self.primary_positions])

    def encoded_primary(self, row: Sequence[Any]) -> bytes:
        """The primary key's columns, as they end the keys of non-unique index entries."""
        return self._encode_primary([row[p] for p in self.primary_positions])

    def table_spans(self) -> list[tuple[bytes, bytes]]:
        """Spans that hold all rows of the table and nothing else, except for `colocated` tables (see `whole_scan`)."""
        return self.primary.spans((), None, None)

    def keys_of(self, index: Index) -> IndexKeys:
        """The keys of one of the table's indexes."""
        if index.primary:
            return self.primary
        return next(k for k in self.secondary if k.index.id == index.id)


@lru_cache(maxsize=4096)
def _store(identity: tuple[int, int, int], holder: _ByIdentity) -> TableStore:
    return TableStore(holder.table)


class _ByIdentity:
    """A table that hashes as its descriptor object: descriptors are immutable and shared."""

    __slots__ = ("table",)

    def __init__(self, table: Table) -> None:
        self.table = table

    def __hash__(self) -> int:
        return id(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.table is self.table


def table_store(table: Table) -> TableStore:
    """The store of a descriptor, made when it is first used."""
    return _store((table.id, table.version, table.storage_id), _ByIdentity(table))
