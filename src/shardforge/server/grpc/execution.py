"""Statements of calls: each call is a session of its own, which is gone when the call has been answered.

Invariant: results are complete, and within their limit, before the transaction is committed; so a call that fails has
changed nothing, except when its commit was under way: then the outcome is unknown (40003), never a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from shardforge.errors import (
    DatabaseError,
    QueryError,
    Reaction,
    TransactionError,
    too_deep,
    unsupported,
)
from shardforge.server.calls import Call
from shardforge.server.grpc.access import Client, Credentials
from shardforge.server.grpc.values import (
    Budget,
    ResultWriter,
    delimited,
    parameters_of,
    tail_of,
)
from shardforge.server.pgwire.formats import Codecs
from shardforge.server.pgwire.startup import begin_session
from shardforge.sql.catalog.descriptors import Role
from shardforge.sql.session.commit_key import COMMITTED_BEFORE, committed_before
from shardforge.sql.session.cursors import once
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.outcome import Outcome
from shardforge.sql.session.session import Session
from shardforge.sql.session.settings import COMMIT_KEY
from shardforge.sql.session.statements import check_parameter_count
from shardforge.v1 import database_pb2 as pb

if TYPE_CHECKING:
    from shardforge.server.pgwire.server import Server

T = TypeVar("T")

RESULT_BYTES_MAX = 64 * 1024 * 1024
RESULT_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""What a client takes that has not asked for more: gRPC's usual limit, less room for what is around a result."""
NO_SETTINGS = {"user", "database", "options", "replication"}
"""What a start-up packet has beside settings."""
TURN_ROWS = 1000
"""So many rows are packed before others have a turn: about 5 ms."""
RETRIES_MAX = 100
RETRIED = ("40001", "40P01")

_QUERY_RESULT = pb.ExecuteQueryResponse.RESULT_FIELD_NUMBER
_RESULTS = pb.ExecuteTransactionResponse.RESULTS_FIELD_NUMBER
_MODES = {
    pb.ISOLATION_LEVEL_UNSPECIFIED: "",
    pb.ISOLATION_LEVEL_READ_COMMITTED: " ISOLATION LEVEL READ COMMITTED",
    pb.ISOLATION_LEVEL_REPEATABLE_READ: " ISOLATION LEVEL REPEATABLE READ",
    pb.ISOLATION_LEVEL_SERIALIZABLE: " ISOLATION LEVEL SERIALIZABLE",
}


class Caller(NamedTuple):
    """Who has been let in."""

    client: Client
    credentials: Credentials
    role: Role


