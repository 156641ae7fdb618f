"""Table locks: PostgreSQL's eight modes, held to the end of the transaction.

They keep DDL and statements on the same table apart: a statement takes ACCESS SHARE or ROW EXCLUSIVE before it runs, a
DDL takes what PostgreSQL's takes. Sets of modes are bits of a number, and a table knows how often each mode is held, so
that the common statement pays a few look-ups however many hold the table. Requests queue first come, first served; a
request that the owner's ACCESS EXCLUSIVE covers is free. A cycle among waiters is a deadlock: the one who closes it
gets 40P01.

Locks live in memory: they say who is using a table in this process, and nothing needs them after a crash.
Source: PostgreSQL 15, table 13.2; src/backend/storage/lmgr/lock.c.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from shardforge.errors import QueryError, TransactionError
from shardforge.ids import TxnId


class TableLockMode(enum.IntEnum):
    """The eight table-lock modes, numbered as in pg_locks."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8


_M = TableLockMode

CONFLICTS: Final[dict[TableLockMode, frozenset[TableLockMode]]] = {
    _M.ACCESS_SHARE: frozenset({_M.ACCESS_EXCLUSIVE}),
    _M.ROW_SHARE: frozenset({_M.EXCLUSIVE, _M.ACCESS_EXCLUSIVE}),
    _M.ROW_EXCLUSIVE: frozenset(
        {_M.SHARE, _M.SHARE_ROW_EXCLUSIVE, _M.EXCLUSIVE, _M.ACCESS_EXCLUSIVE}
    ),
    _M.SHARE_UPDATE_EXCLUSIVE: frozenset(m for m in _M if m >= _M.SHARE_UPDATE_EXCLUSIVE),
    _M.SHARE: frozenset(
        m for m in _M if m >= _M.ROW_EXCLUSIVE and m is not _M.SHARE
    ),
    _M.SHARE_ROW_EXCLUSIVE: frozenset(m for m in _M if m >= _M.ROW_EXCLUSIVE),
    _M.EXCLUSIVE: frozenset(m for m in _M if m >= _M.ROW_SHARE),
    _M.ACCESS_EXCLUSIVE: frozenset(_M),
}  # fmt: skip


def _bits(modes: Iterable[TableLockMode]) -> int:
    """A set of modes as a number: bit n is the mode numbered n."""
    return sum(1 << mode for mode in modes)


_CONFLICT_BITS: Final = [0, *(_bits(CONFLICTS[mode]) for mode in TableLockMode)]
"""By mode."""
_ALL: Final = 1 << TableLockMode.ACCESS_EXCLUSIVE
"""The bit that covers all others."""


def modes_of(bits: int) -> list[TableLockMode]:
    """The modes of a set, weakest first."""
    return [mode for mode in TableLockMode if bits >> mode & 1]


class LockOwner:
    """The table locks of one transaction; pass it to every call, and to `release_all` at its end."""

    __slots__ = ("held", "name", "transaction", "waiting_for")

    def __init__(self, name: object = None) -> None:
        self.name = name
        self.transaction: TxnId | None = None
        """The transaction that holds them: how deadlocks over rows and tables together are found."""
        self.held: dict[int, int] = {}
        """The modes held of each table, as bits: see `modes_of`."""
        self.waiting_for: _Waiter | None = None


class _Waiter:
    __slots__ = ("future", "mode", "owner", "table")

    def __init__(
        self, owner: LockOwner, table: int, mode: TableLockMode, future: asyncio.Future[None]
    ) -> None:
        self.owner = owner
        self.table = table
        self.mode = mode
        self.future = future


class _TableState:
    __slots__ = ("counts", "granted", "holders", "queue")

    def __init__(self) -> None:
        self.holders: dict[LockOwner, int] = {}
        self.counts = [0] * (len(TableLockMode) + 1)
        """How many hold each mode."""
        self.granted = 0
        """The modes that anybody holds."""
        self.queue: deque[_Waiter] = deque()

    def grant(self, owner: LockOwner, mode: int) -> int:
        """Let the owner hold the mode too; all that it holds now."""
        before = self.holders.get(owner, 0)
        after = before | 1 << mode
        if after != before:
            self.holders[owner] = after
            self.counts[mode] += 1
            self.granted |= 1 << mode
        return after

    def release(self, owner: LockOwner) -> None:
        """The owner holds nothing any more."""
        bits, mode = self.holders.pop(owner), 0
        while bits:
            if bits & 1:
                self.counts[mode] -= 1
                if not self.counts[mode]:
                    self.granted &= ~(1 << mode)
            bits >>= 1
            mode += 1


