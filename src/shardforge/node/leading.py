"""When this node serves: a tenure begins once it leads every shard, and ends with the first one that it does not.

Whoever leads the meta shard draws the others to itself, so that one node leads all of them after an election. Elections
themselves are the groups' business; this only follows them.

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
        self._offered = 0
        self._offered_at = -RETRY_SECONDS
        host.listen(self._on_change)

    def _on_change(self, _replica: Replica) -> None:
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
                while any(replica.serving_term for replica in self._host.replicas):
                    await self._host.heard()
        except TimeoutError:
            log.warning("node %d did not take over within %.1f s", to, seconds)

    def resume(self) -> None:
        """Serve again when the leadership comes back."""
        self._yielding = False
        self._changed.set()

    # ---- following -------------------------------------------------------------------------------

    def _leads(self) -> bool:
        host = self._host
        if self._yielding:
            return False
        if self.tenure is not None and host.alone:
            return host.leads_living
        return host.leads_all

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            pause = None
            tenure = self.tenure
            if tenure is not None:
                if self._led() if tenure.standby else not self._leads():
                    await self._end()
                    self._changed.set()
            elif self._leads():
                pause = None if await self._try_begin(self._begin()) else RETRY_SECONDS
            elif self._host.meta_leads and not self._yielding:
                pause = self._draw()
            elif not self._led():
                pause = await self._bridge()
            await self._change(pause)

    def _draw(self) -> float:
        """Draw all leaderships, or leave them to others: without a shard that came out of a split nobody can serve."""
        host = self._host
        if host.whole:
            host.draw_leaderships()
            return PULL_SECONDS
        missing = self._offered_at + RETRY_SECONDS - self._now()
        if missing > 0:
            return missing
        self._offered_at = self._now()
        others = [NodeId(node) for node in host.meta.members.voters if node != host.node]
        if others:
            self._offered += 1
            host.hand_over(others[self._offered % len(others)])
        return RETRY_SECONDS

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
        leads = self._leads()
        try:
            while not beginning.done():
                change = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({beginning, change}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
                self._changed.clear()
                if self._leads() is not leads:
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
            else "this node leads all shards and serves"
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
