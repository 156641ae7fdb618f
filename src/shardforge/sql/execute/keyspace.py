"""An index in the key space: the key of an entry, and the spans of keys that a condition selects.

    hash       h <bucket> <table> <index> <index columns> [<primary key>]     bucket of the index columns
    colocated  g <hash> <shard key> <table> <index> <the other columns> ...    when the index holds the shard key
    range      r <table> <index> <index columns> [<primary key>]

The primary index holds the rows; an entry of another holds the row's key. An entry of an index that is not unique, or
that has a NULL in a unique one, ends with the primary key. PURE.

Reading a whole colocated table means reading everything with a shard key and keeping what is the table's: `owns` tells.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

from shardforge import keys
from shardforge.errors import unsupported
from shardforge.keys import KeyColumn, bucket_prefixes, hash_prefix, prefix_end, range_prefix
from shardforge.sql.catalog.descriptors import Column, Index, Table

Span: TypeAlias = tuple[bytes, bytes]
Values: TypeAlias = Sequence[Any]

_VALUES_START: Final = b"\x02"
_VALUES_END: Final = b"\x03"
_pack_place = struct.Struct(">II").pack


class Limit(NamedTuple):
    """One end of a range over a column."""

    value: Any
    inclusive: bool


def column_of(table: Table, attnum: int) -> Column:
    """The table's column with that id."""
    for column in table.columns:
        if column.id == attnum:
            return column
    raise AssertionError("an index or constraint names a column of its table")


def storage_number(table: Table) -> int:
    """The table's number in keys."""
    return table.storage_id or table.id


def key_columns(table: Table, index: Index) -> list[KeyColumn]:
    """(type, descending, nulls first) of each index column."""
    return [
        (
            part.type_oid if part.column_id == 0 else column_of(table, part.column_id).type_oid,
            part.descending,
            part.nulls_first,
        )
        for part in index.columns
    ]


