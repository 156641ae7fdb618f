"""The sessions of a simulated node: what the PostgreSQL server is to a real one, without sockets.

A session that ends is cancelled, whatever it was doing: its client is told nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from shardforge.errors import TransactionError
from shardforge.sql.session.instance import Instance

T = TypeVar("T")


class SimSessions:
    """One node's, over all its lives."""

    def __init__(self) -> None:
        self.instance: Instance | None = None
        """What those of the tenure belong to, while there is one."""
        self._clients: set[asyncio.Task[Any]] = set()
        self._readers: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that ends with the tenure."""
        return _among(self._clients, work)

    def begin_reading(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that need not end with it: a follower's."""
        return _among(self._readers, work)

    def serve(self, instance: Instance) -> None:
        """Let sessions of a tenure begin."""
        self.instance = instance

    async def end_tenure(self, _reason: TransactionError) -> None:
        """End the sessions of the tenure."""
        self.instance = None
        await _cancelled(self._clients)

    async def end_sessions(self, _instance: Instance, _reason: TransactionError) -> None:
        """End the readers of the past."""
        await _cancelled(self._readers)

    async def end(self) -> None:
        """End all: the node is gone."""
        self.instance = None
        await _cancelled(self._clients)
        await _cancelled(self._readers)


def _among(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that is in the set for as long as it runs."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait for their ends."""
    ended = sorted(tasks, key=hash)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
