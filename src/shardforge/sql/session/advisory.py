"""Advisory locks: locks on numbers, that a session holds until it gives them back, or its transaction until it ends.

They are a lock table of the tenure whose holders are sessions, so that what a session holds never stands in its own
way, whoever of the two holds it. A session's locks are counted, and survive rollbacks; a transaction's are not, and
those taken since a savepoint are rolled back with it. Waiting is that of row locks: one graph finds deadlocks over both
and tables. A lock lives no longer than its session, and a session no longer than the tenure. One that is granted is
granted under the lease of the node that serves, so that no younger tenure has granted it before.

Source: PostgreSQL 15, chapter 13.3.5; src/backend/utils/adt/lockfuncs.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from shardforge.errors import QueryError
from shardforge.ids import TxnId
from shardforge.txn.locks import LockStrength, LockTable

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session

LOCKS_MAX: Final = 1_000_000
"""Numbers locked in a tenure."""

_STRENGTHS: Final = {True: LockStrength.SHARE, False: LockStrength.UPDATE}
"""By whether it is shared."""


class Tag(NamedTuple):
    """What is locked, as pg_locks has it."""

    database: int
    classid: int
    objid: int
    objsubid: int

    def packed(self) -> bytes:
        """The key in the lock table."""
        return _PACK(*self)

    @staticmethod
    def unpack(key: bytes) -> Tag:
        """The tag of a key."""
        return Tag(*_UNPACK(key))


_PACK: Final = struct.Struct(">IIIB").pack
_UNPACK: Final = struct.Struct(">IIIB").unpack


class _Holds:
    """How one session holds one number: by whether it is shared, how often, and whether its transaction does too."""

    __slots__ = ("counts", "transactional")

    def __init__(self) -> None:
        self.counts = {True: 0, False: 0}
        self.transactional: set[bool] = set()

    def holds(self, *, shared: bool) -> bool:
        """Whether it is held in this way at all."""
        return self.counts[shared] > 0 or shared in self.transactional


class SessionLocks:
    """The advisory locks of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._number = TxnId(-session.process_id)
        self._held: dict[bytes, _Holds] = {}
        self.transactional: list[tuple[bytes, bool]] = []
        """What the transaction holds, as (key, shared), in the order in which it was taken."""

    @property
    def _table(self) -> LockTable:
        return self._session.instance.advisory

    def _key(self, number: tuple[int, int, int]) -> bytes:
        return Tag(self._session.catalog.database.id, *number).packed()

    def held(self) -> Iterator[tuple[bytes, bool]]:
        """(key, shared) of what is held."""
        for key, holds in self._held.items():
            for shared in (True, False):
                if holds.holds(shared=shared):
                    yield key, shared

    # ---- taking ----------------------------------------------------------------------------------

    def try_acquire(
        self, number: tuple[int, int, int], *, shared: bool, transactional: bool
    ) -> bool:
        """Take a lock, if that needs no waiting. `number`: classid, objid, objsubid. Raises: 53200."""
        key = self._key(number)
        if len(self._table) >= LOCKS_MAX and key not in self._held:
            raise QueryError(
                "out of shared memory", "53200", detail="Too many advisory locks are held."
            )
        if not self._table.acquire(key, self._number, _STRENGTHS[shared]):
            return False
        self._note(key, shared=shared, transactional=transactional)
        return True

    async def acquire(
        self, number: tuple[int, int, int], *, shared: bool, transactional: bool
    ) -> None:
        """Take a lock. Raises: 53200; 40P01, 55P03 as row locks do; 57P03 when another node may grant it too."""
        if self.try_acquire(number, shared=shared, transactional=transactional):
            return
        key, table, session = self._key(number), self._table, self._session
        waits = session.instance.store.coordinator.waits
        waits.sessions[self._number] = self._transaction
        before = table.holds(key, self._number)
        try:
            await waits.wait(
                table, key, session.transaction().id, _STRENGTHS[shared], session.settings.lock_timeout_ms,
                self._number,
            )  # fmt: skip
        except BaseException:
            # Granted in the same turn in which the wait was given up: nobody else would release it.
            self._set_back(key, before)
            raise
        self._note(key, shared=shared, transactional=transactional)
        await session.instance.store.coordinator.wait_serving()

    def _transaction(self) -> TxnId | None:
        transaction = self._session.open_transaction
        return None if transaction is None else transaction.id

    def _note(self, key: bytes, *, shared: bool, transactional: bool) -> None:
        holds = self._held.get(key)
        if holds is None:
            holds = self._held[key] = _Holds()
            self._session.instance.store.coordinator.waits.sessions[self._number] = (
                self._transaction
            )
        if not transactional:
            holds.counts[shared] += 1
        elif shared not in holds.transactional:
            holds.transactional.add(shared)
            self.transactional.append((key, shared))

    # ---- giving back -----------------------------------------------------------------------------

    def release(self, number: tuple[int, int, int], *, shared: bool) -> bool:
        """Give back a lock of the session once; False, with a warning, when it has none."""
        key = self._key(number)
        holds = self._held.get(key)
        if holds is None or not holds.counts[shared]:
            mode = "ShareLock" if shared else "ExclusiveLock"
            self._session.notice("WARNING", "01000", f"you don't own a lock of type {mode}")
            return False
        holds.counts[shared] -= 1
        self._relax(key, holds)
        return True

    def release_all(self) -> None:
        """Give back all locks of the session; its transaction keeps its own."""
        for key, holds in list(self._held.items()):
            holds.counts = {True: 0, False: 0}
            self._relax(key, holds)

    def mark(self) -> int:
        """Where a savepoint is."""
        return len(self.transactional)

    def rollback_to(self, mark: int) -> None:
        """Give back what the transaction has taken since a savepoint."""
        while len(self.transactional) > mark:
            key, shared = self.transactional.pop()
            holds = self._held[key]
            holds.transactional.discard(shared)
            self._relax(key, holds)

    def transaction_ended(self) -> None:
        """Give back what the transaction has taken."""
        self.rollback_to(0)

    def close(self) -> None:
        """The session ends, after its transaction."""
        self.release_all()
        self._session.instance.store.coordinator.waits.sessions.pop(self._number, None)

    def _relax(self, key: bytes, holds: _Holds) -> None:
        """Hold in the table what is still held."""
        if holds.holds(shared=False):
            return
        if holds.holds(shared=True):
            self._set_back(key, LockStrength.SHARE)
            return
        del self._held[key]
        self._set_back(key, None)

    def _set_back(self, key: bytes, strength: LockStrength | None) -> None:
        if strength is None:
            self._table.release(key, self._number)
        else:
            self._table.downgrade(key, self._number, strength)
