"""LISTEN and NOTIFY: who listens to what, what transactions are about to send, and what sessions are still to be told.

All of it is in the memory of the tenure: a listener whose node fails loses its connection, and listens again. What a
transaction sends goes out once it is committed for good, in the order in which commits are answered; what it listens
to counts from then on. Each session has an inbox, which its connection empties between transactions (`delivery` of
the protocol). Nobody waits for a listener: one whose inbox is full is ended.

Source: PostgreSQL 15, NOTIFY, LISTEN; src/backend/commands/async.c.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from shardforge.errors import QueryError, TransactionError, unsupported
from shardforge.sql.session.outcome import Outcome

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session

PAYLOAD_BYTES_MAX: Final = 7999
CHANNEL_BYTES_MAX: Final = 63
CHANNELS_MAX: Final = 10_000
"""That a session listens to, and as many changes of that in a transaction."""
SENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of a transaction's notifications."""
INBOX_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of notifications that a session has not been told of: room for the largest transaction, and as much again."""
_OVERHEAD_BYTES: Final = 64
"""What a notification costs beside its texts."""


class Notification(NamedTuple):
    """What a listener is told: the sender, the channel, and a text."""

    process_id: int
    channel: str
    payload: str

    @property
    def size(self) -> int:
        """Bytes, about: what limits are counted in."""
        return len(self.channel) + len(self.payload) + _OVERHEAD_BYTES


class Receiver(Protocol):
    """A session's connection, as far as notifications go."""

    def wake(self) -> None:
        """There is something in the inbox."""
        ...

    def end(self, error: QueryError) -> None:
        """The inbox is full: end the connection."""
        ...


class Channels:
    """The listeners of a tenure."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, str], dict[SessionChannels, None]] = {}

    def add(self, listener: SessionChannels, database: str, channel: str) -> None:
        """A session listens to a channel of its database."""
        self._listeners.setdefault((database, channel), {})[listener] = None

    def remove(self, listener: SessionChannels, database: str, channel: str) -> None:
        """It does not any more."""
        listeners = self._listeners[database, channel]
        del listeners[listener]
        if not listeners:
            del self._listeners[database, channel]

    def publish(self, database: str, notifications: Iterable[Notification]) -> None:
        """Put the notifications of a committed transaction into their listeners' inboxes."""
        for notification in notifications:
            for listener in list(self._listeners.get((database, notification.channel), ())):
                listener.receive(notification)

    def usage(self) -> float:
        """How full the fullest inbox is, from 0 to 1."""
        listeners = (listener for those in self._listeners.values() for listener in those)
        return max((listener.inbox_bytes for listener in listeners), default=0) / INBOX_BYTES_MAX


