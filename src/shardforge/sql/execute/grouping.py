"""Aggregation by hashing, with grouping sets; and the keys by which rows are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shardforge.errors import unsupported
from shardforge.sql.bind import tree
from shardforge.sql.execute.context import ExecContext, Row
from shardforge.sql.execute.expressions import (
    Function,
    Layout,
    compile_expression,
    compile_optional,
    layout_of,
)
from shardforge.sql.execute.operators import Batch, Batches, Compilation, in_batches, operator_for
from shardforge.sql.functions.aggregates import AggregateImplementation, aggregate
from shardforge.sql.types.registry import format_type, sort_key


def hash_keys(types: Sequence[int]) -> Callable[[Row], Any]:
    """A function from values of these types to a key that is equal when PostgreSQL says that the values are."""
    makers = [
        (o, key)
        for o, key in enumerate(sort_key(t) if t else None for t in types)
        if key is not None
    ]
    if not makers:
        return lambda row: row

    def key_of(row: Row) -> Any:
        values = list(row)
        for offset, maker in makers:
            if values[offset] is not None:
                values[offset] = maker(values[offset])
        return tuple(values)

    return key_of


class AggregateColumn:
    """One aggregate call compiled: collects its input values a group, in order and once each where it says so."""

    def __init__(self, call: tree.AggregateCall, layout: Layout) -> None:
        from shardforge.sql.execute.sorting import Order  # sorting uses the keys of this module

        types = tuple(a.type for a in (*call.direct_args, *call.args))
        found = aggregate(call.name, types, call.type)
        if found is None:
            raise unsupported(f"aggregate {call.name}({', '.join(format_type(t) for t in types)})")
        self.implementation: AggregateImplementation = found
        self._args: list[Function] = (
            [] if call.star else [compile_expression(a, layout) for a in call.args]
        )
        self.direct = [compile_expression(a, layout) for a in call.direct_args]
        self._filter = compile_optional(call.filter, layout)
        self._order = Order(call.order_by, layout) if call.order_by else None
        self._distinct = hash_keys([a.type for a in call.args]) if call.distinct else None
        self.buffered = self._order is not None
        self._strict = found.strict

    def start(self, ctx: ExecContext) -> list[Any]:
        """The state of a new group: [state, distinct values seen, rows kept for ordering]."""
        made = self.implementation
        state = made.init(ctx.eval) if made.needs_context else made.init()
        return [state, set() if self._distinct else None, [] if self.buffered else None]

    def step(self, group: list[Any], row: Row, ctx: ExecContext) -> None:
        """Take one row."""
        if self._filter is not None and self._filter(row, ctx) is not True:
            return
        if self.buffered:
            group[2].append(row)
            return
        self._accumulate(group, row, ctx)

    def _accumulate(self, group: list[Any], row: Row, ctx: ExecContext) -> None:
        values = tuple([a(row, ctx) for a in self._args])
        if self._strict and None in values and any(v is None for v in values):
            return
        if self._distinct is not None:
            key = self._distinct(values)
            if key in group[1]:
                return
            group[1].add(key)
        group[0] = self.implementation.step(group[0], *values)

    def finish(self, group: list[Any], ctx: ExecContext) -> Any:
        """The aggregate's value."""
        if self.buffered:
            assert self._order is not None, "buffered for its order"
            rows = group[2]
            self._order.sort(rows, ctx)
            for row in rows:
                self._accumulate(group, row, ctx)
        return self.peek(group, ctx)

    def peek(self, group: list[Any], ctx: ExecContext) -> Any:
        """The value so far; the group may go on (window frames that grow)."""
        if self.direct:
            return self.implementation.final(group[0], *[d((), ctx) for d in self.direct])
        return self.implementation.final(group[0])


