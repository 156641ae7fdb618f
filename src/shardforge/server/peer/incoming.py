"""What another node says to us on a connection that it dialled: frames are taken, calls are answered.

A call runs as a task of its own; its answer goes back on the same connection, or nowhere when that has ended. Calls
under way are bounded, and an answer waits while the other node does not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, cast

from shardforge.errors import DatabaseError, NetworkError
from shardforge.ids import NodeId
from shardforge.server.peer import codec
from shardforge.server.peer.codec import Call, FrameReader
from shardforge.server.peer.opening import trusted
from shardforge.server.peer.outgoing import settle

CALLS_MAX = 1024

log = logging.getLogger("shardforge.peer")

CallHandler = Callable[[NodeId, bytes], Awaitable[bytes]]


class Owner(Protocol):
    """Who takes what arrives."""

    def take_frame(self, node: NodeId, frame: bytes) -> None:
        """A frame has come."""
        ...

    def handler_of(self, method: str, stranger: bool, trusted: bool) -> CallHandler:
        """Who answers `method`. Raises NetworkError when nobody does."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background, until it ends or the network is closed."""
        ...

    def link_lost(self, link: Incoming) -> None:
        """A connection has ended."""
        ...


class Incoming(asyncio.Protocol):
    """One connection that another node dialled. A `stranger`, of no cluster yet, may call what is open to it."""

    def __init__(self, owner: Owner, node: NodeId, stranger: bool) -> None:
        self.node = node
        self.transport: asyncio.Transport
        self._owner = owner
        self._stranger = stranger
        self._reader = FrameReader(codec.HELLO_BYTES_MAX) if stranger else FrameReader()
        self._calls = 0
        self._writable: asyncio.Future[None] | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.feed(data):
                if kind == codec.FRAME and not self._stranger:
                    self._owner.take_frame(self.node, payload)
                elif kind == codec.CALL:
                    self._owner.spawn(self._answer(codec.read_call(payload)))
                else:
                    raise codec.malformed(f"a frame of kind {kind} where none is due")
        except DatabaseError as error:
            log.warning("node %d: %s", self.node, error.message)
            self.transport.abort()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            settle(self._writable)
            self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.resume_writing()
        self._owner.link_lost(self)

    async def _answer(self, call: Call) -> None:
        self._calls += 1
        try:
            if self._calls > CALLS_MAX:
                raise NetworkError("too many calls are under way", "53300")
            handler = self._owner.handler_of(call.method, self._stranger, trusted(self.transport))
            body = await handler(self.node, call.body)
            reply = codec.frame(codec.ANSWER, codec.answer_payload(call.id, body))
        except DatabaseError as error:
            reply = self._error(call.id, error)
        except Exception:  # our own mistake: the caller must not wait for its answer
            log.exception(
                'answering "%s" of node %d ended on an internal error', call.method, self.node
            )
            internal = DatabaseError(
                f'"{call.method}" failed: internal error; see error.log of that node', "XX000"
            )
            reply = self._error(call.id, internal)
        finally:
            self._calls -= 1
        while self._writable is not None:
            await asyncio.shield(self._writable)
        if not self._lost and not self.transport.is_closing():
            self.transport.write(reply)

    def _error(self, call_id: int, error: DatabaseError) -> bytes:
        return codec.frame(codec.ERROR, codec.answer_payload(call_id, codec.encode_error(error)))
