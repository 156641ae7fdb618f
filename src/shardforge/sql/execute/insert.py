"""INSERT, with ON CONFLICT and RETURNING; also the way in for COPY."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from shardforge.sql.bind import tree
from shardforge.sql.catalog.descriptors import ROWID_COLUMN
from shardforge.sql.execute.conflict import Conflict
from shardforge.sql.execute.context import BATCH_ROWS, Row, Run, portions
from shardforge.sql.execute.expressions import Function, compile_expression
from shardforge.sql.execute.onerow import InsertOne, OneRow
from shardforge.sql.execute.operators import Batches, Operator, ValuesScan, chunks
from shardforge.sql.execute.returning import Returning, result_layout
from shardforge.sql.execute.rows import evaluated_once, may_wait
from shardforge.sql.execute.rowwriter import picker
from shardforge.sql.execute.target import Target
from shardforge.sql.plan import nodes

if TYPE_CHECKING:
    from shardforge.sql.execute.compiler import Compiler


class RowMaker:
    """Source rows (values of the target columns) -> stored rows: defaults, row numbers, constraints."""

    def __init__(self, statement: tree.Insert, target: Target) -> None:
        self._target = target
        table, writer = target.table, target.writer
        places = {attnum: offset for offset, attnum in enumerate(statement.targets)}
        width = len(statement.targets)
        self._defaults: list[Function] = []
        self._default_may_wait = False
        for attnum, expression in statement.defaults:
            if attnum in places or attnum not in writer.position:
                continue
            places[attnum] = width + len(self._defaults)
            self._defaults.append(compile_expression(expression, {}))
            self._default_may_wait |= may_wait(expression)
        null = width + len(self._defaults)
        self.numbered = ROWID_COLUMN in writer.position and ROWID_COLUMN not in places
        if self.numbered:
            places[ROWID_COLUMN] = null + 1
        order = [places.get(attnum, null) for attnum in writer.attnums]
        self._identical = order == list(range(width)) and not self._defaults
        self._pick = picker(order)
        self._storage_id = table.storage_id or table.id

    async def rows(self, sources: Sequence[Row], run: Run) -> list[Row]:
        """Completed stored rows. Raises: 23502, 23514."""
        completed = self._target.rules.completed
        if self._identical:
            return [completed(row, run) for row in sources]
        pick = self._pick
        if not self._defaults and not self.numbered:
            return [completed(tuple(pick((*row, None))), run) for row in sources]
        made: list[Row] = []
        for row in sources:
            extra: list[Any] = []
            for default in self._defaults:
                if self._default_may_wait:
                    extra.append(await evaluated_once(default, (), run))
                else:
                    extra.append(default((), run))
            number = await self._row_number(run) if self.numbered else None
            made.append(completed(tuple(pick((*row, *extra, None, number))), run))
        return made

    def one_row(self, source: Function) -> OneRow | None:
        """The way of one row of VALUES, when nothing but the row itself is to be stored and nothing may wait."""
        target = self._target
        if self._default_may_wait or target.writer.indexes or target.keys.any:
            return None
        numbered = self._storage_id if self.numbered else None
        return InsertOne(source, self._defaults, self._pick, numbered, target)

    async def _row_number(self, run: Run) -> int:
        numbers = run.exec.row_numbers
        assert numbers is not None, "a session with tables has row numbers"
        while (number := numbers.take_rowid(self._storage_id)) is None:
            await numbers.reserve_rowids(self._storage_id)
        return number


class Insert(Operator):
    """INSERT; its batches are the RETURNING rows, and `run.memo[self]` the number of rows."""

    def __init__(self, node: nodes.Insert, compiler: Compiler) -> None:
        super().__init__(node.columns)
        statement = node.statement
        self.target = Target(node.change)
        self._source = compiler.compile(node.source)
        self._maker = RowMaker(statement, self.target)
        self._conflict = None if statement.conflict is None else Conflict(statement, self.target)
        layout = result_layout(statement.row, self.target.writer.position, self._source.columns)
        self._returning = (
            Returning(node, layout, compiler) if statement.returning is not None else None
        )
        self._keep_apart = reads_table(node.source, self.target.table.id)
        self.one_row: OneRow | None = None
        if self._conflict is None and self._returning is None:
            source = self._source.single if isinstance(self._source, ValuesScan) else None
            self.one_row = None if source is None else self._maker.one_row(source)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        count = 0
        async with aclosing(self._sources(run)) as source:
            async for batch in source:
                for portion in portions(batch):
                    done, result = await self.insert(portion, run)
                    count += done
                    if result:
                        yield result
                    await run.changed(len(portion))
        run.memo[self] = count

    async def _sources(self, run: Run) -> Batches:
        if self._keep_apart:
            # Rows that this statement adds must not turn up in what it reads.
            for batch in chunks(await self._source.all_rows(run)):
                yield batch
        else:
            async with aclosing(self._source.batches(run)) as source:
                async for batch in source:
                    yield batch

    async def change(self, run: Run) -> tuple[int, list[Row]]:
        """(how many rows were inserted or updated, the RETURNING rows)."""
        if isinstance(self._source, ValuesScan) and len(self._source) <= BATCH_ROWS:
            return await self.insert(await self._source.all_rows(run), run)
        rows = await self.all_rows(run)
        return run.memo[self], rows

    async def insert(self, sources: Sequence[Row], run: Run) -> tuple[int, list[Row]]:
        """Insert rows of the target columns: (how many were inserted or updated, the RETURNING rows)."""
        rows = await self._maker.rows(sources, run)
        if self._conflict is None:
            await self.target.insert(rows, run, numbered=self._maker.numbered)
            stored: list[tuple[Row, Row]] = list(zip(rows, sources, strict=True))
        else:
            stored = await self._conflict.insert(rows, sources, run)
        if self._returning is None or not stored:
            return len(stored), []
        combined = [row + source for row, source in stored]
        return len(stored), await self._returning.rows(combined, run)


def reads_table(node: nodes.Node, table: int) -> bool:
    """Whether a plan reads the table."""
    if isinstance(node, nodes.TableScan) and node.table.id == table:
        return True
    if isinstance(node, nodes.Apply) and reads_table(node.plan, table):
        return True
    return any(reads_table(child, table) for child in nodes.children(node))