class StatementFailed(Exception):  # noqa: N818  # carries an error, and is none that a caller sees
    """One of a transaction's statements has failed."""

    def __init__(self, error: DatabaseError, number: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.number = number


class RepetitionFailed(Exception):  # noqa: N818  # an outcome
    """A statement cannot be run again, as the transaction with the same commit key has been committed before."""


async def execute_query(
    server: Server, instance: Instance, caller: Caller, request: pb.ExecuteQueryRequest
) -> bytes:
    """Run one statement and commit it; an ExecuteQueryResponse. Raises DatabaseError."""
    budget = _budget(request.max_result_bytes)

    async def work(run: _Run) -> bytes:
        result = await run.statement(request.sql, request.parameters, budget, own=True)
        await run.commit()
        rest = pb.ExecuteQueryResponse(notices=run.notices())
        return delimited(_QUERY_RESULT, result) + bytes(rest.SerializeToString())

    return await _in_session(server, instance, caller, request.database, request.settings, work)


async def execute_transaction(
    server: Server, instance: Instance, caller: Caller, request: pb.ExecuteTransactionRequest
) -> bytes:
    """Run statements in one transaction, and again after a conflict if that is asked for.

    Returns an ExecuteTransactionResponse. Raises DatabaseError, StatementFailed.
    """
    retries_max = request.max_retries
    if not 0 <= retries_max <= RETRIES_MAX:
        raise QueryError(f"max_retries must be between 0 and {RETRIES_MAX}", "22023")
    if request.isolation_level not in _MODES:
        raise QueryError(f"there is no isolation level {request.isolation_level}", "22023")
    retries = 0
    while True:
        try:
            results, rest = await _in_session(
                server, instance, caller, request.database, request.settings,
                lambda run: _transaction(run, request),
            )  # fmt: skip
        except (StatementFailed, TransactionError) as failure:
            error = failure.error if isinstance(failure, StatementFailed) else failure
            if retries == retries_max or error.sqlstate not in RETRIED:
                raise
            retries += 1
        else:
            rest.retries = retries
            return b"".join([*results, bytes(rest.SerializeToString())])


async def _transaction(
    run: _Run, request: pb.ExecuteTransactionRequest
) -> tuple[list[bytes], pb.ExecuteTransactionResponse]:
    """The results as fields of the response, and the rest of it."""
    budget = _budget(request.max_result_bytes)
    await run.control("BEGIN" + _MODES[request.isolation_level] + " READ ONLY" * request.read_only)
    if request.commit_key:
        quoted = request.commit_key.replace("'", "''")
        await run.control(f"SET LOCAL {COMMIT_KEY} = '{quoted}'")
    results = []
    for number, statement in enumerate(request.statements, 1):
        try:
            result = await run.statement(statement.sql, statement.parameters, budget)
            results.append(delimited(_RESULTS, result))
        except RepetitionFailed:
            break
        except DatabaseError as error:
            raise StatementFailed(error, number) from error
    else:
        await run.commit()
    before = bool(request.commit_key) and run.repeats
    rest = pb.ExecuteTransactionResponse(notices=run.notices(), committed_before=before)
    return [] if before else results, rest


def _budget(wanted: int) -> Budget:
    if not 0 <= wanted <= RESULT_BYTES_MAX:
        raise QueryError(f"max_result_bytes must be between 0 and {RESULT_BYTES_MAX}", "22023")
    return Budget(wanted or RESULT_BYTES)


async def _in_session(
    server: Server, instance: Instance, caller: Caller, database: str, settings: Mapping[str, str],
    work: Callable[[_Run], Awaitable[T]],
) -> T:  # fmt: skip
    """What `work` gives in a session made for it. Whatever happens, nothing of the session is left.

    It has a task of its own, as gRPC leaves a call unanswered whose own task is cancelled.
    """
    for name in settings.keys() & NO_SETTINGS:
        raise QueryError(f'unrecognized configuration parameter "{name}"', "42704")

    def begin() -> Session:
        user, host = caller.credentials.user, caller.client.host
        if instance not in server.instances:
            raise TransactionError("another node leads the cluster now", "57P01")
        return begin_session(
            server, instance, caller.role, user, database or user, host, dict(settings)
        )

    return await asyncio.create_task(_worked(server, begin, work))


async def _worked(
    server: Server, begin: Callable[[], Session], work: Callable[[_Run], Awaitable[T]]
) -> T:
    session = begin()
    call = Call(server.calls, session)
    run = _Run(server, session, call)
    try:
        return await work(run)
    except asyncio.CancelledError:
        if run.failure is not None:
            raise run.failure from None
        if call.reason is None:
            raise
        raise call.reason from None
    finally:
        call.settle()
        closing = asyncio.ensure_future(session.close())
        closing.add_done_callback(lambda _: call.end())
        await asyncio.shield(closing)  # to its end, also when the caller goes meanwhile


class _Run:
    """A call's statements in its session."""

    def __init__(self, server: Server, session: Session, call: Call) -> None:
        self._server = server
        self._session = session
        self._call = call
        self._codecs = Codecs(session.settings)
        self.failure: DatabaseError | None = None
        """What a statement failed with, before it was cancelled too."""

    async def control(self, sql: str) -> None:
        """Run a statement of ours."""
        await self._guarded(sql, lambda: self._plain(sql))

    async def _plain(self, sql: str) -> None:
        prepared = self._session.prepare(sql)
        assert prepared is not None, "a statement"
        await self._session.run(prepared)

    async def statement(
        self, sql: str, values: Sequence[pb.Value], budget: Budget, *, own: bool = False
    ) -> bytes:
        """Run a statement to its last row; it has its `own` transaction, or the call's. Raises DatabaseError.

        Returns a QueryResult.
        """
        return await self._guarded(sql, lambda: self._whole(sql, values, budget, own=own))

    async def _whole(
        self, sql: str, values: Sequence[pb.Value], budget: Budget, *, own: bool
    ) -> bytes:
        session, loop = self._session, asyncio.get_running_loop()
        begun = loop.time()
        given = parameters_of(values, session.catalog_functions().regtype_in)
        prepared = session.prepare(sql, given.types)
        if prepared is None:
            return b""
        if prepared.kind == "transactionstmt":
            raise _no_transaction_control(own=own)
        check_parameter_count(prepared, len(given.values))
        params = self._codecs.decode(given.values, prepared.parameter_types, given.formats)
        try:
            outcome = await session.run(prepared, params)
        except DatabaseError as error:
            await self._check_repetition(error)
            raise
        if outcome.copy_in is not None or outcome.copy_out is not None:
            raise unsupported("COPY over gRPC", hint="Use a PostgreSQL driver.")
        result = await self._collect(outcome, budget)
        self._server.statement_done(session, prepared.kind, loop.time() - begun)
        return result

    @property
    def repeats(self) -> bool:
        """Whether a transaction with the session's commit key has been committed before."""
        return any(notice.sqlstate == COMMITTED_BEFORE for _, notice in self._session.notices)

    async def _check_repetition(self, error: DatabaseError) -> None:
        """Raises RepetitionFailed where the failed statement was carried out before, and 22023 if that was another."""
        transaction = self._session.open_transaction
        if error.reaction is Reaction.FIX_STATEMENT and self.repeats and transaction is not None:
            await committed_before(self._session, transaction)
            raise RepetitionFailed from error

    async def _collect(self, outcome: Outcome, budget: Budget) -> bytes:
        if outcome.columns is None:
            return tail_of(outcome.complete(0))
        writer = ResultWriter(outcome.columns, self._session.settings, budget)
        async for batch in outcome.batches or once(outcome.rows or []):
            for start in range(0, len(batch), TURN_ROWS):
                writer.add(batch[start : start + TURN_ROWS])
                await asyncio.sleep(0)  # the others, and the other nodes, have their turns too
        tag = outcome.complete(writer.count)
        return writer.finish(f"SELECT {writer.count}" if tag == "SELECT" else tag)

    async def commit(self) -> None:
        """Commit. Raises DatabaseError, CancelledError only if nothing was committed."""
        await self._guarded("COMMIT", self._session.commit, interruptible=False)

    def notices(self) -> list[pb.Notice]:
        """What the session has to say beside its results."""
        found = [
            pb.Notice(
                severity=severity, sqlstate=notice.sqlstate, message=notice.message, detail=notice.detail,
                hint=notice.hint,
            )
            for severity, notice in self._session.notices
        ]  # fmt: skip
        self._session.notices.clear()
        return found

    async def _guarded(
        self, sql: str, work: Callable[[], Awaitable[T]], *, interruptible: bool = True
    ) -> T:
        """`work` under the session's statement timeout. What fails is rolled back and written down."""
        session = self._session
        session.begin_statement(sql)
        milliseconds = session.settings.statement_timeout_ms if interruptible else 0
        timer = None
        if milliseconds:
            reason = QueryError("canceling statement due to statement timeout", "57014")
            loop = asyncio.get_running_loop()
            timer = loop.call_later(milliseconds / 1000, self._call.interrupt, reason)
        try:
            return await work()
        except RecursionError:
            raise await self._failed(too_deep()) from None
        except MemoryError:
            raise await self._failed(QueryError("out of memory", "53200")) from None
        except DatabaseError as error:
            raise await self._failed(error) from error.__cause__
        finally:
            if timer is not None:
                timer.cancel()

    async def _failed(self, error: DatabaseError) -> DatabaseError:
        session = self._session
        self.failure = error
        await session.fail()
        session.instance.telemetry.statement_failed("grpc", error.sqlstate)
        self._server.log_error(error, session)
        return error


def _no_transaction_control(*, own: bool) -> QueryError:
    if own:
        return unsupported(
            "a transaction over several calls", hint="Use ExecuteTransaction, which takes all its statements at once."
        )  # fmt: skip
    return unsupported(
        "transaction control inside ExecuteTransaction", hint="It begins and commits by itself."
    )
