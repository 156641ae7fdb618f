"""The extended query protocol: prepared statements, portals, and what runs between two Syncs.

Source: PostgreSQL 15, chapter 55.2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shardforge.errors import QueryError
from shardforge.server.pgwire import backend, frontend
from shardforge.server.pgwire.output import Output
from shardforge.sql.session.cursors import RowSource, once
from shardforge.sql.session.outcome import Outcome
from shardforge.sql.session.prepared import Prepared
from shardforge.sql.session.session import Session
from shardforge.sql.session.statements import check_parameter_count

PORTALS_MAX = 1000
STATEMENTS_MAX = 20_000


@dataclass(slots=True)
class Portal:
    """A bound statement, perhaps half way through its rows. `prepared` None: an empty statement."""

    prepared: Prepared | None
    params: Sequence[Any]
    formats: tuple[int, ...]
    source: RowSource | None = None
    sent: int = 0
    finished: str | None = None
    """The command tag, once it has run."""


@dataclass(slots=True)
class Extended:
    """The named and unnamed statements and portals of one connection."""

    session: Session
    output: Output
    empty: set[str] = field(default_factory=set)
    """Names of statements prepared from an empty text."""
    portals: dict[str, Portal] = field(default_factory=dict)

    def parse(self, message: frontend.Parse) -> None:
        """Prepare a statement."""
        session, name = self.session, message.name
        if name and (name in session.prepared or name in self.empty):
            raise QueryError(f'prepared statement "{name}" already exists', "42P05")
        if len(session.prepared) >= STATEMENTS_MAX:
            raise QueryError(
                "too many prepared statements",
                "53400",
                hint="Close statements that are not used again.",
            )
        prepared = session.prepare(message.query, message.parameter_types)
        session.prepared.pop(name, None)
        self.empty.discard(name)
        if prepared is None:
            self.empty.add(name)
        else:
            session.prepared[name] = prepared
        self.output.add(backend.PARSE_COMPLETE)

    def _statement(self, name: str) -> Prepared | None:
        found = self.session.prepared.get(name)
        if found is None and name not in self.empty:
            what = f'prepared statement "{name}"' if name else "unnamed prepared statement"
            raise QueryError(f"{what} does not exist", "26000")
        return found

    def bind(self, message: frontend.Bind) -> None:
        """Make a portal of a statement and its parameters."""
        prepared = self._statement(message.statement)
        name = message.portal
        if name and name in self.portals:
            raise QueryError(f'cursor "{name}" already exists', "42P03")
        if len(self.portals) >= PORTALS_MAX:
            raise QueryError("too many open portals", "53400")
        params: Sequence[Any] = ()
        if prepared is not None:
            prepared = self.session.refreshed(prepared)
            check_parameter_count(prepared, len(message.values))
            params = self.output.codecs.decode(
                message.values, prepared.parameter_types, message.formats
            )
        self.portals[name] = Portal(prepared, params, message.result_formats)
        self.output.add(backend.BIND_COMPLETE)

    def _portal(self, name: str) -> Portal:
        found = self.portals.get(name)
        if found is None:
            raise QueryError(f'portal "{name}" does not exist', "34000")
        return found

    def describe(self, kind: str, name: str) -> None:
        """Describe a statement's parameters and rows, or a portal's rows."""
        output = self.output
        if kind == "S":
            prepared = self._statement(name)
            if prepared is not None:
                prepared = self.session.refreshed(prepared)
            output.add(backend.parameter_description(prepared.parameter_types if prepared else ()))
            formats: tuple[int, ...] = ()
        else:
            cursor = self.session.cursors.get(name)
            if cursor is not None:  # DECLAREd, which makes a portal too
                output.row_description(cursor.columns, ())
                return
            portal = self._portal(name)
            prepared, formats = portal.prepared, portal.formats
        columns = prepared.columns if prepared is not None else None
        if columns is None:
            output.add(backend.NO_DATA)
        else:
            output.row_description(columns, formats)

    def execute_now(self, portal: Portal, rows_max: int) -> bool:
        """Run a portal that need not wait for anything; False when nothing was done: it takes `execute`."""
        prepared = portal.prepared
        if prepared is None or rows_max or portal.source is not None or portal.finished is not None:
            return False
        outcome = self.session.run_now(prepared, portal.params)
        if outcome is None:
            return False
        output = self.output
        if outcome.rows:
            assert prepared.columns is not None, "a SELECT has columns"
            output.add_rows(outcome.rows, prepared.columns, portal.formats)
        portal.finished = outcome.tag
        output.add(backend.command_complete(outcome.tag))
        return True

    async def execute(self, name: str, rows_max: int) -> Outcome | None:
        """Run a portal, or take its next rows. Returns a COPY for the connection to carry out."""
        portal, output, session = self._portal(name), self.output, self.session
        prepared = portal.prepared
        if prepared is None:
            output.add(backend.EMPTY_QUERY)
            return None
        if portal.finished is not None:
            output.add(backend.command_complete(_tag_without_rows(portal.finished)))
            return None
        columns = prepared.columns
        if portal.source is None:
            outcome = await session.run(prepared, portal.params)
            if outcome.copy_in is not None or outcome.copy_out is not None:
                return outcome
            if rows_max == 0 or columns is None:
                portal.finished = await output.send_outcome(outcome, columns, portal.formats)
                return None
            portal.source = RowSource(columns, outcome.batches or once(outcome.rows or []))
            portal.finished = None
        assert columns is not None, "a portal with a row source has columns"
        rows = await portal.source.fetch(rows_max)
        portal.sent += len(rows)
        await output.rows(rows, columns, portal.formats)
        if portal.source.finished:
            portal.finished = (
                f"{prepared.tag} {portal.sent}" if prepared.kind == "select" else prepared.tag
            )
            output.add(backend.command_complete(f"{prepared.tag} {len(rows)}"))
        else:
            output.add(backend.PORTAL_SUSPENDED)
        return None

    async def close(self, kind: str, name: str) -> None:
        """Close a statement or a portal; closing what is not there is no error."""
        if kind == "S":
            self.session.prepared.pop(name, None)
            self.empty.discard(name)
        else:
            await self._drop(name)
        self.output.add(backend.CLOSE_COMPLETE)

    async def _drop(self, name: str) -> None:
        portal = self.portals.pop(name, None)
        if portal is not None and portal.source is not None:
            await portal.source.close()

    def settled(self) -> bool:
        """Whether a Sync has nothing to commit or to close; forgets portals that end there."""
        session = self.session
        if not session.settled:
            return False
        if session.in_block:
            return True
        for portal in self.portals.values():
            if portal.source is not None:
                return False
        self.portals.clear()
        return True

    async def end_transaction(self) -> None:
        """Portals do not outlive their transaction."""
        if self.portals and not self.session.in_block:
            for name in list(self.portals):
                await self._drop(name)


def _tag_without_rows(tag: str) -> str:
    word, _, _ = tag.rpartition(" ")
    return f"{word} 0" if word else tag
