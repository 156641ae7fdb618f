"""When this node serves: a tenure begins once it leads the meta shard, and ends when it does not any more.

Whoever leads the meta shard first draws the others that it votes in to itself: what is led here costs least. Those that
do not come in time, and those that have no replica here, are led elsewhere (`shard.remote`). A tenure ends as well
with the first leadership that it was not to lose. Elections themselves are the groups' business; this follows them.

Invariant: every tenure that was begun is ended, once, whoever is cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica

PULL_SECONDS = 0.05
"""How long the meta shard's leader waits before it asks for the others' leadership again."""
DRAW_SECONDS = 1.0
"""How long it waits for them before it serves without."""
RETRY_SECONDS = 1.0
STANDBY_SECONDS = 2.0
"""How long nobody leads before a node declares that it reads only: longer than elections take."""

log = logging.getLogger("shardforge.node")


class Service(Protocol):
    """What runs while this node serves."""

    @property
    def standby(self) -> bool:
        """Whether nobody leads, and only the past is read."""
        ...

    @property
    def stands(self) -> bool:
        """Whether what it rests on is still so."""
        ...

    async def end(self) -> None:
        """Stop what works in the background."""
        ...


T = TypeVar("T", bound=Service)


class Leading(Generic[T]):
    """Follows the leaderships of a host, and begins and ends tenures of kind `T`."""

    def __init__(
        self,
        host: Host,
        begin: Callable[[], Awaitable[T]],
        began: Callable[[T], None],
        ending: Callable[[T], Awaitable[None]],
        stand_by: Callable[[], Awaitable[T] | None],
    ) -> None:
        """`began` opens the node to sessions, `ending` ends them; `stand_by` may have nothing to read."""
        self.tenure: T | None = None
        self._host = host
        self._begin = begin
        self._began = began
        self._ending = ending
        self._stand_by = stand_by
        self._leaderless_since: float | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        """The end of the last tenure."""
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._yielding = False
        self._drawing_since: float | None = None
        host.listen(self._on_change)
        host.listen_to_tenures(self._on_change)

    def _on_change(self, _what: Replica | int) -> None:
        self._changed.set()

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._run(), name="leading")

    async def first_tenure(self) -> None:
        """Return when this node has served for the first time. Raises DatabaseError when it cannot."""
        await asyncio.shield(self._started)

    async def stop(self) -> None:
        """End the tenure, for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._end()

    async def give_way(self, to: NodeId, seconds: float) -> None:
        """End the tenure and let another node lead; return when it does, or after so long."""
        self._yielding = True
        self._changed.set()
        await self._end()
        self._host.hand_over(to)
        try:
            async with asyncio.timeout(seconds):
                while self._host.meta_leads:
                    await self._host.heard()
        except TimeoutError:
            log.warning("node %d did not take over within %.1f s", to, seconds)

    def resume(self) -> None:
        """Serve again when the leadership comes back."""
        self._yielding = False
        self._changed.set()

    # ---- following -------------------------------------------------------------------------------

    def _may_serve(self) -> int:
        """The term in which this node leads the meta shard; 0: another one serves, or will."""
        host = self._host
        return 0 if self._yielding or not host.meta_leads else host.meta.serving_term

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            pause = None
            tenure = self.tenure
            if tenure is not None:
                if self._led() if tenure.standby else self._yielding or not tenure.stands:
                    await self._end()
                    self._changed.set()
            elif self._may_serve():
                pause = self._draw()
                if not pause:
                    pause = None if await self._try_begin(self._begin()) else RETRY_SECONDS
            elif not self._led():
                pause = await self._bridge()
            await self._change(pause)

    def _draw(self) -> float:
        """Draw the other shards' leaderships for a while; when to look again, 0: enough of it."""
        host, now = self._host, self._now()
        if self._drawing_since is None:
            self._drawing_since = now
        if host.leads_voting or now - self._drawing_since > DRAW_SECONDS:
            self._drawing_since = None
            return 0.0
        host.draw_leaderships()
        return PULL_SECONDS

    async def _bridge(self) -> float | None:
        """Nobody leads: after a while read the past. How long to wait before the next look."""
        now = self._now()
        if self._leaderless_since is None:
            self._leaderless_since = now
        missing = self._leaderless_since + STANDBY_SECONDS - now
        if missing > 0:
            return missing
        past = self._stand_by()
        if past is None:
            return RETRY_SECONDS
        return None if await self._try_begin(past) else RETRY_SECONDS

    def _led(self) -> bool:
        """Whether a leader is known; a moment without one is an election."""
        meta = self._host.find_meta()
        led = meta is None or meta.lead is not None
        if led:
            self._leaderless_since = None
        return led

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _change(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _try_begin(self, begin: Awaitable[T]) -> bool:
        """Begin a tenure, unless leadership changes meanwhile. False: it failed, and is worth another attempt."""
        beginning = asyncio.ensure_future(begin)
        begun: T | None = None
        term = self._may_serve()
        try:
            while not beginning.done():
                change = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({beginning, change}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                self._changed.clear()
                if self._may_serve() != term:
                    self._changed.set()  # seen here, and still to be acted on
                    return True
            self.tenure = begun = beginning.result()
        except DatabaseError as error:
            if not self._started.done():
                self._started.set_exception(error)
            log.error("could not begin to serve: %s", error)
            return False
        finally:
            if begun is None:
                await self._give_up(beginning)
        log.info(
            "nobody leads: this node reads the past only"
            if begun.standby
            else "this node leads the meta shard and serves"
        )
        self._began(begun)
        if not self._started.done():
            self._started.set_result(None)
        self._changed.set()  # look again: leadership may have changed in the last moment
        return True

    @staticmethod
    async def _give_up(beginning: asyncio.Future[T]) -> None:
        """A tenure is not to be: end it all the same where it had begun by now."""
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        if not beginning.cancelled() and beginning.exception() is None:
            await beginning.result().end()

    async def _end(self) -> None:
        """Return when the tenure has ended, which it does though the caller be cancelled."""
        tenure, self.tenure = self.tenure, None
        if tenure is not None:
            log.info("this node ceases to serve")
            self._closing = asyncio.create_task(self._close(tenure), name="end of tenure")
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, tenure: T) -> None:
        await self._ending(tenure)
        await tenure.end()
