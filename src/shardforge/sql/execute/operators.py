"""Physical nodes to operators: what runs. One module a family; this one has the seam and the simple nodes.

An operator yields batches (lists of tuples) in the order of its `columns`. Batches are never empty and never larger
than needed to be quick. An operator that keeps rows accounts for them with `ctx.hold`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from shardforge.errors import QueryError
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.bind.walk import columns_of
from shardforge.sql.execute.context import ExecContext
from shardforge.sql.execute.expressions import Compiled, Layout, Row, compile_expression

Batch = list[Row]
Batches = AsyncIterator[Batch]
BATCH_ROWS = 1024


class Operator(Protocol):
    """Something that yields rows."""

    columns: tuple[ColumnId, ...]

    def batches(self, ctx: ExecContext) -> Batches:
        """A fresh run."""
        ...


Compiler = Callable[[Any, "Compilation"], Operator]
_COMPILERS: dict[type, Compiler] = {}


def operator_for(*kinds: type) -> Callable[[Compiler], Compiler]:
    """Register the compiler of node kinds."""

    def register(compiler: Compiler) -> Compiler:
        for kind in kinds:
            _COMPILERS[kind] = compiler
        return compiler

    return register


class Compilation:
    """One statement being compiled. `wrap` sees every operator made, for EXPLAIN ANALYZE."""

    def __init__(self, wrap: Callable[[Any, Operator], Operator] | None = None) -> None:
        self._wrap = wrap

    def operator(self, node: Any) -> Operator:
        """The operator of a physical node."""
        made = _COMPILERS[type(node)](node, self)
        return made if self._wrap is None else self._wrap(node, made)


def layout_of(columns: tuple[ColumnId, ...]) -> Layout:
    """Offsets by column id."""
    return {column: offset for offset, column in enumerate(columns)}


async def collect(operator: Operator, ctx: ExecContext) -> Batch:
    """All rows, accounted for."""
    rows: Batch = []
    width = len(operator.columns)
    async for batch in operator.batches(ctx):
        rows += batch
        ctx.hold(len(batch), width)
    return rows


def in_batches(rows: Batch) -> list[Batch]:
    """`rows` cut into batches."""
    if len(rows) <= BATCH_ROWS:
        return [rows] if rows else []
    return [rows[start : start + BATCH_ROWS] for start in range(0, len(rows), BATCH_ROWS)]


# ---------------------------------------------------------------- values, filter, project


class ValuesOperator:
    """VALUES, and the one empty row of a SELECT without FROM."""

    def __init__(self, node: tree.Values, compilation: Compilation) -> None:
        self.columns = node.columns
        self._rows = [[compile_expression(e, {}) for e in row] for row in node.rows]

    async def batches(self, ctx: ExecContext) -> Batches:
        rows = [tuple([e((), ctx) for e in row]) for row in self._rows]
        for batch in in_batches(rows):
            yield batch


class FilterOperator:
    """Rows for which the condition is true."""

    def __init__(self, node: tree.Filter, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = self._input.columns
        self._condition = compile_expression(node.condition, layout_of(self.columns))

    async def batches(self, ctx: ExecContext) -> Batches:
        condition = self._condition
        async for batch in self._input.batches(ctx):
            kept = [row for row in batch if condition(row, ctx) is True]
            if kept:
                yield kept
            await ctx.breathe()


def projection(expressions: list[Any], layout: Layout) -> tuple[list[Compiled], Callable[[Row], Row] | None]:
    """Compiled outputs, and a plain picker when all of them are columns."""
    offsets = [layout.get(e.column) if isinstance(e, tree.ColumnRef) else None for e in expressions]
    compiled = [compile_expression(e, layout) for e in expressions]
    if None in offsets or not offsets:
        return compiled, None
    picked = [o for o in offsets if o is not None]
    if len(picked) == 1:
        only = picked[0]
        return compiled, lambda row: (row[only],)
    return compiled, lambda row: tuple([row[o] for o in picked])


class ProjectOperator:
    """Computes outputs."""

    def __init__(self, node: tree.Project, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = tuple(column for column, _ in node.outputs)
        self._outputs, self._pick = projection([e for _, e in node.outputs], layout_of(self._input.columns))

    async def batches(self, ctx: ExecContext) -> Batches:
        outputs, pick = self._outputs, self._pick
        async for batch in self._input.batches(ctx):
            if pick is not None:
                yield [pick(row) for row in batch]
            else:
                yield [tuple([output(row, ctx) for output in outputs]) for row in batch]
                await ctx.breathe()


class ProjectSetOperator:
    """A select list with set-returning functions: in lockstep, the shorter ones padded with NULL."""

    def __init__(self, node: tree.ProjectSet, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = tuple(column for column, _ in node.outputs)
        layout = layout_of(self._input.columns)
        self._outputs = [
            (compile_expression(e, layout), isinstance(e, tree.Call) and e.retset) for _, e in node.outputs
        ]

    async def batches(self, ctx: ExecContext) -> Batches:
        outputs = self._outputs
        async for batch in self._input.batches(ctx):
            made: Batch = []
            for row in batch:
                values = [(output(row, ctx), retset) for output, retset in outputs]
                lists = [list(v) if v is not None else [] for v, retset in values if retset]
                height = max((len(items) for items in lists), default=0)
                for number in range(height):
                    turn = iter(lists)
                    made.append(tuple([_nth(next(turn), number) if retset else v for v, retset in values]))
                await ctx.breathe()
            for piece in in_batches(made):
                yield piece


def _nth(items: list[Any], number: int) -> Any:
    return items[number] if number < len(items) else None


# ---------------------------------------------------------------- functions, CTEs, virtual tables


class FunctionScanOperator:
    """Functions in FROM, side by side."""

    def __init__(self, node: tree.FunctionScan, compilation: Compilation) -> None:
        self.columns = columns_of(node)
        self._functions = [
            (compile_expression(f, {}), len(ids), isinstance(f, tree.Call) and f.retset)
            for f, ids in zip(node.functions, node.columns, strict=True)
        ]
        self._ordinality = node.ordinality is not None

    async def batches(self, ctx: ExecContext) -> Batches:
        results: list[tuple[list[Row], int]] = []
        for function, width, retset in self._functions:
            value = function((), ctx)
            items = (list(value) if value is not None else []) if retset else [value]
            results.append(([_as_row(item, width) for item in items], width))
            ctx.hold(len(items), width)
        height = max((len(rows) for rows, _ in results), default=0)
        if len(results) == 1 and not self._ordinality:
            made = results[0][0]
        else:
            made = []
            for number in range(height):
                row: Row = ()
                for rows, width in results:
                    row += rows[number] if number < len(rows) else (None,) * width
                made.append((*row, number + 1) if self._ordinality else row)
        for batch in in_batches(made):
            yield batch
            await ctx.breathe()


def _as_row(item: Any, width: int) -> Row:
    if width == 1 and not (type(item) is tuple and len(item) == 1):
        return (item,)
    return (None,) * width if item is None else tuple(item)


class CteScanOperator:
    """Rows of a CTE that has been computed, or of the working table of a recursive one."""

    def __init__(self, node: tree.CteScan, compilation: Compilation) -> None:
        self.columns = tuple(column for column, _ in node.columns)
        self._name = node.name
        self._sources = [source for _, source in node.columns]

    async def batches(self, ctx: ExecContext) -> Batches:
        rows = ctx.ctes[self._name]
        offsets = [ctx.cte_layouts[self._name][source] for source in self._sources]
        for batch in in_batches(rows):
            yield [tuple([row[o] for o in offsets]) for row in batch]
            await ctx.breathe()


class VirtualScanOperator:
    """Rows of a catalog table, made when they are asked for."""

    def __init__(self, node: tree.VirtualScan, compilation: Compilation) -> None:
        self.columns = tuple(column for column, _ in node.columns)
        self._relation = node.relation
        self._positions = [position for _, position in node.columns]

    async def batches(self, ctx: ExecContext) -> Batches:
        positions = self._positions
        rows = [tuple([row[p] for p in positions]) for row in ctx.session.virtual_rows(self._relation)]
        for batch in in_batches(rows):
            yield batch
            await ctx.breathe()


# ---------------------------------------------------------------- limit, distinct, apply


class LimitOperator:
    """LIMIT and OFFSET; with ties, rows equal to the last one follow."""

    def __init__(self, node: tree.Limit, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = self._input.columns
        self._limit = None if node.limit is None else compile_expression(node.limit, {})
        self._offset = None if node.offset is None else compile_expression(node.offset, {})
        self._tie: Callable[[Row, ExecContext], Any] | None = None
        if node.with_ties:
            sort = node.input
            while not isinstance(sort, tree.Sort):
                sort = sort.input  # type: ignore[union-attr]  # the binder puts a Sort below
            keys = [compile_expression(k.expression, layout_of(self.columns)) for k in sort.keys]
            self._tie = lambda row, ctx: [k(row, ctx) for k in keys]

    async def batches(self, ctx: ExecContext) -> Batches:
        limit, skip = limits(self._limit, self._offset, ctx)
        left = limit
        if left == 0:
            return
        last: Any = None
        async for whole in self._input.batches(ctx):
            batch = whole
            if skip:
                dropped = min(skip, len(batch))
                skip -= dropped
                batch = batch[dropped:]
                if not batch:
                    continue
            if left is None:
                yield batch
                continue
            kept = batch[:left]
            left -= len(kept)
            if self._tie is not None and left == 0:
                if kept:
                    last = self._tie(kept[-1], ctx)
                ties = 0
                while len(kept) + ties < len(batch) and self._tie(batch[len(kept) + ties], ctx) == last:
                    ties += 1
                if kept or ties:
                    yield batch[: len(kept) + ties]
                if len(kept) + ties < len(batch):
                    return
                continue
            if kept:
                yield kept
            if left == 0:
                return


def limits(limit: Compiled | None, offset: Compiled | None, ctx: ExecContext) -> tuple[int | None, int]:
    """The values of LIMIT (None: no limit) and OFFSET; 2201W and 2201X when negative."""
    count = None if limit is None else limit((), ctx)
    skip = 0 if offset is None else offset((), ctx) or 0
    if count is not None and count < 0:
        raise QueryError("LIMIT must not be negative", "2201W")
    if skip < 0:
        raise QueryError("OFFSET must not be negative", "2201X")
    return count, skip


_COMPILERS.update(
    {
        tree.Values: ValuesOperator,
        tree.Filter: FilterOperator,
        tree.Project: ProjectOperator,
        tree.ProjectSet: ProjectSetOperator,
        tree.FunctionScan: FunctionScanOperator,
        tree.CteScan: CteScanOperator,
        tree.VirtualScan: VirtualScanOperator,
        tree.Limit: LimitOperator,
    }
)
