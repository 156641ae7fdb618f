"""One client's connection: bytes in, statements run in order, bytes out.

Everything that one wake-up brings is parsed, run and answered together: the connection's flow runs in place until it
has to wait (for a lock, a disk, a slow reader) or has no message left, and only then writes. Messages that arrive
meanwhile queue up; past `QUEUE_BYTES_MAX` reading pauses, so a hostile client holds a bounded amount of memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

from shardforge.errors import DatabaseError, NetworkError, QueryError, TransactionError
from shardforge.server.peer.forward import Origin
from shardforge.server.pgwire import backend, frontend
from shardforge.server.pgwire.conversation import Conversation
from shardforge.server.pgwire.flow import PARK, Flow
from shardforge.server.pgwire.startup import Closed, Greeting, greet

if TYPE_CHECKING:
    from shardforge.server.pgwire.server import Server

QUEUE_BYTES_MAX = 4 * 1024 * 1024
STARTUP_SECONDS_MAX = 60

log = logging.getLogger("shardforge.pgwire")


LARGE_READ = 32 * 1024
"""After so many bytes at once the loop turns before it reads this client again."""


class Connection(asyncio.Protocol):
    """The protocol object of one client. `server` owns it; it ends when either side closes.

    `origin` is set when another node forwards the client, and trust in it is judged by `judged_host`.
    """

    def __init__(
        self,
        server: Server,
        *,
        tls: bool = False,
        origin: Origin | None = None,
        judged_host: str = "",
    ) -> None:
        self.server = server
        self.origin = origin
        self._judged_host = judged_host
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.reader = frontend.MessageReader()
        self.conversation: Conversation | None = None
        self.tls = tls or (origin is not None and origin.tls)
        self._messages: deque[frontend.Message] = deque()
        self._queued_bytes = 0
        self._reading = True
        self._lost = False
        self._malformed: NetworkError | None = None
        self._flow = Flow(self._serve(), self.loop, self._flow_ended)
        self._deadline: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self.cancel_reason: QueryError | TransactionError | None = None
        self.terminated: QueryError | TransactionError | None = None
        """Why the connection is to end, whatever becomes of its statement."""

    # ------------------------------------------------------------ transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, or its TLS is up."""
        first = self.transport is None
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are, without saying so
        if self.conversation is not None:
            self.conversation.output.attach(self.transport)
        if first:
            self.server.connections.add(self)
            self._deadline = self.loop.call_later(STARTUP_SECONDS_MAX, self.abort)
            self._flow.start()
            if self.origin is not None:
                self.data_received(self.origin.packet)

    def data_received(self, data: bytes) -> None:
        """Cut into messages; run what can be run."""
        self.server.telemetry.bytes_received_total += len(data)
        if len(data) > LARGE_READ and self._reading and self.transport is not None:
            # The loop would read this client on and on: the others, and the other nodes, have their turns too.
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)
        reader = self.reader
        messages: list[frontend.Message] = []
        try:
            messages = reader.feed(data)
        except NetworkError as error:
            self._malformed = self._malformed or error
        if self._flow.parked:
            conversation = self.conversation
            if conversation is not None and self._malformed is None:
                answered = conversation.answer_now(messages)
                if answered == len(messages):
                    conversation.idle()
                    return
                messages = messages[answered:]
            self._queue(messages)
            self._flow.resume()
            return
        self._queue(messages)
        if self._reading and self._messages and self.transport is not None:
            self._pause_if_full(self.transport)

    def _read_on(self) -> None:
        if self._reading and not self._lost and self.transport is not None:
            self.transport.resume_reading()

    def _pause_if_full(self, transport: asyncio.Transport) -> None:
        if self._queued_bytes + self.reader.pending_bytes > QUEUE_BYTES_MAX:
            self._reading = False
            transport.pause_reading()

    def _queue(self, messages: list[frontend.Message]) -> None:
        if self._malformed is None:
            self._messages.extend(messages)
            for message in messages:
                self._queued_bytes += len(message[1])

    def pause_writing(self) -> None:
        """The client is slow to read."""
        if self.conversation is not None:
            self.conversation.output.pause()

    def resume_writing(self) -> None:
        """The client has read."""
        if self.conversation is not None:
            self.conversation.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: end what runs for it."""
        self._lost = True
        self.resume_writing()
        self._flow.cancel()

    # ------------------------------------------------------------ flow's side

    async def next_message(self) -> frontend.Message:
        """The next message; writes what is queued before it waits. Raises Closed when there will be none."""
        while not self._messages:
            if self.reader.starting and self.reader.pending_bytes:
                self._queue(self.reader.feed(b""))
                if self._messages:
                    break
            if self._lost:
                raise Closed
            if self._malformed is not None:
                raise self._malformed
            if self.conversation is not None:
                self.conversation.idle()
            await PARK
        message = self._messages.popleft()
        self._queued_bytes -= len(message.body)
        if (
            not self._reading
            and self._queued_bytes < QUEUE_BYTES_MAX // 2
            and self.transport is not None
        ):
            self._reading = True
            self.transport.resume_reading()
        return message

    def start_messages(self) -> None:
        """The start-up packet has been read: typed messages follow."""
        try:
            self._queue(self.reader.resume())
        except NetworkError as error:
            self._malformed = error

    def start_queries(self) -> None:
        """Authentication is done: messages may be as large as the protocol allows."""
        self.reader.body_bytes_max = frontend.MESSAGE_BYTES_MAX
        if self._deadline is not None:
            self._deadline.cancel()

    def write(self, data: bytes) -> None:
        """Write at once; during start-up, before there is a conversation."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Let `protocol` go on with the client, with what it has sent since its start-up packet. Raises Closed."""
        transport = self.transport
        if self._malformed is not None:
            raise self._malformed
        if self._lost or transport is None or transport.is_closing():
            raise Closed
        self.transport = None
        whole = [backend.message(bytes([kind]), body) for kind, body in self._messages]
        rest = b"".join(whole) + self.reader.take_rest()
        if not self._reading:
            transport.resume_reading()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if rest:
            protocol.data_received(rest)

    async def start_tls(self) -> None:
        """Go on encrypted. Bytes sent in the clear after the request are refused (CVE-2021-23214)."""
        assert self.transport is not None, "asked for by a connected client"
        assert self.server.tls is not None, "offered only when configured"
        if self.reader.pending_bytes or self._messages:
            raise NetworkError("received unencrypted data after SSL request", "08P01")
        self.write(b"S")
        transport = await self.loop.start_tls(
            self.transport, self, self.server.tls, server_side=True
        )
        assert transport is not None
        self.transport = transport
        self.tls = True

    async def _serve(self) -> None:
        greeting: Greeting | None = None
        try:
            greeting = await greet(self)
            if greeting is None:
                return
            self.conversation = Conversation(self, greeting)
            await self.conversation.run()
        except Closed:
            return
        except asyncio.CancelledError:
            if self._lost:
                return
            reason = self.cancel_reason or QueryError(
                "terminating connection due to administrator command", "57P01"
            )
            self.write(backend.error_response(reason, severity="FATAL"))
        except DatabaseError as error:
            self.server.log_error(error, greeting)
            if self.conversation is not None:
                self.conversation.output.flush()
            self.write(backend.error_response(error, severity="FATAL"))
        finally:
            if self.conversation is not None:
                await self.conversation.close()

    def _flow_ended(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            log.error("a connection ended on an internal error", exc_info=error)
            self.write(
                backend.error_response(
                    DatabaseError("internal error; see error.log", "XX000"), severity="FATAL"
                )
            )
        if self._deadline is not None:
            self._deadline.cancel()
        if self.transport is not None:
            self.transport.close()
        self.server.connections.discard(self)
        if not self._closed.done():
            self._closed.set_result(None)

    # ------------------------------------------------------------ server's side

    def interrupt(self, reason: QueryError) -> None:
        """Cancel the statement that runs now, if one does."""
        if self.conversation is not None and self.conversation.running and not self._flow.parked:
            self.cancel_reason = reason
            self._flow.cancel()

    def settle(self) -> None:
        """The statement that ran has ended: what was to cancel it came too late, and must not hit the next wait."""
        if self.terminated is None and not self._lost:
            self.cancel_reason = None
            self._flow.forget_cancel()

    def terminate(self, reason: QueryError | TransactionError) -> None:
        """End the connection, telling the client why; a statement is cancelled, or told its commit's outcome before."""
        self.cancel_reason = self.terminated = reason
        self._flow.cancel()

    def shut_down(self) -> None:
        """End the connection when its statement is done; at once when it is idle."""
        if self.conversation is None or (
            self._flow.parked and not self.conversation.session.in_block
        ):
            self.cancel_reason = None
            self._flow.cancel()
        else:
            self.conversation.ending = True

    def abort(self) -> None:
        """End the connection now."""
        self._lost = True
        if self.transport is not None:
            self.transport.abort()
        self._flow.cancel()

    async def wait_closed(self) -> None:
        """Return when nothing runs for this connection any more."""
        await asyncio.shield(self._closed)

    @property
    def address(self) -> tuple[str, int]:
        """Where the client is. Raises Closed when it has gone."""
        if self.origin is not None:
            return self.origin.host, self.origin.port
        peer = None if self.transport is None else self.transport.get_extra_info("peername")
        if not isinstance(peer, tuple):
            raise Closed
        return peer[0], peer[1]

    @property
    def judged_host(self) -> str:
        """The address by which it is decided whether the client needs a password. Raises Closed when it has gone."""
        return self._judged_host or self.address[0]
