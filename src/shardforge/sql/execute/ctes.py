"""WITH: queries whose rows are kept for the rest of the statement, recursive ones, and changes among them.

A query is run when it is first needed; a change is run always, and before the body, but its writes are kept back until
the body has read all it reads: every part of a statement sees the same snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import NamedTuple

from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.execute.context import Row, Run
from shardforge.sql.execute.operators import Batches, Operator, chunks
from shardforge.sql.execute.rows import row_key_function
from shardforge.sql.execute.rowwriter import picker


class CteOperator(NamedTuple):
    """One WITH query, compiled. `step` is the recursive part."""

    name: int
    plan: Operator
    step: Operator | None
    union_all: bool
    types: Sequence[int]
    modifies: bool


class With(Operator):
    """The body, with its CTEs announced."""

    def __init__(self, body: Operator, ctes: Sequence[CteOperator]) -> None:
        super().__init__(body.columns)
        self._body = body
        self._ctes = ctes

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        for cte in self._ctes:
            run.memo[cte.name] = cte
            run.ctes.pop(cte.name, None)
        for cte in self._ctes:
            if cte.modifies:
                await rows_of(run, cte.name)
        async with aclosing(self._body.batches(run, goal)) as source:
            async for batch in source:
                yield batch


async def rows_of(run: Run, name: int) -> list[Row]:
    """The rows of a CTE (or of the working table of a recursive one), made now if they are not there."""
    found = run.ctes.get(name)
    if found is None:
        cte: CteOperator = run.memo[name]
        if cte.step is None:
            found = await cte.plan.all_rows(run)
        else:
            found = await _recursive(cte, cte.step, run)
        run.ctes[name] = found
    return found


async def _recursive(cte: CteOperator, step: Operator, run: Run) -> list[Row]:
    """The base, then the step over the rows that were new, until there are none."""
    key_of = row_key_function(cte.types) or _itself
    seen: set[Row] | None = None if cte.union_all else set()

    def fresh(rows: list[Row]) -> list[Row]:
        if seen is None:
            return rows
        new = []
        for row in rows:
            key = key_of(row)
            if key not in seen:
                seen.add(key)
                new.append(row)
        return new

    working = fresh(await cte.plan.all_rows(run))
    result = list(working)
    while working:
        await run.breathe(len(working) + 20)
        run.ctes[cte.name] = working
        # What inner queries remember was computed from the last working table.
        remembered = {key: value for key, value in run.memo.items() if isinstance(key, int)}
        run.memo.clear()
        run.memo.update(remembered)
        working = fresh(await step.all_rows(run))
        result += working
    return result


def _itself(row: Row) -> Row:
    return row


class CteScan(Operator):
    """Rows of a CTE."""

    def __init__(self, columns: tuple[ColumnId, ...], name: int, positions: Sequence[int]) -> None:
        super().__init__(columns)
        self._name = name
        self._pick = picker(positions)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        rows = await rows_of(run, self._name)
        pick = self._pick
        for batch in chunks(rows):
            yield [tuple(pick(row)) for row in batch]
