"""Threads behind the Blocking port; those of the event loop for fdatasync, where it has some (`datasync`).

A small pool of daemon threads fed by one queue. It is leaner than `concurrent.futures` (no second future
and no lock per call), which matters because each group commit passes through it once.

Invariant: a call that was accepted runs to its end, also when whoever awaited it is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from shardforge.adapters.datasync import LoopDatasync

T = TypeVar("T")

# Loop, future and call; None ends a thread.
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class ThreadBlocking:
    """`ports.Blocking` on `size` threads, started as they are first needed."""

    def __init__(self, size: int = 8, *, name: str = "blocking") -> None:
        self._size = size
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._outstanding = 0
        self._closed = False
        self._loop_datasync: LoopDatasync | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop that `_loop_datasync` is of."""

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()`, made on a thread."""
        assert not self._closed, "the pool is closed"
        if self._outstanding >= len(self._threads) < self._size:
            self._start_thread()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._outstanding += 1
        self._jobs.put((loop, future, call))
        return await future

    async def datasync(self, descriptor: int) -> None:
        """Return when what was written to a file is on disk; raises OSError."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._loop_datasync = loop, LoopDatasync.of(loop)
        if self._loop_datasync is None:
            await self.run(partial(os.fdatasync, descriptor))
        else:
            await self._loop_datasync.begin(descriptor)

    def close(self) -> None:
        """Let accepted calls finish and end the threads."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start_thread(self) -> None:
        number = len(self._threads) + 1
        thread = threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, call = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as caught:  # noqa: BLE001 - handed to whoever awaits it
                error = caught
            if loop.is_closed():
                continue
            loop.call_soon_threadsafe(self._finish, future, result, error)
            # The thread must not keep the last call's objects alive while it waits for the next.
            del job, future, call, result, error

    def _finish(
        self, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        self._outstanding -= 1
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
