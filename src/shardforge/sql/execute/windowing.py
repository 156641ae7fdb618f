"""Window functions: partitions are sorted, peers and frames found, and each function computed over them.

Source: PostgreSQL 15, chapter 4.2.8 (frames) and nodeWindowAgg.c for what a frame's ends mean.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.execute.context import ExecContext, Row
from shardforge.sql.execute.expressions import (
    Function,
    Layout,
    compile_expression,
    compile_optional,
    layout_of,
)
from shardforge.sql.execute.grouping import AggregateColumn, hash_keys
from shardforge.sql.execute.operators import Batches, Compilation, collect, in_batches, operator_for
from shardforge.sql.execute.sorting import Order
from shardforge.sql.functions.window import Partition, window_function

Bounds = Callable[[int], tuple[int, int]]


class _Frame:
    """Where each row's frame starts and ends."""

    def __init__(self, frame: tree.Frame, order: Sequence[tree.SortKey], layout: Layout) -> None:
        self._frame = frame
        self._start = (
            None if frame.start_offset is None else compile_expression(frame.start_offset, {})
        )
        self._end = None if frame.end_offset is None else compile_expression(frame.end_offset, {})
        self._range_key: Function | None = None
        self._descending = False
        if frame.mode == "range" and (self._start or self._end):
            if len(order) != 1:
                raise QueryError(
                    "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
                    "42P20",
                )
            if order[0].expression.type not in (20, 21, 23, 1700, 700, 701):
                raise unsupported("RANGE with an offset over a type that is not a number")
            self._range_key = compile_expression(order[0].expression, layout)
            self._descending = order[0].descending

    def bounds(
        self, rows: list[Row], starts: list[int], ends: list[int], ctx: ExecContext
    ) -> Bounds:
        """A function from a row's place to its frame, half open."""
        frame, total = self._frame, len(rows)
        low = _offset(self._start, ctx, "starting")
        high = _offset(self._end, ctx, "ending")
        if frame.mode == "rows":
            return lambda i: (
                _clamp(_row_end(frame.start, i, low, 0), total), _clamp(_row_end(frame.end, i, high, 1), total)
            )  # fmt: skip
        if frame.mode == "groups":
            return _group_bounds(frame, starts, ends, low or 0, high or 0)
        if self._range_key is not None:
            return self._range_bounds(rows, starts, ends, low, high, ctx)
        return lambda i: (
            0 if frame.start == "unbounded_preceding" else starts[i],
            total if frame.end == "unbounded_following" else ends[i],
        )

    def _range_bounds(
        self,
        rows: list[Row],
        starts: list[int],
        ends: list[int],
        low: Any,
        high: Any,
        ctx: ExecContext,
    ) -> Bounds:
        key = self._range_key
        assert key is not None, "a range with an offset"
        sign = -1 if self._descending else 1
        values = [key(row, ctx) for row in rows]
        present = [i for i, v in enumerate(values) if v is not None]
        first = present[0] if present else 0
        ordered = [sign * values[i] for i in present]
        frame, total = self._frame, len(rows)

        def edge(kind: str, i: int, offset: Any, *, start: bool) -> int:
            if kind == "unbounded_preceding":
                return 0
            if kind == "unbounded_following":
                return total
            if kind == "current" or values[i] is None:
                return starts[i] if start else ends[i]
            target = sign * values[i] + (-offset if kind == "preceding" else offset)
            return first + (
                bisect_left(ordered, target) if start else bisect_right(ordered, target)
            )

        return lambda i: (
            edge(frame.start, i, low, start=True),
            edge(frame.end, i, high, start=False),
        )


def _offset(compiled: Function | None, ctx: ExecContext, which: str) -> Any:
    if compiled is None:
        return None
    value = compiled((), ctx)
    if value is None:
        raise QueryError(f"frame {which} offset must not be null", "22004")
    if value < 0:
        raise QueryError(f"frame {which} offset must not be negative", "22013")
    return value


def _clamp(place: int, total: int) -> int:
    return max(0, min(place, total))


def _row_end(kind: str, row: int, offset: Any, after: int) -> int:
    if kind == "unbounded_preceding":
        return 0
    if kind == "unbounded_following":
        return 1 << 60
    if kind == "current":
        return row + after
    return int(row - offset + after if kind == "preceding" else row + offset + after)


def _group_bounds(
    frame: tree.Frame, starts: list[int], ends: list[int], low: int, high: int
) -> Bounds:
    firsts = sorted(set(starts))
    lasts = sorted(set(ends))
    total = len(starts)
    number = {start: n for n, start in enumerate(firsts)}

    def start_of(i: int) -> int:
        if frame.start == "unbounded_preceding":
            return 0
        step = 0 if frame.start == "current" else -low if frame.start == "preceding" else low
        group = number[starts[i]] + step
        return firsts[max(group, 0)] if group < len(firsts) else total

    def end_of(i: int) -> int:
        if frame.end == "unbounded_following":
            return total
        step = 0 if frame.end == "current" else -high if frame.end == "preceding" else high
        group = number[starts[i]] + step
        return lasts[min(group, len(lasts) - 1)] if group >= 0 else 0

    return lambda i: (start_of(i), end_of(i))


