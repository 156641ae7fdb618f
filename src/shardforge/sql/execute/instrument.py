"""Counting what each node of a plan does, for EXPLAIN ANALYZE."""

from __future__ import annotations

from contextlib import aclosing

from shardforge.sql.execute.context import Run
from shardforge.sql.execute.operators import Batches, Operator
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.plan.nodes import Node


class Counters:
    """Rows, loops and time of the nodes of one execution."""

    def __init__(self, evaluation: EvalContext) -> None:
        self._clock = evaluation.clock_us
        self._of: dict[int, Counted] = {}

    def wrap(self, node: Node, operator: Operator) -> Operator:
        """The operator, counted."""
        counted = Counted(operator, self)
        self._of[id(node)] = counted
        return counted

    def now_us(self) -> int:
        """The clock."""
        return self._clock()

    def annotation(self, node: Node) -> str:
        """What EXPLAIN ANALYZE says of a node."""
        counted = self._of.get(id(node))
        if counted is None:
            return ""
        if not counted.loops:
            return " (never executed)"
        total_ms = counted.elapsed_us / 1000 / counted.loops
        rows = round(counted.rows / counted.loops)
        return f" (actual time={total_ms:.3f} rows={rows} loops={counted.loops})"


class Counted(Operator):
    """An operator and its counters; time includes the operators below."""

    def __init__(self, inner: Operator, counters: Counters) -> None:
        super().__init__(inner.columns)
        self.inner = inner
        self._counters = counters
        self.rows = 0
        self.loops = 0
        self.elapsed_us = 0

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        self.loops += 1
        begun = self._counters.now_us()
        async with aclosing(self.inner.batches(run, goal)) as source:
            async for batch in source:
                self.elapsed_us += self._counters.now_us() - begun
                self.rows += len(batch)
                yield batch
                begun = self._counters.now_us()
        self.elapsed_us += self._counters.now_us() - begun
