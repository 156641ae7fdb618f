"""UPDATE and DELETE.

READ COMMITTED: find the rows at the snapshot, lock them, and start again with a new snapshot if any has changed since;
the locks stay. When the row's key is known beforehand it is locked first and read under the lock, which needs no
snapshot and no second try.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.execute.context import BATCH_ROWS, Row, Run, portions
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.execute.locking import Restart
from shardforge.sql.execute.onerow import DeleteByKey, OneRow, UpdateByKey
from shardforge.sql.execute.operators import Change
from shardforge.sql.execute.returning import Returning, result_layout
from shardforge.sql.execute.rows import evaluated_once, may_wait
from shardforge.sql.execute.scans import TableScanOperator
from shardforge.sql.execute.target import Changed, Target
from shardforge.sql.plan import nodes
from shardforge.txn.coordinator import LockStrength, WaitPolicy

if TYPE_CHECKING:
    from shardforge.sql.execute.compiler import Compiler

ChangePortion: TypeAlias = Callable[[Sequence[tuple[bytes, Row]], Run], Awaitable[None]]


class LockedSource:
    """The rows that a change is about, locked: source rows, each key once."""

    def __init__(
        self, source: nodes.Node, key: ColumnId, strength: LockStrength, compiler: Compiler
    ) -> None:
        self._source = compiler.compile(source)
        self.columns = source.columns
        self._key = self._source.layout.get(key, 0)
        self._strength = strength
        self.scan: TableScanOperator | None = None
        """The scan, when it is by the whole primary key."""
        self._table: TableScanOperator | None = None
        """The scan, when there is nothing else: a row's key and value say all of the source row."""
        if isinstance(source, nodes.TableScan):
            self._table = TableScanOperator(source)
            if source.access.point and source.access.index.primary:
                self.scan = self._table

    async def rows(self, run: Run) -> list[tuple[bytes, Row]]:
        """(row key, source row). Raises: Restart when a row has changed since the snapshot."""
        if self.scan is not None:
            return await self._known(self.scan, run)
        found: dict[bytes, Row] = {}
        for rows in portions(await self._source.all_rows(run)):
            for row in rows:
                found.setdefault(row[self._key], row)
            await run.changed(len(rows))
        keys = list(found)
        held = await run.transaction.lock(keys, self._strength, WaitPolicy.BLOCK)
        for lock in held:
            if lock.changed:
                raise Restart
        there: list[tuple[bytes, Row]] = []
        for portion in portions(held):
            there += [(lock.key, found[lock.key]) for lock in portion if lock.value is not None]
            await run.changed(len(portion))
        return there

    async def each(self, run: Run, change: ChangePortion) -> int:
        """`change` the rows, a portion at a time and each by itself; how many. All are locked before the first is.

        Of many rows of one table only the keys are kept until then. Raises: Restart, before the first.
        """
        if self.scan is not None or self._table is None:
            found = await self.rows(run)
            for portion in portions(found):
                await change(portion, run)
            return len(found)
        few: dict[bytes, Row] = {}
        keys: dict[bytes, None] = {}
        async with aclosing(self._source.batches(run)) as batches:
            async for batch in batches:
                for rows in portions(batch):
                    there = await self._locked(rows, run)
                    keys.update(dict.fromkeys(there))
                    few.update(there)
                    if len(keys) > BATCH_ROWS:
                        few.clear()
                    await run.changed(len(rows))
        if len(few) == len(keys):
            for portion in portions(list(few.items())):
                await change(portion, run)
            return len(few)
        row_of = self._table.reader.row
        for wanted in portions(list(keys)):
            held = await run.transaction.lock(wanted, self._strength, WaitPolicy.BLOCK)
            again = [
                (lock.key, row_of(lock.key, lock.value)) for lock in held if lock.value is not None
            ]
            await change(again, run)
        return len(keys)

    async def _locked(self, rows: Sequence[Row], run: Run) -> dict[bytes, Row]:
        """Those of the rows that are there, locked. Raises: Restart."""
        found = {row[self._key]: row for row in rows}
        held = await run.transaction.lock(list(found), self._strength, WaitPolicy.BLOCK)
        if any(lock.changed for lock in held):
            raise Restart
        return {lock.key: found[lock.key] for lock in held if lock.value is not None}

    async def _known(self, scan: TableScanOperator, run: Run) -> list[tuple[bytes, Row]]:
        """Lock first, then read what is there."""
        keys = scan.access.keys((), run)
        transaction, strength = run.transaction, self._strength
        alone = transaction.lock_now(keys[0], strength) if len(keys) == 1 else None
        held = [alone] if alone else await transaction.lock(keys, strength, WaitPolicy.BLOCK)
        found = []
        for lock in held:
            if lock.value is None:
                continue
            row = scan.reader.row(lock.key, lock.value)
            if scan.filter is None or scan.filter([row], run):
                found.append((lock.key, row))
        return found


