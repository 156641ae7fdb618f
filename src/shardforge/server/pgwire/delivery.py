"""Notifications on their way from a session's inbox to its client: between transactions, and as fast as it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shardforge.errors import QueryError
from shardforge.server.pgwire import backend
from shardforge.server.pgwire.output import WRITE_BYTES, Output

if TYPE_CHECKING:
    from shardforge.server.pgwire.connection import Connection
    from shardforge.sql.session.session import Session

LAST_WORD_SECONDS: Final = 10.0
"""How long a client has to read why its connection ends, when it has not read what came before."""


class Delivery:
    """The `Receiver` of one connection."""

    def __init__(self, connection: Connection, session: Session, output: Output) -> None:
        self._connection = connection
        self._session = session
        self._output = output
        self._due = False
        session.channels.receiver = self

    def wake(self) -> None:
        """Something has come: told in the loop's next turn, with all else that comes meanwhile."""
        if not self._due:
            self._due = True
            self._connection.loop.call_soon(self.deliver)

    def deliver(self) -> None:
        """Tell an idle client; another one is told before it is told that it is idle."""
        self._due = False
        if self._session.state == "idle":
            self.send()

    def send(self) -> None:
        """Write what there is, until the client is slow to read: what is left stays in the inbox."""
        output, channels = self._output, self._session.channels
        while channels.inbox and output.writable:
            for notification in channels.take(WRITE_BYTES):
                output.add(backend.notification_response(*notification))
            output.flush()

    def end(self, error: QueryError) -> None:
        """End the connection, but not amid whatever has filled the inbox."""
        connection = self._connection
        connection.server.log_error(error, self._session)
        connection.loop.call_soon(connection.terminate, error)
        if connection.transport is not None:
            connection.loop.call_later(LAST_WORD_SECONDS, connection.transport.abort)
