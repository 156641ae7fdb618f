"""What catalog tables read from a session and its node: see `sql.catalog.relations.VirtualContext`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shardforge.sql.catalog.descriptors import Sequence as SequenceDescriptor
from shardforge.sql.catalog.relations import Activity
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.functions.context import UNIX_EPOCH_TO_2000_US
from shardforge.sql.session.settings import Settings

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session


class CatalogView:
    """One session's view, as of its current statement."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.snapshot: CatalogSnapshot = session.catalog
        self.search_path = session.search_path
        self.settings: Settings = session.settings
        self.statement_us = session.statement_us - UNIX_EPOCH_TO_2000_US

    @property
    def session(self) -> CatalogView:
        """Who is reading."""
        return self

    @property
    def pid(self) -> int:
        """The session's process id."""
        return self._session.process_id

    @property
    def user(self) -> str:
        """The session's role."""
        return self._session.user

    @property
    def database(self) -> str:
        """The session's database."""
        return self._session.database

    def activity(self) -> Iterator[Activity]:
        """Every session of the node."""
        for s in list(self._session.instance.sessions.values()):
            active = s.state == "active" or s.in_block
            yield Activity(
                pid=s.process_id, database=s.database, user=s.user,
                application_name=s.settings.show("application_name"), client_addr=s.client or None,
                client_port=None, state=s.state, query=s.query,
                backend_start=s.started_us - UNIX_EPOCH_TO_2000_US,
                xact_start=s.transaction_us - UNIX_EPOCH_TO_2000_US if active else None,
                query_start=s.statement_us - UNIX_EPOCH_TO_2000_US,
                state_change=s.state_us - UNIX_EPOCH_TO_2000_US,
            )  # fmt: skip

    def table_locks(self) -> Iterator[tuple[int, int, int, bool]]:
        """(pid, table, mode, granted) of every table lock and waiter."""
        for name, table, mode, granted in self._session.instance.catalog.locks.held():
            if isinstance(name, int):
                yield name, table, int(mode), granted

    def sequence_last_value(self, sequence: SequenceDescriptor) -> int | None:
        """The last value given by this process."""
        return self._session.instance.catalog.sequences.last_value(sequence)

    def prepared_statements(self) -> Iterator[tuple[str, str, int | None, tuple[int, ...], bool]]:
        """The session's named prepared statements; when they were made is not kept."""
        for name, prepared in self._session.prepared.items():
            if name:
                yield name, prepared.text, None, prepared.parameter_types, True

    def cursors(self) -> Iterator[tuple[str, str, bool, bool, bool, int | None]]:
        """The session's open cursors; their texts and times are not kept."""
        for name, cursor in self._session.cursors.items():
            yield name, "", cursor.hold, False, False, None
