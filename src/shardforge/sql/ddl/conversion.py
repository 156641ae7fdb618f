"""Rows of a table as the rows of its next storage: another layout, other keys, other places.

Each column of the new layout is a function of an old row. Where a row goes to is the same whenever that is asked, so
that it is found again; its other values may be drawn anew (`random()`, `nextval`).
Source: PostgreSQL 15, src/backend/commands/tablecmds.c (ATRewriteTable).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import ROWID_COLUMN, Table
from shardforge.sql.ddl.backfill import (
    Evaluate,
    Row,
    contains_nulls,
    duplicate,
    evaluate,
    row_writer,
    scan_rows,
)
from shardforge.sql.ddl.bulk import BulkWriter, DuplicateKeyError
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.execute.rowwriter import IndexWriter, row_codec
from shardforge.sql.functions.waiting import MustWaitError
from shardforge.txn.coordinator import Transaction


class Pair(NamedTuple):
    """What is stored of a row: itself under its key, and its key under each of its entries."""

    key: bytes
    value: bytes
    unique: bool
    """Whether another row with the key is an error."""
    by: IndexWriter | None
    """None: the row itself."""


class Conversion:
    """What becomes of the rows of `old` in `new`."""

    def __init__(
        self, ddl: Ddl, old: Table, new: Table, columns: Sequence[Evaluate | None]
    ) -> None:
        """`columns` gives each column of the new layout from an old row; None: a fresh row number."""
        self.old, self.new = old, new
        self.rows = rows = row_writer(ddl, new)
        self.decode = row_codec(old).decode
        """A stored old row's values."""
        self.numbered = columns.index(None) if None in columns else -1
        """Where the fresh row number goes, which is another each time."""
        self._ddl = ddl
        self._context = ddl.ctx.execution
        self._functions = [column or _no_value for column in columns]
        self._key_places = [rows.position[attnum] for attnum in rows.key_columns]
        used = {*self._key_places, *(rows.position[a] for a in rows.primary.shard_key)}
        self._key_functions = [
            function if place in used else _no_value
            for place, function in enumerate(self._functions)
        ]
        self._required = [
            (rows.position[c.id], c.name) for c in new.columns if c.not_null and not c.dropped
        ]

    async def row(self, source: Row) -> Row:
        """The new row. Raises: 23502, and what its expressions raise."""
        row = await self._call(self._functions, source)
        at = self.numbered
        if at >= 0:
            number = await self._ddl.store.sequences.rowid(self.new.storage_id)
            row = (*row[:at], number, *row[at + 1 :])
        for position, name in self._required:
            if row[position] is None:
                raise contains_nulls(self._ddl, self.new, name)
        return row

    async def key(self, source: Row) -> bytes:
        """Where the new row is."""
        assert self.numbered < 0, "a fresh number cannot be found again"
        return self.rows.row_key(await self._call(self._key_functions, source))

    async def _call(self, functions: Sequence[Evaluate], source: Row) -> Row:
        """Their values; waits only where a sequence's values have run out."""
        try:
            return tuple([function(source) for function in functions])
        except MustWaitError:
            return tuple([await evaluate(self._ddl, function, source) for function in functions])

    def pairs(self, row: Row) -> Iterator[Pair]:
        """What is stored of a new row."""
        rows = self.rows
        key = rows.row_key(row)
        yield Pair(key, rows.encode(row), rows.table.indexes[0].unique, None)
        for index in rows.indexes:
            found = index.entry(row, self._context)
            if found is not None:
                yield Pair(found.key, key, found.unique, index)

    def duplicate(self, index: IndexWriter | None, row: Row) -> QueryError:
        """The error for a row whose key in an index, or its own, is another's too."""
        if index is None:
            values = [row[place] for place in self._key_places]
            return duplicate(self._ddl, self.new, self.new.indexes[0], values)
        return duplicate(self._ddl, self.new, index.index, index.values(row, self._context))


def _no_value(source: Row) -> None:
    return None


async def copy(
    ddl: Ddl, conversion: Conversion, writer: BulkWriter, reading: Transaction | None = None
) -> None:
    """Write all rows into the new storage, with their entries; those that `reading` sees. Raises: 23505, 23502."""
    try:
        async with aclosing(scan_rows(ddl, conversion.old, reading)) as chunks:
            async for chunk in chunks:
                for _, source in chunk:
                    if _add(conversion, writer, await conversion.row(source)):
                        await writer.flush()
        await writer.verify()
    except DuplicateKeyError:
        raise await _found_twice(ddl, conversion, reading) from None


def _add(conversion: Conversion, writer: BulkWriter, row: Row) -> bool:
    """Take a row; true when the writer must be flushed."""
    full = False
    for pair in conversion.pairs(row):
        unique = pair.unique if pair.by is None else pair.by.index.unique
        try:
            full = writer.add(pair.key, pair.value, unique=unique)
        except DuplicateKeyError:
            raise conversion.duplicate(pair.by, row) from None
    return full


async def _found_twice(ddl: Ddl, conversion: Conversion, reading: Transaction | None) -> QueryError:
    """The error for a key that two rows of different batches have: convert the rows again, keeping unique keys."""
    seen: set[bytes] = set()
    async for chunk in scan_rows(ddl, conversion.old, reading):
        for _, source in chunk:
            row = await conversion.row(source)
            for pair in conversion.pairs(row):
                if pair.unique and pair.key in seen:
                    return conversion.duplicate(pair.by, row)
                if pair.unique:
                    seen.add(pair.key)
    return QueryError(f'could not create unique index "{conversion.new.indexes[0].name}"', "23505")


def copied_columns(old: Table, new: Table) -> list[Evaluate | None]:
    """Each column of the new layout that the old one has is copied, a row number too; where none was, one is drawn."""
    positions = {column_id: at for at, (column_id, _) in enumerate(old.layouts[-1])}
    columns: list[Evaluate | None] = []
    for column_id, _ in new.layouts[-1]:
        position = positions.get(column_id)
        if position is None:
            assert column_id == ROWID_COLUMN, "the caller gives the values of other new columns"
            columns.append(None)
        else:
            columns.append(_item(position))
    return columns


def _item(position: int) -> Callable[[Row], Any]:
    return lambda row: row[position]