class IndexSpace:
    """Keys of one index of one table."""

    def __init__(self, table: Table, index: Index) -> None:
        self.table = table
        self.index = index
        self.columns = key_columns(table, index)
        self._number = storage_number(table)
        self._primary = key_columns(table, table.indexes[0])
        ids = [part.column_id for part in index.columns]
        shard_key = table.sharding.shard_key if table.sharding.kind == "colocated" else ()
        self.shard_key: tuple[int, ...] = (
            shard_key if index.primary or set(shard_key) <= set(ids) else ()
        )
        """The shard key's columns, when they lead the keys."""
        self._shard_oids = [column_of(table, attnum).type_oid for attnum in self.shard_key]
        self._rest = [place for place, attnum in enumerate(ids) if attnum not in self.shard_key]
        self.kind = (
            "range" if table.sharding.kind == "range" else "colocated" if self.shard_key else "hash"
        )

    # ---- entries ---------------------------------------------------------------------------------

    @cached_property
    def unique_key(self) -> Callable[[Values, Values], bytes]:
        """(index values, shard key values) -> the key of an entry of a unique index without NULLs."""
        return self._entry_encoder(with_primary=False)

    @cached_property
    def plural_key(self) -> Callable[[Values, Values], bytes]:
        """(index values followed by the primary key's, shard key values) -> any other entry's key."""
        return self._entry_encoder(with_primary=True)

    def _entry_encoder(self, *, with_primary: bool) -> Callable[[Values, Values], bytes]:
        suffix = self._primary if with_primary else []
        if self.kind == "colocated":
            rest = [*self._rest, *range(len(self.columns), len(self.columns) + len(suffix))]
            all_columns = [*self.columns, *suffix]
            encode = keys.key_encoder([all_columns[place] for place in rest])
            oids, number, index = self._shard_oids, self._number, self.index.number
            return lambda values, shard: (
                keys.colocated_prefix(shard, oids, number, index)
                + encode([values[place] for place in rest])
            )
        columns = [*self.columns, *suffix]
        if self.kind == "range":
            direct = keys.key_encoder(columns, range_prefix(self._number, self.index.number))
        else:
            direct = keys.hashed_key_encoder(
                columns, self._number, self.index.number, len(self.columns)
            )
        return lambda values, shard: direct(values)

    # ---- spans -----------------------------------------------------------------------------------

    def spans(
        self,
        equal: Values = (),
        low: Limit | None = None,
        high: Limit | None = None,
        shard: Values | None = None,
        *,
        not_null: bool = False,
    ) -> list[Span]:
        """Where entries are whose first columns equal `equal` and whose next one is within the limits.

        `shard` are the shard key's values, if known. `not_null` leaves out NULLs of the next column. One span for each
        bucket of a hash index unless `equal` has all its columns; each is in index order.
        """
        if None in equal:
            return []
        start, end = self._suffix(equal, low, high, not_null=not_null)
        if end is not None and start >= end:
            return []
        return [
            (prefix + start, prefix_end(prefix) if end is None else prefix + end)
            for prefix in self._prefixes(equal, shard)
        ]

    def _prefixes(self, equal: Values, shard: Values | None) -> Sequence[bytes]:
        number, index = self._number, self.index.number
        if self.kind == "range":
            return [range_prefix(number, index)]
        if self.kind == "colocated":
            if shard is None:
                return [b"g"]
            if None in shard:
                return []
            return [keys.colocated_prefix(shard, self._shard_oids, number, index)]
        if len(equal) == len(self.columns):
            bucket = keys.bucket_of(equal, [oid for oid, _, _ in self.columns])
            return [hash_prefix(bucket, number, index)]
        return bucket_prefixes(number, index)

    def _suffix(
        self, equal: Values, low: Limit | None, high: Limit | None, *, not_null: bool
    ) -> tuple[bytes, bytes | None]:
        """Start and end after the prefix; the end None is the prefix's own end."""
        places = range(len(self.columns)) if self.kind != "colocated" else self._rest
        fixed = [place for place in places if place < len(equal)]
        columns = [self.columns[place] for place in fixed]
        base = keys.key_encoder(columns)([equal[place] for place in fixed]) if columns else b""
        following = next((place for place in places if place >= len(equal)), None)
        if following is None or (low is None and high is None and not not_null):
            return base, prefix_end(base) if base else None
        column = self.columns[following]
        encode = keys.key_encoder([column])
        if column[1]:
            low, high = high, low
        start, end = base + _VALUES_START, base + _VALUES_END
        if low is not None:
            bound = base + encode([low.value])
            start = bound if low.inclusive else prefix_end(bound)
        if high is not None:
            bound = base + encode([high.value])
            end = prefix_end(bound) if high.inclusive else bound
        return start, end

    def whole(self) -> list[Span]:
        """Every entry of the index. Of a colocated one: everything with a shard key, to be sorted out by `owns`."""
        if self.kind == "colocated":
            return [(b"g", b"h")]
        return self.spans()

    def order_prefix(self) -> int:
        """How many bytes to skip of a key so that what is left sorts in index order across spans."""
        return 3 if self.kind == "hash" else 0

    # ---- sorting out -----------------------------------------------------------------------------

    def place(self) -> tuple[int, int, Sequence[int]] | None:
        """What `owner_function` takes to tell this index's keys in a `whole` span; None when all are."""
        if self.kind != "colocated":
            return None
        return self._number, self.index.number, self._shard_oids

    def owner(self) -> Callable[[bytes], bool] | None:
        """Whether a key of a `whole` span is this index's; None when all are."""
        place = self.place()
        return None if place is None else owner_function(*place)


def owner_function(number: int, index: int, shard_oids: Sequence[int]) -> Callable[[bytes], bool]:
    """Whether a colocated key is of that index (its number) of that table (its number in keys)."""
    place = _pack_place(number, index)
    steps = [_skipper(oid) for oid in shard_oids]

    def owns(key: bytes) -> bool:
        at = 3
        for skip in steps:
            at = skip(key, at)
            if at < 0:
                return False
        return key[at : at + 8] == place

    return owns


def _skipper(oid: int) -> Callable[[bytes, int], int]:
    """A function from (key, offset of a shard key column) to the offset behind it, -1 when it is none of that type."""
    kind = keys.kind_of(oid)
    width = {"bool": 1, "uuid": 16, "interval": 12, "timetz": 12}.get(kind)
    if width is None and kind in ("text", "bpchar", "bytea"):
        return _skip_escaped
    if kind == "numeric":
        # An integral numeric has the form of an integer and others have their own: the end is not in the key.
        raise unsupported("reading a whole table by a shard key of type numeric")
    return lambda key, at: at + 1 + (width or 8) if key[at : at + 1] == b"\x02" else at + 1


def _skip_escaped(key: bytes, at: int) -> int:
    if key[at : at + 1] != b"\x02":
        return at + 1
    at += 1
    while True:
        at = key.find(b"\x00", at)
        if at < 0:
            return -1
        if key[at + 1 : at + 2] == b"\x00":
            return at + 2
        at += 2