class _Call:
    """One window function or aggregate."""

    def __init__(self, call: tree.WindowCall, layout: Layout) -> None:
        self._args = [compile_expression(a, layout) for a in call.args]
        self._aggregate = (
            None if call.aggregate is None else AggregateColumn(call.aggregate, layout)
        )
        function = window_function(call.name) if call.aggregate is None else None
        if call.aggregate is None and function is None:
            raise unsupported(f"window function {call.name}")
        self._function = function
        self._filter = compile_optional(call.filter, layout)

    def values(
        self,
        rows: list[Row],
        starts: list[int],
        ends: list[int],
        bounds: Bounds,
        exclude: str,
        ctx: ExecContext,
    ) -> list[Any]:
        if self._aggregate is None:
            assert self._function is not None, "checked when it was compiled"
            args = [tuple([a(row, ctx) for a in self._args]) for row in rows]
            return self._function(
                Partition(args, starts, ends, _frame_rows(bounds, starts, ends, exclude))
            )
        if exclude:
            return self._each(rows, _frame_rows(bounds, starts, ends, exclude), ctx)
        return self._growing(rows, bounds, ctx)

    def _each(
        self, rows: list[Row], frame: Callable[[int], Sequence[int]], ctx: ExecContext
    ) -> list[Any]:
        aggregate = self._aggregate
        assert aggregate is not None, "an aggregate"
        values = []
        for i in range(len(rows)):
            group = aggregate.start(ctx)
            for j in frame(i):
                self._step(group, rows[j], ctx)
            values.append(aggregate.finish(group, ctx))
        return values

    def _step(self, group: list[Any], row: Row, ctx: ExecContext) -> None:
        if self._filter is None or self._filter(row, ctx) is True:
            assert self._aggregate is not None, "an aggregate"
            self._aggregate.step(group, row, ctx)

    def _growing(self, rows: list[Row], bounds: Bounds, ctx: ExecContext) -> list[Any]:
        """Frames that only grow at their end cost one step a row; others start anew when their start moves."""
        aggregate = self._aggregate
        assert aggregate is not None, "an aggregate"
        values: list[Any] = []
        group, low, high = aggregate.start(ctx), 0, 0
        value: Any = None
        dirty = True
        for i in range(len(rows)):
            start, end = bounds(i)
            end = max(start, end)
            if start != low or end < high:
                group, low, high, dirty = aggregate.start(ctx), start, start, True
            while high < end:
                self._step(group, rows[high], ctx)
                high += 1
                dirty = True
            if dirty:
                value = aggregate.peek(group, ctx)
                dirty = False
            values.append(value)
        return values


def _frame_rows(
    bounds: Bounds, starts: list[int], ends: list[int], exclude: str
) -> Callable[[int], Sequence[int]]:
    def rows(i: int) -> Sequence[int]:
        start, end = bounds(i)
        whole = range(start, max(start, end))
        if not exclude:
            return whole
        if exclude == "current":
            return [j for j in whole if j != i]
        keeps_self = exclude == "ties"
        return [j for j in whole if not starts[i] <= j < ends[i] or (keeps_self and j == i)]

    return rows


@operator_for(tree.Window)
class WindowOperator:
    """Adds the values of window functions to the rows, in window order."""

    def __init__(self, node: tree.Window, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        layout = layout_of(self._input.columns)
        self.columns = self._input.columns + tuple(column for column, _ in node.calls)
        self._partition = [compile_expression(e, layout) for e in node.partition_by]
        self._partition_key = hash_keys([e.type for e in node.partition_by])
        self._order = Order(node.order_by, layout)
        self._ordered = bool(node.order_by)
        self._frame = _Frame(node.frame, node.order_by, layout)
        self._exclude = node.frame.exclude
        self._calls = [_Call(call, layout) for _, call in node.calls]

    async def batches(self, ctx: ExecContext) -> Batches:
        partitions: dict[Any, list[Row]] = {}
        for row in await collect(self._input, ctx):
            key = self._partition_key(tuple([p(row, ctx) for p in self._partition]))
            partitions.setdefault(key, []).append(row)
        for rows in partitions.values():
            for piece in in_batches(self._computed(rows, ctx)):
                yield piece
            await ctx.breathe()

    def _computed(self, rows: list[Row], ctx: ExecContext) -> list[Row]:
        self._order.sort(rows, ctx)
        starts, ends = self._peers(rows, ctx)
        bounds = self._frame.bounds(rows, starts, ends, ctx)
        columns = [c.values(rows, starts, ends, bounds, self._exclude, ctx) for c in self._calls]
        return [row + added for row, added in zip(rows, zip(*columns, strict=True), strict=True)]

    def _peers(self, rows: list[Row], ctx: ExecContext) -> tuple[list[int], list[int]]:
        total = len(rows)
        if not self._ordered:
            return [0] * total, [total] * total
        starts = [0] * total
        previous: Any = None
        for i, row in enumerate(rows):
            current = self._order.comparable(row, ctx)
            starts[i] = starts[i - 1] if i and current == previous else i
            previous = current
        ends = [total] * total
        for i in range(total - 2, -1, -1):
            ends[i] = ends[i + 1] if starts[i] == starts[i + 1] else i + 1
        return starts, ends
