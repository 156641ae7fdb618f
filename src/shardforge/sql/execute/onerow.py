"""One row changed by its key, without waiting: the shortest way of the UPDATE, DELETE or INSERT of most transactions.

    key encode -> lock -> decode -> assignments -> encode -> the transaction's writes

A plan qualifies when one row is all that it can concern: no index entry appears or goes, no foreign key is to be
checked, nothing is returned and no expression may have to wait. Where the row's lock has to be waited for, the operator
does it all (`update`, `insert`).

Invariant: whatever a change raises or however it declines, it has written nothing and may be tried again: the write is
its last step, and a lock that it took stays with the transaction as if it had been taken by the operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shardforge.sql.execute.context import ExecContext, Row
from shardforge.sql.execute.expressions import Function
from shardforge.sql.execute.point import Parameters
from shardforge.txn.coordinator import LockStrength, Transaction

if TYPE_CHECKING:
    from shardforge.sql.execute.scans import TableScanOperator
    from shardforge.sql.execute.target import Target


class OneRow(ABC):
    """A change of one row."""

    __slots__ = ()

    @abstractmethod
    def change_now(self, context: ExecContext, params: Sequence[Any]) -> int | None:
        """How many rows were changed, 0 or 1; None when nothing was written and it takes the operator."""


class _ByKey(OneRow):
    """The row that a condition on the whole primary key finds, locked."""

    __slots__ = ("_filter", "_key", "_row", "_strength")

    def __init__(self, scan: TableScanOperator, strength: LockStrength) -> None:
        self._key: Callable[[Any, Any], bytes | None] = scan.access.key
        self._row: Callable[[bytes, bytes], Row] = scan.reader.row
        self._filter = scan.filter
        self._strength = strength

    def change_now(self, context: ExecContext, params: Sequence[Any]) -> int | None:
        """See `OneRow`."""
        transaction = context.transaction
        assert transaction is not None, "a statement runs in a transaction"
        ctx = Parameters(context, params)
        key = self._key((), ctx)
        if key is None:
            return 0
        lock = transaction.lock_now(key, self._strength)
        if lock is None:
            return None
        if lock.value is None:
            return 0
        return self._change(transaction, key, lock.value, ctx)

    @abstractmethod
    def _change(self, transaction: Transaction, key: bytes, value: bytes, ctx: Parameters) -> int:
        """Write the change of the locked row; how many rows that concerned."""


class UpdateByKey(_ByKey):
    """UPDATE of a row that stays where it is, in the table and in every index."""

    __slots__ = ("_assignments", "_completed", "_encode", "_old")

    def __init__(
        self, scan: TableScanOperator, strength: LockStrength, target: Target,
        old: Sequence[int], assignments: Sequence[tuple[int, Function]],
    ) -> None:  # fmt: skip
        super().__init__(scan, strength)
        self._old = list(old)
        self._assignments = list(assignments)
        self._completed: Callable[[Row, Any], Row] = target.rules.completed
        self._encode: Callable[[Row], bytes] = target.writer.encode

    def _change(self, transaction: Transaction, key: bytes, value: bytes, ctx: Parameters) -> int:
        source = self._row(key, value)
        if self._filter is not None and not self._filter([source], ctx):
            return 0
        values: list[Any] = [source[place] for place in self._old]
        for offset, function in self._assignments:
            values[offset] = function(source, ctx)
        transaction.put(key, self._encode(self._completed(tuple(values), ctx)))
        return 1


class DeleteByKey(_ByKey):
    """DELETE from a table without further indexes."""

    __slots__ = ()

    def _change(self, transaction: Transaction, key: bytes, value: bytes, ctx: Parameters) -> int:
        if self._filter is not None and not self._filter([self._row(key, value)], ctx):
            return 0
        transaction.delete(key)
        return 1


class InsertOne(OneRow):
    """INSERT of one row of VALUES into a table without further indexes."""

    __slots__ = (
        "_completed", "_defaults", "_encode", "_pick", "_row_key", "_source", "_storage_id",
    )  # fmt: skip

    def __init__(
        self, source: Function, defaults: Sequence[Function], pick: Callable[[Row], Sequence[Any]],
        numbered: int | None, target: Target,
    ) -> None:  # fmt: skip
        """`pick` makes a stored row of the source's values, the defaults, NULL and the row number.

        `numbered`: whose row numbers are the keys; None: the key is among the columns.
        """
        self._source = source
        self._defaults = list(defaults)
        self._pick = pick
        self._storage_id = numbered
        self._completed: Callable[[Row, Any], Row] = target.rules.completed
        self._row_key: Callable[[Row], bytes] = target.writer.row_key
        self._encode: Callable[[Row], bytes] = target.writer.encode

    def change_now(self, context: ExecContext, params: Sequence[Any]) -> int | None:
        """See `OneRow`."""
        transaction = context.transaction
        assert transaction is not None, "a statement runs in a transaction"
        number: int | None = None
        if self._storage_id is not None:
            numbers = context.row_numbers
            assert numbers is not None, "a session with tables has row numbers"
            number = numbers.take_rowid(self._storage_id)
            if number is None:
                return None
        ctx = Parameters(context, params)
        values = [*self._source((), ctx), *[default((), ctx) for default in self._defaults]]
        row = self._completed(tuple(self._pick((*values, None, number))), ctx)
        key = self._row_key(row)
        if number is None:
            lock = transaction.lock_now(key, LockStrength.UPDATE)
            if lock is None or lock.value is not None:
                return None  # to be waited for, or a duplicate, which the operator explains
        transaction.put(key, self._encode(row), blind=number is not None)
        return 1