class Update(Change):
    """UPDATE; its batches are the RETURNING rows, and `run.memo[self]` the number of rows."""

    def __init__(self, node: nodes.Update, compiler: Compiler) -> None:
        super().__init__(node.columns)
        statement = node.statement
        self.target = Target(node.change)
        writer = self.target.writer
        assigned = {attnum for attnum, _ in statement.assignments}
        self._assigned = frozenset(assigned | {attnum for attnum, _ in statement.generated})
        self._source = LockedSource(
            node.source, statement.key, self.target.strength(self._assigned), compiler
        )
        layout = {column: offset for offset, column in enumerate(self._source.columns)}
        self._old = [layout[statement.old[attnum]] for attnum in writer.attnums]
        self._assignments = [
            (writer.position[attnum], compile_expression(value, layout))
            for attnum, value in statement.assignments
        ]
        self._may_wait = may_wait(tuple(value for _, value in statement.assignments))
        self._in_place = statement.returning is None and self.target.keeps_place(self._assigned)
        self._returning = (
            None
            if statement.returning is None
            else Returning(
                node, result_layout(statement.row, writer.position, self._source.columns), compiler
            )
        )

        self.one_row = self._by_key()

    def _by_key(self) -> OneRow | None:
        scan, target = self._source.scan, self.target
        if scan is None or not scan.access.single:
            return None
        if self._may_wait or scan.may_wait or not self._in_place:
            return None
        strength = target.strength(self._assigned)
        return UpdateByKey(scan, strength, target, self._old, self._assignments)

    async def change(self, run: Run) -> tuple[int, list[Row]]:
        """(how many rows were changed, the RETURNING rows)."""
        if self._in_place:
            return await self._source.each(run, self._change_portion), []
        found = await self._source.rows(run)
        if not found:
            return 0, []
        changes: list[Changed] = []
        if len(found) <= BATCH_ROWS:
            await self._complete(found, changes, run)
        else:
            for portion in portions(found):
                await self._complete(portion, changes, run)
                await run.changed(len(portion))
        await self.target.update(changes, self._assigned, run)
        if self._returning is None:
            return len(changes), []
        combined = [
            new + source
            for (_, _, new), (_, source) in zip(changes, found, strict=True)
            if new is not None
        ]
        return len(changes), await self._returning.rows(combined, run)

    async def _change_portion(self, found: Sequence[tuple[bytes, Row]], run: Run) -> None:
        """Rows that stay where they are: what was written need not be kept to the end."""
        changes: list[Changed] = []
        await self._complete(found, changes, run)
        await self.target.update(changes, self._assigned, run)
        await run.changed(len(found))

    async def _complete(
        self, found: Sequence[tuple[bytes, Row]], changes: list[Changed], run: Run
    ) -> None:
        """Add what becomes of the found rows to `changes`."""
        completed, old_places = self.target.rules.completed, self._old
        for key, source in found:
            old = [source[place] for place in old_places]
            values: list[Any] = list(old)
            for offset, function in self._assignments:
                if self._may_wait:
                    values[offset] = await evaluated_once(function, source, run)
                else:
                    values[offset] = function(source, run)
            changes.append(Changed(key, tuple(old), completed(tuple(values), run)))


class Delete(Change):
    """DELETE; its batches are the RETURNING rows, and `run.memo[self]` the number of rows."""

    def __init__(self, node: nodes.Delete, compiler: Compiler) -> None:
        super().__init__(node.columns)
        statement = node.statement
        self.target = Target(node.change)
        self._source = LockedSource(node.source, statement.key, LockStrength.UPDATE, compiler)
        layout = {column: offset for offset, column in enumerate(self._source.columns)}
        self._places = [layout[statement.row[attnum]] for attnum in self.target.writer.attnums]
        self._returning = None if statement.returning is None else Returning(node, layout, compiler)
        scan = self._source.scan
        self.one_row: OneRow | None = None
        if (
            scan is not None
            and scan.access.single
            and not scan.may_wait
            and self._returning is None
            and not self.target.writer.indexes
            and not self.target.keys.any
        ):
            self.one_row = DeleteByKey(scan, LockStrength.UPDATE)

    async def change(self, run: Run) -> tuple[int, list[Row]]:
        """(how many rows were deleted, the RETURNING rows)."""
        if self._returning is None and not self.target.keys.any:
            return await self._source.each(run, self._change_portion), []
        found = await self._source.rows(run)
        if not found:
            return 0, []
        changes: list[Changed] = []
        for portion in portions(found):
            changes += self._gone(portion)
            await run.changed(len(portion))
        await self.target.delete(changes, run)
        if self._returning is None:
            return len(changes), []
        return len(changes), await self._returning.rows([source for _, source in found], run)

    async def _change_portion(self, found: Sequence[tuple[bytes, Row]], run: Run) -> None:
        """Rows that nothing else depends on."""
        await self.target.delete(self._gone(found), run)
        await run.changed(len(found))

    def _gone(self, found: Sequence[tuple[bytes, Row]]) -> list[Changed]:
        places = self._places
        return [Changed(key, tuple([row[place] for place in places]), None) for key, row in found]
