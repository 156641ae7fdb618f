"""Subqueries in expressions: a column with the subquery's value for each row.

A subquery that takes nothing from outside is run once a statement, another one once for each different set of
values that it takes (remembered up to a bound). ANY and ALL over an equality of keys are looked up in a set.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.context import Account, Row, Run
from shardforge.sql.execute.expressions import Failure, Function, compile_expression, layout_of
from shardforge.sql.execute.expressions.calls import implementation_of
from shardforge.sql.execute.operators import Batches, Operator
from shardforge.sql.types.registry import is_array
from shardforge.sql.types.values import Array

REMEMBERED_MAX = 10_000
ROWS_OF_A_RUN = 20
"""What running a subquery counts for, in rows of work."""
_UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class Collected:
    """The rows of an ANY or ALL subquery; `members` is set when the test is membership."""

    rows: list[Row]
    members: frozenset[Any] | None = None
    has_null: bool = False


class Apply(Operator):
    """The source's rows with one value more."""

    def __init__(
        self, columns: tuple[ColumnId, ...], source: Operator, inner: Operator, kind: str,
        test: Expression | None, outer: Sequence[ColumnId], lazy: bool, element_type: int,
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._source = source
        self._inner = inner
        self._kind = kind
        self._lazy = lazy
        self._nested = is_array(element_type) if element_type else False
        self._given = [
            (column, source.layout[column]) for column in outer if column in source.layout
        ]
        self._enclosing = [column for column in outer if column not in source.layout]
        self._once = not outer
        self._test: Function | None = None
        self._probe: Function | None = None
        if test is not None:
            self._prepare_test(test, source, inner)

    def _prepare_test(self, test: Expression, source: Operator, inner: Operator) -> None:
        self._test = compile_expression(test, layout_of(source.columns + inner.columns))
        if not isinstance(test, tree.Call) or len(test.args) != 2 or len(inner.columns) != 1:
            return
        left, right = test.args
        wanted = operator.eq if self._kind == "any" else operator.ne
        while isinstance(right, tree.Relabel):
            right = right.arg
        types = (test.args[0].type, test.args[1].type)
        if (
            isinstance(right, tree.ColumnRef)
            and right.column == inner.columns[0]
            and inner.columns[0] not in walk.references(left)
            and implementation_of(test.proc, types, test.type).call is wanted
        ):
            self._probe = compile_expression(left, source.layout)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        async with aclosing(self._source.batches(run, goal)) as source:
            async for batch in source:
                if self._once:
                    found = await self._remembered(run, ())
                    yield [(*row, self._value(found, row, run)) for row in batch]
                else:
                    yield [
                        (*row, self._value(await self._for_row(row, run), row, run))
                        for row in batch
                    ]

    async def _for_row(self, row: Row, run: Run) -> Any:
        outer = run.outer
        for column, offset in self._given:
            outer[column] = row[offset]
        key = (
            *[_exactly(row[offset]) for _, offset in self._given],
            *[_exactly(outer[column]) for column in self._enclosing],
        )
        return await self._remembered(run, key)

    async def _remembered(self, run: Run, key: tuple[Any, ...]) -> Any:
        await run.breathe(ROWS_OF_A_RUN)
        memory: dict[tuple[Any, ...], Any] = run.memo.setdefault(self, {})
        found = memory.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            try:
                found = await self._run(run)
            except QueryError as error:
                if not self._lazy:
                    raise
                found = Failure(error)
            if len(memory) < REMEMBERED_MAX:
                memory[key] = found
        return found

    async def _run(self, run: Run) -> Any:
        """The subquery's value, or for ANY and ALL what it is found from."""
        kind = self._kind
        if kind == "exists":
            async with aclosing(self._inner.batches(run, 1)) as source:
                async for _ in source:
                    return True
            return False
        if kind == "scalar":
            return await self._scalar(run)
        if kind == "array":
            with Account(run) as account:
                values = [row[0] for row in await self._inner.all_rows(run, account)]
            return _stacked(values) if self._nested else Array(tuple(values))
        rows = await self._inner.all_rows(run)
        if self._probe is None:
            return Collected(rows)
        members = frozenset([row[0] for row in rows])
        return Collected(rows, members - {None}, None in members)

    async def _scalar(self, run: Run) -> Any:
        found: list[Row] = []
        async with aclosing(self._inner.batches(run, 2)) as source:
            async for batch in source:
                found += batch
                if len(found) > 1:
                    raise QueryError(
                        "more than one row returned by a subquery used as an expression", "21000"
                    )
        return found[0][0] if found else None

    def _value(self, found: Any, row: Row, run: Run) -> Any:
        if type(found) is not Collected:
            return found
        use_or = self._kind == "any"
        if not found.rows:
            return not use_or
        if found.members is not None and self._probe is not None:
            value = self._probe(row, run)
            if value is None:
                return None
            if value in found.members:
                return use_or
            return None if found.has_null else not use_or
        assert self._test is not None, "ANY and ALL have a test"
        return quantified(self._test, row, found.rows, run, use_or=use_or)


def _exactly(value: Any) -> Any:
    """A key that tells 1.0 from 1.00: equal numerics may still give different results."""
    return value.as_tuple() if type(value) is Decimal else value


def quantified(
    test: Function, row: Row, rows: Sequence[Row], ctx: Any, *, use_or: bool
) -> bool | None:
    """Whether the test holds for some row, or for every one, in three-valued logic."""
    result: bool | None = not use_or
    for inner in rows:
        value: bool | None = test(row + inner, ctx)
        if value is None:
            result = None
        elif value is use_or:
            return use_or
    return result


def _stacked(arrays: list[Array | None]) -> Array:
    """Arrays of a subquery as one array with a dimension more."""
    present = [array for array in arrays if array is not None and array.dims]
    if len(present) != len(arrays):
        raise QueryError("cannot accumulate null arrays", "22004")
    if not present:
        return Array(())
    first = present[0]
    if any(array.dims != first.dims for array in present):
        raise QueryError("cannot accumulate arrays of different dimensionality", "2202E")
    elements = tuple([element for array in present for element in array.elements])
    return Array(elements, (len(present), *first.dims), (1, *first.lower))
