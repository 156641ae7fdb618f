"""An event loop in virtual time: nothing waits, and the same program runs the same way every time.

Time stands still while anything can run, and jumps to the next timer when nothing can. Tasks hash by the order of their
creation, so that sets of them are walked alike under every PYTHONHASHSEED.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from itertools import count
from typing import Any


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self._number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._number


class _NoSelector:
    """Stands where the real loop waits for sockets: it moves time instead."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Nothing becomes ready but timers."""
        if timeout is None:
            raise DeadlockError("nothing is left to run, and nothing is waited for")
        if timeout > 0:
            self._loop.advance()
        return []


class DeadlockError(Exception):
    """The simulated program waits for something that can never come."""


class SimLoop(asyncio.BaseEventLoop):
    """Virtual time, in seconds from 0."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _NoSelector(self)
        self._numbers = count(1)
        self.failures: list[dict[str, Any]] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> SimTask:
        return SimTask(work, next(self._numbers), loop=loop, **options)

    def time(self) -> float:
        """The virtual time."""
        return self._now

    def advance(self) -> None:
        """Jump to the next timer."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        if scheduled:
            self._now = max(self._now, scheduled[0].when())

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else wakes this loop."""
