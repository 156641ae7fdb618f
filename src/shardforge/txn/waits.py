"""Waiting for row locks, and for those that sessions hold: futures, timeouts, and the victim of a deadlock.

One registry a node: the waits-for graph spans all shards. A transaction waits for one lock at a time.
Cancelling the awaiting task withdraws the request. A lock table may belong to sessions, whose locks outlive their
transactions: then its holders and waiters are sessions' numbers, which are below 0, and a session waits for what its
transaction waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from shardforge.errors import TransactionError
from shardforge.ids import TxnId
from shardforge.txn.deadlock import choose_victim, find_cycle
from shardforge.txn.locks import LockStrength, LockTable, Waiter


class _Wait(NamedTuple):
    table: LockTable
    waiter: Waiter
    future: asyncio.Future[None]


class LockWaits:
    """Everyone on this node who waits for a row's lock, or a session's."""

    def __init__(self) -> None:
        self._waits: dict[TxnId, _Wait] = {}
        self.deadlocks = 0
        self.elsewhere: Callable[[TxnId], Iterable[TxnId]] = lambda txn: ()
        """Whom a transaction waits for at other locks than these; those waits have their own registry."""
        self.sessions: dict[TxnId, Callable[[], TxnId | None]] = {}
        """By number, the transaction that is under way in a session that holds locks, or waits for one."""

    def __len__(self) -> int:
        """How many transactions wait."""
        return len(self._waits)

    async def wait(
        self,
        table: LockTable,
        key: bytes,
        txn: TxnId,
        strength: LockStrength,
        timeout_ms: int,
        session: TxnId | None = None,
    ) -> None:
        """Return once the lock is held, by the session if one is given.

        Raises 40P01 for a victim and 55P03 at the timeout.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        holder = txn if session is None else session
        waiter = table.enqueue(key, holder, strength, lambda: _succeed(future))
        self._waits[txn] = _Wait(table, waiter, future)
        timer = None
        if timeout_ms:
            timer = loop.call_later(timeout_ms / 1000, _fail, future, _lock_timeout())
        try:
            self._break_deadlocks(txn)
            await future
        finally:
            if timer is not None:
                timer.cancel()
            self._waits.pop(txn, None)
            table.cancel(waiter)

    def lose(self, table: LockTable) -> None:
        """The leader lost the table: everyone who waits in it must retry the transaction."""
        for wait in list(self._waits.values()):
            if wait.table is table:
                error = TransactionError("could not serialize access: the row lock was lost")
                _fail(wait.future, error)

    def _break_deadlocks(self, txn: TxnId) -> None:
        while cycle := find_cycle(txn, self._blockers):
            self.deadlocks += 1
            victim = choose_victim([member for member in cycle if member in self._waits])
            wait = self._waits.pop(victim)
            wait.table.cancel(wait.waiter)
            _fail(wait.future, _deadlock(cycle))
            if victim == txn:
                return

    def blockers(self, txn: TxnId) -> Iterator[TxnId]:
        """Whom the transaction waits for here; a session for its transaction."""
        if txn < 0:
            current = self.sessions[txn]()
            return iter(() if current is None else (current,))
        wait = self._waits.get(txn)
        return iter(()) if wait is None else wait.table.blockers(wait.waiter)

    def _blockers(self, txn: TxnId) -> Iterator[TxnId]:
        yield from self.blockers(txn)
        yield from self.elsewhere(txn)


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: TransactionError) -> None:
    if not future.done():
        future.set_exception(error)


def _lock_timeout() -> TransactionError:
    return TransactionError("canceling statement due to lock timeout", "55P03")


def _deadlock(cycle: list[TxnId]) -> TransactionError:
    cycle = [txn for txn in cycle if txn > 0]
    steps = zip(cycle, [*cycle[1:], cycle[0]], strict=True)
    return TransactionError(
        "deadlock detected",
        "40P01",
        detail="\n".join(
            f"Transaction {txn} waits for a lock; blocked by transaction {blocker}."
            for txn, blocker in steps
        ),
        hint="See server log for query details.",
    )