@operator_for(tree.Aggregate)
class AggregateOperator:
    """GROUP BY: one hash table a grouping set."""

    def __init__(self, node: tree.Aggregate, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        layout = layout_of(self._input.columns)
        self.columns = tuple(column for column, _ in (*node.keys, *node.calls, *node.grouping))
        self._keys = [compile_expression(e, layout) for _, e in node.keys]
        self._calls = [AggregateColumn(call, layout) for _, call in node.calls]
        everything = tuple(range(len(node.keys)))
        self._sets = node.sets if node.sets is not None else (everything,)
        self._key_types = [e.type for _, e in node.keys]
        self._grouping = [offsets for _, offsets in node.grouping]
        self._always_a_row = [len(s) == 0 for s in self._sets]
        self._count_star = (
            not node.keys and node.sets is None and len(node.calls) == 1
            and node.calls[0][1].star and node.calls[0][1].filter is None
        )  # fmt: skip

    async def batches(self, ctx: ExecContext) -> Batches:
        if self._count_star:
            total = 0
            async for batch in self._input.batches(ctx):
                total += len(batch)
            yield [(total, *([0] * len(self._grouping)))]
            return
        tables: list[dict[Any, tuple[Row, list[list[Any]]]]] = [{} for _ in self._sets]
        key_of = hash_keys(self._key_types)
        async for batch in self._input.batches(ctx):
            for row in batch:
                values = tuple([k(row, ctx) for k in self._keys])
                for number, members in enumerate(self._sets):
                    self._take(tables[number], members, values, row, key_of, ctx)
            await ctx.breathe()
        for number, members in enumerate(self._sets):
            table = tables[number]
            if not table and self._always_a_row[number]:
                table[()] = ((None,) * len(self._keys), [c.start(ctx) for c in self._calls])
            for piece in in_batches(self._results(table, members, ctx)):
                yield piece

    def _take(
        self, table: dict[Any, tuple[Row, list[list[Any]]]], members: tuple[int, ...], values: Row, row: Row,
        key_of: Callable[[Row], Any], ctx: ExecContext,
    ) -> None:  # fmt: skip
        if len(members) != len(values):
            values = tuple([v if o in members else None for o, v in enumerate(values)])
        key = key_of(values)
        group = table.get(key)
        if group is None:
            group = table[key] = (values, [c.start(ctx) for c in self._calls])
            ctx.hold(1, len(self.columns) + 4)
        for call, state in zip(self._calls, group[1], strict=True):
            call.step(state, row, ctx)

    def _results(
        self,
        table: dict[Any, tuple[Row, list[list[Any]]]],
        members: tuple[int, ...],
        ctx: ExecContext,
    ) -> Batch:
        flags = tuple(
            sum((o not in members) << (len(offsets) - 1 - place) for place, o in enumerate(offsets))
            for offsets in self._grouping
        )
        return [
            (*values, *[c.finish(s, ctx) for c, s in zip(self._calls, states, strict=True)], *flags)
            for values, states in table.values()
        ]


@operator_for(tree.SetOperation)
class SetOperationOperator:
    """UNION, INTERSECT and EXCEPT, with ALL's multiplicities."""

    def __init__(self, node: tree.SetOperation, compilation: Compilation) -> None:
        self._left, self._right = compilation.operator(node.left), compilation.operator(node.right)
        self.columns = node.columns
        self._op, self._all = node.op.lower(), node.all
        self._pick_left = [self._left.columns.index(c) for c in node.left_columns]
        self._pick_right = [self._right.columns.index(c) for c in node.right_columns]
        self._key_of = hash_keys(node.types)

    async def _side(self, operator: Any, picks: list[int], ctx: ExecContext) -> Batches:
        async for batch in operator.batches(ctx):
            yield [tuple([row[p] for p in picks]) for row in batch]
            await ctx.breathe()

    async def batches(self, ctx: ExecContext) -> Batches:
        left = self._side(self._left, self._pick_left, ctx)
        if self._op == "union":
            async for batch in self._union(left, ctx):
                yield batch
            return
        counts: dict[Any, int] = {}
        async for batch in self._side(self._right, self._pick_right, ctx):
            ctx.hold(len(batch), len(self.columns))
            for row in batch:
                key = self._key_of(row)
                counts[key] = counts.get(key, 0) + 1
        keep = self._intersect if self._op == "intersect" else self._except
        seen: set[Any] = set()
        async for batch in left:
            kept = [row for row in batch if keep(self._key_of(row), counts, seen)]
            if kept:
                yield kept

    async def _union(self, left: Batches, ctx: ExecContext) -> Batches:
        seen: set[Any] = set()
        for side in (left, self._side(self._right, self._pick_right, ctx)):
            async for batch in side:
                if self._all:
                    yield batch
                    continue
                fresh: Batch = []
                for row in batch:
                    key = self._key_of(row)
                    if key not in seen:
                        seen.add(key)
                        fresh.append(row)
                if fresh:
                    ctx.hold(len(fresh), len(self.columns))
                    yield fresh

    def _intersect(self, key: Any, counts: dict[Any, int], seen: set[Any]) -> bool:
        if self._all:
            left = counts.get(key, 0)
            counts[key] = left - 1
            return left > 0
        if key in seen or key not in counts:
            return False
        seen.add(key)
        return True

    def _except(self, key: Any, counts: dict[Any, int], seen: set[Any]) -> bool:
        if self._all:
            left = counts.get(key, 0)
            counts[key] = left - 1
            return left <= 0
        if key in seen or key in counts:
            return False
        seen.add(key)
        return True
