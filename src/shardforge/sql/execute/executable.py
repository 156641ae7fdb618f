"""A planned statement ready to run, many times: the executor's door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.execute import joining, locking, scans, sorting, subqueries, windowing
from shardforge.sql.execute.changes import Changed, compile_change
from shardforge.sql.execute.context import ExecContext, Row
from shardforge.sql.execute.expressions import compile_expression, layout_of
from shardforge.sql.execute.operators import Batch, Compilation, Operator
from shardforge.sql.plan import Plan
from shardforge.sql.plan.explain import explain_lines
from shardforge.sql.plan.physical import KeyAccess

FAMILIES = (joining, locking, scans, sorting, subqueries, windowing)
"""The modules whose operators register themselves when they are imported."""


class Executable:
    """One plan, compiled."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        compilation = Compilation()
        self._operator: Operator | None = None
        self._change: Any = None
        if plan.kind == "select":
            self._operator = compilation.operator(plan.root)
        else:
            self._change = compile_change(plan.root, compilation)
        self._point = _point_read(plan.root)
        self.reads_one_key = self._point is not None
        """Whether `read_one` can answer: one row by its full primary key."""

    async def read_one(self, ctx: ExecContext, params: Sequence[Any]) -> list[Row]:
        """The answer of a one-key statement outside any transaction: a strong read that needs no timestamp."""
        assert self._point is not None, "asked only when reads_one_key"
        ctx.params = params
        return await self._point.read(ctx)

    def stream(self, ctx: ExecContext, params: Sequence[Any]) -> AsyncIterator[Batch]:
        """The rows of a SELECT, in batches."""
        assert self._operator is not None, "a SELECT"
        ctx.start(params)
        return self._operator.batches(ctx)

    async def run(self, ctx: ExecContext, params: Sequence[Any]) -> Changed:
        """Carry out an INSERT, UPDATE or DELETE."""
        ctx.start(params)
        changed: Changed = await self._change.run(ctx)
        return changed

    async def insert_rows(self, ctx: ExecContext, rows: Sequence[Row]) -> int:
        """Insert rows of values for the INSERT's target columns in place of its source (COPY)."""
        ctx.start(())
        count: int = await self._change.insert_rows(ctx, rows)
        return count

    async def analyze(self, ctx: ExecContext, params: Sequence[Any]) -> list[str]:
        """Run to the end, and explain with what each node did."""
        meters: dict[int, _Meter] = {}

        def wrap(node: Any, operator: Operator) -> Operator:
            meter = meters[id(node)] = _Meter(operator)
            return meter

        ctx.start(params)
        compilation = Compilation(wrap)
        changed = 0
        if self.plan.kind == "select":
            async for _ in compilation.operator(self.plan.root).batches(ctx):
                pass
        else:
            changed = (await compile_change(self.plan.root, compilation).run(ctx)).count

        def annotate(node: Any) -> str:
            meter = meters.get(id(node))
            if meter is None:
                return f" (actual rows={changed})" if node is self.plan.root else " (never executed)"
            return f" (actual time={meter.nanoseconds / 1e6:.3f} rows={meter.rows} loops={meter.loops})"

        return explain_lines(self.plan.root, annotate)


class _Meter:
    """Counts what an operator yields, and the time until it has."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.columns: tuple[ColumnId, ...] = operator.columns
        self.rows = 0
        self.loops = 0
        self.nanoseconds = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)

    async def batches(self, ctx: ExecContext) -> AsyncIterator[Batch]:
        self.loops += 1
        clock = ctx.session.instance.clock
        source = self._operator.batches(ctx)
        while True:
            begun = clock.monotonic_ns()
            batch = await anext(source, None)
            self.nanoseconds += clock.monotonic_ns() - begun
            if batch is None:
                return
            self.rows += len(batch)
            yield batch


class _PointRead:
    """SELECT ... WHERE primary key = value: key, read, decode, filter, project; no batches, no generators."""

    def __init__(self, access: KeyAccess, outputs: Sequence[tree.Expression] | None) -> None:
        operator = scans.KeyAccessOperator(access, Compilation())
        self._key = [compile_expression(e, {}) for e in access.keys[0]]
        self._single = self._key[0] if len(self._key) == 1 else None
        self._encode = operator.encoded
        self._decode = operator.decode
        self._filter = operator.filter
        self._outputs = None
        if outputs is not None:
            layout = layout_of(operator.columns)
            same = [e.column for e in outputs if isinstance(e, tree.ColumnRef)] == list(operator.columns)
            if not same or len(outputs) != len(operator.columns):
                self._outputs = [compile_expression(e, layout) for e in outputs]

    async def read(self, ctx: ExecContext) -> list[Row]:
        values = [e((), ctx) for e in self._key]
        if None in values:
            return []
        key = self._encode(values)
        data = await ctx.coordinator.read_latest(key)
        if data is None:
            return []
        row = self._decode(key, data)
        if self._filter is not None and self._filter(row, ctx) is not True:
            return []
        if self._outputs is not None:
            row = tuple([output(row, ctx) for output in self._outputs])
        return [row]


def _point_read(root: Any) -> _PointRead | None:
    outputs = None
    if isinstance(root, tree.Project):
        outputs = [expression for _, expression in root.outputs]
        root = root.input
    if isinstance(root, KeyAccess) and root.index.primary and len(root.keys) == 1 and root.any_of is None:
        return _PointRead(root, outputs)
    return None


def compile_plan(plan: Plan) -> Executable:
    """Compile a plan. Raises QueryError 0A000 for a function that is not implemented."""
    return Executable(plan)
