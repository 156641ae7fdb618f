"""Reading the past: what `shardforge.as_of_system_time` means.

The setting is "" (off), a negative interval ('-10s') or a timestamp. A transaction that begins while it is set is read
only and sees the database as it was then, at one timestamp of the oracle. PostgreSQL's grammar has no place for
CockroachDB's AS OF SYSTEM TIME, so a setting stands for it.
Invariant: a table is read only as of a time since which its definition has not changed, because statements are bound
to the catalog of today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardforge.errors import QueryError, unsupported
from shardforge.ids import Timestamp
from shardforge.sql.functions.datetime_arithmetic import timestamp_pl_interval
from shardforge.sql.session.introspection import UNIX_EPOCH_TO_2000_US
from shardforge.sql.types import oids
from shardforge.sql.types.interval_text import parse_interval
from shardforge.sql.types.registry import input_function

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session

NAME = "shardforge.as_of_system_time"


def begin_of_past(session: Session) -> Timestamp:
    """The oracle's timestamp that the setting means for a transaction that begins now; 22007 for no timestamp."""
    text = session.settings.as_of
    if session.instance.reads_past:
        raise unsupported(f"{NAME} on a node that does not serve")
    if text.startswith("-"):
        now = session.statement_us - UNIX_EPOCH_TO_2000_US
        moment = timestamp_pl_interval(now, parse_interval(text))
    else:
        moment = input_function(oids.TIMESTAMPTZ, session.settings)(text)
    if moment + UNIX_EPOCH_TO_2000_US <= 0:
        raise QueryError(f'{NAME} = "{text}" is before the database', "22023")
    return Timestamp(moment + UNIX_EPOCH_TO_2000_US)


def check_tables(session: Session, prepared: Prepared, timestamp: Timestamp) -> None:
    """0A000 when a table of the statement had another definition at the timestamp, or none."""
    changed = session.instance.catalog.redefined
    for table, _, name in prepared.locks:
        if changed.get(table, 0) > timestamp:
            raise unsupported(f'reading table "{name}" as of a time before its definition changed')
