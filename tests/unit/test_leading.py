"""Tenures follow leadership, and each one that began is ended, whatever is cancelled when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from shardforge.node.leading import Leading
from shardforge.shard.host import Host


class Leadership:
    """A host of which the test says whether it leads."""

    def __init__(self) -> None:
        self.leads_voting = False
        self.meta_leads = False
        self.serving_term = 0
        self._listener: Callable[[Any], None] = lambda _replica: None

    def listen(self, listener: Callable[[Any], None]) -> None:
        self._listener = listener

    def listen_to_tenures(self, listener: Callable[[Any], None]) -> None:
        """None younger begins elsewhere."""

    @property
    def meta(self) -> Leadership:
        return self

    def find_meta(self) -> None:
        return None

    def become(self, *, leader: bool) -> None:
        self.leads_voting = self.meta_leads = leader
        self.serving_term = int(leader)
        self._listener(None)


class Work:
    """A tenure that ends when the test lets it."""

    standby = False

    def __init__(self, host: Leadership) -> None:
        self._host = host
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.ends = asyncio.Event()
        self.over = asyncio.Event()
        self.ended = 0

    @property
    def stands(self) -> bool:
        return self._host.meta_leads

    async def end(self) -> None:
        self.ends.set()
        await self.may_end.wait()
        self.ended += 1
        self.over.set()


class Tenures:
    """A `Leading` over a leadership, and the tenures that it made."""

    def __init__(self) -> None:
        self.made: list[Work] = []
        self.began = asyncio.Event()
        self.began_once = asyncio.Event()
        self.host = Leadership()
        self.on_made: Callable[[], None] = lambda: None
        self.leading: Leading[Work] = Leading(
            cast("Host", self.host),
            self._begin,
            lambda _work: self.began.set(),
            self._ending,
            self._stand_by,
        )
        self.leading.start()

    async def _begin(self) -> Work:
        self.made.append(Work(self.host))
        self.began_once.set()
        self.on_made()
        return self.made[-1]

    async def _ending(self, work: Work) -> None:
        """Sessions end."""

    @staticmethod
    def _stand_by() -> Awaitable[Work] | None:
        return None


def test_a_tenure_ends_though_the_node_stops_in_the_midst_of_its_end() -> None:
    async def go() -> None:
        tenures = Tenures()
        tenures.host.become(leader=True)
        await tenures.began.wait()
        (work,) = tenures.made
        work.may_end.clear()
        tenures.host.become(leader=False)
        await work.ends.wait()
        stopping = asyncio.ensure_future(tenures.leading.stop())
        await asyncio.sleep(0)
        work.may_end.set()
        await stopping
        assert work.ended == 1

    asyncio.run(go())


@pytest.mark.parametrize("change", ["deposed", "stopped"])
def test_a_tenure_that_had_begun_when_it_was_not_to_be_ends(change: str) -> None:
    """Leadership is lost, or the node stops, in the turn in which beginning ends."""

    async def go() -> None:
        tenures = Tenures()
        stopping: list[asyncio.Future[None]] = []

        def disturb() -> None:
            if change == "deposed":
                tenures.host.become(leader=False)
            else:
                stopping.append(asyncio.ensure_future(tenures.leading.stop()))

        tenures.on_made = disturb
        tenures.host.become(leader=True)
        async with asyncio.timeout(10):
            await tenures.began_once.wait()
            await tenures.made[0].over.wait()
            await asyncio.gather(*stopping)
            await tenures.leading.stop()
        assert [work.ended for work in tenures.made] == [1]

    asyncio.run(go())
