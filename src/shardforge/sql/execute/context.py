"""What a statement runs with: the session's side (`ExecContext`) and one execution (`Run`).

Expressions are called with either as `ctx`: both have `params`, `eval` and `outer`. Operators and plans hold no
state of an execution, so one plan may run many times at once: all of it is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from sys import getsizeof
from typing import Any, Protocol, TypeVar

from shardforge.errors import QueryError
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.execute.deferral import Deferral, DeferredCheck
from shardforge.sql.functions.context import EvalContext
from shardforge.txn.coordinator import Coordinator, Isolation, Transaction

Row = tuple[Any, ...]
T = TypeVar("T")

DEFAULT_WORK_MEMORY = 256 * 1024 * 1024
ROWS_BEFORE_PAUSE = 2_000
WRITE_WORK = 8
"""How many rows are read in the time that it takes to change one."""
BATCH_ROWS = 1024
"""Rows that an operator hands on at once, about."""
PORTION_ROWS = ROWS_BEFORE_PAUSE // WRITE_WORK
"""Rows that are changed between two pauses: some ten milliseconds, and a heartbeat is due every fifty."""


def portions(changes: Sequence[T]) -> Iterator[Sequence[T]]:
    """The changes, so many at once that a node may be busy with them; then `Run.changed` is due."""
    for start in range(0, len(changes), PORTION_ROWS):
        yield changes[start : start + PORTION_ROWS]


class RowNumbers(Protocol):
    """Where tables without a primary key get their row numbers from: the catalog's sequences."""

    def take_rowid(self, storage_id: int) -> int | None: ...
    async def reserve_rowids(self, storage_id: int, wanted: int = 1) -> None: ...


class ExecContext:
    """One session's statements: coordinator, evaluation context, transaction, and checks due at commit."""

    __slots__ = (
        "coordinator",
        "deferral",
        "eval",
        "outer",
        "params",
        "row_numbers",
        "session",
        "transaction",
        "work_memory",
    )

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        eval: EvalContext,
        session: Any = None,
        row_numbers: RowNumbers | None = None,
        work_memory: int = DEFAULT_WORK_MEMORY,
    ) -> None:
        self.coordinator = coordinator
        self.eval = eval
        self.session = session
        self.row_numbers = row_numbers
        self.work_memory = work_memory
        self.transaction: Transaction | None = None
        self.params: Sequence[Any] = ()
        self.outer: dict[ColumnId, Any] = {}
        self.deferral = Deferral()

    def virtual_context(self) -> VirtualContext:
        """What catalog tables make their rows from."""
        context: VirtualContext = self.session.virtual_context()
        return context

    async def before_commit(self, transaction: Transaction) -> None:
        """Check what was deferred. Raises: 23503 and its kin; the transaction is then rolled back."""
        if self.deferral:
            self.transaction = transaction
            await self.check_deferred_now()

    async def check_deferred_now(self, oids: Collection[int] | None = None) -> None:
        """Check what was deferred of these constraints (None: of all)."""
        checks = self.deferral.take(oids)
        if not checks:
            return
        assert self.transaction is not None, "what is deferred was deferred in a transaction"
        self.transaction.begin_statement()
        for check in checks:
            await check(Run(self, ()))

    def transaction_ended(self) -> None:
        """Forget the transaction and what was deferred in it."""
        self.deferral = Deferral()
        self.transaction = None


