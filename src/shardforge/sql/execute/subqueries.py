"""Apply: subqueries run for the rows that need them, and WITH. See `plan.rules` for who puts them here."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.bind.walk import columns_of, references
from shardforge.sql.execute.context import ExecContext, Row
from shardforge.sql.execute.expressions import compile_expression, layout_of
from shardforge.sql.execute.grouping import hash_keys
from shardforge.sql.execute.operators import (
    Batch,
    Batches,
    Compilation,
    Operator,
    collect,
    operator_for,
)
from shardforge.sql.plan.physical import Apply
from shardforge.sql.types.values import Array

MEMO_ENTRIES_MAX = 10_000
_UNSET = object()


class _Subquery:
    """One subquery of an Apply: its value for an outer row, remembered by the outer columns that it uses."""

    def __init__(
        self,
        node: tree.Subquery,
        physical: Any,
        outer: tuple[ColumnId, ...],
        compilation: Compilation,
    ) -> None:
        self._operator = compilation.operator(physical)
        self._kind = node.kind
        self._layout = layout_of(outer)
        used = (
            references(node.test) | references(physical)
            if node.test is not None
            else references(physical)
        )
        self._outer = [
            (column, self._layout[column]) for column in sorted(used) if column in self._layout
        ]
        self._test = None
        if node.test is not None:
            self._test = compile_expression(node.test, layout_of(self._operator.columns))
            needed = [(c, o) for c, o in self._outer if c in references(physical)]
            self._row_columns = [(c, o) for c, o in self._outer if c in references(node.test)]
            self._memo_columns = needed
        else:
            self._row_columns = []
            self._memo_columns = self._outer

    def fresh_memo(self) -> OrderedDict[Any, Any]:
        """For one run of the Apply."""
        return OrderedDict()

    async def value(self, row: Row, ctx: ExecContext, memo: OrderedDict[Any, Any]) -> Any:
        """The subquery's value for `row`."""
        key = tuple([row[offset] for _, offset in self._memo_columns])
        outer = ctx.outer
        for column, offset in self._outer:
            outer[column] = row[offset]
        hashable = _hashable(key)
        found = memo.get(hashable, _UNSET) if hashable is not None else _UNSET
        if found is _UNSET:
            found = await self._result(ctx)
            if hashable is not None:
                memo[hashable] = found
                if len(memo) > MEMO_ENTRIES_MAX:
                    memo.popitem(last=False)
            for column, offset in self._outer:  # an inner run may have set them to its own rows
                outer[column] = row[offset]
        return self._tested(found, ctx) if self._test is not None else found

    async def _result(self, ctx: ExecContext) -> Any:
        kind = self._kind
        if kind == "exists":
            async for _ in self._operator.batches(ctx):
                return True
            return False
        if kind == "scalar":
            found: Batch = []
            async for batch in self._operator.batches(ctx):
                found += batch
                if len(found) > 1:
                    raise QueryError(
                        "more than one row returned by a subquery used as an expression", "21000"
                    )
            return found[0][0] if found else None
        rows = await collect(self._operator, ctx)
        if kind == "array":
            return _array([row[0] for row in rows])
        return rows

    def _tested(self, rows: Batch, ctx: ExecContext) -> Any:
        use_or = self._kind == "any"
        unknown = False
        test = self._test
        assert test is not None, "any and all have a test"
        for row in rows:
            value = test(row, ctx)
            if value is None:
                unknown = True
            elif value is use_or:
                return use_or
        return None if unknown else not use_or


def _hashable(key: Row) -> Row | None:
    try:
        hash(key)
    except TypeError:
        return None
    return tuple([(type(v), v, str(v)) if type(v).__name__ == "Decimal" else v for v in key])


def _array(values: list[Any]) -> Array:
    if not values:
        return Array((), (), ())
    if isinstance(values[0], Array):
        parts = [v for v in values if isinstance(v, Array)]
        if len(parts) != len(values) or any(p.dims != parts[0].dims for p in parts):
            raise QueryError("cannot accumulate arrays of different dimensionality", "2202E")
        return Array(
            tuple(e for p in parts for e in p.elements),
            (len(parts), *parts[0].dims),
            (1, *parts[0].lower),
        )
    return Array(tuple(values), (len(values),), (1,))


@operator_for(Apply)
class ApplyOperator:
    """Appends the values of subqueries to each row."""

    def __init__(self, node: Apply, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = columns_of(node)
        self._subqueries: list[_Subquery] = []
        outer = self._input.columns
        for column, subquery, physical in node.subqueries:
            self._subqueries.append(_Subquery(subquery, physical, outer, compilation))
            outer = (*outer, column)

    async def batches(self, ctx: ExecContext) -> Batches:
        memos = [subquery.fresh_memo() for subquery in self._subqueries]
        pairs = list(zip(self._subqueries, memos, strict=True))
        async for batch in self._input.batches(ctx):
            made: Batch = []
            for whole in batch:
                row = whole
                for subquery, memo in pairs:
                    row = (*row, await subquery.value(row, ctx, memo))
                made.append(row)
                await ctx.breathe()
            yield made


@operator_for(tree.With)
class WithOperator:
    """Computes CTEs, in order, then the body."""

    def __init__(self, node: tree.With, compilation: Compilation) -> None:
        self._ctes = [(cte, self._compile(cte, compilation)) for cte in node.ctes]
        self._body = compilation.operator(node.body)
        self.columns = self._body.columns

    @staticmethod
    def _compile(cte: tree.Cte, compilation: Compilation) -> Any:
        if isinstance(cte.query, tree.Insert | tree.Update | tree.Delete):
            from shardforge.sql.execute.changes import compile_change  # changes run relations

            return compile_change(cte.query, compilation)
        if cte.recursive is not None:
            base, step, _ = cte.recursive
            return compilation.operator(base), compilation.operator(step)
        return compilation.operator(cte.query)

    async def batches(self, ctx: ExecContext) -> Batches:
        for cte, compiled in self._ctes:
            ctx.cte_layouts[cte.name] = layout_of(cte.columns)
            if isinstance(cte.query, tree.Insert | tree.Update | tree.Delete):
                ctx.ctes[cte.name] = (await compiled.run(ctx)).rows
            elif cte.recursive is not None:
                ctx.ctes[cte.name] = await _recurse(cte, compiled[0], compiled[1], ctx)
            else:
                ctx.ctes[cte.name] = await collect(compiled, ctx)
        async for batch in self._body.batches(ctx):
            yield batch


async def _recurse(cte: tree.Cte, base: Operator, step: Operator, ctx: ExecContext) -> Batch:
    """PostgreSQL's working-table algorithm (section 7.8.2.1)."""
    assert cte.recursive is not None, "a recursive CTE"
    distinct = not cte.recursive[2]
    key_of = hash_keys(cte.types) if distinct else None
    seen: set[Any] = set()
    order = (
        [step.columns.index(c) for c in cte.step_columns]
        if cte.step_columns
        else list(range(len(cte.columns)))
    )

    def fresh(rows: Batch) -> Batch:
        if key_of is None:
            return rows
        kept = []
        for row in rows:
            key = key_of(row)
            if key not in seen:
                seen.add(key)
                kept.append(row)
        return kept

    working = fresh(await collect(base, ctx))
    result = list(working)
    while working:
        ctx.ctes[cte.name] = working
        ctx.cte_layouts[cte.name] = layout_of(cte.columns)
        found = [tuple([row[o] for o in order]) for row in await collect(step, ctx)]
        working = fresh(found)
        result += working
        await ctx.breathe()
    return result
