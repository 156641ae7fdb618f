"""How a session commits, and goes on before anybody knows how that ends: what waits for the answer behind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardforge.sql.catalog.tablelocks import LockOwner
from shardforge.txn.commit import unknown_outcome
from shardforge.txn.coordinator import Transaction

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session


async def decide(transaction: Transaction) -> None:
    """Commit. Cancelled meanwhile it tells the decision, and 40003 while there is none: it goes on behind us."""
    try:
        await transaction.commit()
    except asyncio.CancelledError:
        if transaction.undecided:
            raise unknown_outcome() from None
        if not transaction.committed:
            raise


def leave_behind(session: Session, transaction: Transaction) -> None:
    """Go on without knowing whether a commit succeeds: its table locks and notifications stay until it is decided.

    Whoever got one of the locks now would not know of an index that the commit may yet bring. When nobody can tell how
    it ended, they stay as long as this leadership, and nobody is notified.
    """
    owner, session.lock_owner = session.lock_owner, LockOwner(session.process_id)
    overlay, catalog = session.overlay, session.instance.catalog
    publish = session.channels.leave_behind() if session.channels.changed else None

    def ended(committed: bool) -> None:
        if committed and overlay is not None:
            catalog.publish(overlay)
        catalog.locks.release_all(owner)
        if committed and publish is not None:
            publish()

    transaction.on_end = ended