class Run:
    """One execution of a plan.

    `outer` holds the current values of columns that inner plans take from enclosing ones; ids are unique in a
    statement. `memo` is private to operators, keyed by them. `memory` counts what is held of `work_memory`.
    """

    __slots__ = (
        "account",
        "after",
        "ctes",
        "eval",
        "exec",
        "memo",
        "memory",
        "outer",
        "params",
        "pending",
        "transaction",
        "work",
    )

    def __init__(self, context: ExecContext, params: Sequence[Any]) -> None:
        transaction = context.transaction
        assert transaction is not None, "a statement runs in a transaction"
        self.exec = context
        self.eval = context.eval
        self.params = params
        self.outer: dict[ColumnId, Any] = {}
        self.transaction = transaction
        self.memo: dict[Any, Any] = {}
        self.ctes: dict[int, list[Row]] = {}
        self.memory = 0
        self.work = 0
        self.account = Account(self)
        """What is kept to the end of the statement."""
        self.pending: PendingWrites | None = None
        self.after: list[DeferredCheck] = []
        """Foreign keys to check and to follow when the statement has made its changes."""

    def put(self, key: bytes, value: bytes, *, blind: bool = False) -> None:
        """Write, now or when the statement has read everything."""
        if self.pending is None:
            self.transaction.put(key, value, blind=blind)
        else:
            self.pending.operations.append((key, value, blind))

    def delete(self, key: bytes, *, blind: bool = False) -> None:
        """Delete, now or when the statement has read everything."""
        if self.pending is None:
            self.transaction.delete(key, blind=blind)
        else:
            self.pending.operations.append((key, None, blind))

    async def finish(self) -> None:
        """The end of the statement: kept-back writes, then foreign keys until nothing is left to do."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            for key, value, blind in pending.operations:
                if value is None:
                    self.transaction.delete(key, blind=blind)
                else:
                    self.transaction.put(key, value, blind=blind)
        if self.after and self.transaction.isolation is Isolation.READ_COMMITTED:
            self.transaction.begin_statement()
        while self.after:
            work, self.after = self.after, []
            for step in work:
                await step(self)

    async def breathe(self, rows: int) -> None:
        """Let other sessions run after much work; a cancellation or time-out takes effect here.

        `rows`: as many as would have been read for the work that was done. What blocks the node for longer than an
        election timeout costs its leadership.
        """
        self.work += rows
        if self.work >= ROWS_BEFORE_PAUSE:
            self.work = 0
            await asyncio.sleep(0)

    async def changed(self, rows: int) -> None:
        """Let others run after a portion of changes, and what a large transaction wrote leave the memory."""
        await self.breathe(WRITE_WORK * rows)
        await self.transaction.stream()

    def hold_bytes(self, size: int) -> None:
        """Account for `size` bytes; 53200 past the limit. See `Account`."""
        self.memory += size
        if self.memory > self.exec.work_memory:
            raise QueryError(
                "out of memory",
                "53200",
                detail=f"The statement needs more than the {self.exec.work_memory} bytes of sql.work_memory.",
            )


class Account:
    """The memory of one operator in one execution, given back at the end whatever ends it."""

    __slots__ = ("_run", "_size")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._size = 0

    def __enter__(self) -> Account:
        return self

    def __exit__(self, *exc: object) -> None:
        self._run.memory -= self._size

    def hold(self, rows: Sequence[Any]) -> None:
        """Keep rows in memory. Raises: 53200 past the statement's limit."""
        if rows:
            self.hold_bytes(len(rows) * size_of(rows[-1]))

    def hold_bytes(self, size: int) -> None:
        """Keep some bytes in memory. Raises: 53200."""
        self._size += size
        self._run.hold_bytes(size)

    def take_over(self, before: int) -> None:
        """What has been held through the run since its memory was `before` is this account's."""
        self._size += self._run.memory - before


def size_of(row: Sequence[Any]) -> int:
    """About the memory of one row, its values included."""
    return getsizeof(row) + sum(map(getsizeof, row))


class PendingWrites:
    """Changes of data-modifying CTEs, kept back until the statement has read all that it reads.

    All parts of a statement see the same snapshot, without each other's changes.
    """

    __slots__ = ("inserted", "operations")

    def __init__(self) -> None:
        self.operations: list[tuple[bytes, bytes | None, bool]] = []
        """(key, value or None, blind)."""
        self.inserted: set[bytes] = set()
        """Row keys and unique index keys that the statement adds."""
