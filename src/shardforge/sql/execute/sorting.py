"""ORDER BY, LIMIT, DISTINCT and set operations."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.context import Account, Row, Run
from shardforge.sql.execute.expressions import (
    Function,
    compile_expression,
    compile_optional,
)
from shardforge.sql.execute.expressions.core import Layout
from shardforge.sql.execute.operators import Batches, Operator, chunks
from shardforge.sql.execute.rows import key_function, row_key_function
from shardforge.sql.types.registry import sort_key

TOP_ROWS_MAX = 10_000
"""A LIMIT up to this keeps a heap; beyond it everything is sorted."""


class Descending:
    """A sort key that compares the other way round."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: Descending) -> bool:
        return bool(other.key < self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descending) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def order_key(key: tree.SortKey, layout: Layout) -> Function:
    """(row, ctx) -> what to sort by, NULLs in their place, ascending whatever the key's direction."""
    function = compile_expression(key.expression, layout)
    transform = sort_key(key.expression.type) if key.expression.type else None
    null = (0,) if key.nulls_first else (2,)
    descending = key.descending

    def ordered(row: Any, ctx: Any) -> tuple[Any, ...]:
        value = function(row, ctx)
        if value is None:
            return null
        if transform is not None:
            value = transform(value)
        return (1, Descending(value) if descending else value)

    return ordered


def sorter(keys: Sequence[tree.SortKey], layout: Layout) -> Callable[[list[Row], Any], None]:
    """Sorts rows in place, stably: one pass for each key, the last key first."""
    passes: list[tuple[Function, Callable[[Any], Any] | None, bool, bool]] = []
    for key in keys:
        expression = key.expression
        transform = sort_key(expression.type) if expression.type else None
        passes.append(
            (compile_expression(expression, layout), transform, key.descending, key.nulls_first)
        )

    def sort(rows: list[Row], ctx: Any) -> None:
        for function, transform, descending, nulls_first in reversed(passes):
            values = [function(row, ctx) for row in rows]
            if transform is not None:
                values = [None if v is None else transform(v) for v in values]
            if None in values:
                last = 0 if nulls_first != descending else 1
                by: list[Any] = [(last,) if v is None else (1 - last, v) for v in values]
            else:
                by = values
            order = sorted(range(len(rows)), key=by.__getitem__, reverse=descending)
            rows[:] = [rows[at] for at in order]

    return sort


class Sort(Operator):
    """ORDER BY. With a `top`, only the first rows are kept."""

    def __init__(
        self, source: Operator, keys: Sequence[tree.SortKey],
        top: tuple[Expression | None, Expression | None] | None,
    ) -> None:  # fmt: skip
        super().__init__(source.columns)
        self._source = source
        self._sort = sorter(keys, source.layout)
        self._keys = [order_key(key, source.layout) for key in keys]
        self._top = None if top is None else tuple(compile_optional(e, {}) for e in top)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        wanted = self._wanted(run)
        if wanted is not None:
            rows = await self._first(run, wanted)
            for batch in chunks(rows):
                yield batch
            return
        with Account(run) as account:
            rows = await self._source.all_rows(run, account)
            self._sort(rows, run)
            for batch in chunks(rows):
                yield batch

    def _wanted(self, run: Run) -> int | None:
        if self._top is None:
            return None
        limit, offset = (None if e is None else e((), run) for e in self._top)
        if limit is None or limit < 0 or (offset or 0) < 0:
            return None
        total = int(limit) + int(offset or 0)
        return total if total <= TOP_ROWS_MAX else None

    async def _first(self, run: Run, wanted: int) -> list[Row]:
        """The first rows in order, equal ones as they came."""
        keys = self._keys
        best: list[tuple[tuple[Any, ...], int, Row]] = []
        number = 0
        async with aclosing(self._source.batches(run)) as source:
            async for batch in source:
                fresh = []
                for row in batch:
                    fresh.append((tuple([key(row, run) for key in keys]), number, row))
                    number += 1
                best = heapq.nsmallest(wanted, best + fresh, key=_key_and_number)
                await run.breathe(2 * len(batch))
        return [row for _, _, row in best]


def _key_and_number(item: tuple[tuple[Any, ...], int, Row]) -> tuple[tuple[Any, ...], int]:
    return item[:2]


