"""ON CONFLICT: a proposed row that meets an existing one under an arbiter index is skipped or changes it."""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.errors import QueryError
from shardforge.sql.bind import tree
from shardforge.sql.execute.context import Row, Run
from shardforge.sql.execute.expressions import compile_expression, compile_optional
from shardforge.sql.execute.rowwriter import Entry
from shardforge.sql.execute.target import Changed, Target
from shardforge.txn.coordinator import LockStrength, WaitPolicy


class Conflict:
    """The ON CONFLICT clause of an INSERT."""

    def __init__(self, statement: tree.Insert, target: Target) -> None:
        clause = statement.conflict
        assert clause is not None, "there is a clause"
        self._target = target
        writer = target.writer
        indexes = clause.arbiters or tuple(index for index in target.table.indexes if index.unique)
        self._primary = any(index.primary for index in indexes)
        ids = {index.id for index in indexes}
        self._arbiters = [index for index in writer.indexes if index.index.id in ids]
        width = len(writer.attnums)
        layout = {
            column: writer.position[attnum]
            for attnum, column in clause.existing.items()
            if attnum in writer.position
        }
        if 0 in clause.existing:
            layout[clause.existing[0]] = 2 * width
        layout |= {
            column: width + writer.position[attnum]
            for attnum, column in clause.excluded.items()
            if attnum in writer.position
        }
        self._where = compile_optional(clause.where, layout)
        self._assignments = (
            None
            if clause.assignments is None
            else [
                (writer.position[attnum], compile_expression(value, layout))
                for attnum, value in clause.assignments
            ]
        )
        assigned = {attnum for attnum, _ in clause.assignments or ()}
        self._assigned = frozenset(assigned | {attnum for attnum, _ in statement.generated})

    async def insert(
        self, rows: Sequence[Row], sources: Sequence[Row], run: Run
    ) -> list[tuple[Row, Row]]:
        """(stored row, source row) of every row that was inserted or updated."""
        target = self._target
        keys = [target.writer.row_key(row) for row in rows]
        entries = [self._arbiter_entries(row, run) for row in rows]
        wanted = keys if self._primary else []
        wanted = [*wanted, *(entry.key for found in entries for entry in found)]
        await target.taken(wanted, run)
        done: list[tuple[Row, Row]] = []
        touched: set[bytes] = set()
        for row, source, key, found in zip(rows, sources, keys, entries, strict=True):
            existing = await self._existing(key, found, run)
            if existing is None:
                if run.pending is not None and self._proposed_before(key, found, run):
                    if self._assignments is not None:
                        raise _affected_twice()
                    continue
                await target.insert([row], run)
                touched.add(key)
                done.append((row, source))
            elif self._assignments is not None:
                if existing in touched:
                    raise _affected_twice()
                touched.add(existing)
                updated = await self._update(existing, row, run)
                if updated is not None:
                    done.append((updated, source))
        return done

    def _arbiter_entries(self, row: Row, run: Run) -> list[Entry]:
        found = [index.entry(row, run) for index in self._arbiters]
        return [entry for entry in found if entry is not None and entry.unique]

    def _proposed_before(self, key: bytes, entries: Sequence[Entry], run: Run) -> bool:
        assert run.pending is not None, "asked only while writes are kept back"
        inserted = run.pending.inserted
        return (self._primary and key in inserted) or any(e.key in inserted for e in entries)

    async def _existing(self, key: bytes, entries: Sequence[Entry], run: Run) -> bytes | None:
        """The key of the row that the proposed one conflicts with. The locks are held already."""
        wanted = ([key] if self._primary else []) + [entry.key for entry in entries]
        held = await run.transaction.lock(wanted, LockStrength.UPDATE, WaitPolicy.BLOCK)
        for lock in held:
            if lock.value is not None:
                return key if self._primary and lock.key == key else lock.value
        return None

    async def _update(self, key: bytes, proposed: Row, run: Run) -> Row | None:
        target = self._target
        strength = target.strength(self._assigned)
        [held] = await run.transaction.lock([key], strength, WaitPolicy.BLOCK)
        if held.value is None:
            raise QueryError("could not serialize access due to concurrent delete", "40001")
        old = target.writer.decode(held.value)
        combined = (*old, *proposed, key)
        if self._where is not None and not self._where(combined, run):
            return None
        values = list(old)
        for offset, function in self._assignments or ():
            values[offset] = function(combined, run)
        new = target.rules.completed(tuple(values), run)
        await target.update([Changed(key, old, new)], self._assigned, run)
        return new


def _affected_twice() -> QueryError:
    return QueryError(
        "ON CONFLICT DO UPDATE command cannot affect row a second time",
        "21000",
        hint="Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
    )
