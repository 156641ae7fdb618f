"""A session: one client's statements, in their transactions.

The session decides in which transaction a statement runs and what becomes of it; running it is the executor's work, and
everything that is not a query goes to `utility`. A statement outside BEGIN runs in an implicit transaction that
`finish_implicit` commits: at the end of a simple query's text, or at Sync.

Invariant: whatever a statement raises, the session is afterwards idle with nothing held, or in a failed block that
takes only ROLLBACK (and keeps its locks only while a savepoint could still bring it back).
Source: PostgreSQL 15, chapter 55.2.2 (simple and extended query), and ROLLBACK TO SAVEPOINT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from shardforge.errors import (
    DatabaseError,
    QueryError,
    TransactionError,
    too_deep,
)
from shardforge.sql.catalog.functions import CatalogFunctions
from shardforge.sql.catalog.sequences import SequenceState
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.catalog.tablelocks import LockOwner
from shardforge.sql.execute import ExecContext, Executable
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.parse import Statement, parse
from shardforge.sql.session import (
    as_of,
    commit_key,
    lifting,
    older_snapshot,
    read_only,
    undecided,
    utility,
)
from shardforge.sql.session.advisory import SessionLocks
from shardforge.sql.session.channels import SessionChannels
from shardforge.sql.session.cursors import Cursor
from shardforge.sql.session.ddl_context import SessionDdl
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.introspection import UNIX_EPOCH_TO_2000_US, Introspection
from shardforge.sql.session.outcome import Outcome, Row
from shardforge.sql.session.past import Past
from shardforge.sql.session.prepared import Prepared
from shardforge.sql.session.savepoint import Savepoints
from shardforge.sql.session.settings import Settings
from shardforge.sql.session.statements import effective_search_path, prepare_statement
from shardforge.txn.coordinator import Isolation, Transaction

Names = tuple[CatalogSnapshot, tuple[str, ...], tuple[str, ...]]
"""A catalog, search_path as it is set, and as it is searched."""

_ISOLATION = {
    "read uncommitted": Isolation.READ_COMMITTED,
    "read committed": Isolation.READ_COMMITTED,
    "repeatable read": Isolation.REPEATABLE_READ,
    "serializable": Isolation.SERIALIZABLE,
}


class Session:
    """One client's session. Not for use by two tasks at once."""

    def __init__(
        self, instance: Instance, *, user: str, database: str, secret: bytes = b"", client: str = "",
        settings: Settings | None = None,
    ) -> None:  # fmt: skip
        self.instance = instance
        self.user = user
        self.database = database
        self.process_id = instance.take_process_id()
        self.secret = secret
        self.client = client
        self.settings = settings or Settings()
        self.settings.catalog_now = self.catalog_functions
        self.past = Past(self) if instance.reads_past else None
        """How it reads, on a node that does not serve."""
        self.settings.follows = instance.follower is not None
        self.prepared: dict[str, Prepared] = {}
        self.cursors: dict[str, Cursor] = {}
        self.notices: list[tuple[str, DatabaseError]] = []
        self.sequences = SequenceState(self.settings)
        self.savepoints = Savepoints(self)
        self.lock_owner = LockOwner(self.process_id)
        """The transaction's table locks."""
        self.advisory = SessionLocks(self)
        self.channels = SessionChannels(self)
        self.overlay: CatalogSnapshot | None = None
        """The catalog as this transaction's own DDL has made it."""
        self.status = "I"
        self.query = ""
        self.state = "idle"
        self.started_us = self.state_us = instance.clock.wall_us()
        self.statement_us = self.transaction_us = self.started_us
        self._transaction: Transaction | None = None
        self._modes = self.settings.modes
        """The settings that the transaction began with."""
        self._context: ExecContext | None = None
        self._defaults_version = -1
        self._catalog_functions: CatalogFunctions | None = None
        self._functions_for: Names | None = None
        self._search_path: Names | None = None
        instance.add(self)

    # ------------------------------------------------------------ catalog and contexts

    @property
    def catalog(self) -> CatalogSnapshot:
        """The catalog that statements are bound to now."""
        if self.past is not None and self.past.schema is not None:
            return self.past.schema
        if self.overlay is not None:
            self.overlay = self.instance.catalog.refresh(self.overlay)
            return self.overlay
        return self.instance.catalog.current(self.database)

    def notice(
        self, severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = ""
    ) -> None:
        """Queue a notice for the client."""
        self.notices.append((severity, QueryError(message, sqlstate, detail=detail, hint=hint)))

    def context(self) -> ExecContext:
        """What a statement runs with; made once a session and brought up to date for each statement."""
        context = self._context
        if context is None:
            evaluation = EvalContext(
                settings=self.settings,
                session=self,
                clock=self.instance.clock,
                random=self.instance.random,
            )
            context = self._context = ExecContext(
                session=self, coordinator=self.instance.store.coordinator, eval=evaluation,
                row_numbers=self.instance.catalog.sequences, work_memory=self.instance.config.sql.work_memory,
            )  # fmt: skip
        known, settings = context.eval, self.settings
        known.transaction_us = settings.transaction_us = self.transaction_us - UNIX_EPOCH_TO_2000_US
        known.statement_us = self.statement_us - UNIX_EPOCH_TO_2000_US
        known.catalog = self.catalog_functions()
        return context

    def catalog_functions(self) -> CatalogFunctions:
        """The catalog as SQL functions ask it; made again when the catalog or the search path has changed."""
        names = self._names()
        known = self._catalog_functions
        if known is None or self._functions_for is not names:
            catalog, _, search_path = self._functions_for = names
            if known is None or known.snapshot is not catalog or known.search_path != search_path:
                store = self.instance.catalog.sequences
                known = CatalogFunctions(catalog, search_path, (store, self.sequences))
                self._catalog_functions = known
        return known

    def virtual_context(self) -> Introspection:
        """What catalog tables make their rows from."""
        return Introspection(self)

    def ddl_context(self) -> SessionDdl:
        """What a DDL statement works with."""
        return SessionDdl(self)

    @property
    def search_path(self) -> tuple[str, ...]:
        """search_path with "$user" replaced, behind the session's temporary schema once it has one."""
        return self._names()[2]

    def _names(self) -> Names:
        """What names are looked up in now; the same object as long as that is the same."""
        catalog, names = self.catalog, self.settings.search_path
        known = self._search_path
        if known is None or known[0] is not catalog or known[1] is not names:
            path = effective_search_path(self.settings, self.user)
            known = (catalog, names, catalog.session_path(path, self.process_id))
            self._search_path = known
        return known

    def adopt_transaction_defaults(self) -> None:
        """Outside a block, the next transaction has the session's defaults."""
        if self.in_block or self.settings.version == self._defaults_version:
            return
        if self._transaction is not None:
            return  # an implicit one, which keeps its modes
        for name in ("isolation", "read_only", "deferrable"):
            default = self.settings.show(f"default_transaction_{name}")
            if name == "read_only" and self.past is not None:
                default = "on"
            if self.settings.show(f"transaction_{name}") != default:
                self.settings.force(f"transaction_{name}", default)
        self._defaults_version = self.settings.version

    # ------------------------------------------------------------ preparing

    def prepare(self, text: str, declared_types: Sequence[int] = ()) -> Prepared | None:
        """The single statement of `text`, ready to run; None for an empty text. Shared through the plan cache."""
        cached = self.cached(text, declared_types)
        if cached is not None:
            return cached
        statements = parse(text)
        if not statements:
            return None
        if len(statements) > 1:
            raise QueryError("cannot insert multiple commands into a prepared statement", "42601")
        return self.prepare_shared(text, statements[0], declared_types)

    def _where(self) -> tuple[object, ...]:
        """What the meaning of a text depends on, for the keys of cached plans."""
        return (self.database, self.search_path, self.catalog.version, self.settings.binding)

    def cached(self, text: str, declared_types: Sequence[int] = ()) -> Prepared | None:
        """The statement from the plan cache, by its text or without its literals."""
        if self.overlay is not None:
            return None
        plans, where = self.instance.plans, self._where()
        found = plans.get((text, tuple(declared_types), where))
        if found is None and not declared_types:
            found = lifting.find(plans, text, where, self.settings)
        if found is not None:
            self.instance.telemetry.plan_cache_hits_total += 1
        return found

    def prepare_shared(
        self, text: str, statement: Statement, declared_types: Sequence[int] = ()
    ) -> Prepared:
        """The parsed statement of `text`, ready to run, and in the plan cache where it can be shared."""
        if self.overlay is not None:
            return self.prepare_parsed(statement, declared_types)
        plans, where, settings = self.instance.plans, self._where(), self.settings
        if not declared_types:
            prepared = lifting.prepare(
                plans, statement, where, self.catalog, settings, self.search_path
            )
            if prepared is not None:
                self.instance.telemetry.plan_cache_misses_total += 1
                return prepared
        prepared = self.prepare_parsed(statement, declared_types)
        if prepared.executable is not None:
            plans.put((text, tuple(declared_types), where), prepared)
        return prepared

    def prepare_parsed(
        self, statement: Statement, declared_types: Sequence[int] = (), catalog: CatalogSnapshot | None = None
    ) -> Prepared:  # fmt: skip
        """A parsed statement, ready to run; over `catalog` when it is to be seen otherwise than it is."""
        self.instance.telemetry.plan_cache_misses_total += 1
        return prepare_statement(
            statement, declared_types, catalog or self.catalog, self.settings, self.search_path,
            utility.result_columns(statement.node, self),
        )  # fmt: skip

    def is_fresh(self, prepared: Prepared) -> bool:
        """Whether neither the catalog nor the settings have changed that a statement was bound to."""
        return (
            prepared.catalog_version == self.catalog.version
            and prepared.binding == self.settings.binding
        )

    def refreshed(self, prepared: Prepared) -> Prepared:
        """`prepared`, made again when the catalog or the settings it was bound to have changed since.

        Raises QueryError 0A000 when its result columns are no longer the same.
        """
        if prepared.executable is None or self.is_fresh(prepared):
            return prepared
        again = self.prepare_parsed(prepared.parsed(), prepared.declared_types)
        if again.shape != prepared.shape:
            raise QueryError("cached plan must not change result type", "0A000")
        return again

    # ------------------------------------------------------------ transactions

    @property
    def in_block(self) -> bool:
        """Whether BEGIN has been given (and the block has not ended)."""
        return self.status != "I"

    @property
    def read_only(self) -> bool:
        """Whether the transaction may not write, by its own choice or because this node cannot."""
        return self.settings.reads_only or self.past is not None

    def transaction(self) -> Transaction:
        """The transaction of the current statement, begun when there is none."""
        if self._transaction is None:
            self._transaction = self._begin()
        elif self.settings.modes != self._modes:
            raise TransactionError(
                f"the isolation level and {as_of.NAME} must be set before any query", "25001"
            )
        return self._transaction

    @property
    def open_transaction(self) -> Transaction | None:
        """The transaction, if one is under way."""
        return self._transaction

    def _begin(self) -> Transaction:
        settings, coordinator = self.settings, self.instance.store.coordinator
        self._modes = settings.modes
        if settings.as_of:
            transaction = coordinator.begin_past(as_of.begin_of_past(self))
        else:
            transaction = coordinator.begin(
                _ISOLATION[settings.isolation], read_only=self.read_only
            )
        transaction.lock_timeout_ms = settings.lock_timeout_ms
        self.lock_owner.transaction = transaction.id
        return transaction

    def begin_block(self) -> None:
        """BEGIN: the block starts; what ran before it in the same implicit transaction joins it."""
        if self._transaction is None:
            self.transaction_us = self.statement_us
        self.status = "T"

    async def commit(self) -> bool:
        """Commit what is open and end the block; False when the block had failed and was rolled back instead."""
        if self.status == "E":
            await self.rollback()
            return False
        transaction, self._transaction = self._transaction, None
        try:
            if transaction is not None and await commit_key.committed_before(self, transaction):
                await transaction.rollback()
                await self._ended(committed=False)
                return True
            for cursor in self.cursors.values():
                if cursor.hold:
                    await cursor.materialize()
            if transaction is not None:
                await self.context().before_commit(transaction)
                commit_key.record(self, transaction)
                await undecided.decide(transaction)
                if self.overlay is not None:
                    self.instance.catalog.publish(self.overlay)
                    self.overlay = None
                if transaction.undecided:  # answered before a majority has it
                    undecided.leave_behind(self, transaction)
        except BaseException:
            if transaction is not None:
                if transaction.undecided:
                    undecided.leave_behind(self, transaction)
                await transaction.rollback()
            await self._ended(committed=False)
            raise
        if transaction is not None:
            self.instance.telemetry.transactions_committed_total += 1
        await self._ended(committed=True)
        return True

    async def rollback(self) -> None:
        """Roll back what is open and end the block."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.rollback()
            self.instance.telemetry.transactions_rolled_back_total += 1
        await self._ended(committed=False)

    async def _ended(self, *, committed: bool) -> None:
        self.status = "I"
        self.overlay = None
        if self.lock_owner.held:
            self.instance.catalog.locks.release_all(self.lock_owner)
        self.savepoints.clear()
        if self.advisory.transactional:
            self.advisory.transaction_ended()
        if self.channels.changed:
            self.channels.transaction_ended(committed=committed)
        if self.past is not None:
            self.past.ended()
        self.settings.end_transaction(committed=committed)
        if self._context is not None:
            self._context.transaction_ended()
        if self.cursors:
            for cursor in [c for c in self.cursors.values() if not (c.hold and committed)]:
                await cursor.close()
                del self.cursors[cursor.name]
        self.adopt_transaction_defaults()

    @property
    def settled(self) -> bool:
        """Whether there is no implicit transaction to commit: none at all, or a block."""
        return self.status != "I" or self._is_idle()

    def _is_idle(self) -> bool:
        return self._transaction is None and self.overlay is None and not self.settings.mark()

    async def finish_implicit(self) -> None:
        """Commit the implicit transaction, if no BEGIN has been given."""
        if not self.settled:
            await self.commit()

    async def fail(self) -> None:
        """A statement has failed: the block, or the implicit transaction, can only be rolled back."""
        if self.status == "I":
            await self.rollback()
            return
        self.status = "E"
        if not self.savepoints and self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            await transaction.rollback()
            self.instance.telemetry.transactions_rolled_back_total += 1

    # ------------------------------------------------------------ running

    def begin_statement(self, text: str) -> None:
        """Note the statement's start, for now() and for pg_stat_activity."""
        self.statement_us = self.state_us = self.instance.clock.wall_us()
        if self.status == "I" and self._transaction is None:
            self.transaction_us = self.statement_us
        self.query = text
        self.state = "active"
        if self.past is not None:
            self.past.look()

    def _needs_no_transaction(self, executable: Executable) -> bool:
        return (
            executable.point is not None
            and self._transaction is None
            and self.status == "I"
            and self.settings.isolation == "read committed"
            and not self.settings.as_of
        )

    def run_now(self, prepared: Prepared, params: Sequence[Any]) -> Outcome | None:
        """Run a statement that need not wait. None, or an error: nothing was changed, and `run` may be tried."""
        if self.status == "E":
            return None
        executable = prepared.executable
        if executable is None:
            return utility.run_now(self, prepared)
        point = executable.point
        if point is None and executable.one_row is None:
            return None
        if self.past is not None and not self.past.ready_now(prepared):
            return None
        if prepared.constants is not None:
            params = prepared.constants
        if point is not None and self._needs_no_transaction(executable):
            return _selected(prepared, point.read_now(self.context(), params))
        return self._run_within(prepared, executable, params)

    def _run_within(
        self, prepared: Prepared, executable: Executable, params: Sequence[Any]
    ) -> Outcome | None:
        """As `run_now`, in the session's transaction."""
        if self.past is not None or self.settings.as_of:
            return None
        point, one_row = executable.point, executable.one_row
        if one_row is not None and self.read_only:
            return None
        context = self.context()
        transaction = context.transaction = self.transaction()
        if not self._lock_tables_now(prepared):
            return None
        if 0 < transaction.snapshot < self.instance.catalog.changed:
            return None  # its tables may have to be seen otherwise: `older_snapshot`
        transaction.begin_statement()
        if point is not None:
            return _selected(prepared, point.read_within(context, params))
        assert one_row is not None, "it is one or the other"
        if transaction.writes.large:
            return None
        count = one_row.change_now(context, params)
        return None if count is None else Outcome(f"{prepared.tag} {count}")

    def _lock_tables_now(self, prepared: Prepared) -> bool:
        """As `_lock_tables`, if that needs no waiting and no DDL came first."""
        locks, owner = self.instance.catalog.locks, self.lock_owner
        for table, mode, _ in prepared.locks:
            if not locks.try_acquire(owner, table, mode):
                return False
        return self.is_fresh(prepared)

    async def run(self, prepared: Prepared, params: Sequence[Any] = ()) -> Outcome:
        """Run one statement in the session's transaction. Raises what it raises; the caller then calls `fail`."""
        if self.status == "E" and not utility.allowed_in_failed_block(prepared.node):
            raise TransactionError(
                "current transaction is aborted, commands ignored until end of transaction block",
                "25P02",
            )
        outcome = self.run_now(prepared, params)
        if outcome is not None:
            return outcome
        executable = prepared.executable
        if executable is None:
            try:
                return await utility.run(self, prepared, params)
            except QueryError as error:
                if error.position:
                    error.position += prepared.statement.offset
                raise
        if prepared.constants is not None:
            params = prepared.constants
        context = self.context()
        if self.past is None and self._needs_no_transaction(executable):
            assert executable.point is not None, "it reads one key"
            rows = await executable.point.read_latest(context, params)
            return Outcome("SELECT", prepared.columns, rows=rows)
        past = self.past
        if past is not None:
            past.check(prepared)
        transaction = context.transaction = self.transaction()
        if past is None:
            transaction.begin_statement()
        if prepared.locks:
            prepared = await self.made_ready(prepared, transaction)
            executable = prepared.executable
            assert executable is not None, "a statement over tables is planned"
        if past is not None:
            prepared = await past.begin_statement(transaction, prepared)
            executable = prepared.executable
            assert executable is not None, "checked to be a query"
            batches = past.stream(executable.stream(self.context(), params))
            return Outcome("SELECT", prepared.columns, batches=batches)
        if prepared.kind == "select":
            return Outcome("SELECT", prepared.columns, batches=executable.stream(context, params))
        changed = await executable.run(context, params)
        returned = changed.rows if prepared.columns is not None else None
        return Outcome(f"{prepared.tag} {changed.count}", prepared.columns, rows=returned)

    async def made_ready(self, prepared: Prepared, transaction: Transaction) -> Prepared:
        """The statement as the transaction can run it now: its tables locked, and seen as its snapshot sees them."""
        prepared = await self._lock_tables(prepared)
        if self.read_only:
            read_only.refuse_writes(prepared, "" if self.past is None else self.past.hint)
        if transaction.as_of:
            as_of.check_tables(self, prepared, transaction.as_of)
        elif 0 < transaction.snapshot < self.instance.catalog.changed:
            prepared = older_snapshot.adapted(self, prepared, transaction.snapshot)
        return prepared

    async def _lock_tables(self, prepared: Prepared) -> Prepared:
        """Lock what the statement uses against DDL; prepared again when a DDL came first."""
        locks, owner = self.instance.catalog.locks, self.lock_owner
        while True:
            for table, mode, name in prepared.locks:
                if not locks.try_acquire(owner, table, mode):
                    timeout_ms = self.settings.lock_timeout_ms
                    await locks.acquire(owner, table, mode, timeout_ms=timeout_ms, name=name)
            current = self.refreshed(prepared)
            if current is prepared:
                return prepared
            prepared = current
            self.context()  # its functions ask the newer catalog too

    async def fetch_all(self, outcome: Outcome) -> tuple[list[Row], str]:
        """All rows of an outcome, and its command tag."""
        if outcome.batches is None:
            return outcome.rows or [], outcome.tag or ""
        rows: list[Row] = []
        async for batch in outcome.batches:
            rows += batch
        return rows, outcome.complete(len(rows))

    async def execute(self, text: str, params: Sequence[Any] = ()) -> tuple[list[Row], str]:
        """Run one statement to its end and commit it when outside a block: for embedded use and the server's own."""
        self.begin_statement(text)
        try:
            prepared = self.prepare(text)
            if prepared is None:
                return [], ""
            result = await self.fetch_all(await self.run(prepared, params))
            await self.finish_implicit()
        except RecursionError:
            await self.fail()
            raise too_deep() from None
        except (DatabaseError, asyncio.CancelledError):
            await self.fail()
            raise
        self.state = "idle"
        return result

    async def close(self) -> None:
        """The client is gone: roll back, free everything."""
        for cursor in self.cursors.values():
            await cursor.close()
        self.cursors.clear()
        await self.rollback()
        self.channels.close()
        self.advisory.close()
        await utility.drop_temporary(self)
        self.instance.remove(self)


def _selected(prepared: Prepared, rows: list[Row] | None) -> Outcome | None:
    return None if rows is None else Outcome(f"SELECT {len(rows)}", prepared.columns, rows=rows)