class TableLocks:
    """Every table lock of the process."""

    def __init__(self) -> None:
        self._tables: dict[int, _TableState] = {}
        self._waiting: dict[TxnId, LockOwner] = {}
        self.row_blockers: Callable[[TxnId], Iterable[TxnId]] = lambda txn: ()
        """Whom a transaction waits for at a row lock."""

    def holds(self, owner: LockOwner, table: int, mode: TableLockMode) -> bool:
        """Whether the owner already has this mode (or ACCESS EXCLUSIVE, which covers all)."""
        return owner.held.get(table, 0) & (1 << mode | _ALL) != 0

    def try_acquire(self, owner: LockOwner, table: int, mode: TableLockMode) -> bool:
        """Take the lock if that needs no waiting."""
        if owner.held.get(table, 0) & (1 << mode | _ALL):
            return True
        state = self._tables.get(table)
        if state is None:
            state = self._tables[table] = _TableState()
        elif (state.granted & _CONFLICT_BITS[mode] or state.queue) and self._blocked(
            state, owner, mode
        ):
            return False
        owner.held[table] = state.grant(owner, mode)
        return True

    def _blocked(self, state: _TableState, owner: LockOwner, mode: TableLockMode) -> bool:
        if any(True for _ in self._conflicting_holders(state, owner, mode)):
            return True
        # An owner that already holds the table would wait for itself behind the queue: it goes first.
        if owner in state.holders:
            return False
        conflicts = CONFLICTS[mode]
        return any(waiter.mode in conflicts for waiter in state.queue)

    def _conflicting_holders(
        self, state: _TableState, owner: LockOwner, mode: TableLockMode
    ) -> Iterator[LockOwner]:
        conflicts = _CONFLICT_BITS[mode]
        if state.granted & conflicts:
            for holder, modes in state.holders.items():
                if holder is not owner and modes & conflicts:
                    yield holder

    async def acquire(
        self,
        owner: LockOwner,
        table: int,
        mode: TableLockMode,
        *,
        timeout_ms: int = 0,
        nowait: bool = False,
        name: str = "",
    ) -> None:
        """Take the lock, waiting for conflicting owners.

        Raises: 55P03 with `nowait` or after `timeout_ms` (0: no limit); 40P01 when waiting would never end.
        """
        if self.try_acquire(owner, table, mode):
            return
        if nowait:
            raise QueryError(f'could not obtain lock on relation "{name}"', "55P03")
        state = self._tables[table]
        waiter = _Waiter(owner, table, mode, asyncio.get_running_loop().create_future())
        if owner in state.holders:
            state.queue.appendleft(waiter)
        else:
            state.queue.append(waiter)
        owner.waiting_for = waiter
        if owner.transaction is not None:
            self._waiting[owner.transaction] = owner
        try:
            if self._closes_cycle(owner):
                raise TransactionError("deadlock detected", "40P01")
            await asyncio.wait_for(waiter.future, timeout_ms / 1000 if timeout_ms else None)
        except TimeoutError:
            raise TransactionError("canceling statement due to lock timeout", "55P03") from None
        finally:
            owner.waiting_for = None
            if owner.transaction is not None:
                self._waiting.pop(owner.transaction, None)
            if waiter in state.queue:
                state.queue.remove(waiter)
                self._wake(table)

    def _closes_cycle(self, start: LockOwner) -> bool:
        seen: set[LockOwner | TxnId] = set()
        stack: list[LockOwner | TxnId] = [start]
        while stack:
            for blocker in self._blockers_anywhere(stack.pop()):
                if blocker is start:
                    return True
                if blocker not in seen:
                    seen.add(blocker)
                    stack.append(blocker)
        return False

    def _blockers_anywhere(self, node: LockOwner | TxnId) -> Iterator[LockOwner | TxnId]:
        """Whom an owner (or a transaction that waits at no table) waits for, at tables and rows."""
        if isinstance(node, LockOwner):
            yield from self.blockers(node)
            if node.transaction is None:
                return
            node = node.transaction
        for txn in self.row_blockers(node):
            yield self._waiting.get(txn, txn)

    def blocking_transactions(self, txn: TxnId) -> Iterator[TxnId]:
        """The transactions that `txn` waits for at a table lock: part of the row locks' waits-for graph."""
        owner = self._waiting.get(txn)
        if owner is not None:
            for blocker in self.blockers(owner):
                if blocker.transaction is not None:
                    yield blocker.transaction

    def blockers(self, owner: LockOwner) -> list[LockOwner]:
        """The owners that `owner` waits for: conflicting holders, and conflicting waiters before it."""
        waiter = owner.waiting_for
        if waiter is None:
            return []
        state = self._tables[waiter.table]
        found = list(self._conflicting_holders(state, owner, waiter.mode))
        for other in state.queue:
            if other is waiter:
                break
            if other.mode in CONFLICTS[waiter.mode]:
                found.append(other.owner)
        return found

    def release_all(self, owner: LockOwner) -> None:
        """Give up every lock of the owner: its transaction is over."""
        for table in owner.held:
            state = self._tables[table]
            state.release(owner)
            if state.queue:
                self._wake(table)
            elif not state.holders:
                del self._tables[table]
        owner.held = {}
        owner.transaction = None

    def _wake(self, table: int) -> None:
        state = self._tables.get(table)
        if state is None:
            return
        passed: list[_Waiter] = []
        while state.queue:
            waiter = state.queue.popleft()
            conflicts = CONFLICTS[waiter.mode]
            if any(
                True for _ in self._conflicting_holders(state, waiter.owner, waiter.mode)
            ) or any(other.mode in conflicts for other in passed):
                passed.append(waiter)
                continue
            waiter.owner.held[table] = state.grant(waiter.owner, waiter.mode)
            waiter.owner.waiting_for = None  # it resumes later, but waits for nobody any more
            if waiter.owner.transaction is not None:
                self._waiting.pop(waiter.owner.transaction, None)
            if not waiter.future.done():
                waiter.future.set_result(None)
        state.queue.extend(passed)
        if not state.holders and not state.queue:
            del self._tables[table]

    def held(self) -> Iterator[tuple[object, int, TableLockMode, bool]]:
        """(owner's name, table, mode, granted) of every lock and waiter, for pg_locks."""
        for table, state in self._tables.items():
            for owner, modes in state.holders.items():
                for mode in modes_of(modes):
                    yield owner.name, table, mode, True
            for waiter in state.queue:
                yield waiter.owner.name, table, waiter.mode, False
