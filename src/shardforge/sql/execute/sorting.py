"""Sort, TopN and Distinct, and the keys that they and grouping use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shardforge.sql.bind import tree
from shardforge.sql.execute.context import ExecContext, Row
from shardforge.sql.execute.expressions import Function, Layout, compile_expression, layout_of
from shardforge.sql.execute.grouping import hash_keys
from shardforge.sql.execute.operators import (
    Batch,
    Batches,
    Compilation,
    collect,
    in_batches,
    limits,
    operator_for,
)
from shardforge.sql.plan.physical import TopN
from shardforge.sql.types.registry import sort_key

SortOne = tuple[Function, Callable[[Any], Any] | None, bool, bool]


class Order:
    """ORDER BY compiled: sorts lists of rows, in place and stably."""

    def __init__(self, sort_keys: Sequence[tree.SortKey], layout: Layout) -> None:
        self._keys: list[SortOne] = [
            (
                compile_expression(k.expression, layout),
                sort_key(k.expression.type),
                k.descending,
                k.nulls_first,
            )
            for k in sort_keys
        ]

    def sort(self, rows: list[Row], ctx: ExecContext) -> None:
        """Sort by the last key first: each pass is stable."""
        for expression, key, descending, nulls_first in reversed(self._keys):
            self._pass(rows, ctx, expression, key, descending=descending, nulls_first=nulls_first)

    @staticmethod
    def _pass(
        rows: list[Row], ctx: ExecContext, expression: Function, key: Callable[[Any], Any] | None, *,
        descending: bool, nulls_first: bool,
    ) -> None:  # fmt: skip
        values = [expression(row, ctx) for row in rows]
        present = [i for i, v in enumerate(values) if v is not None]
        absent = [rows[i] for i, v in enumerate(values) if v is None]
        if key is None:
            present.sort(key=values.__getitem__, reverse=descending)
        else:
            keyed = {i: key(values[i]) for i in present}
            present.sort(key=keyed.__getitem__, reverse=descending)
        ordered = [rows[i] for i in present]
        rows[:] = absent + ordered if nulls_first else ordered + absent

    def comparable(self, row: Row, ctx: ExecContext) -> Any:
        """A key whose order is this order; for heaps and for comparing neighbours."""
        return _Comparable([
            (value is None, None if value is None else key(value) if key is not None else value, descending, nulls_first)
            for expression, key, descending, nulls_first in self._keys
            for value in (expression(row, ctx),)
        ])  # fmt: skip


class _Comparable:
    """The sort keys of one row."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[tuple[bool, Any, bool, bool]]) -> None:
        self.parts = parts

    def __lt__(self, other: _Comparable) -> bool:
        for (null_a, a, descending, nulls_first), (null_b, b, _, _) in zip(
            self.parts, other.parts, strict=True
        ):
            if null_a or null_b:
                if null_a and null_b:
                    continue
                return null_a is nulls_first
            if a == b:
                continue
            return bool(b < a) if descending else bool(a < b)
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Comparable) and [p[:2] for p in self.parts] == [
            p[:2] for p in other.parts
        ]

    __hash__ = None  # type: ignore[assignment]  # ordered, never a key


@operator_for(tree.Sort)
class SortOperator:
    """All rows, in order."""

    def __init__(self, node: tree.Sort, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = self._input.columns
        self._order = Order(node.keys, layout_of(self.columns))

    async def batches(self, ctx: ExecContext) -> Batches:
        rows = await collect(self._input, ctx)
        self._order.sort(rows, ctx)
        for batch in in_batches(rows):
            yield batch
            await ctx.breathe()


@operator_for(TopN)
class TopNOperator:
    """The first rows in order, keeping about twice as many as are wanted."""

    def __init__(self, node: TopN, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = self._input.columns
        self._order = Order(node.keys, layout_of(self.columns))
        self._limit = compile_expression(node.limit, {})
        self._offset = None if node.offset is None else compile_expression(node.offset, {})

    async def batches(self, ctx: ExecContext) -> Batches:
        count, skip = limits(self._limit, self._offset, ctx)
        wanted = None if count is None else count + skip
        if count == 0:
            return
        kept: Batch = []
        async for batch in self._input.batches(ctx):
            kept += batch
            if wanted is not None and len(kept) > 2 * wanted + 1000:
                self._order.sort(kept, ctx)
                del kept[wanted:]
            elif wanted is None or wanted > 100_000:
                ctx.hold(len(batch), len(self.columns))
            await ctx.breathe()
        self._order.sort(kept, ctx)
        for piece in in_batches(kept[skip:wanted]):
            yield piece


@operator_for(tree.Distinct)
class DistinctOperator:
    """Rows, or DISTINCT ON keys, seen for the first time."""

    def __init__(self, node: tree.Distinct, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = self._input.columns
        layout = layout_of(self.columns)
        if node.on:
            expressions = [compile_expression(e, layout) for e in node.on]
            key_of = hash_keys([e.type for e in node.on])
            self._key: Callable[[Row, ExecContext], Any] = lambda row, ctx: key_of(
                tuple([e(row, ctx) for e in expressions])
            )
        else:
            types = column_types(node.input)
            whole = hash_keys([types.get(c, 0) for c in self.columns])
            self._key = lambda row, ctx: whole(row)

    async def batches(self, ctx: ExecContext) -> Batches:
        seen: set[Any] = set()
        key_of = self._key
        async for batch in self._input.batches(ctx):
            fresh: Batch = []
            for row in batch:
                key = key_of(row, ctx)
                if key not in seen:
                    seen.add(key)
                    fresh.append(row)
            if fresh:
                ctx.hold(len(fresh), len(self.columns))
                yield fresh
            await ctx.breathe()


def column_types(relation: Any) -> dict[tree.ColumnId, int]:
    """Types of a relation's columns, as far as its nodes tell."""
    types: dict[tree.ColumnId, int] = {}
    stack = [relation]
    while stack:
        node = stack.pop()
        if isinstance(node, tree.Project | tree.ProjectSet):
            types.update({column: e.type for column, e in node.outputs if e.type})
            if all(e.type for _, e in node.outputs):
                continue
        if isinstance(node, tree.Aggregate):
            types.update({column: e.type for column, e in (*node.keys, *node.calls)})
            continue
        if isinstance(node, tree.Window):
            types.update({column: call.type for column, call in node.calls})
        if isinstance(node, tree.SetOperation):
            types.update(dict(zip(node.columns, node.types, strict=True)))
            continue
        table = getattr(node, "table", None)
        if table is not None:
            by_id = {c.id: c.type_oid for c in table.columns}
            types.update({column: by_id.get(attnum, 17) for column, attnum in node.columns})
            continue
        if isinstance(node, tree.Values) and node.rows:
            types.update({c: e.type for c, e in zip(node.columns, node.rows[0], strict=True)})
            continue
        for name in ("input", "left", "right", "inner", "body"):
            below = getattr(node, name, None)
            if below is not None:
                stack.append(below)
    return types
