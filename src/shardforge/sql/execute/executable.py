"""A plan ready to run, any number of times and by several sessions at once.

`run` collects, `stream` hands out batches as they come; `point` and `one_row` are the ways of statements about one row
by its primary key, which seldom have to wait. A statement that meets a row changed since its snapshot
begins again with a new one (see `locking`), before it has written or handed out anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from shardforge.sql.execute.compiler import Compiler
from shardforge.sql.execute.context import ExecContext, PendingWrites, Row, Run, portions
from shardforge.sql.execute.insert import Insert
from shardforge.sql.execute.instrument import Counters
from shardforge.sql.execute.locking import Restart
from shardforge.sql.execute.onerow import OneRow
from shardforge.sql.execute.point import PointRead, point_read
from shardforge.sql.execute.update import Delete, Update
from shardforge.sql.plan import Plan, nodes

__all__ = ["Executable", "Rows", "compile_plan"]


@dataclass(frozen=True, slots=True)
class Rows:
    """What running a statement gave: the number of rows returned or changed, and rows (RETURNING's for a change)."""

    count: int
    rows: list[Row]


class Executable:
    """A compiled plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._root = Compiler().compile(plan.root)
        self._keeps_back = any(
            cte.modifies
            for node in _all_nodes(plan.root)
            if isinstance(node, nodes.With)
            for cte in node.ctes
        )
        self._locks = any(isinstance(node, nodes.LockRows) for node in _all_nodes(plan.root))
        self.point: PointRead | None = point_read(plan.root)
        """The way of a query for one row by its primary key."""
        self.one_row: OneRow | None = (
            self._root.one_row if isinstance(self._root, (Insert, Update, Delete)) else None
        )
        """The way of a change of one row."""

    # ---- running ---------------------------------------------------------------------------------

    async def run(self, context: ExecContext, params: Sequence[Any], max_rows: int = 0) -> Rows:
        """Run to the end (or to `max_rows` rows of a query)."""
        root = self._root
        if isinstance(root, (Insert, Update, Delete)):
            return await self._change(root, context, params)
        rows: list[Row] = []
        async with aclosing(self.stream(context, params)) as batches:
            async for batch in batches:
                rows += batch
                if max_rows and len(rows) >= max_rows:
                    del rows[max_rows:]
                    break
        return Rows(len(rows), rows)

    async def _change(
        self, root: Insert | Update | Delete, context: ExecContext, params: Sequence[Any]
    ) -> Rows:
        assert context.transaction is not None, "a change is in a transaction"
        await context.transaction.stream()
        while True:
            run = Run(context, params)
            if self._keeps_back:
                run.pending = PendingWrites()
            try:
                count, rows = await root.change(run)
            except Restart:
                run.transaction.begin_statement()
                continue
            if run.after or run.pending is not None:
                await run.finish()
            return Rows(count, rows)

    async def stream(
        self, context: ExecContext, params: Sequence[Any]
    ) -> AsyncGenerator[list[Row], None]:
        """The rows of a query (or of RETURNING), a batch at a time."""
        root = self._root
        if isinstance(root, (Insert, Update, Delete)):
            changed = await self._change(root, context, params)
            if changed.rows:
                yield changed.rows
            return
        if self._locks or self._keeps_back:
            rows = await self._collected(context, params)
            if rows:
                yield rows
            return
        run = Run(context, params)
        if self.point is not None:
            row = await self.point.read(run)
            if row is not None:
                yield [row]
            return
        async with aclosing(root.batches(run)) as batches:
            async for batch in batches:
                yield batch

    async def _collected(self, context: ExecContext, params: Sequence[Any]) -> list[Row]:
        """All rows of a query that may have to begin again."""
        while True:
            run = Run(context, params)
            if self._keeps_back:
                run.pending = PendingWrites()
            try:
                rows = await self._root.all_rows(run)
                await run.finish()
            except Restart:
                run.transaction.begin_statement()
            else:
                return rows

    async def insert_rows(self, context: ExecContext, rows: Sequence[Row]) -> int:
        """Insert rows of the target columns, for COPY."""
        root = self._root
        assert isinstance(root, Insert), "COPY goes into an INSERT"
        run = Run(context, ())
        count = 0
        for portion in portions(rows):
            done, _ = await root.insert(portion, run)
            count += done
            await run.changed(len(portion))
        if run.after:
            await run.finish()
        return count

    # ---- EXPLAIN ANALYZE -------------------------------------------------------------------------

    async def analyze(self, context: ExecContext, params: Sequence[Any]) -> list[str]:
        """Run it, and say how many rows each node gave and how long it took."""
        counters = Counters(context.eval)
        measured = Executable.__new__(Executable)
        measured.plan = self.plan
        measured._root = Compiler(counters.wrap).compile(self.plan.root)
        measured._keeps_back, measured._locks = self._keeps_back, self._locks
        measured.point, measured.one_row = None, None
        async with aclosing(measured.stream(context, params)) as batches:
            async for _ in batches:
                pass
        return self.plan.explain(counters.annotation)


def _all_nodes(node: nodes.Node) -> list[nodes.Node]:
    found = [node]
    for child in nodes.children(node):
        found += _all_nodes(child)
    return found


def compile_plan(plan: Plan) -> Executable:
    """The plan, ready to run."""
    return Executable(plan)
