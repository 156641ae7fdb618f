"""Rows as keys and values: what is stored for a row of a table, and how it is read back.

`RowWriter` serves INSERT, UPDATE, DELETE, COPY and the building of an index alike. A stored row is a tuple of the
columns of the table's newest layout, in its order. Index expressions and predicates are bound over column ids: those in
`row` (attnum -> id), or the attnums themselves.

Invariant: `entries` of a row are the same whenever they are computed, so an entry is found again to be removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.catalog.descriptors import Index, Table
from shardforge.sql.execute.context import Row
from shardforge.sql.execute.expressions import Function, compile_expression
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.types.registry import input_function
from shardforge.storage.rowcodec import RowCodec


class Entry(NamedTuple):
    """An index entry of a row. `unique`: its key must not be another row's."""

    key: bytes
    unique: bool


@dataclass(slots=True)
class StorageSettings:
    """The settings under which values in the catalog are written as text: PostgreSQL's defaults, in UTC."""

    timezone: str = "UTC"
    datestyle: str = "ISO, MDY"
    intervalstyle: str = "postgres"
    extra_float_digits: int = 1
    bytea_output: str = "hex"


def missing_values(table: Table) -> dict[int, Any]:
    """By column id, what rows older than the column have in it, where that is not NULL."""
    settings = StorageSettings()
    return {
        column.id: input_function(column.type_oid, settings)(column.missing)
        for column in table.columns
        if column.missing is not None
    }


def row_codec(table: Table) -> RowCodec:
    """The codec of the table's rows."""
    return RowCodec(table.layouts, missing_values(table))


def stored_positions(table: Table) -> dict[int, int]:
    """attnum -> offset in a stored row."""
    return {attnum: offset for offset, (attnum, _) in enumerate(table.layouts[-1])}


def picker(offsets: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function from a row to its values at `offsets`."""
    if not offsets:
        return lambda row: ()
    if len(offsets) == 1:
        only = offsets[0]
        return lambda row: (row[only],)
    return itemgetter(*offsets)


class IndexWriter:
    """The entries of one index."""

    def __init__(
        self,
        table: Table,
        index: Index,
        position: Mapping[int, int],
        layout: Mapping[ColumnId, int],
        expressions: Sequence[Expression | None],
        predicate: Expression | None,
    ) -> None:
        self.index = index
        self.space = IndexSpace(table, index)
        self.columns = frozenset(part.column_id for part in index.columns if part.column_id)
        """Plain columns of the index."""
        self.depends_on_all = predicate is not None or any(e is not None for e in expressions)
        """Whether a change of any column may change the entry."""
        self._values = self._reader(position, layout, expressions)
        self._shard = picker([position[attnum] for attnum in self.space.shard_key])
        self._primary = picker([position[part.column_id] for part in table.indexes[0].columns])
        self._predicate = None if predicate is None else compile_expression(predicate, layout)

    def _reader(
        self,
        position: Mapping[int, int],
        layout: Mapping[ColumnId, int],
        expressions: Sequence[Expression | None],
    ) -> Function:
        parts = self.index.columns
        if not any(e is not None for e in expressions):
            pick = picker([position[part.column_id] for part in parts])
            return lambda row, ctx: pick(row)
        functions: list[Function] = []
        for part, expression in zip(parts, expressions, strict=True):
            if expression is None:
                functions.append(_at(position[part.column_id]))
            else:
                functions.append(compile_expression(expression, layout))
        return lambda row, ctx: [function(row, ctx) for function in functions]

    def entry(self, row: Row, ctx: Any) -> Entry | None:
        """The row's entry; None when the predicate leaves it out."""
        if self._predicate is not None and not self._predicate(row, ctx):
            return None
        values = self._values(row, ctx)
        if self.index.unique and None not in values:
            return Entry(self.space.unique_key(values, self._shard(row)), unique=True)
        key = self.space.plural_key([*values, *self._primary(row)], self._shard(row))
        return Entry(key, unique=False)

    def values(self, row: Row, ctx: Any) -> Sequence[Any]:
        """The indexed values of a row, for messages."""
        return self._values(row, ctx)  # type: ignore[no-any-return]


def _at(offset: int) -> Function:
    return lambda row, ctx: row[offset]


class RowWriter:
    """Keys, entries and values of one table's rows."""

    def __init__(
        self,
        table: Table,
        index_expressions: Mapping[int, Sequence[Expression | None]] | None = None,
        index_predicates: Mapping[int, Expression] | None = None,
        row: Mapping[int, ColumnId] | None = None,
    ) -> None:
        self.table = table
        self.attnums = tuple(attnum for attnum, _ in table.layouts[-1])
        self.position = stored_positions(table)
        ids = {attnum: ColumnId(attnum) for attnum in self.attnums} if row is None else row
        self.layout = {
            ids[attnum]: offset for attnum, offset in self.position.items() if attnum in ids
        }
        codec = row_codec(table)
        self.codec = codec
        self.encode = codec.encode
        self.decode = codec.decode
        primary = table.indexes[0]
        self.primary = IndexSpace(table, primary)
        self.key_columns = tuple(part.column_id for part in primary.columns)
        self.row_key = self._row_key()
        """A stored row -> its key."""
        self.indexes = tuple(
            IndexWriter(
                table,
                index,
                self.position,
                self.layout,
                (index_expressions or {}).get(index.id) or (None,) * len(index.columns),
                (index_predicates or {}).get(index.id),
            )
            for index in table.indexes[1:]
        )

    def _row_key(self) -> Callable[[Sequence[Any]], bytes]:
        space = self.primary
        pick = picker([self.position[attnum] for attnum in self.key_columns])
        encode = space.unique_key
        if not space.shard_key:
            return lambda row: encode(pick(row), ())
        shard = picker([self.position[attnum] for attnum in space.shard_key])
        return lambda row: encode(pick(row), shard(row))

    def entries(self, row: Row, ctx: Any) -> list[Entry]:
        """The row's entries in every index but the primary."""
        found = [index.entry(row, ctx) for index in self.indexes]
        return [entry for entry in found if entry is not None]
