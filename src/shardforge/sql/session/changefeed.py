"""COPY table TO STDOUT (CHANGEFEED): the table's changes in commit order, until the client or `until` ends it.

    timestamp   when it was committed (microseconds since 1970, from the oracle)
    event       insert, update, delete; initial: a row that was there at the start; resolved
    before      the row as JSON, as it was
    after       the row as JSON, as it is

`resolved` says that no change at or below its timestamp is still to come. Options: CURSOR, a timestamp as above to
begin after (default now), INITIAL_SCAN, RESOLVED, how often in seconds, and UNTIL, a timestamp to end at.

The COPY holds ACCESS SHARE on its table, as any does: writers go on, changes of its definition wait.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from json.encoder import encode_basestring as quote
from typing import TYPE_CHECKING, Any, NamedTuple

from shardforge.errors import QueryError, unsupported
from shardforge.ids import Timestamp
from shardforge.sql.bind.tree import ColumnId, OutputColumn
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.execute.rowwriter import row_codec, stored_positions
from shardforge.sql.functions.json_build import json_writer
from shardforge.sql.session.outcome import Outcome, Row
from shardforge.sql.types import oids
from shardforge.txn.feed import COALESCE_SECONDS, Feed, changes

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session

Node = dict[str, Any]
OPTION = "changefeed"
_OPTIONS = (OPTION, "cursor", "initial_scan", "resolved", "until")
RESOLVED_SECONDS = 1.0

COLUMNS = tuple(
    OutputColumn(ColumnId(-1 - offset), name, type_oid)
    for offset, (name, type_oid) in enumerate(
        [
            ("timestamp", oids.INT8),
            ("event", oids.TEXT),
            ("before", oids.TEXT),
            ("after", oids.TEXT),
        ]
    )
)


class Options(NamedTuple):
    """What the statement asks for."""

    cursor: Timestamp | None
    until: Timestamp | None
    initial_scan: bool
    resolved: float


def take_options(node: Node) -> tuple[Node, Options | None]:
    """The COPY without the options of a change feed, and these; None when it is none."""
    given: dict[str, Node | None] = {}
    others = []
    for item in node.get("options", []):
        element = item["DefElem"]
        if element["defname"] in _OPTIONS:
            given[element["defname"]] = element.get("arg")
        else:
            others.append(item)
    if OPTION not in given:
        return node, None
    resolved = _number(given, "resolved")
    if resolved is not None and not 0 < resolved <= 3600:
        raise QueryError("RESOLVED is a number of seconds above 0 and up to 3600", "22023")
    options = Options(
        _timestamp(given, "cursor"), _timestamp(given, "until"), "initial_scan" in given,
        RESOLVED_SECONDS if resolved is None else resolved,
    )  # fmt: skip
    if options.cursor is not None and options.initial_scan:
        raise QueryError("CURSOR and INITIAL_SCAN cannot be used together", "22023")
    return {**node, "options": others}, options


def _number(given: dict[str, Node | None], name: str) -> float | None:
    if name not in given:
        return None
    match given[name]:
        case {"Integer": value}:
            return float(value.get("ival", 0))
        case {"Float": value}:
            text = str(value["fval"])
        case {"String": {"sval": text}}:
            pass
        case _:
            text = ""
    try:
        return float(text)
    except ValueError:
        raise QueryError(f"{name.upper()} requires a numeric value", "22023") from None


def _timestamp(given: dict[str, Node | None], name: str) -> Timestamp | None:
    if name not in given:
        return None
    match given[name]:
        case {"Float": {"fval": text}} | {"String": {"sval": text}} if text.isdecimal():
            return Timestamp(int(text))
        case {"Integer": value}:
            return Timestamp(value.get("ival", 0))
    raise QueryError(f"{name.upper()} requires a timestamp as a change feed tells it", "22023")


async def open_feed(session: Session, node: Node, options: Options) -> Outcome:
    """The stream, from a moment within this call on."""
    relation = node.get("relation")
    if relation is None or node.get("is_from") or node.get("attlist"):
        raise unsupported("a change feed of anything but a whole table")
    if session.instance.reads_past:
        raise unsupported("a change feed on a node that no majority leads")
    name = relation["relname"]
    catalog = session.instance.catalog
    table = session.catalog.table(relation.get("schemaname"), name, session.search_path)
    session.transaction()
    await catalog.locks.acquire(
        session.lock_owner, table.id, TableLockMode.ACCESS_SHARE,
        timeout_ms=session.settings.lock_timeout_ms, name=name,
    )  # fmt: skip
    table = session.catalog.table(relation.get("schemaname"), name, session.search_path)
    coordinator = session.instance.store.coordinator
    now = await coordinator.oracle.next()
    since = now
    if options.cursor is not None:
        since = coordinator.past(options.cursor, now)
        if catalog.redefined.get(table.id, 0) > since:
            raise unsupported(f'changes of table "{name}" from before its definition changed')
    return Outcome("SELECT", COLUMNS, batches=_rows(session, table, since, options))


async def _rows(
    session: Session, table: Table, since: Timestamp, options: Options
) -> AsyncIterator[list[Row]]:
    write, clock = _Writer(session, table), session.instance.clock
    space = IndexSpace(table, table.indexes[0])
    coordinator = session.instance.store.coordinator
    coordinator.past(since, coordinator.oracle.last)
    feed = Feed(coordinator, space.whole(), space.owner(), since)
    try:
        if options.initial_scan:
            async with aclosing(_initial(session, table, feed.position)) as chunks:
                async for chunk in chunks:
                    yield [(feed.position, "initial", None, write(row)) for row in chunk]
            yield [(feed.position, "resolved", None, None)]
        while options.until is None or feed.position < options.until:
            told, end = feed.position, clock.monotonic_ns() + options.resolved * 1e9
            while feed.position == told or clock.monotonic_ns() < end:
                async for batch in changes(feed):
                    yield [
                        (c.timestamp, _event(c.before, c.after), write(c.before), write(c.after))
                        for c in batch
                        if options.until is None or c.timestamp <= options.until
                    ]
                if options.until is not None and feed.position >= options.until:
                    break
                await feed.wait(max(COALESCE_SECONDS, (end - clock.monotonic_ns()) / 1e9))
            yield [(feed.position, "resolved", None, None)]
    finally:
        feed.close()


async def _initial(
    session: Session, table: Table, at: Timestamp
) -> AsyncGenerator[list[bytes], None]:
    """The rows that are there at a timestamp, which the feed pins."""
    transaction = session.instance.store.coordinator.begin_past(at)
    space = IndexSpace(table, table.indexes[0])
    owns = space.owner()
    try:
        for start, end in space.whole():
            async for chunk in transaction.scan(start, end):
                yield [value for key, value in chunk if owns is None or owns(key)]
    finally:
        await transaction.rollback()


def _event(before: bytes | None, after: bytes | None) -> str:
    if before is None:
        return "insert"
    return "delete" if after is None else "update"


class _Writer:
    """Rows as JSON objects, the table's columns in order."""

    def __init__(self, session: Session, table: Table) -> None:
        self._decode = row_codec(table).decode
        self._settings = session.settings
        positions = stored_positions(table)
        self._columns = [
            (quote(column.name) + ":", positions[column.id], json_writer(column.type_oid))
            for column in table.columns
            if not (column.dropped or column.hidden)
        ]

    def __call__(self, data: bytes | None) -> str | None:
        if data is None:
            return None
        row = self._decode(data)
        fields = []
        for name, position, write in self._columns:
            value = row[position]
            fields.append(name + ("null" if value is None else write(self._settings, value)))
        return "{" + ",".join(fields) + "}"
