"""A client of a simulated cluster: it asks whichever node serves, waits for so long, and says what it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Generic, TypeVar

from shardforge.errors import DatabaseError
from shardforge.sim.cluster import SimNode
from shardforge.sim.world import World
from shardforge.sql.session.session import Session

T = TypeVar("T")

TIMEOUT_SECONDS = 3.0
LOOK_SECONDS = 0.05
CONNECT_SECONDS_MAX = 0.4
"""How long a client waits for a node that stands still, before it tries another."""

REFUSED = {"40001", "40P01", "25006", "57P01", "57P03", "55P03", "57014", "72000"}
"""What a client may be told of a statement or transaction that had no effect, and that it may try again."""
UNKNOWN = {"40003", "08006", "08007"}


class Answer(Generic[T]):
    """What became of an attempt: "ok" with a value, "refused" (it had no effect) or "unknown"."""

    def __init__(self, outcome: str, value: T | None = None) -> None:
        self.outcome = outcome
        self.value = value

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.outcome == "ok"


class Client:
    """One of several; it has one request under way at a time."""

    _ranks = count(1)

    def __init__(self, world: World, nodes: Sequence[SimNode], number: int) -> None:
        self.number = number
        self.random = world.random
        self.answers: dict[str, int] = {}
        """How often it was told what, and "followed": by a follower."""
        self.unexpected: list[str] = []
        """Errors that no client should ever be told."""
        self._world = world
        self._nodes = nodes

    def rank(self) -> int:
        """The next place in the order of events."""
        return next(self._ranks)

    async def attempt(
        self,
        work: Callable[[Session], Awaitable[T]],
        *,
        standby: bool = False,
        seconds: float = TIMEOUT_SECONDS,
    ) -> Answer[T]:
        """Run `work` in a session of its own on a node that serves; `standby`: on one that reads the past only."""
        answer = await self._attempt(work, standby, seconds)
        self.answers[answer.outcome] = self.answers.get(answer.outcome, 0) + 1
        return answer

    async def _attempt(
        self, work: Callable[[Session], Awaitable[T]], standby: bool, seconds: float
    ) -> Answer[T]:
        node = await self._find(standby, seconds)
        if node is None:
            return Answer("refused")
        return await self._outcome(node.begin(_in_session(node.session(), work)), seconds)

    async def follow(
        self,
        work: Callable[[Session], Awaitable[T]],
        level: str,
        *,
        seconds: float = TIMEOUT_SECONDS,
    ) -> Answer[T]:
        """Run `work` in a session on some node that answers it as a follower; "refused" where the node passes it on."""
        node = self.random.choice(self._nodes)
        await asyncio.sleep(self._world.delay())
        if self._world.paused(node.id):
            return Answer("refused")

        async def read() -> T | None:
            session = await node.follower_session(level)
            return None if session is None else await _in_session(session, work)

        answer = await self._outcome(node.begin_reading(read()), seconds)
        if answer.ok and answer.value is None:
            return Answer("refused")
        if answer.ok:
            self.answers["followed"] = self.answers.get("followed", 0) + 1
        return Answer(answer.outcome, answer.value)

    async def _outcome(self, task: asyncio.Task[T], seconds: float) -> Answer[T]:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            return Answer("unknown")
        error = task.exception()
        if error is None:
            return Answer("ok", task.result())
        if isinstance(error, DatabaseError) and error.sqlstate in REFUSED:
            return Answer("refused")
        if not (isinstance(error, DatabaseError) and error.sqlstate in UNKNOWN):
            self.unexpected.append(f"client {self.number} was told {error!r}")
        return Answer("unknown")

    async def _find(self, standby: bool, seconds: float) -> SimNode | None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            node = self.random.choice(self._nodes)
            instance = node.instance
            if instance is not None and bool(instance.standby) == standby:
                await asyncio.sleep(self._world.delay())
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.random.uniform(0, CONNECT_SECONDS_MAX)):
                        await self._world.while_paused(node.id)
                instance = None if self._world.paused(node.id) else node.instance
                if instance is not None and bool(instance.standby) == standby:
                    return node
            await asyncio.sleep(self.random.uniform(0, LOOK_SECONDS))
        return None


async def _in_session(session: Session, work: Callable[[Session], Awaitable[T]]) -> T:
    try:
        return await work(session)
    finally:
        await session.close()


async def rows_of(session: Session, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    rows, _ = await session.execute(sql, params)
    return [tuple(row) for row in rows]
