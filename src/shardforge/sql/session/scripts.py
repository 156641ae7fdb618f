"""Scripts: the statements of one text, each prepared when its turn comes, as those before may change what it means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from shardforge.errors import QueryError, TransactionError
from shardforge.sql.parse import parse
from shardforge.sql.session import utility
from shardforge.sql.session.prepared import Prepared

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session


async def statements(session: Session, text: str) -> AsyncIterator[Prepared]:
    """The statements of a script, each prepared when its turn comes."""
    single = session.cached(text)
    if single is not None:
        yield single
        return
    parsed = parse(text)
    if session.status == "E" and parsed and not utility.allowed_in_failed_block(parsed[0].node):
        raise TransactionError(
            "current transaction is aborted, commands ignored until end of transaction block",
            "25P02",
        )
    for statement in parsed:
        try:
            known = session.cached(statement.text) if len(parsed) > 1 else None
            own = text if len(parsed) == 1 else statement.text
            prepared = known or session.prepare_shared(own, statement)
        except QueryError as error:
            if error.position:
                error.position += statement.offset  # the client knows the script as a whole
            raise
        yield prepared