class SessionChannels:
    """What one session listens to, what its transaction changes and sends, and what it is to be told."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.receiver: Receiver | None = None
        """Set by a connection that can be told something between statements."""
        self.listening: dict[str, None] = {}
        self.inbox: deque[Notification] = deque()
        self.inbox_bytes = 0
        self.changed = False
        """Whether the transaction has something to send or to change at its end."""
        self._changes: list[tuple[str, bool]] = []
        """(channel, listen or not), "" for all: to be carried out at commit."""
        self._sent: dict[tuple[str, str], int] = {}
        """(channel, payload) and size, in order: each is sent once."""
        self._sent_bytes = 0

    # ---- in a transaction ------------------------------------------------------------------------

    def _begin(self, command: str) -> None:
        session = self._session
        if session.past is not None:
            hint = session.past.hint
            raise TransactionError(f"cannot execute {command} during recovery", "25006", hint=hint)
        session.transaction()  # which is then committed, also without BEGIN
        self.changed = True

    def listen(self, channel: str) -> None:
        """Be told of a channel's notifications, from the commit on. Raises: 53400; 0A000 without a connection."""
        if self.receiver is None:
            raise unsupported(
                "LISTEN in a session that nothing can be sent to between its statements"
            )
        self._begin("LISTEN")
        self._change(channel, on=True)

    def unlisten(self, channel: str = "") -> None:
        """Not any more; "": of no channel."""
        if self.listening or self._changes:
            self._begin("UNLISTEN")
            self._change(channel, on=False)

    def _change(self, channel: str, *, on: bool) -> None:
        if len(self.listening) + len(self._changes) >= CHANNELS_MAX:
            raise QueryError(
                "too many channels to listen to", "53400", hint="UNLISTEN some of them."
            )
        self._changes.append((channel, on))

    def notify(self, channel: str, payload: str) -> None:
        """Send at commit. Raises: 22023; 54000 for more than a transaction may send."""
        if not channel:
            raise QueryError("channel name cannot be empty", "22023")
        if len(channel.encode()) > CHANNEL_BYTES_MAX:
            raise QueryError("channel name too long", "22023")
        if len(payload.encode()) > PAYLOAD_BYTES_MAX:
            raise QueryError("payload string too long", "22023")
        self._begin("NOTIFY")
        if (channel, payload) in self._sent:
            return
        size = Notification(0, channel, payload).size
        if self._sent_bytes + size > SENT_BYTES_MAX:
            raise QueryError("too many notifications in the NOTIFY queue", "54000")
        self._sent[channel, payload] = size
        self._sent_bytes += size

    def mark(self) -> tuple[int, int]:
        """Where a savepoint is."""
        return len(self._changes), len(self._sent)

    def rollback_to(self, mark: tuple[int, int]) -> None:
        """Forget what came after a savepoint."""
        changes, sent = mark
        del self._changes[changes:]
        while len(self._sent) > sent:
            self._sent_bytes -= self._sent.popitem()[1]

    def leave_behind(self) -> Callable[[], None]:
        """Take what the transaction sends, whose commit is not decided yet; to be called when it is committed."""
        session, sent = self._session, self._take()
        channels, database = session.instance.channels, session.database
        return lambda: channels.publish(database, sent)

    def _take(self) -> list[Notification]:
        process_id = self._session.process_id
        sent = [Notification(process_id, channel, payload) for channel, payload in self._sent]
        self._sent, self._sent_bytes = {}, 0
        return sent

    def transaction_ended(self, *, committed: bool) -> None:
        """Carry out what the transaction wanted, or forget it."""
        self.changed = False
        changes, self._changes = self._changes, []
        sent = self._take()
        if committed:
            for channel, on in changes:
                self._carry_out(channel, on=on)
            self._session.instance.channels.publish(self._session.database, sent)

    def _carry_out(self, channel: str, *, on: bool) -> None:
        channels, database = self._session.instance.channels, self._session.database
        if on:
            self.listening[channel] = None
            channels.add(self, database, channel)
            return
        for name in [channel] if channel else list(self.listening):
            if name in self.listening:
                del self.listening[name]
                channels.remove(self, database, name)
        self._put_back([one for one in self.take() if one.channel in self.listening])

    # ---- the inbox -------------------------------------------------------------------------------

    def receive(self, notification: Notification) -> None:
        """Something is to be told; a session that has too much of that is ended."""
        assert self.receiver is not None, "who listens has a connection"
        self.inbox.append(notification)
        self.inbox_bytes += notification.size
        if self.inbox_bytes <= INBOX_BYTES_MAX:
            self.receiver.wake()
            return
        self.close()
        self.receiver.end(
            QueryError(
                "terminating connection because it has not received its notifications",
                "54000",
                detail=f"More than {INBOX_BYTES_MAX} bytes of them are waiting.",
                hint="Read what the server sends, and keep a listening session's transactions short.",
            )
        )

    def take(self, bytes_max: int = INBOX_BYTES_MAX) -> Sequence[Notification]:
        """The oldest of what is to be told, out of the inbox: one at least, if there is any."""
        taken: list[Notification] = []
        size = 0
        while self.inbox and size < bytes_max:
            taken.append(self.inbox.popleft())
            size += taken[-1].size
        self.inbox_bytes -= size
        return taken

    def _put_back(self, notifications: Sequence[Notification]) -> None:
        self.inbox.extend(notifications)
        self.inbox_bytes += sum(one.size for one in notifications)

    def close(self) -> None:
        """The session ends: it listens to nothing, and is told nothing."""
        for channel in self.listening:
            self._session.instance.channels.remove(self, self._session.database, channel)
        self.listening.clear()
        self.inbox.clear()
        self.inbox_bytes = 0


# ---------------------------------------------------------------- statements


async def listen(
    session: Session, node: dict[str, Any], prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """LISTEN."""
    session.channels.listen(node["conditionname"])
    return Outcome("LISTEN")


async def unlisten(
    session: Session, node: dict[str, Any], prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """UNLISTEN, of one channel or of all."""
    session.channels.unlisten(node.get("conditionname", ""))
    return Outcome("UNLISTEN")


async def notify(
    session: Session, node: dict[str, Any], prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """NOTIFY."""
    session.channels.notify(node["conditionname"], node.get("payload", ""))
    return Outcome("NOTIFY")
