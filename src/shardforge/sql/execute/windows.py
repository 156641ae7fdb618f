"""Window functions: partitions are sorted one by one, each row finds its peers and its frame.

Aggregates over a frame that only grows (it starts at the partition's start) are accumulated; other frames are
computed afresh for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.aggregation import accumulator
from shardforge.sql.execute.context import Account, Row, Run
from shardforge.sql.execute.expressions import (
    Layout,
    compile_expression,
)
from shardforge.sql.execute.frames import FrameFinder
from shardforge.sql.execute.operators import Batches, Operator, chunks
from shardforge.sql.execute.rows import key_function
from shardforge.sql.execute.sorting import order_key, sorter
from shardforge.sql.functions.window import Partition, window_function

Compute = Callable[[list[Row], "Peers", Any], list[Any]]


class Peers:
    """For each row of a sorted partition, where the rows that sort equal to it begin and end."""

    def __init__(self, keys: Sequence[Any]) -> None:
        self.start: list[int] = []
        self.end: list[int] = [0] * len(keys)
        first = 0
        for at, key in enumerate(keys):
            if at and key != keys[at - 1]:
                self.end[first:at] = [at] * (at - first)
                first = at
            self.start.append(first)
        self.end[first:] = [len(keys)] * (len(keys) - first)


class Window(Operator):
    """The source's rows with a value more for each call."""

    def __init__(
        self, columns: tuple[ColumnId, ...], source: Operator, partition_by: Sequence[Expression],
        order_by: Sequence[tree.SortKey], frame: tree.Frame, calls: Sequence[tree.WindowCall],
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._source = source
        layout = source.layout
        self._partition = key_function(partition_by, layout) if partition_by else None
        self._sort = sorter(order_by, layout) if order_by else None
        self._order = [order_key(key, layout) for key in order_by]
        self._frames = FrameFinder(frame, order_by, layout)
        self._calls = [self._compiled(call, layout) for call in calls]

    def _compiled(self, call: tree.WindowCall, layout: Layout) -> Compute:
        if call.aggregate is not None:
            aggregate = call.aggregate
            if call.filter is not None and aggregate.filter is None:
                aggregate = replace(aggregate, filter=call.filter)
            return self._aggregate(aggregate, layout)
        function = window_function(call.name)
        if function is None:
            raise unsupported(f"window function {call.name}")
        arguments = [compile_expression(arg, layout) for arg in call.args]

        def compute(rows: list[Row], peers: Peers, run: Any) -> list[Any]:
            args = [tuple([argument(row, run) for argument in arguments]) for row in rows]
            frame_of = self._frames.finder(rows, peers.start, peers.end, run)
            return function(Partition(args, peers.start, peers.end, frame_of))

        return compute

    def _aggregate(self, call: tree.AggregateCall, layout: Layout) -> Compute:
        if call.distinct:
            raise QueryError("DISTINCT is not implemented for window functions", "0A000")
        if call.order_by:
            raise QueryError("aggregate ORDER BY is not implemented for window functions", "0A000")
        compiled = accumulator(call, layout)
        # A state that is changed in place cannot be ended and then go on.
        growing = self._frames.growing and call.name in (
            "count",
            "sum",
            "min",
            "max",
            "bool_and",
            "bool_or",
            "every",
        )

        def compute(rows: list[Row], peers: Peers, run: Any) -> list[Any]:
            bounds = self._frames.bounds(rows, peers.start, peers.end, run)
            values: list[Any] = []
            if growing:
                state, done, last, value = compiled.begin(run), 0, -1, None
                for _, end in bounds:
                    if end != last:
                        state = compiled.add(state, rows[done:end], run) if end > done else state
                        done, last = max(done, end), end
                        value = compiled.end(state, run)
                    values.append(value)
                return values
            frame_of = self._frames.finder(rows, peers.start, peers.end, run)
            remembered: tuple[Sequence[int], Any] | None = None
            for at in range(len(rows)):
                frame = frame_of(at)
                if remembered is None or remembered[0] != frame:
                    state = compiled.add(compiled.begin(run), [rows[i] for i in frame], run)
                    remembered = (frame, compiled.end(state, run))
                values.append(remembered[1])
            return values

        return compute

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        with Account(run) as account:
            rows = await self._source.all_rows(run, account)
            for partition in self._partitions(rows, run):
                await run.breathe(len(partition))
                if self._sort is not None:
                    self._sort(partition, run)
                peers = Peers([[order(row, run) for order in self._order] for row in partition])
                results = [compute(partition, peers, run) for compute in self._calls]
                extended = [
                    (*row, *values) for row, *values in zip(partition, *results, strict=True)
                ]
                for batch in chunks(extended):
                    yield batch

    def _partitions(self, rows: list[Row], run: Run) -> list[list[Row]]:
        if self._partition is None:
            return [rows] if rows else []
        found: dict[Any, list[Row]] = {}
        for row in rows:
            found.setdefault(self._partition(row, run), []).append(row)
        return list(found.values())
