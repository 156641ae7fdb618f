"""Everything this node says to one other: one connection, dialled when there is something to say.

Frames wait in a queue of bounded size, out of which the oldest fall; what waits goes out in one write a turn of the
event loop. When the other node cannot be reached, what waits is dropped: frames are lost, calls fail. Then it is
dialled again after a pause that doubles up to a second, and at once when the other node dials us.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

from shardforge.errors import DatabaseError, NetworkError
from shardforge.ids import NodeId
from shardforge.server.peer import codec
from shardforge.server.peer.codec import FrameReader
from shardforge.server.peer.opening import Doorstep

QUEUE_BYTES_MAX = 32 * 1024 * 1024
PAUSE_SECONDS_MIN = 0.02
PAUSE_SECONDS_MAX = 1.0
WRITE_BYTES_HIGH = 1024 * 1024
"""The transport may hold so much before we keep the rest in our own queue, where it can be dropped."""

log = logging.getLogger("shardforge.peer")


def settle(future: asyncio.Future[None]) -> None:
    """Wake who waits for it, once."""
    if not future.done():
        future.set_result(None)


class _Link(asyncio.Protocol):
    """One connection of a peer; the answers to our calls arrive on it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._reader = FrameReader()
        self.transport: asyncio.Transport
        self.writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.feed(data):
                if kind == codec.ANSWER:
                    self._peer.answered(*codec.read_answer(payload))
                elif kind == codec.ERROR:
                    call_id, body = codec.read_answer(payload)
                    self._peer.refused(call_id, codec.decode_error(body))
                else:
                    raise codec.malformed(f"a frame of kind {kind} in answer to calls")
        except NetworkError as error:
            log.warning("node %d: %s", self._peer.node, error.message)
            self.transport.abort()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._peer.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.lost(self, exc)


