"""FOR UPDATE, FOR SHARE and their kin: rows that a query returns are locked, and read again when they had changed."""

from __future__ import annotations

from shardforge.sql.bind import tree
from shardforge.sql.execute.context import ExecContext
from shardforge.sql.execute.operators import Batch, Batches, Compilation, collect, in_batches, operator_for
from shardforge.sql.execute.restart import StatementChanged
from shardforge.txn.coordinator import LockStrength, WaitPolicy

_POLICIES = {"block": WaitPolicy.BLOCK, "error": WaitPolicy.ERROR, "skip": WaitPolicy.SKIP}


@operator_for(tree.LockRows)
class LockRowsOperator:
    """Locks each row's key; a row that changed after the snapshot makes the statement start again (READ COMMITTED)."""

    def __init__(self, node: tree.LockRows, compilation: Compilation) -> None:
        self._input = compilation.operator(node.input)
        self.columns = self._input.columns
        self._offsets = [self.columns.index(column) for column, _ in node.keys]
        self._strength = LockStrength(node.strength)
        self._policy = _POLICIES[node.policy]

    async def batches(self, ctx: ExecContext) -> Batches:
        for attempt_rows in [await collect(self._input, ctx)]:
            kept = await self._locked(attempt_rows, ctx)
            for piece in in_batches(kept):
                yield piece

    async def _locked(self, rows: Batch, ctx: ExecContext) -> Batch:
        keep = [True] * len(rows)
        for offset in self._offsets:
            wanted = [(i, row[offset]) for i, row in enumerate(rows) if keep[i] and row[offset] is not None]
            locked = await ctx.transaction.lock([key for _, key in wanted], self._strength, self._policy)
            for (i, _), found in zip(wanted, locked, strict=True):
                if not found.granted:
                    keep[i] = False
                elif found.changed:
                    raise StatementChanged
        return [row for row, kept in zip(rows, keep, strict=True) if kept]
