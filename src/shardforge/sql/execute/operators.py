"""Operators: nodes of a plan that can run. `batches(run)` yields lists of rows, never an empty one.

An operator holds no state of an execution; it may run several times at once. `goal` tells a source that no more
than so many rows will be taken: a hint that saves reading ahead. Whoever stops before the end closes the generator
(`aclosing`), so that what a scan holds is given back at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import TypeAlias

from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.context import BATCH_ROWS, Account, Row, Run, size_of
from shardforge.sql.execute.expressions import Function, compile_expression, layout_of
from shardforge.sql.execute.rows import (
    evaluated,
    evaluated_once,
    filter_function,
    kept,
    may_wait,
    project_function,
    row_function,
)

Batches: TypeAlias = AsyncGenerator[list[Row], None]


class Operator(ABC):
    """A running node."""

    def __init__(self, columns: tuple[ColumnId, ...]) -> None:
        self.columns = columns
        self.layout = layout_of(columns)

    @abstractmethod
    def batches(self, run: Run, goal: int | None = None) -> Batches:
        """The rows of one execution."""

    async def all_rows(self, run: Run, account: Account | None = None) -> list[Row]:
        """Every row, kept on an account (the statement's, when none is given)."""
        account = account or run.account
        rows: list[Row] = []
        async with aclosing(self.batches(run)) as batches:
            async for batch in batches:
                account.hold(batch)
                rows += batch
        return rows


class Change(Operator):
    """UPDATE or DELETE; its batches are the RETURNING rows, and `run.memo[self]` the number of rows."""

    @abstractmethod
    async def change(self, run: Run) -> tuple[int, list[Row]]:
        """(how many rows were changed, the RETURNING rows)."""

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        count, result = await self.change(run)
        run.memo[self] = count
        if result:
            yield result


def chunks(rows: Sequence[Row], size: int = BATCH_ROWS) -> Iterator[list[Row]]:
    """`rows` in batches."""
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


class ValuesScan(Operator):
    """VALUES; one empty row when there are no columns."""

    def __init__(
        self, columns: tuple[ColumnId, ...], lists: Sequence[Sequence[Expression]]
    ) -> None:
        super().__init__(columns)
        self._rows = [row_function(row, {}) for row in lists]
        self._may_wait = may_wait(tuple(lists))
        self.single: Function | None = (
            self._rows[0] if len(self._rows) == 1 and not self._may_wait else None
        )
        """The one row, when there is one and it never has to wait."""

    def __len__(self) -> int:
        return len(self._rows)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        for start in range(0, len(self._rows), BATCH_ROWS):
            yield await self._evaluated(self._rows[start : start + BATCH_ROWS], run)

    async def all_rows(self, run: Run, account: Account | None = None) -> list[Row]:
        rows = await self._evaluated(self._rows, run)
        (account or run.account).hold(rows)
        return rows

    async def _evaluated(self, functions: Sequence[Function], run: Run) -> list[Row]:
        if self._may_wait:
            return [await evaluated_once(function, (), run) for function in functions]
        return [function((), run) for function in functions]


class GivenRows(Operator):
    """Rows that the operator above put into the run's memo."""

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        for batch in chunks(run.memo[self]):
            yield batch


class Filter(Operator):
    """Rows for which the condition is true."""

    def __init__(self, source: Operator, condition: Expression) -> None:
        super().__init__(source.columns)
        self._source = source
        self._filter = filter_function(condition, source.layout)
        self._test = compile_expression(condition, source.layout)
        self._may_wait = may_wait(condition)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        keep = self._filter
        async with aclosing(self._source.batches(run)) as source:
            async for batch in source:
                rows = await kept(self._test, batch, run) if self._may_wait else keep(batch, run)
                if rows:
                    yield rows


class Project(Operator):
    """The outputs, computed from each row."""

    def __init__(
        self, source: Operator, columns: tuple[ColumnId, ...], outputs: Sequence[Expression]
    ) -> None:
        super().__init__(columns)
        self._source = source
        self._may_wait = may_wait(tuple(outputs))
        self._row = row_function(outputs, source.layout)
        self._project = project_function(outputs, source.layout)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        project = self._project
        async with aclosing(self._source.batches(run, goal)) as source:
            async for batch in source:
                if self._may_wait:
                    yield await evaluated(self._row, batch, run)
                else:
                    yield project(batch, run)


class Materialize(Operator):
    """Keeps the rows of its first complete execution and gives them again, as long as they are not too many."""

    def __init__(self, source: Operator) -> None:
        super().__init__(source.columns)
        self._source = source

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        kept: list[list[Row]] | None = run.memo.get(self)
        if kept is not None:
            for batch in kept:
                yield batch
            return
        kept = []
        room = run.exec.work_memory // 4
        async with aclosing(self._source.batches(run)) as source:
            async for batch in source:
                if kept is not None:
                    size = len(batch) * size_of(batch[-1])
                    if size <= room:
                        room -= size
                        run.hold_bytes(size)
                        kept.append(batch)
                    else:
                        kept = None
                yield batch
        if kept is not None:
            run.memo[self] = kept


class Append(Operator):
    """One source after the other."""

    def __init__(self, columns: tuple[ColumnId, ...], sources: Sequence[Operator]) -> None:
        super().__init__(columns)
        self._sources = sources

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        for operator in self._sources:
            async with aclosing(operator.batches(run, goal)) as source:
                async for batch in source:
                    yield batch
