"""Sessions that run in a task instead of a connection: what has to be known of them to cancel them, and to end them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardforge.errors import DatabaseError

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session


class Call:
    """The current task, working for `session` from now until it is settled what comes of it, and gone at `end`."""

    def __init__(self, registry: set[Call], session: Session) -> None:
        task = asyncio.current_task()
        assert task is not None, "made by a task"
        self.session = session
        self.reason: DatabaseError | None = None
        """Why the work was cancelled; None: because its caller has gone."""
        self._task = task
        self._settled = False
        self._registry = registry
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        registry.add(self)

    def interrupt(self, reason: DatabaseError) -> None:
        """Cancel the work, which then fails with `reason`; nothing happens once it is settled."""
        if self.reason is None and not self._settled:
            self.reason = reason
            self._task.cancel()

    def settle(self) -> None:
        """The work has an outcome, which nothing changes any more."""
        self._settled = True

    def end(self) -> None:
        """Nothing of the work is left."""
        self._registry.discard(self)
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait_ended(self) -> None:
        """Return when nothing is left of the work."""
        await asyncio.shield(self._ended)