class Limit(Operator):
    """LIMIT and OFFSET; with ties, rows equal to the last one in the order of `ties` come too."""

    def __init__(
        self, source: Operator, limit: Expression | None, offset: Expression | None,
        ties: Sequence[tree.SortKey],
    ) -> None:  # fmt: skip
        super().__init__(source.columns)
        self._source = source
        self._limit = compile_optional(limit, {})
        self._offset = compile_optional(offset, {})
        self._ties = [order_key(key, source.layout) for key in ties]

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        limit = _count(self._limit, run, "LIMIT", "2201W")
        skip = _count(self._offset, run, "OFFSET", "2201X") or 0
        if limit == 0:
            return
        needed = None if limit is None else limit + skip
        if needed is None and goal is not None:
            needed = goal + skip
        left = limit
        last: Row | None = None
        async with aclosing(self._source.batches(run, None if self._ties else needed)) as source:
            async for full in source:
                batch = full
                if skip:
                    batch, skip = batch[skip:], max(skip - len(batch), 0)
                    if not batch:
                        continue
                if left is None:
                    yield batch
                    continue
                taken = batch[:left]
                left -= len(taken)
                if taken:
                    last = taken[-1]
                if left == 0 and self._ties and last is not None:
                    tied = self._tied(batch[len(taken) :], last, run)
                    if taken or tied:
                        yield taken + tied
                    if len(tied) < len(batch) - len(taken):
                        return
                    continue
                yield taken
                if left == 0:
                    return

    def _tied(self, rows: list[Row], last: Row, run: Run) -> list[Row]:
        key = [order(last, run) for order in self._ties]
        tied = []
        for row in rows:
            if [order(row, run) for order in self._ties] != key:
                break
            tied.append(row)
        return tied


def _count(function: Function | None, run: Run, what: str, sqlstate: str) -> int | None:
    value = None if function is None else function((), run)
    if value is None:
        return None
    if value < 0:
        raise QueryError(f"{what} must not be negative", sqlstate)
    return int(value)


class Distinct(Operator):
    """The first row of each key: of `on`, or of all columns."""

    def __init__(self, source: Operator, on: Sequence[Expression], types: Sequence[int]) -> None:
        super().__init__(source.columns)
        self._source = source
        if on:
            by_expression = key_function(on, source.layout)
            self._key: Callable[[Row, Any], Any] = by_expression
        else:
            whole = row_key_function(types)
            self._key = (lambda row, ctx: row) if whole is None else (lambda row, ctx: whole(row))

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        seen: set[Any] = set()
        key_of = self._key
        with Account(run) as account:
            async with aclosing(self._source.batches(run)) as source:
                async for batch in source:
                    fresh = []
                    for row in batch:
                        key = key_of(row, run)
                        if key not in seen:
                            seen.add(key)
                            fresh.append(row)
                    if fresh:
                        account.hold(fresh)
                        yield fresh


class SetOperation(Operator):
    """UNION, INTERSECT and EXCEPT, by hashing whole rows; NULLs are equal here."""

    def __init__(
        self, columns: tuple[ColumnId, ...], op: str, keep_all: bool, left: Operator, right: Operator,
        types: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._op = op
        self._all = keep_all
        self._left = left
        self._right = right
        whole = row_key_function(types)
        self._key: Callable[[Row], Any] = (lambda row: row) if whole is None else whole

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        with Account(run) as account:
            source = self._union if self._op == "union" else self._counted
            async with aclosing(source(run, account)) as found:
                async for batch in found:
                    yield batch

    async def _union(self, run: Run, account: Account) -> Batches:
        seen: set[Any] = set()
        for operator in (self._left, self._right):
            async with aclosing(operator.batches(run)) as source:
                async for batch in source:
                    fresh = []
                    for row in batch:
                        key = self._key(row)
                        if key not in seen:
                            seen.add(key)
                            fresh.append(row)
                    if fresh:
                        account.hold(fresh)
                        yield fresh

    async def _counted(self, run: Run, account: Account) -> Batches:
        """A row of the left stays by how often it is on the right."""
        counts: Counter[Any] = Counter()
        async with aclosing(self._right.batches(run)) as source:
            async for batch in source:
                account.hold(batch)
                counts.update(map(self._key, batch))
        seen: set[Any] = set()
        intersect = self._op == "intersect"
        async with aclosing(self._left.batches(run)) as source:
            async for batch in source:
                kept = [row for row in batch if self._keep(row, counts, seen, intersect=intersect)]
                if kept:
                    account.hold(kept)
                    yield kept

    def _keep(self, row: Row, counts: Counter[Any], seen: set[Any], *, intersect: bool) -> bool:
        key = self._key(row)
        if self._all:
            found = counts[key] > 0
            if found:
                counts[key] -= 1
            return found is intersect
        if key in seen or (key in counts) is not intersect:
            return False
        seen.add(key)
        return True
