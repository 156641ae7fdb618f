"""A session as its catalog tables see it: what pg_stat_activity, pg_settings, pg_locks and their kin are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from shardforge.sql.catalog.descriptors import Sequence as SequenceDescriptor
from shardforge.sql.catalog.relations import Activity, AdvisoryLock, RowLock
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.session.lock_view import advisory_locks, row_locks
from shardforge.sql.session.settings import Settings

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session

UNIX_EPOCH_TO_2000_US = 946_684_800_000_000


class Introspection:
    """The `VirtualContext` of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def snapshot(self) -> CatalogSnapshot:
        """The catalog that the statement is bound to."""
        return self.session.catalog

    @property
    def settings(self) -> Settings:
        """The session's parameters."""
        return self.session.settings

    @property
    def search_path(self) -> tuple[str, ...]:
        """Where names are looked up."""
        return self.session.search_path

    @property
    def statement_us(self) -> int:
        """The statement's time, in microseconds since 2000."""
        return self.session.statement_us - UNIX_EPOCH_TO_2000_US

    def activity(self) -> Iterator[Activity]:
        """Every session of the node."""
        for other in list(self.session.instance.sessions.values()):
            in_transaction = other.in_block or other.open_transaction is not None
            yield Activity(
                pid=other.process_id, database=other.database, user=other.user,
                application_name=other.settings.show("application_name"),
                client_addr=other.client or None, client_port=None, state=other.state, query=other.query,
                backend_start=other.started_us - UNIX_EPOCH_TO_2000_US,
                xact_start=other.transaction_us - UNIX_EPOCH_TO_2000_US if in_transaction else None,
                query_start=other.statement_us - UNIX_EPOCH_TO_2000_US,
                state_change=other.state_us - UNIX_EPOCH_TO_2000_US,
                ssl=other.settings.show("ssl") == "on",
            )  # fmt: skip

    def table_locks(self) -> Iterable[tuple[int, int, int, bool]]:
        """(pid, table oid, mode, granted) of every table lock and waiter."""
        for name, table, mode, granted in self.session.instance.catalog.locks.held():
            if isinstance(name, int):
                yield name, table, int(mode), granted

    def row_locks(self) -> Iterator[RowLock]:
        """Every row lock and waiter."""
        return row_locks(self.session.instance, self.snapshot)

    def advisory_locks(self) -> Iterator[AdvisoryLock]:
        """Every advisory lock and waiter."""
        return advisory_locks(self.session.instance)

    def sequence_last_value(self, sequence: SequenceDescriptor) -> int | None:
        """The last value given, when it is known."""
        return self.session.instance.catalog.sequences.last_value(sequence)

    def prepared_statements(self) -> Iterator[tuple[str, str, int, tuple[int, ...], bool]]:
        """(name, text, prepare time, parameter type oids, made by SQL) of the named ones."""
        for name, prepared in self.session.prepared.items():
            if name:
                yield (
                    name,
                    prepared.text,
                    self.statement_us,
                    prepared.parameter_types,
                    prepared.by_sql,
                )

    def cursors(self) -> Iterator[tuple[str, str, bool, bool, bool, int]]:
        """(name, text, holdable, binary, scrollable, creation time)."""
        for cursor in self.session.cursors.values():
            yield (
                cursor.name,
                cursor.statement,
                cursor.hold,
                False,
                cursor.scroll,
                self.statement_us,
            )
