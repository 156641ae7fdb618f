"""Row locks of one shard's leader: four strengths, first come first served, re-entrant, upgradable.

The table answers at once (`acquire`) or queues a request (`enqueue`) whose `on_grant` is called when its
turn comes; whoever waits makes the future. It knows nothing of time, deadlock or durability: timeouts are
`cancel`, cycles are `deadlock`, and a lost leader loses the table (commit re-validates, rule R4).

Invariant: no two holders of a row conflict, and no waiter could be granted without overtaking a
conflicting waiter before it. A holder asking for more goes to the head of the queue: everything behind it
would have to wait for it anyway.
Source: PostgreSQL 15, table 13.3 (row-level locks); src/backend/access/heap/README.tuplock.
PURE.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator

from shardforge.ids import TxnId


class LockStrength(enum.IntEnum):
    """The four row-lock strengths, weakest first; each conflicts with all that weaker ones do, and more."""

    KEY_SHARE = 0
    SHARE = 1
    NO_KEY_UPDATE = 2
    UPDATE = 3


# Indexed by [held][wanted]: PostgreSQL's conflict table.
CONFLICTS: tuple[tuple[bool, bool, bool, bool], ...] = (
    (False, False, False, True),
    (False, False, True, True),
    (False, True, True, True),
    (True, True, True, True),
)

Hold = tuple[TxnId, LockStrength]


class Waiter:
    """A queued request. `granted` turns true just before `on_grant` is called, once."""

    __slots__ = ("granted", "key", "on_grant", "strength", "txn")

    def __init__(
        self, key: bytes, txn: TxnId, strength: LockStrength, on_grant: Callable[[], None]
    ) -> None:
        self.key = key
        self.txn = txn
        self.strength = strength
        self.on_grant = on_grant
        self.granted = False


class _Row:
    """A row with several holders or with waiters; the common single holder is a bare `Hold`."""

    __slots__ = ("holders", "queue")

    def __init__(self, hold: Hold) -> None:
        self.holders: dict[TxnId, LockStrength] = {hold[0]: hold[1]}
        self.queue: list[Waiter] = []

    def blocked_by_holders(self, txn: TxnId, strength: LockStrength) -> bool:
        return any(
            CONFLICTS[held][strength] for holder, held in self.holders.items() if holder != txn
        )


class LockTable:
    """All row locks of one shard's leader."""

    __slots__ = ("_last", "_rows", "waiting")

    def __init__(self) -> None:
        self._rows: dict[bytes, Hold | _Row] = {}
        self._last: Hold = (TxnId(0), LockStrength.KEY_SHARE)
        """Who took the last free row: a transaction that locks many keeps one `Hold` for all of them."""
        self.waiting = 0

    def __len__(self) -> int:
        """How many rows are locked."""
        return len(self._rows)

    def acquire(self, key: bytes, txn: TxnId, strength: LockStrength) -> bool:
        """Take the lock now, or change nothing and return False."""
        rows = self._rows
        row = rows.get(key)
        if row is None:
            last = self._last
            if last[0] != txn or last[1] is not strength:
                last = self._last = (txn, strength)
            rows[key] = last
            return True
        if type(row) is tuple:
            holder, held = row
            if holder == txn:
                if strength > held:
                    rows[key] = (txn, strength)
                return True
            if CONFLICTS[held][strength]:
                return False
            rows[key] = shared = _Row(row)
            shared.holders[txn] = strength
            return True
        assert isinstance(row, _Row)
        already = row.holders.get(txn)
        if already is not None and already >= strength:
            return True
        if row.blocked_by_holders(txn, strength):
            return False
        if already is None and any(CONFLICTS[w.strength][strength] for w in row.queue):
            return False
        row.holders[txn] = strength
        return True

    def enqueue(
        self, key: bytes, txn: TxnId, strength: LockStrength, on_grant: Callable[[], None]
    ) -> Waiter:
        """Queue a request that `acquire` has just refused."""
        row = self._rows[key]
        if not isinstance(row, _Row):
            row = self._rows[key] = _Row(row)
        waiter = Waiter(key, txn, strength, on_grant)
        if txn in row.holders:
            row.queue.insert(0, waiter)
        else:
            row.queue.append(waiter)
        self.waiting += 1
        return waiter

    def cancel(self, waiter: Waiter) -> None:
        """Withdraw a request; what it blocked goes on. No effect once it was granted."""
        if waiter.granted:
            return
        row = self._rows.get(waiter.key)
        if isinstance(row, _Row) and waiter in row.queue:
            row.queue.remove(waiter)
            self.waiting -= 1
            self._grant(waiter.key, row)

    def release(self, key: bytes, txn: TxnId) -> None:
        """Drop the transaction's lock on the row and grant whoever can go next."""
        row = self._rows.get(key)
        if type(row) is tuple:
            if row[0] == txn:
                del self._rows[key]
        elif isinstance(row, _Row) and row.holders.pop(txn, None) is not None:
            self._grant(key, row)

    def downgrade(self, key: bytes, txn: TxnId, strength: LockStrength) -> None:
        """Set the transaction's lock back to a weaker strength (a savepoint was rolled back)."""
        row = self._rows.get(key)
        if type(row) is tuple:
            if row[0] == txn:
                self._rows[key] = (txn, strength)
        elif isinstance(row, _Row) and txn in row.holders:
            row.holders[txn] = strength
            self._grant(key, row)

    def holds(self, key: bytes, txn: TxnId) -> LockStrength | None:
        """The strength that the transaction holds on the row."""
        row = self._rows.get(key)
        if row is None:
            return None
        if isinstance(row, _Row):
            return row.holders.get(txn)
        return row[1] if row[0] == txn else None

    def holders(self, key: bytes) -> Iterable[Hold]:
        """Everyone who holds the row."""
        row = self._rows.get(key)
        if row is None:
            return ()
        return tuple(row.holders.items()) if isinstance(row, _Row) else (row,)

    def entries(self) -> Iterator[tuple[bytes, TxnId, LockStrength, bool]]:
        """(key, transaction, strength, granted) of every lock and waiter."""
        for key, row in self._rows.items():
            if not isinstance(row, _Row):
                yield key, row[0], row[1], True
                continue
            for txn, strength in row.holders.items():
                yield key, txn, strength, True
            for waiter in row.queue:
                yield key, waiter.txn, waiter.strength, False

    def blockers(self, waiter: Waiter) -> Iterator[TxnId]:
        """Those the waiter waits for: conflicting holders, and conflicting waiters before it."""
        row = self._rows.get(waiter.key)
        if waiter.granted or not isinstance(row, _Row):
            return
        for holder, held in row.holders.items():
            if holder != waiter.txn and CONFLICTS[held][waiter.strength]:
                yield holder
        for earlier in row.queue:
            if earlier is waiter:
                return
            if earlier.txn != waiter.txn and CONFLICTS[earlier.strength][waiter.strength]:
                yield earlier.txn

    def _grant(self, key: bytes, row: _Row) -> None:
        granted: list[Waiter] = []
        still: list[Waiter] = []
        for waiter in row.queue:
            if row.blocked_by_holders(waiter.txn, waiter.strength) or any(
                CONFLICTS[w.strength][waiter.strength] for w in still if w.txn != waiter.txn
            ):
                still.append(waiter)
                continue
            held = row.holders.get(waiter.txn)
            row.holders[waiter.txn] = (
                waiter.strength if held is None else max(held, waiter.strength)
            )
            waiter.granted = True
            granted.append(waiter)
        row.queue = still
        self.waiting -= len(granted)
        if not still:
            if not row.holders:
                del self._rows[key]
            elif len(row.holders) == 1:
                self._rows[key] = next(iter(row.holders.items()))
        for waiter in granted:
            waiter.on_grant()

    def check(self) -> None:
        """Assert the table's invariant; for tests and simulation."""
        waiting = 0
        for key, row in self._rows.items():
            if not isinstance(row, _Row):
                continue
            assert row.holders or row.queue, f"an empty row is kept: {key!r}"
            holds = list(row.holders.items())
            for position, (_, held) in enumerate(holds):
                assert not any(CONFLICTS[held][s] for _, s in holds[position + 1 :]), key
            for position, waiter in enumerate(row.queue):
                waiting += 1
                assert not waiter.granted
                assert row.blocked_by_holders(waiter.txn, waiter.strength) or any(
                    CONFLICTS[w.strength][waiter.strength]
                    for w in row.queue[:position]
                    if w.txn != waiter.txn
                ), f"a waiter could go: {key!r}"
        assert waiting == self.waiting
