"""A snapshot between its announcement and its installation: fetched into an engine beside the present one.

One fetch at a time; a newer announcement replaces it, unless what was fetched is about to be installed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId, ShardId
from shardforge.ports import Blocking
from shardforge.raft.messages import Message, Snapshot
from shardforge.shard.fetch import Fetch
from shardforge.shard.files import ShardFiles
from shardforge.storage.engine import Engine

log = logging.getLogger("shardforge.shard")


class Staging:
    """The snapshots that one replica is sent."""

    def __init__(self, shard: ShardId, files: ShardFiles, blocking: Blocking, fetch: Fetch) -> None:
        self._shard = shard
        self._files = files
        self._blocking = blocking
        self._fetch = fetch
        self._task: asyncio.Task[None] | None = None
        self._staged: tuple[int, Engine] | None = None

    def begin(
        self, message: Message, snapshot: Snapshot, fetched: Callable[[Message], bool]
    ) -> None:
        """Fetch the state that a message announces; `fetched`, called when it is here, says whether it is taken."""
        if self._staged is not None:
            return
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(
            self._run(message, snapshot, fetched, self._task), name=f"fetch-{self._shard}"
        )

    def take(self, index: int) -> Engine:
        """The state at an index, to be installed now."""
        assert self._staged is not None, "the core was told of a snapshot only when it was here"
        staged_index, staged = self._staged
        assert staged_index == index, "another snapshot was fetched meanwhile"
        self._staged = None
        return staged

    async def _run(
        self, message: Message, snapshot: Snapshot, fetched: Callable[[Message], bool],
        before: asyncio.Task[None] | None,
    ) -> None:  # fmt: skip
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        staged: Engine | None = None
        try:
            staged = await self._blocking.run(self._files.stage)
            sender = NodeId(message.sender)
            await self._fetch.pull(sender, self._shard, int(snapshot.data), staged)
            self._staged = (snapshot.index, staged)
            if fetched(message):
                staged = None
            else:
                self._staged = None
        except DatabaseError as error:
            log.warning(
                "shard %d: a snapshot from node %d failed: %s", self._shard, message.sender, error
            )
        finally:
            if staged is not None:
                staged.close()

    def kill(self) -> None:
        """Stop at once."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Stop, and release what was fetched."""
        self.kill()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        if self._staged is not None:
            self._staged[1].close()
            self._staged = None