class Peer:
    """Another node, as far as we speak to it."""

    def __init__(
        self,
        node: NodeId,
        address: str,
        dial: Callable[[NodeId, str], Awaitable[Doorstep]],
        rng: random.Random,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self.node = node
        self.address = address
        self.frames_sent = 0
        self.frames_dropped = 0
        self.links = 0
        """Connections made so far: all but the first were made again."""
        self.failure: DatabaseError | None = None
        """Why the last attempt to reach it failed; None while it is not known to be out of reach."""
        self._dial = dial
        self._random = rng
        self._queue_bytes_max = queue_bytes_max
        self._frames: deque[tuple[bytes, bytes]] = deque()
        """What waits, each as a header and a payload."""
        self._frame_bytes = 0
        self._calls: deque[tuple[int, bytes, bytes]] = deque()
        self._call_bytes = 0
        self._call_ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._link: _Link | None = None
        self._flush_comes = False
        self._dialling: asyncio.Task[None] | None = None
        self._pause = PAUSE_SECONDS_MIN
        self._nap: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection to it."""
        return self._link is not None

    # ---- what callers do -------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send a frame; when too much waits, the oldest is lost."""
        head = codec.header(codec.FRAME, frame)
        self._frames.append((head, frame))
        self._frame_bytes += len(frame)
        while self._frame_bytes > self._queue_bytes_max and len(self._frames) > 1:
            _, oldest = self._frames.popleft()
            self._frame_bytes -= len(oldest)
            self.frames_dropped += 1
        self._wake()

    async def call(self, method: str, body: bytes, timeout: float) -> bytes:
        """The node's answer. Raises DatabaseError."""
        if self._call_bytes + len(body) > self._queue_bytes_max and self._calls:
            raise NetworkError(f"too much waits to be sent to node {self.node}", "08006")
        call_id = next(self._call_ids)
        payload = codec.call_payload(call_id, method, body)
        self._calls.append((call_id, codec.header(codec.CALL, payload), payload))
        self._call_bytes += len(payload)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[call_id] = answer
        timer = asyncio.get_running_loop().call_later(
            timeout, self._too_late, call_id, method, timeout
        )
        self._wake()
        try:
            return await answer
        finally:
            timer.cancel()
            self._answers.pop(call_id, None)

    def set_address(self, address: str) -> None:
        """It is reached elsewhere from now on."""
        if address != self.address:
            self.address = address
            self._drop_link()
            self.hurry()

    def hurry(self) -> None:
        """It has just dialled us, so it is there: dial again without a pause."""
        self._pause = PAUSE_SECONDS_MIN
        if self._nap is not None:
            settle(self._nap)

    def close(self) -> None:
        """End the connection, and fail what waits."""
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
        self._drop_link()
        self._drop_waiting(NetworkError(f"the connection to node {self.node} was closed", "08006"))

    # ---- answers ---------------------------------------------------------------------------------

    def answered(self, call_id: int, body: bytes) -> None:
        """An answer has come; perhaps too late."""
        answer = self._answers.get(call_id)
        if answer is not None and not answer.done():
            answer.set_result(body)

    def refused(self, call_id: int, error: DatabaseError) -> None:
        """An error has come in place of an answer."""
        answer = self._answers.get(call_id)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _too_late(self, call_id: int, method: str, seconds: float) -> None:
        detail = self.failure.message if self.failure is not None else ""
        error = NetworkError(
            f'node {self.node} has not answered "{method}" in {seconds:g} seconds',
            "08006",
            detail=detail,
        )
        self.refused(call_id, error)

    # ---- the connection --------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._link is not None:
            if not self._flush_comes:
                self._flush_comes = True
                asyncio.get_running_loop().call_soon(self.flush)
        elif self._dialling is None and not self._closed:
            self._dialling = asyncio.get_running_loop().create_task(self._keep_dialling())
            self._dialling.add_done_callback(self._dialled)

    def flush(self) -> None:
        """Write what waits, frames first: elections must not wait for somebody's long call."""
        self._flush_comes = False
        link = self._link
        if link is None or not link.writable:
            return
        pieces = [piece for frame in self._frames for piece in frame]
        self.frames_sent += len(self._frames)
        self._frames.clear()
        self._frame_bytes = 0
        for call_id, head, payload in self._calls:
            if call_id in self._answers:  # else nobody waits any more
                pieces += (head, payload)
        self._calls.clear()
        self._call_bytes = 0
        if pieces:
            link.transport.write(b"".join(pieces))

    async def _keep_dialling(self) -> None:
        while True:
            address = self.address
            try:
                doorstep = await self._dial(self.node, address)
                if address != self.address:  # it moved meanwhile
                    doorstep.transport.abort()
                    continue
                link = _Link(self)
                doorstep.hand_over(lambda made=link: made)  # type: ignore[misc]  # a default is bound now
            except DatabaseError as error:
                self._not_reached(error)
            else:
                if self.failure is not None:
                    log.info("node %d is reached again at %s", self.node, address)
                self.failure, self._pause, self._link = None, PAUSE_SECONDS_MIN, link
                self.links += 1
                self.flush()
                return
            self._nap = asyncio.get_running_loop().create_future()
            timer = asyncio.get_running_loop().call_later(
                self._pause * self._random.uniform(0.5, 1), settle, self._nap
            )
            self._pause = min(self._pause * 2, PAUSE_SECONDS_MAX)
            await self._nap
            timer.cancel()
            self._nap = None
            if not self._frames and not self._calls:
                return

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling = None
        if not task.cancelled() and task.exception() is not None:
            log.error(
                "dialling node %d ended on an internal error", self.node, exc_info=task.exception()
            )
        elif self._frames or self._calls:
            self._wake()

    def _not_reached(self, error: DatabaseError) -> None:
        if self.failure is None or self.failure.message != error.message:
            log.warning("node %d is not reached: %s", self.node, error.message)
        self.failure = error
        self._drop_waiting(
            NetworkError(
                f"node {self.node} cannot be reached: {error.message}", "08006", hint=error.hint
            )
        )

    def lost(self, link: _Link, exc: Exception | None) -> None:
        """A connection has ended, from whichever side."""
        if self._link is not link:
            return
        self._link = None
        if not self._closed:
            log.info("the connection to node %d was lost%s", self.node, f": {exc}" if exc else "")
        self._fail_answers(NetworkError(f"the connection to node {self.node} was lost", "08006"))
        if self._frames:
            self._wake()

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.transport.abort()
            self._fail_answers(
                NetworkError(f"the connection to node {self.node} was closed", "08006")
            )

    def _drop_waiting(self, error: DatabaseError) -> None:
        self.frames_dropped += len(self._frames)
        self._frames.clear()
        self._frame_bytes = 0
        self._fail_answers(error)

    def _fail_answers(self, error: DatabaseError) -> None:
        self._calls.clear()
        self._call_bytes = 0
        for call_id in list(self._answers):
            self.refused(call_id, error)
