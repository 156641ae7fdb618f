"""Runs one coroutine in place, without a trip through the event loop where nothing has to be waited for.

An asyncio Task runs each step from the loop's queue, so a statement that needs no waiting would still cost a queue
hop per message. A `Flow` steps its coroutine at once: when started, when `resume`d by arriving data, and when a
future that it awaits is done. Code inside awaits futures as usual; it must not ask for the current task
(`asyncio.timeout`, `TaskGroup`), since there is none.

Beside a parked flow, `Begun` runs a coroutine up to its first wait, which most never reach; the flow awaits the rest
of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class _Park:
    """What a flow yields to wait for `resume` rather than for a future."""

    def __await__(self) -> Generator[_Park, None, None]:
        yield self


PARK = _Park()
"""`await PARK` returns when somebody calls `Flow.resume`."""


class Begun(Generator[Any, None, None]):
    """A coroutine run at once up to its first wait. One that has not `ended` must be awaited by a flow."""

    __slots__ = ("_coroutine", "_error", "_waits_for", "ended")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._waits_for: Any = PARK
        self._error: BaseException | None = None
        self.ended = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration:
            self.ended = True
        except BaseException as error:  # noqa: BLE001  # raised where it is awaited
            self._error = error

    def __await__(self) -> Generator[Any, None, None]:
        return self

    def send(self, _: None) -> Any:
        """What it waits for first, and then goes on. The flow that awaits it has just been resumed: no PARK."""
        if self._error is not None:
            raise self._error
        waits_for, self._waits_for = self._waits_for, PARK
        return self._coroutine.send(None) if waits_for is PARK else waits_for

    def throw(self, *error: Any) -> Any:
        """An exception where it waits."""
        return self._coroutine.throw(*error)


class Flow:
    """One coroutine being stepped. `done` is called once, with the exception that ended it or None."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        done: Callable[[BaseException | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._done = done
        self._waiting: asyncio.Future[Any] | None = None
        self._due: asyncio.Handle | None = None
        """Its next step, in the loop's next turn."""
        self._parked = False
        self._running = False
        self._finished = False
        self._cancel_requested = False

    @property
    def parked(self) -> bool:
        """Whether it waits for `resume`."""
        return self._parked

    def start(self) -> None:
        """Run up to the first wait."""
        self._step(None)

    def resume(self) -> None:
        """Go on, if it is parked."""
        if self._parked:
            self._parked = False
            self._step(None)

    def cancel(self) -> None:
        """Raise CancelledError where it waits; where it runs, at its next wait."""
        if self._finished:
            return
        if self._waiting is not None:
            self._waiting.cancel()
        elif self._due is not None:
            self._due.cancel()
            self._due = self._loop.call_soon(self._go_on, asyncio.CancelledError())
        elif self._parked:
            self._parked = False
            self._step(asyncio.CancelledError())
        else:
            self._cancel_requested = True

    def forget_cancel(self) -> None:
        """A cancellation that has not been raised yet is not to be."""
        self._cancel_requested = False

    def _go_on(self, exception: BaseException | None) -> None:
        self._due = None
        self._step(exception)

    def _woken(self, future: asyncio.Future[Any]) -> None:
        self._waiting = None
        self._step(None)

    def _step(self, exception: BaseException | None) -> None:
        assert not self._running, "a flow is stepped by one caller at a time"
        self._running = True
        try:
            yielded = (
                self._coroutine.throw(exception)
                if exception is not None
                else self._coroutine.send(None)
            )
        except StopIteration:
            self._finish(None)
            return
        except BaseException as error:  # noqa: BLE001  # handed to `done`, which decides
            self._finish(error)
            return
        finally:
            self._running = False
        if yielded is PARK:
            self._parked = True
        elif yielded is None:
            self._due = self._loop.call_soon(self._go_on, None)
        else:
            yielded._asyncio_future_blocking = False
            self._waiting = yielded
            yielded.add_done_callback(self._woken)
        if self._cancel_requested:
            self._cancel_requested = False
            self.cancel()

    def _finish(self, error: BaseException | None) -> None:
        self._finished = True
        self._done(error)
