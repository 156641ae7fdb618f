"""Joins: by hash, by look-ups, by nested loops. Rows of the outer side come first; a missing side is NULLs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.sql.bind import tree
from shardforge.sql.bind.walk import columns_of, references
from shardforge.sql.execute.context import ExecContext, Row
from shardforge.sql.execute.expressions import (
    Function,
    compile_expression,
    compile_optional,
    layout_of,
)
from shardforge.sql.execute.grouping import hash_keys
from shardforge.sql.execute.operators import (
    BATCH_ROWS,
    Batch,
    Batches,
    Compilation,
    collect,
    in_batches,
    operator_for,
)
from shardforge.sql.plan.physical import HashJoin, LookupJoin, NestedLoop

LOOKUPS_MAX = 2000
"""A look-up join with more outer rows than this goes on as a hash join."""


def _key_function(
    expressions: tuple[Any, ...], columns: tuple[Any, ...]
) -> Callable[[Row, ExecContext], Any]:
    """The join key of a row; None when a part is NULL, which joins nothing."""
    compiled = [compile_expression(e, layout_of(columns)) for e in expressions]
    same = hash_keys([e.type for e in expressions])

    def key(row: Row, ctx: ExecContext) -> Any:
        values = tuple([e(row, ctx) for e in compiled])
        for value in values:
            if value is None:
                return None
        return same(values)

    return key


@operator_for(HashJoin)
class HashJoinOperator:
    """Equi-joins of every kind; the right side is kept in memory."""

    def __init__(self, node: HashJoin, compilation: Compilation) -> None:
        self._kind = node.kind
        self.left, self._right = compilation.operator(node.left), compilation.operator(node.right)
        self.columns = columns_of(node)
        self._left_key = _key_function(node.left_keys, self.left.columns)
        self._right_key = _key_function(node.right_keys, self._right.columns)
        both = self.left.columns + self._right.columns
        self._condition = compile_optional(node.condition, layout_of(both))

    async def batches(self, ctx: ExecContext) -> Batches:
        async for batch in self.join(self.left.batches(ctx), ctx):
            yield batch

    async def join(self, left: Batches, ctx: ExecContext) -> Batches:
        """Join a stream of left rows."""
        table, unmatched = await self._build(ctx)
        probe = {"semi": self._semi, "anti": self._anti}.get(self._kind, self._pairs)
        async for batch in left:
            made: Batch = []
            for row in batch:
                probe(row, table, unmatched, made, ctx)
            for piece in in_batches(made):
                yield piece
            await ctx.breathe()
        if self._kind in ("right", "full"):
            padding = (None,) * len(self.left.columns)
            for piece in in_batches([padding + row for row in unmatched.values()]):
                yield piece

    async def _build(self, ctx: ExecContext) -> tuple[dict[Any, list[Row]], dict[int, Row]]:
        table: dict[Any, list[Row]] = {}
        rows = await collect(self._right, ctx)
        key_of = self._right_key
        for row in rows:
            key = key_of(row, ctx)
            if key is not None:
                table.setdefault(key, []).append(row)
        keeps = self._kind in ("right", "full")
        return table, {id(row): row for row in rows} if keeps else {}

    def _matches(self, row: Row, table: dict[Any, list[Row]], ctx: ExecContext) -> list[Row]:
        key = self._left_key(row, ctx)
        found = table.get(key) if key is not None else None
        if found is None:
            return []
        condition = self._condition
        if condition is None:
            return found
        return [other for other in found if condition(row + other, ctx) is True]

    def _pairs(
        self,
        row: Row,
        table: dict[Any, list[Row]],
        unmatched: dict[int, Row],
        made: Batch,
        ctx: ExecContext,
    ) -> None:
        found = self._matches(row, table, ctx)
        for other in found:
            made.append(row + other)
            if unmatched:
                unmatched.pop(id(other), None)
        if not found and self._kind in ("left", "full"):
            made.append(row + (None,) * len(self._right.columns))

    def _semi(
        self,
        row: Row,
        table: dict[Any, list[Row]],
        unmatched: dict[int, Row],
        made: Batch,
        ctx: ExecContext,
    ) -> None:
        if self._matches(row, table, ctx):
            made.append(row)

    def _anti(
        self,
        row: Row,
        table: dict[Any, list[Row]],
        unmatched: dict[int, Row],
        made: Batch,
        ctx: ExecContext,
    ) -> None:
        if not self._matches(row, table, ctx):
            made.append(row)


class _Loop:
    """Joining one left row with candidate right rows, for look-ups and nested loops."""

    def __init__(self, kind: str, condition: Function | None, width: int) -> None:
        self._kind = kind
        self._condition = condition
        self._padding = (None,) * width

    def join(self, row: Row, candidates: Batch, made: Batch, ctx: ExecContext) -> list[Row]:
        """Append the joined rows; returns the right rows that matched."""
        condition = self._condition
        found = candidates
        if condition is not None:
            found = [other for other in candidates if condition(row + other, ctx) is True]
        if self._kind == "semi":
            if found:
                made.append(row)
        elif self._kind == "anti":
            if not found:
                made.append(row)
        elif found:
            made += [row + other for other in found]
        elif self._kind in ("left", "full"):
            made.append(row + self._padding)
        return found


@operator_for(LookupJoin)
class LookupJoinOperator:
    """Asks an access path for each left row; a large left side goes on as a hash join."""

    def __init__(self, node: LookupJoin, compilation: Compilation) -> None:
        self._left = compilation.operator(node.left)
        self._inner = compilation.operator(node.inner)
        self.columns = columns_of(node)
        layout = layout_of(self._left.columns)
        self._outer = [(c, layout[c]) for c in sorted(references(node.inner)) if c in layout]
        both = self._left.columns + self._inner.columns
        condition = compile_optional(node.condition, layout_of(both))
        self._loop = _Loop(node.kind, condition, len(self._inner.columns))
        self._hash: HashJoinOperator | None = None
        if node.hash is not None:
            made = compilation.operator(node.hash)
            assert isinstance(made, HashJoinOperator) or hasattr(made, "join"), (
                "made for a HashJoin"
            )
            self._hash = made  # type: ignore[assignment]  # possibly wrapped for EXPLAIN ANALYZE

    async def batches(self, ctx: ExecContext) -> Batches:
        source = self._left.batches(ctx)
        first: Batch = []
        async for batch in source:
            first += batch
            if len(first) > LOOKUPS_MAX and self._hash is not None:
                async for joined in self._hash.join(_chained(first, source), ctx):
                    yield joined
                return
            if self._hash is None:
                async for joined in self._looked_up(first, ctx):
                    yield joined
                first = []
        async for joined in self._looked_up(first, ctx):
            yield joined

    async def _looked_up(self, rows: Batch, ctx: ExecContext) -> Batches:
        made: Batch = []
        outer = ctx.outer
        for row in rows:
            for column, offset in self._outer:
                outer[column] = row[offset]
            candidates: Batch = []
            async for batch in self._inner.batches(ctx):
                candidates += batch
            self._loop.join(row, candidates, made, ctx)
            if len(made) >= BATCH_ROWS:
                yield made
                made = []
            await ctx.breathe()
        if made:
            yield made


async def _chained(first: Batch, rest: Batches) -> Batches:
    yield first
    async for batch in rest:
        yield batch


@operator_for(NestedLoop)
class NestedLoopOperator:
    """Every pair; a lateral right side runs anew for each left row."""

    def __init__(self, node: NestedLoop, compilation: Compilation) -> None:
        self._kind = node.kind
        self._lateral = node.lateral
        self._left, self._right = compilation.operator(node.left), compilation.operator(node.right)
        self.columns = columns_of(node)
        layout = layout_of(self._left.columns)
        self._outer = [(c, layout[c]) for c in sorted(references(node.right)) if c in layout]
        both = self._left.columns + self._right.columns
        self._loop = _Loop(
            node.kind, compile_optional(node.condition, layout_of(both)), len(self._right.columns)
        )

    async def batches(self, ctx: ExecContext) -> Batches:
        right: Batch = [] if self._lateral else await collect(self._right, ctx)
        unmatched = {id(row): row for row in right} if self._kind in ("right", "full") else {}
        async for batch in self._left.batches(ctx):
            made: Batch = []
            for row in batch:
                candidates = await self._run(row, ctx) if self._lateral else right
                for other in self._loop.join(row, candidates, made, ctx):
                    if unmatched:
                        unmatched.pop(id(other), None)
                if len(made) >= BATCH_ROWS:
                    yield made
                    made = []
                await ctx.breathe()
            if made:
                yield made
        if unmatched:
            padding = (None,) * len(self._left.columns)
            for piece in in_batches([padding + row for row in unmatched.values()]):
                yield piece

    async def _run(self, row: Row, ctx: ExecContext) -> Batch:
        for column, offset in self._outer:
            ctx.outer[column] = row[offset]
        found: Batch = []
        async for batch in self._right.batches(ctx):
            found += batch
        return found


@operator_for(tree.Join)
def _join(node: tree.Join, compilation: Compilation) -> NestedLoopOperator:
    """A join that no rule has touched."""
    loop = NestedLoop(node.kind, node.left, node.right, node.condition, node.lateral)
    return NestedLoopOperator(loop, compilation)
