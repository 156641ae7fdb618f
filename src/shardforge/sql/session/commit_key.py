"""Exactly-once commits: what `SET LOCAL shardforge.commit_key = '...'` means to a session.

SET LOCAL claims the key at once, so that an earlier attempt still under way is waited for and its outcome told before
the transaction's own statements run; COMMIT claims it in any case (`set_config` cannot wait) and decides. A
transaction that finds its key committed is rolled back and answered COMMIT, with a notice of SQLSTATE 01S00.

Another transaction's use of the key is refused: one that writes to a table that the first did not write to. Users and
databases have keys of their own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shardforge.errors import QueryError
from shardforge.ids import Timestamp
from shardforge.keys import commit_key_record
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.session.settings import COMMIT_KEY
from shardforge.txn.commit_keys import Committed, KeyRecord, claim, remember

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session
    from shardforge.txn.transaction import Transaction

COMMITTED_BEFORE = "01S00"
"""The SQLSTATE, of class "warning", of the notices; the subclass is ours."""


async def announce(session: Session) -> None:
    """The key has been set: hold it, and say so if a transaction has been committed with it."""
    key = session.settings.commit_key
    if not key or session.read_only:
        return
    transaction = session.transaction()
    if transaction.read_only:
        return
    found = await claim(transaction, _place(session))
    if found is not None:
        session.notice(
            "NOTICE", COMMITTED_BEFORE,
            f'a transaction with {COMMIT_KEY} "{key}" has been committed already',
            detail=_when(found.timestamp), hint="COMMIT will discard what this one does.",
        )  # fmt: skip


async def committed_before(session: Session, transaction: Transaction) -> bool:
    """At COMMIT: whether the key's transaction is committed already, so that this one must not be.

    Raises: QueryError 22023 when that was another transaction.
    """
    key = session.settings.commit_key
    if not key or transaction.read_only:
        return False
    found = await claim(transaction, _place(session))
    if found is None:
        return False
    _check_same(session, key, found)
    session.notice(
        "NOTICE", COMMITTED_BEFORE,
        f'a transaction with {COMMIT_KEY} "{key}" was committed before: this one is discarded',
        detail=_when(found.timestamp),
    )  # fmt: skip
    return True


def record(session: Session, transaction: Transaction) -> None:
    """Let the key be committed with the transaction; one that has written nothing needs no record."""
    if session.settings.commit_key and transaction.has_written:
        remember(transaction, _place(session), KeyRecord(_tables_written(session)))


def _place(session: Session) -> bytes:
    return commit_key_record(session.database, session.user, session.settings.commit_key)


def _tables_written(session: Session) -> tuple[int, ...]:
    """The tables whose locks say that the transaction writes to them."""
    held = session.lock_owner.held
    return tuple(
        sorted(t for t, modes in held.items() if modes >= 1 << TableLockMode.ROW_EXCLUSIVE)
    )


def _check_same(session: Session, key: str, found: Committed) -> None:
    if set(_tables_written(session)) <= set(found.record.tables):
        return
    raise QueryError(
        f'{COMMIT_KEY} "{key}" belongs to another transaction', "22023",
        detail=f"That one did not write to all the tables that this one does. {_when(found.timestamp)}",
        hint="Use a new key for each transaction.",
    )  # fmt: skip


def _when(timestamp: Timestamp) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=timestamp)
    return f"It was committed at {moment.isoformat(sep=' ')} (timestamp {timestamp})."
