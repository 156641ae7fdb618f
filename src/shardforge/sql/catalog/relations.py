"""Catalog tables: relations whose rows are computed when they are read.

A `VirtualTable` has PostgreSQL's columns and oid; `rows` makes its rows from a context. Nothing is stored and
nothing can be changed. `VirtualContext` is all that a generator may ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shardforge.sql.catalog.descriptors import Column
from shardforge.sql.catalog.descriptors import Sequence as SequenceDescriptor

if TYPE_CHECKING:
    from shardforge.sql.catalog.snapshot import CatalogSnapshot


class Activity(NamedTuple):
    """One connection, for pg_stat_activity. Times are microseconds since 2000-01-01 UTC."""

    pid: int
    database: str
    user: str
    application_name: str
    client_addr: str | None
    client_port: int | None
    state: str
    query: str
    backend_start: int | None
    xact_start: int | None
    query_start: int | None
    state_change: int | None
    ssl: bool = False
    ssl_version: str | None = None
    ssl_cipher: str | None = None


class VirtualSettings(Protocol):
    """The settings that pg_settings shows: (name, value, description)."""

    def all(self) -> Sequence[tuple[str, str, str]]: ...


class RowLock(NamedTuple):
    """A lock on a row, or the wait for one; `pid` and `table` are None when they are nobody's that SQL knows."""

    pid: int | None
    table: int | None
    key: str
    """In hex."""
    transaction: int
    strength: int
    granted: bool


class AdvisoryLock(NamedTuple):
    """An advisory lock, or the wait for one; the numbers as in pg_locks."""

    pid: int
    database: int
    classid: int
    objid: int
    objsubid: int
    shared: bool
    granted: bool


class VirtualContext(Protocol):
    """What the rows of catalog tables are made from."""

    @property
    def snapshot(self) -> CatalogSnapshot: ...
    @property
    def settings(self) -> VirtualSettings: ...
    @property
    def search_path(self) -> Sequence[str]: ...
    def activity(self) -> Iterable[Activity]: ...
    def table_locks(self) -> Iterable[tuple[int, int, int, bool]]:
        """(pid, table oid, mode, granted) of every table lock and waiter."""
        ...

    def row_locks(self) -> Iterable[RowLock]:
        """Every row lock and waiter."""
        ...

    def advisory_locks(self) -> Iterable[AdvisoryLock]:
        """Every advisory lock and waiter."""
        ...

    @property
    def statement_us(self) -> int:
        """The statement's time, in microseconds since 2000."""
        ...

    def sequence_last_value(self, sequence: SequenceDescriptor) -> int | None:
        """The last value given, when it is known."""
        ...

    def prepared_statements(self) -> Iterable[tuple[str, str, int | None, tuple[int, ...], bool]]:
        """(name, text, prepare time, parameter type oids, made by SQL rather than the protocol)."""
        ...

    def cursors(self) -> Iterable[tuple[str, str, bool, bool, bool, int | None]]:
        """(name, text, holdable, binary, scrollable, creation time)."""
        ...


Rows = Callable[[VirtualContext], Iterable[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True, eq=False)
class VirtualTable:
    """A catalog table or view: PostgreSQL's oid, columns, and a generator of its rows."""

    id: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    rows: Rows
    kind: str = "r"
    """pg_class.relkind: 'r' table, 'v' view."""
    type_oid: int = 0
