"""Changing rows of a table: the part that INSERT, UPDATE, DELETE, COPY and foreign-key actions share.

Locks come before writes, all of a batch together: rows to change, new row keys, and every unique index key that
appears or goes away (so that two transactions never hold the same key). Entries of other indexes need no lock of their
own: the row's protects them. Nor does a row whose key is a number that was drawn for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shardforge.sql.catalog.descriptors import Index
from shardforge.sql.execute.constraints import RowRules, unique_violation
from shardforge.sql.execute.context import BATCH_ROWS, Row, Run, portions
from shardforge.sql.execute.foreign_keys import ForeignKeys
from shardforge.sql.execute.rowwriter import Entry, IndexWriter, RowWriter
from shardforge.sql.plan.nodes import TableChange
from shardforge.txn.coordinator import LockStrength, WaitPolicy


class Changed(NamedTuple):
    """One row before and after. None: it was not there, or is gone."""

    key: bytes
    old: Row | None
    new: Row | None


class Target:
    """A table whose rows are changed."""

    def __init__(self, change: TableChange) -> None:
        self.change = change
        self.table = change.table
        self.writer = RowWriter(
            change.table, change.index_expressions, change.index_predicates, change.row
        )
        self.rules = RowRules(change, self.writer)
        self.keys = ForeignKeys(change, self.writer)
        self.unique_columns = frozenset(
            part.column_id
            for index in change.table.indexes
            if index.unique and index.predicate is None
            for part in index.columns
        )

    # ---- inserting -------------------------------------------------------------------------------

    async def insert(self, rows: Sequence[Row], run: Run, *, numbered: bool = False) -> None:
        """Store new, completed rows; `numbered`: their keys are row numbers just drawn, so nobody has them.

        Raises: 23505.
        """
        writer = self.writer
        keys = [writer.row_key(row) for row in rows]
        if writer.indexes:
            entries = [writer.entries(row, run) for row in rows]
        else:
            entries = [[] for _ in rows]
        wanted = [e.key for found in entries for e in found if e.unique]
        if not numbered:
            wanted = keys + wanted
        taken = await self.taken(wanted, run) if wanted else {}
        new: set[bytes] = set() if run.pending is None else run.pending.inserted
        encode, put = writer.encode, run.put
        for row, key, found in zip(rows, keys, entries, strict=True):
            if not numbered:
                if taken.get(key) is not None or key in new:
                    raise unique_violation(self.change, writer, self.table.indexes[0], row, run)
                new.add(key)
            for entry in found:
                if entry.unique:
                    if taken.get(entry.key) is not None or entry.key in new:
                        raise self.conflict(row, entry, run)
                    new.add(entry.key)
                put(entry.key, key, blind=not entry.unique)
            put(key, encode(row), blind=numbered)
        if self.keys.any:
            self.keys.inserted(zip(keys, rows, strict=True), run)

    async def taken(self, keys: Sequence[bytes], run: Run) -> dict[bytes, bytes]:
        """Lock keys for writing; what is stored under those that exist."""
        transaction = run.transaction
        alone = transaction.lock_now(keys[0], LockStrength.UPDATE) if len(keys) == 1 else None
        if alone is not None:
            return {} if alone.value is None else {alone.key: alone.value}
        held = await transaction.lock(keys, LockStrength.UPDATE, WaitPolicy.BLOCK)
        return {lock.key: lock.value for lock in held if lock.value is not None}

    def conflict(self, row: Row, entry: Entry, run: Run) -> Exception:
        """The error for a unique index entry that is another row's."""
        return unique_violation(
            self.change, self.writer, self.index_of(row, entry.key, run), row, run
        )

    def index_of(self, row: Row, key: bytes, run: Run) -> Index:
        """The index in which a row has an entry under this key."""
        for index in self.writer.indexes:
            entry = index.entry(row, run)
            if entry is not None and entry.key == key:
                return index.index
        return self.table.indexes[0]

    # ---- changing --------------------------------------------------------------------------------

    def strength(self, attnums: Iterable[int]) -> LockStrength:
        """The lock for changing these columns: keys that others may refer to need the strongest."""
        if self.unique_columns.isdisjoint(attnums):
            return LockStrength.NO_KEY_UPDATE
        return LockStrength.UPDATE

    def keeps_place(self, attnums: frozenset[int]) -> bool:
        """Whether an update of these columns concerns no other key than the row's: none that moves, no foreign key."""
        if self._moves(attnums) or self._touched(attnums, moves=False):
            return False
        change = self.change
        columns = [reference.key.columns for reference in change.references]
        columns += [referencing.key.target_columns for referencing in change.referencing]
        return all(attnums.isdisjoint(ids) for ids in columns)

    def _moves(self, attnums: frozenset[int]) -> bool:
        """Whether the row's key may change with these columns."""
        primary = self.writer.primary
        return not attnums.isdisjoint(self.writer.key_columns) or not attnums.isdisjoint(
            primary.shard_key
        )

    def _touched(self, attnums: frozenset[int], *, moves: bool) -> list[IndexWriter]:
        """The indexes whose entries may change with these columns."""
        return [
            index
            for index in self.writer.indexes
            if moves or index.depends_on_all or not attnums.isdisjoint(index.columns)
        ]

    async def update(self, changes: Sequence[Changed], attnums: frozenset[int], run: Run) -> None:
        """Replace locked rows by completed new ones, of which only columns `attnums` differ. Raises: 23505."""
        moves = self._moves(attnums)
        touched = self._touched(attnums, moves=moves)
        if not moves and not touched:
            if len(changes) <= BATCH_ROWS:
                self._overwrite(changes, run)
            else:
                for portion in portions(changes):
                    self._overwrite(portion, run)
                    await run.changed(len(portion))
        else:
            await self._move(changes, touched, run)
        if self.keys.any:
            self.keys.updated(changes, attnums, run)

    def _overwrite(self, changes: Sequence[Changed], run: Run) -> None:
        """Rows that stay where they are, in the table and in every index."""
        encode, put = self.writer.encode, run.put
        for change in changes:
            assert change.new is not None, "an update has a new row"
            put(change.key, encode(change.new))

    async def _move(
        self, changes: Sequence[Changed], touched: Sequence[IndexWriter], run: Run
    ) -> None:
        """Rows whose key or index entries may change: everything old goes before anything new comes."""
        removed: dict[bytes, bool] = {}
        added: list[tuple[Entry, bytes, Row]] = []
        new_keys: list[tuple[bytes, Row]] = []
        in_place: list[tuple[bytes, Row]] = []
        for portion in portions(changes):
            for key, old, new in portion:
                assert old is not None, "an update has both rows"
                assert new is not None, "an update has both rows"
                new_key = self.writer.row_key(new)
                if new_key != key:
                    removed[key] = True
                    new_keys.append((new_key, new))
                else:
                    in_place.append((key, new))
                for index in touched:
                    before, after = index.entry(old, run), index.entry(new, run)
                    if before == after and new_key == key:
                        continue
                    if before is not None:
                        removed[before.key] = before.unique
                    if after is not None:
                        added.append((after, new_key, new))
            await run.changed(len(portion))
        await self._replace(removed, added, new_keys, run)
        for rows in portions(in_place):
            for key, new in rows:
                run.put(key, self.writer.encode(new))
            await run.changed(len(rows))

    async def _replace(
        self, removed: dict[bytes, bool], added: list[tuple[Entry, bytes, Row]],
        new_keys: list[tuple[bytes, Row]], run: Run,
    ) -> None:  # fmt: skip
        gone = [key for key, locked in removed.items() if locked]
        wanted = [key for key, _ in new_keys] + [e.key for e, _, _ in added if e.unique]
        taken = await self.taken(list(dict.fromkeys([*gone, *wanted])), run)
        new: set[bytes] = set() if run.pending is None else run.pending.inserted
        for key, row in new_keys:
            if (taken.get(key) is not None and key not in removed) or key in new:
                raise unique_violation(self.change, self.writer, self.table.indexes[0], row, run)
            new.add(key)
        for entry, _, row in added:
            if entry.unique:
                if (
                    taken.get(entry.key) is not None and entry.key not in removed
                ) or entry.key in new:
                    raise self.conflict(row, entry, run)
                new.add(entry.key)
        for gone_keys in portions(list(removed.items())):
            for key, locked in gone_keys:
                run.delete(key, blind=not locked)
            await run.changed(len(gone_keys))
        for rows in portions(new_keys):
            for key, row in rows:
                run.put(key, self.writer.encode(row))
            await run.changed(len(rows))
        for entries in portions(added):
            for entry, row_key, _ in entries:
                run.put(entry.key, row_key, blind=not entry.unique)
            await run.changed(len(entries))

    # ---- deleting --------------------------------------------------------------------------------

    async def delete(self, changes: Sequence[Changed], run: Run) -> None:
        """Remove locked rows."""
        writer = self.writer
        unique: list[bytes] = []
        plain: list[bytes] = []
        if writer.indexes:
            for portion in portions(changes):
                for change in portion:
                    assert change.old is not None, "a deleted row was there"
                    for entry in writer.entries(change.old, run):
                        (unique if entry.unique else plain).append(entry.key)
                await run.changed(len(portion))
            await self.taken(unique, run)
        for portion in portions(changes):
            for change in portion:
                run.delete(change.key)
            await run.changed(len(portion))
        for keys in portions(unique):
            for key in keys:
                run.delete(key)
            await run.changed(len(keys))
        for keys in portions(plain):
            for key in keys:
                run.delete(key, blind=True)
            await run.changed(len(keys))
        if self.keys.any:
            self.keys.deleted(changes, run)
