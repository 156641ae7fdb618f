"""Commands of a tenure for one shard that is led elsewhere: numbered, sent in order, each applied once.

What one turn of the loop brings is sent together; several messages may be on their way. When an answer is missing, or
another node leads by now, nothing more is sent until the leader has said how far the shard has come: what it has is
done, the rest is sent again. So `done` of each command is called once, with what became of it, however often leaders
change; with UNKNOWN only when the tenure has ended.
Invariant: numbers of commands that may be applied and are not known to be are fewer than `command.REFUSED_KEPT`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from shardforge.errors import DatabaseError
from shardforge.shard.command import Numbered, Outcome
from shardforge.shard.proposals import ENTRY_BYTES_MAX, Done
from shardforge.shard.remote.calls import Reached
from shardforge.shard.weights import weight

UNDER_WAY_MAX = 10_000
"""Commands sent and not answered; more wait here."""
MESSAGES_MAX = 8
DEFER_SECONDS = 0.01

log = logging.getLogger("shardforge.shard")


class _Numbered(NamedTuple):
    number: int
    command: Numbered
    done: Done


class Stream:
    """One shard's commands, sent once it has begun. `submit` sends some, the first of which has the number given.

    `submit` and `where` return what the leader says, or None when it is not known who leads; they may take a while.
    """

    def __init__(
        self,
        submit: Callable[[int, Sequence[Numbered]], Awaitable[Reached | None]],
        where: Callable[[], Awaitable[Reached | None]],
        reached: Callable[[int], None],
        applied: Callable[[Numbered], None],
    ) -> None:
        """`reached` is told of the newest entry known; `applied` of each command that is, before it is done."""
        self._submit = submit
        self._where = where
        self._reached = reached
        self._applied = applied
        self._next = 1
        self._begun = self._held = False
        self._waiting: deque[_Numbered] = deque()
        """Not sent yet."""
        self._sent: deque[_Numbered] = deque()
        """Sent, and not known to be applied."""
        self._deferred: list[tuple[Numbered, Done]] = []
        self._messages: set[asyncio.Task[None]] = set()
        self._finding: asyncio.Task[None] | None = None
        self._due = False
        self._closed = False
        self._idle_waiters: list[asyncio.Future[None]] = []

    # ---- when it may send ------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """Send from now on. The tenure has begun in the shard, and its commands have come to `number` there.

        That is not 0 where a shard that was led here in between is led elsewhere again, in the same tenure.
        """
        first = self._next = number + 1
        self._waiting = deque(
            one._replace(number=n) for n, one in enumerate(self._waiting, start=first)
        )
        self._next += len(self._waiting)
        self._begun = True
        self._send_soon()

    def hold(self) -> bool:
        """Send nothing more, if nothing is under way: whoever counts on from here must know how far it came."""
        if not self._is_idle:
            return False
        self._held = True
        return True

    def release(self) -> None:
        """Send what waits, and go on."""
        self._held = False
        self._send_soon()

    @property
    def _is_idle(self) -> bool:
        return not (self._waiting or self._sent or self._deferred)

    # ---- what is proposed ------------------------------------------------------------------------

    def propose(self, command: Numbered, done: Done) -> None:
        """Order a command after all before it; `done` is told what became of it."""
        if self._closed:
            done(Outcome.UNKNOWN)
            return
        self._undefer()
        self._add(command, done)
        self._send_soon()

    def defer(self, command: Numbered, done: Done) -> None:
        """Order a command with the next one, or in a moment."""
        if self._closed:
            done(Outcome.UNKNOWN)
            return
        if not self._deferred:
            asyncio.get_running_loop().call_later(DEFER_SECONDS, self._defer_is_over)
        self._deferred.append((command, done))

    def _defer_is_over(self) -> None:
        if self._deferred and not self._closed:
            self._undefer()
            self._send_soon()

    def _undefer(self) -> None:
        deferred, self._deferred = self._deferred, []
        for command, done in deferred:
            self._add(command, done)

    def _add(self, command: Numbered, done: Done) -> None:
        self._waiting.append(_Numbered(self._next, command, done))
        self._next += 1

    async def idle(self) -> None:
        """Return when nothing is under way, or the stream is closed."""
        while not (self._is_idle or self._closed):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """The tenure has ended: nobody here learns what becomes of what is under way."""
        if self._closed:
            return
        self._closed = True
        self._undefer_for_good()
        for task in (*self._messages, *([self._finding] if self._finding else [])):
            task.cancel()
        lost = [*self._sent, *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        for one in lost:
            one.done(Outcome.UNKNOWN)
        self._tell_idle()

    def _undefer_for_good(self) -> None:
        deferred, self._deferred = self._deferred, []
        for _, done in deferred:
            done(Outcome.UNKNOWN)

    # ---- what is sent ----------------------------------------------------------------------------

    def _send_soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._due = False
        while (
            self._waiting
            and self._finding is None
            and self._begun
            and not (self._held or self._closed)
            and len(self._messages) < MESSAGES_MAX
            and len(self._sent) < UNDER_WAY_MAX
        ):
            some = self._take()
            self._sent.extend(some)
            task = asyncio.create_task(self._carry(some), name="submit")
            self._messages.add(task)
            task.add_done_callback(self._messages.discard)

    def _take(self) -> list[_Numbered]:
        size = 0
        some: list[_Numbered] = []
        while self._waiting:
            size += weight(self._waiting[0].command)
            if some and size > ENTRY_BYTES_MAX:
                break
            some.append(self._waiting.popleft())
        return some

    async def _carry(self, some: Sequence[_Numbered]) -> None:
        try:
            answer = await self._submit(some[0].number, [one.command for one in some])
        except DatabaseError as error:
            log.debug("commands from %d on: %s", some[0].number, error)
            answer = None
        if self._closed:
            return
        if answer is not None:
            self._settle(answer)
        if answer is None or answer.number < some[-1].number:
            self._find()
        self._send_soon()

    def _find(self) -> None:
        """Learn how far the shard has come, and go on from there."""
        if self._finding is None:
            self._finding = asyncio.create_task(self._go_on(), name="where")

    async def _go_on(self) -> None:
        messages = list(self._messages)
        if (
            messages
        ):  # their answers are late or will say the same: nothing is lost by waiting for the others
            await asyncio.wait(messages)
        answer = None
        while answer is None:
            try:
                answer = await self._where()
            except DatabaseError as error:
                log.debug("how far a shard has come: %s", error)
        self._settle(answer)
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._finding = None
        self._send_soon()

    def _settle(self, answer: Reached) -> None:
        """What the shard has is done."""
        self._reached(answer.index)
        refused = frozenset(answer.refused)
        sent = self._sent
        while sent and sent[0].number <= answer.number:
            one = sent.popleft()
            if one.number in refused:
                one.done(Outcome.REFUSED)
            else:
                self._applied(one.command)
                one.done(Outcome.APPLIED)
        if not sent and not self._waiting:
            self._tell_idle()

    def _tell_idle(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
