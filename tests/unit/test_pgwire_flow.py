"""A coroutine begun beside a parked flow: ended at once, failed, or awaited by the flow from where it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from shardforge.server.pgwire.flow import PARK, Begun, Flow


class Scene:
    """A flow that parks, and then awaits whatever `begun` is by then."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.trace: list[str] = []
        self.begun: Begun | None = None
        self.error: BaseException | None = None
        self.flow = Flow(self._serve(), self.loop, self._ended)
        self.flow.start()

    async def _serve(self) -> None:
        await PARK
        assert self.begun is not None
        await self.begun
        self.trace.append("flow goes on")

    def _ended(self, error: BaseException | None) -> None:
        self.error = error

    def begin(self, work: Callable[[Scene], Coroutine[Any, Any, None]]) -> Begun:
        self.begun = Begun(work(self))
        return self.begun

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.loop.close()


def test_what_needs_no_waiting_is_done_when_it_was_begun(scene: Scene) -> None:
    async def work(scene: Scene) -> None:
        scene.trace.append("work")

    assert scene.begin(work).ended
    assert scene.trace == ["work"]
    assert scene.flow.parked


def test_an_error_is_raised_in_the_flow(scene: Scene) -> None:
    async def work(scene: Scene) -> None:
        raise ValueError("wrong")

    assert not scene.begin(work).ended
    scene.flow.resume()
    assert isinstance(scene.error, ValueError)


def test_the_flow_waits_for_what_it_waits_for(scene: Scene) -> None:
    future: asyncio.Future[str] = scene.loop.create_future()

    async def work(scene: Scene) -> None:
        scene.trace.append(await future)

    assert not scene.begin(work).ended
    scene.flow.resume()
    scene.turn()
    assert scene.trace == []
    future.set_result("answer")
    scene.turn()
    assert scene.trace == ["answer", "flow goes on"]


def test_a_park_before_the_flow_was_resumed_is_over_with_it(scene: Scene) -> None:
    async def work(scene: Scene) -> None:
        await PARK
        scene.trace.append("resumed once")
        await PARK
        scene.trace.append("resumed twice")

    assert not scene.begin(work).ended
    scene.flow.resume()
    assert scene.trace == ["resumed once"]
    assert scene.flow.parked
    scene.flow.resume()
    assert scene.trace == ["resumed once", "resumed twice", "flow goes on"]


def test_a_turn_of_the_loop_is_given_to_others(scene: Scene) -> None:
    async def work(scene: Scene) -> None:
        await asyncio.sleep(0)
        scene.trace.append("after the others")

    assert not scene.begin(work).ended
    scene.flow.resume()
    assert scene.trace == []
    scene.turn()
    assert scene.trace == ["after the others", "flow goes on"]


def test_what_only_gives_turns_to_others_is_cancelled_at_its_next_one(scene: Scene) -> None:
    async def work(scene: Scene) -> None:
        try:
            while True:
                scene.trace.append("works")
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            scene.trace.append("cancelled")
            raise

    assert not scene.begin(work).ended
    scene.flow.resume()
    scene.turn()
    scene.flow.cancel()
    scene.flow.cancel()
    scene.turn()
    assert scene.trace == ["works", "works", "cancelled"]
    assert isinstance(scene.error, asyncio.CancelledError)


def test_a_cancellation_from_within_comes_at_the_next_wait_unless_it_is_forgotten(
    scene: Scene,
) -> None:
    async def work(scene: Scene) -> None:
        await PARK
        scene.flow.cancel()
        scene.flow.forget_cancel()
        await PARK
        scene.trace.append("went on")
        scene.flow.cancel()
        await asyncio.sleep(0)
        scene.trace.append("never")

    assert not scene.begin(work).ended
    scene.flow.resume()
    scene.flow.resume()
    scene.turn()
    assert scene.trace == ["went on"]
    assert isinstance(scene.error, asyncio.CancelledError)


@pytest.mark.parametrize("parked", [True, False])
def test_cancelling_the_flow_reaches_it(scene: Scene, *, parked: bool) -> None:
    future: asyncio.Future[str] = scene.loop.create_future()

    async def work(scene: Scene) -> None:
        try:
            if parked:
                await PARK
                await PARK
            else:
                await future
        except asyncio.CancelledError:
            scene.trace.append("cancelled")
            raise

    assert not scene.begin(work).ended
    scene.flow.resume()
    scene.flow.cancel()
    scene.turn()
    assert scene.trace == ["cancelled"]
    assert isinstance(scene.error, asyncio.CancelledError)
