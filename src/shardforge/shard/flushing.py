"""When a replica's engine is made durable, and how much of its log is kept behind that.

Answers wait for the log's syncs only. A flush of the engine lets the next start replay less, and the log be cut.
Invariant: the log is cut only behind what the engine has durable, and by the pump, because it has one user at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from shardforge.errors import DatabaseError
from shardforge.shard.log import ShardLog
from shardforge.shard.machine import StateMachine
from shardforge.shard.surroundings import Surroundings

FLUSH_BYTES = 64 * 1024 * 1024
"""The engine is flushed after so many logged bytes, however few the entries."""
CLEARED_BYTES = FLUSH_BYTES // 64
"""After so many when spans were emptied since the last flush: until the next one, looks for keys cost more."""
LOG_BYTES_MAX = 4 * FLUSH_BYTES


class Flushing:
    """The flushes of one replica: one at a time, on a thread."""

    def __init__(
        self, machine: StateMachine, log: ShardLog, surroundings: Surroundings,
        spare_log: Callable[[], bool], cut: Callable[[], None], failed: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        """`spare_log`: whether some log is kept for others; `cut` is called when `take_cut` has something to say."""
        self._machine = machine
        self._log = log
        self._options = surroundings.options
        self._blocking = surroundings.blocking
        self._spare_log = spare_log
        self._keeps_logs = surroundings.keeps_logs
        self._cut = cut
        self._failed = failed
        self._flushed = machine.applied
        self._cleared = machine.cleared
        self._bytes = 0
        self._cut_to = 0
        self._task: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None

    def logged(self, size: int) -> None:
        """So many bytes were written to the log."""
        self._bytes += size

    def installed(self) -> None:
        """The engine was replaced by another, durable as it is."""
        self._flushed = self._machine.applied

    def begin_if_due(self) -> None:
        """Flush behind the replica's work, if enough was done since the last time."""
        machine = self._machine
        due = (
            machine.applied - self._flushed >= self._options.flush_entries
            or self._bytes >= FLUSH_BYTES
            or (machine.cleared != self._cleared and self._bytes >= CLEARED_BYTES)
        )
        if due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self.flush(), name=f"flush-{machine.id}")

    async def flush(self) -> None:
        """Make the engine durable up to what is applied now, and have the log cut behind that if it is long."""
        applied = self._machine.applied
        self._bytes = 0
        self._cleared = self._machine.cleared
        options, log = self._options, self._log
        try:
            await self._blocking.run(self._machine.engine.flush)
            self._flushed = applied
            kept = applied - log.base_index
            long = kept > options.log_entries_max or log.size > LOG_BYTES_MAX
            if long and not self._keeps_logs():
                # Members that lag a little are sent entries, not the whole state.
                spare = min(options.flush_entries, kept // 2) if self._spare_log() else 0
                self._cut_to = applied - spare
                self._cut()
        except (OSError, DatabaseError) as error:
            self._failed(error)

    def tidy(self, spans: Sequence[tuple[bytes, bytes]]) -> None:
        """Give back, behind the replica's work, the space of what was removed from spans of the engine."""
        engine, before = self._machine.engine, self._tidying

        async def compact() -> None:
            if before is not None:
                await asyncio.gather(before, return_exceptions=True)
            try:
                for start, end in spans:
                    await self._blocking.run(partial(engine.compact, start, end))
            except (OSError, DatabaseError) as error:
                self._failed(error)

        self._tidying = asyncio.create_task(compact(), name=f"tidy-{self._machine.id}")

    @property
    def tidying(self) -> bool:
        """Whether the engine holds more than it will soon."""
        return self._tidying is not None and not self._tidying.done()

    def take_cut(self) -> int:
        """Up to where the log is to be cut now; 0: not at all."""
        cut_to, self._cut_to = self._cut_to, 0
        return cut_to

    async def settled(self) -> None:
        """Return when nothing of it is under way."""
        for task in (self._task, self._tidying):
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)

    def kill(self) -> None:
        """Stop at once."""
        for task in (self._task, self._tidying):
            if task is not None:
                task.cancel()
