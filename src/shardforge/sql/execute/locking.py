"""FOR UPDATE and its kin: each row is locked before it is passed on.

A row that was changed after the statement's snapshot makes the statement start again with a new one (`Restart`); the
locks stay, so that this comes to an end. The outermost level collects the rows of such a statement before it
hands any out. Under SKIP LOCKED, rows that another transaction holds are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from shardforge.errors import TransactionError
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.execute.context import Row, Run
from shardforge.sql.execute.operators import Batches, Operator
from shardforge.txn.coordinator import LockStrength, WaitPolicy

POLICIES = {"block": WaitPolicy.BLOCK, "error": WaitPolicy.ERROR, "skip": WaitPolicy.SKIP}


class Restart(Exception):  # noqa: N818 - not an error: the statement begins again
    """A row to be locked or changed has changed since the statement's snapshot."""


class LockRows(Operator):
    """The source's rows, locked."""

    def __init__(
        self, source: Operator, keys: Sequence[ColumnId], tables: Sequence[str], strength: int, policy: str,
    ) -> None:  # fmt: skip
        super().__init__(source.columns)
        self._tables = tables
        self._source = source
        self._keys = [source.layout[key] for key in keys]
        self._strength = LockStrength(strength)
        self._policy = POLICIES[policy]

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        async with aclosing(self._source.batches(run)) as source:
            left = goal
            async for batch in source:
                start = 0
                while start < len(batch):
                    # Only as many as will be taken: the others must not be locked.
                    part = batch[start:] if left is None else batch[start : start + left]
                    start += len(part)
                    locked = await self._lock(part, run)
                    if locked:
                        yield locked
                    if left is not None:
                        left -= len(locked)
                        if left <= 0:
                            return

    async def _lock(self, rows: list[Row], run: Run) -> list[Row]:
        if self._policy is WaitPolicy.ERROR:
            await self._lock_at_once(rows, run)
            return rows
        keys = list(
            dict.fromkeys([row[at] for row in rows for at in self._keys if row[at] is not None])
        )
        held = await run.transaction.lock(keys, self._strength, self._policy)
        refused = set()
        for lock in held:
            if not lock.granted:
                refused.add(lock.key)
            elif lock.changed:
                raise Restart
        if not refused:
            return rows
        return [row for row in rows if not any(row[at] in refused for at in self._keys)]

    async def _lock_at_once(self, rows: list[Row], run: Run) -> None:
        """NOWAIT: table by table, since nothing waits and the error names the relation."""
        for at, table in zip(self._keys, self._tables, strict=True):
            keys = list(dict.fromkeys([row[at] for row in rows if row[at] is not None]))
            held = await run.transaction.lock(keys, self._strength, WaitPolicy.SKIP)
            if not all(lock.granted for lock in held):
                raise TransactionError(
                    f'could not obtain lock on row in relation "{table}"', "55P03"
                )
            if any(lock.changed for lock in held):
                raise Restart
