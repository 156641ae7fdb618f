"""Where no commit begins for a moment: around a span whose shard is about to be split.

A commit that would write within a fence waits before it has set a mark or told anybody, so nothing of it is under way;
its transaction keeps its locks. Fences stand for milliseconds, and go in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from shardforge.shard.descriptor import Span


class Fences:
    """The fences of one node."""

    def __init__(self) -> None:
        self.up: list[Span] = []
        self._waiters: list[asyncio.Future[None]] = []

    @contextmanager
    def around(self, span: Span) -> Iterator[None]:
        """Let no commit begin that writes in the span."""
        self.up.append(span)
        try:
            yield
        finally:
            self.up.remove(span)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def passed(self, keys: Collection[bytes]) -> None:
        """Return when no fence is around any of the keys."""
        while any(key in span for span in self.up for key in keys):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
