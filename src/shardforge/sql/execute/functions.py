"""Set-returning functions: in FROM, and in a select list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from itertools import islice, repeat, zip_longest
from typing import Any

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.context import BATCH_ROWS, Row, Run
from shardforge.sql.execute.expressions import Function, Layout, compile_expression
from shardforge.sql.execute.expressions.calls import implementation_of
from shardforge.sql.execute.operators import Batches, Operator
from shardforge.sql.execute.rows import evaluated_once, may_wait
from shardforge.sql.functions.json_record import Column, record_reader

SetFunction = Callable[[Any, Any], Iterable[Any]]


def compile_set(call: tree.Call, layout: Layout) -> SetFunction:
    """A set-returning function as a function from a row to its values; none when it is strict and gets a NULL."""
    found = implementation_of(call.proc, tuple(arg.type for arg in call.args), call.type)
    arguments = [compile_expression(arg, layout) for arg in call.args]
    function, strict, contextual = found.call, call.strict, found.needs_context

    def values(row: Any, ctx: Any) -> Iterable[Any]:
        given = [argument(row, ctx) for argument in arguments]
        if strict and None in given:
            return ()
        result = function(ctx.eval, *given) if contextual else function(*given)
        return () if result is None else result

    return values


class FunctionScan(Operator):
    """Functions side by side, padded with NULLs; each has one or more columns."""

    def __init__(
        self, columns: tuple[ColumnId, ...], functions: Sequence[Expression], widths: Sequence[int],
        ordinality: bool,
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._functions = [_source(function) for function in functions]
        self._widths = widths
        self._ordinality = ordinality

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        sources = [iter(await evaluated_once(function, (), run)) for function in self._functions]
        missing = object()
        joined = zip_longest(*sources, fillvalue=missing)
        number = 0
        size = BATCH_ROWS if goal is None else max(1, min(goal, BATCH_ROWS))
        while items := list(islice(joined, size)):
            rows: list[Row] = []
            for item in items:
                number += 1
                values: list[Any] = []
                for value, width in zip(item, self._widths, strict=True):
                    if value is missing or (value is None and width != 1):
                        values.extend(repeat(None, width))
                    elif width == 1:
                        values.append(value)
                    else:
                        values.extend(value)
                if self._ordinality:
                    values.append(number)
                rows.append(tuple(values))
            await run.breathe(len(rows))
            yield rows


def _source(function: Expression) -> SetFunction:
    if isinstance(function, tree.Call) and function.columns:
        return _record_source(function)
    if isinstance(function, tree.Call) and function.retset:
        return compile_set(function, {})
    compiled = compile_expression(function, {})
    return lambda row, ctx: (compiled(row, ctx),)


def _record_source(call: tree.Call) -> SetFunction:
    """A function returning record whose columns are declared where it is called."""
    read = record_reader(call.name, [Column(*column) for column in call.columns])
    arguments = [compile_expression(arg, {}) for arg in call.args]

    def values(row: Any, ctx: Any) -> Iterable[Any]:
        records = read(ctx.eval, *[argument(row, ctx) for argument in arguments])
        return records if len(call.columns) > 1 else (record[0] for record in records)

    return values


class ProjectSet(Operator):
    """A select list with set-returning functions: they run in lockstep, the shorter ones padded with NULLs."""

    def __init__(
        self, source: Operator, columns: tuple[ColumnId, ...], outputs: Sequence[Expression]
    ) -> None:
        super().__init__(columns)
        self._source = source
        sets: list[tree.Call] = []
        placed = [_lifted(output, sets) for output in outputs]
        width = len(source.columns)
        layout = dict(source.layout)
        for place in range(len(sets)):
            layout[_set_column(place)] = width + place
        self._may_wait = may_wait(tuple(outputs))
        self._sets = [compile_set(call, source.layout) for call in sets]
        functions = [compile_expression(output, layout) for output in placed]
        self._row: Function = lambda row, ctx: tuple([function(row, ctx) for function in functions])

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        out: list[Row] = []
        async with aclosing(self._source.batches(run)) as source:
            async for batch in source:
                for row in batch:
                    for items in zip_longest(*[
                        await evaluated_once(values, row, run) if self._may_wait else values(row, run)
                        for values in self._sets
                    ]):  # fmt: skip
                        full = (*row, *items)
                        out.append(
                            await evaluated_once(self._row, full, run)
                            if self._may_wait
                            else self._row(full, run)
                        )
                        if len(out) >= BATCH_ROWS:
                            await run.breathe(len(out))
                            yield out
                            out = []
        if out:
            yield out


def _set_column(place: int) -> ColumnId:
    return ColumnId(-1000 - place)


def _lifted(output: Expression, sets: list[tree.Call]) -> Expression:
    """The output with its set-returning calls replaced by columns, innermost sets refused."""

    def change(node: Any) -> Any:
        if isinstance(node, tree.Call) and node.retset:
            sets.append(node)
            return tree.ColumnRef(_set_column(len(sets) - 1), node.type, node.typmod)
        return None

    return walk.rewrite(output, change)  # type: ignore[no-any-return]
