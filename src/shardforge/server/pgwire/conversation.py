"""The talk after start-up: simple queries, the extended protocol, COPY, and what happens on an error.

Source: PostgreSQL 15, chapter 55.2. After an error in the extended protocol, messages are skipped until Sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from shardforge.errors import DatabaseError, NetworkError, QueryError, TransactionError, unsupported
from shardforge.server.pgwire import backend, frontend
from shardforge.server.pgwire.delivery import Delivery
from shardforge.server.pgwire.extended import Extended
from shardforge.server.pgwire.flow import Begun
from shardforge.server.pgwire.formats import Codecs
from shardforge.server.pgwire.output import Output
from shardforge.sql.session.outcome import CopyIn, CopyOut, Outcome
from shardforge.sql.session.parameters import PARAMETERS, REPORTED
from shardforge.sql.session.scripts import statements

if TYPE_CHECKING:
    from shardforge.server.pgwire.connection import Connection
    from shardforge.server.pgwire.startup import Greeting

QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FLUSH, TERMINATE = b"QPBDECSHX"
FUNCTION_CALL, COPY_DATA, COPY_DONE, COPY_FAIL, PASSWORD = b"Fdcfp"


class _OutOfStepError(NetworkError):
    """A message, be it a Terminate, in the midst of a COPY: what comes next cannot be told from what belongs to it."""


class Conversation:
    """One session over one connection."""

    def __init__(self, connection: Connection, greeting: Greeting) -> None:
        self._connection = connection
        self._server = connection.server
        self.session = greeting.session
        self.output = Output(Codecs(self.session.settings), connection.server.telemetry)
        assert connection.transport is not None, "connected"
        self.output.attach(connection.transport)
        self._extended = Extended(self.session, self.output)
        self._delivery = Delivery(connection, self.session, self.output)
        self._skipping = False
        self.running = False
        self.ending = False
        self._timeout: asyncio.TimerHandle | None = None
        self._kind = "other"
        self._listening = False
        self._time = connection.loop.time
        self._begun: Begun | None = None
        """The first message of those that `answer_now` has left, if it is half done."""
        self._immediate: dict[int, Callable[[bytes], bool]] = {
            PARSE: self._parse,
            BIND: self._bind,
            DESCRIBE: self._describe,
            EXECUTE: self._execute_now,
            SYNC: self._sync_now,
            FLUSH: self._flush,
        }
        """What can be done at once; False when it has to wait for something, and nothing was done."""

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Serve until the client leaves."""
        session, output = self.session, self.output
        output.add(backend.AUTHENTICATION_OK)
        for parameter in REPORTED:
            output.add(
                backend.parameter_status(parameter.name, session.settings.show(parameter.name))
            )
        session.settings.changed.clear()
        output.add(backend.backend_key_data(session.process_id, session.secret))
        output.add(backend.READY["I"])
        next_message = self._connection.next_message
        while True:
            self._listening = True
            kind, body = await next_message()
            self._listening = False
            if self._skipping and kind not in (SYNC, TERMINATE):
                continue
            if kind == TERMINATE:
                return
            # A Sync behind a statement that waited has nothing to wait for as a rule; one that is half done has.
            begun = self._begun is not None
            if begun or kind != SYNC or self._skipping or not self._sync_now(body):
                await self._answer(kind, body)
            if self._connection.terminated is not None:
                raise self._connection.terminated
            if self.ending and not session.in_block:
                raise QueryError("terminating connection due to administrator command", "57P01")

    def answer_now(self, messages: Sequence[frontend.Message]) -> int:
        """Answer as many of the first messages as need no waiting, without a step of the flow; how many.

        The flow goes on with one that has to wait, or that has failed.
        """
        if not self._listening or self._skipping:
            return 0
        immediate = self._immediate
        count = 0
        try:
            for count, (kind, body) in enumerate(messages):
                handler = immediate.get(kind)
                if handler is not None and handler(body):
                    continue
                if kind == TERMINATE or self.ending:
                    return count
                begun = Begun(self._carry_out(kind, body))
                if not begun.ended:
                    self._begun = begun
                    return count
        except (DatabaseError, RecursionError):
            return count  # of a handler: nothing was done, and it fails again
        return len(messages)

    def idle(self) -> None:
        """Nothing more to read now: write, and start the idle clocks; a COPY that waits for rows is not idle."""
        self.output.flush()
        if not self._listening:
            return
        settings = self.session.settings
        milliseconds = (
            settings.idle_in_transaction_timeout_ms
            if self.session.in_block
            else settings.idle_timeout_ms
        )
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        if milliseconds:
            self._timeout = self._connection.loop.call_later(
                milliseconds / 1000, self._idle_too_long
            )

    def _idle_too_long(self) -> None:
        if self.session.in_block:
            self._connection.terminate(
                TransactionError(
                    "terminating connection due to idle-in-transaction timeout", "25P03"
                )
            )
        else:
            self._connection.terminate(
                QueryError("terminating connection due to idle-session timeout", "57P05")
            )

    async def _answer(self, kind: int, body: bytes) -> None:
        begun, self._begun = self._begun, None
        if kind == SYNC:
            self._skipping = False
        try:
            await self._guarded(begun or self._answer_whole(kind, body))
        except DatabaseError as error:
            await self._failed(error)
            if isinstance(error, _OutOfStepError):
                raise NetworkError(
                    "terminating connection because protocol synchronization was lost", "08P01"
                ) from error
            if kind in (QUERY, SYNC):
                self._ready()
            else:
                self._skipping = True

    async def _answer_whole(self, kind: int, body: bytes) -> None:
        handler = self._immediate.get(kind)
        if handler is None or not handler(body):
            await self._carry_out(kind, body)

    async def _carry_out(self, kind: int, body: bytes) -> None:
        """Answer a message that may have to wait."""
        if kind == EXECUTE:
            await self._execute(*frontend.read_execute(body))
        elif kind == QUERY:
            await self._simple_query(frontend.read_query(body))
            self._ready()
        elif kind == SYNC:
            await self.session.finish_implicit()
            await self._extended.end_transaction()
            self._ready()
        elif kind == CLOSE:
            await self._extended.close(*frontend.read_target(body))
        elif kind == FUNCTION_CALL:
            raise unsupported("the function call message")
        elif kind not in (COPY_DATA, COPY_DONE, COPY_FAIL):  # the rest of a COPY that has failed
            raise NetworkError(f"invalid frontend message type {kind}", "08P01")

    async def _guarded(self, statement: Awaitable[None]) -> None:
        """Run with the statement timeout; a cancellation becomes the error that explains it."""
        connection = self._connection
        timeout_ms = self.session.settings.statement_timeout_ms
        timer = None
        if timeout_ms:
            reason = QueryError("canceling statement due to statement timeout", "57014")
            timer = connection.loop.call_later(timeout_ms / 1000, connection.interrupt, reason)
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        self.running = True
        try:
            await statement
        except asyncio.CancelledError:
            if connection.terminated is not None:
                raise
            cause, connection.cancel_reason = connection.cancel_reason, None
            if cause is None:
                raise
            raise cause from None
        except RecursionError:
            raise QueryError("stack depth limit exceeded", "54001") from None
        except MemoryError:
            raise QueryError("out of memory", "53200") from None
        finally:
            self.running = False
            if timer is not None:
                timer.cancel()
            connection.settle()

    async def _failed(self, error: DatabaseError) -> None:
        session = self.session
        await session.fail()
        await self._extended.end_transaction()
        self._server.log_error(error, session)
        session.instance.telemetry.statement_failed(self._kind, error.sqlstate)
        self._send_notices()
        self.output.add(backend.error_response(error))

    def _ready(self) -> None:
        session = self.session
        self._send_notices()
        changed = session.settings.changed
        if changed:
            for name in sorted(changed):
                parameter = PARAMETERS.get(name)
                if parameter is not None and parameter.reported:
                    self.output.add(
                        backend.parameter_status(parameter.name, session.settings.show(name))
                    )
            changed.clear()
        if session.channels.inbox and session.status == "I":
            self._delivery.send()
        session.state = "idle" if session.status == "I" else "idle in transaction"
        self.output.add(backend.READY[session.status])

    def resume_writing(self) -> None:
        """The client has read: go on with a result, and with notifications."""
        self.output.resume()
        self._delivery.deliver()

    def _send_notices(self) -> None:
        notices = self.session.notices
        if notices:
            for severity, notice in notices:
                self.output.add(backend.notice_response(notice, severity=severity))
            notices.clear()

    # ------------------------------------------------------------ simple query

    async def _simple_query(self, text: str) -> None:
        session, output = self.session, self.output
        loop_time = self._time
        self._kind = "other"
        self._extended.portals.pop("", None)
        session.prepared.pop("", None)
        session.begin_statement(text)
        empty = True
        async for prepared in statements(session, text):
            empty = False
            begun = loop_time()
            self._kind = prepared.kind
            if prepared.parameter_types:
                raise QueryError("there is no parameter $1", "42P02")
            outcome = await session.run(prepared)
            if outcome.copy_in is not None:
                await self._copy_in(outcome.copy_in)
            elif outcome.copy_out is not None:
                await self._copy_out(outcome.copy_out)
            else:
                if outcome.columns is not None:
                    output.row_description(outcome.columns, ())
                await output.send_outcome(outcome, outcome.columns, ())
            self._send_notices()
            self._server.statement_done(session, prepared.kind, loop_time() - begun)
        if empty:
            output.add(backend.EMPTY_QUERY)
        await session.finish_implicit()

    # ------------------------------------------------------------ extended query

    def _parse(self, body: bytes) -> bool:
        message = frontend.read_parse(body)
        self._kind = "parse"
        self.session.begin_statement(message.query)
        self._extended.parse(message)
        return True

    def _bind(self, body: bytes) -> bool:
        self._extended.bind(frontend.read_bind(body))
        return True

    def _describe(self, body: bytes) -> bool:
        self._extended.describe(*frontend.read_target(body))
        return True

    def _flush(self, _: bytes) -> bool:
        self.output.flush()
        return True

    def _execute_now(self, body: bytes) -> bool:
        name, rows_max = frontend.read_execute(body)
        portal = self._extended.portals.get(name)
        if portal is None or portal.prepared is None:
            return False
        session, prepared = self.session, portal.prepared
        begun = self._time()
        self._kind = prepared.kind
        session.begin_statement(prepared.text)
        if not self._extended.execute_now(portal, rows_max):
            return False
        self._server.statement_done(session, prepared.kind, self._time() - begun)
        return True

    def _sync_now(self, _: bytes) -> bool:
        if not self._extended.settled():
            return False
        self._ready()
        return True

    async def _execute(self, name: str, rows_max: int) -> None:
        session = self.session
        portal = self._extended.portals.get(name)
        prepared = portal.prepared if portal is not None else None
        begun = self._time()
        if prepared is not None:
            self._kind = prepared.kind
            session.begin_statement(prepared.text)
        outcome = await self._extended.execute(name, rows_max)
        if outcome is not None:
            await self._copy(outcome)
        if session.notices:
            self._send_notices()
        if prepared is not None:
            self._server.statement_done(session, prepared.kind, self._time() - begun)

    # ------------------------------------------------------------ COPY

    async def _copy(self, outcome: Outcome) -> None:
        if outcome.copy_in is not None:
            await self._copy_in(outcome.copy_in)
        elif outcome.copy_out is not None:
            await self._copy_out(outcome.copy_out)

    async def _copy_in(self, copy: CopyIn) -> None:
        output, next_message = self.output, self._connection.next_message
        output.add(backend.copy_response(b"G", copy.columns, binary=copy.binary))
        output.flush()
        while True:
            message = await next_message()
            if message.kind == COPY_DATA:
                await copy.feed(message.body)
            elif message.kind == COPY_DONE:
                output.add(backend.command_complete(await copy.finish()))
                return
            elif message.kind == COPY_FAIL:
                reason = frontend.read_copy_fail(message.body)
                raise QueryError(f"COPY from stdin failed: {reason}", "57014")
            elif message.kind not in (FLUSH, SYNC):
                raise _OutOfStepError(
                    f"unexpected message type 0x{message.kind:02X} during COPY from stdin", "08P01"
                )

    async def _copy_out(self, copy: CopyOut) -> None:
        output = self.output
        output.add(backend.copy_response(b"H", copy.columns, binary=copy.binary))
        async for piece in copy.pieces():
            for line in piece.splitlines(keepends=True) if not copy.binary else (piece,):
                output.add(backend.copy_data(line))
            await output.drained()
        output.add(backend.COPY_DONE)
        output.add(backend.command_complete(copy.tag()))

    async def close(self) -> None:
        """The connection ends: nothing of the session stays."""
        if self._timeout is not None:
            self._timeout.cancel()
        self.output.flush()
        await self.session.close()
