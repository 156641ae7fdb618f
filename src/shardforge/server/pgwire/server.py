"""The listening side: accepts connections, refuses what it must, cancels, drains, and reports what statements did."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from shardforge.config import Config, split_address
from shardforge.errors import (
    ConsensusError,
    DatabaseError,
    NetworkError,
    QueryError,
    Reaction,
    TransactionError,
)
from shardforge.ids import NodeId
from shardforge.ports import Clock
from shardforge.server.calls import Call
from shardforge.server.listener import ALPN, Callers, Listener
from shardforge.server.peer.forward import GRPC, Forwarded, read_origin, unpack_origin
from shardforge.server.peer.network import PeerNetwork
from shardforge.server.pgwire.connection import STARTUP_SECONDS_MAX, Connection
from shardforge.sql.catalog.descriptors import Role
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.parameters import normalized
from shardforge.sql.session.session import Session
from shardforge.telemetry import Telemetry

SERVING_SECONDS = 10.0
"""How long a client that connects waits for a node that leads."""

LAST_WORD_SECONDS = 1.0
"""How long clients have, at the end of a drain, to read why they are left."""

error_log = logging.getLogger("shardforge.error")
query_log = logging.getLogger("shardforge.query")


_STANDBY = {
    "in_hot_standby": "on",
    "default_transaction_read_only": "on",
    "transaction_read_only": "on",
}


class GrpcDoor(Protocol):
    """Where gRPC's connections go (`server.grpc.gateway`)."""

    def accept(self, tls: bool) -> asyncio.Protocol:
        """The protocol for a client's connection, given whether its TLS is up."""
        ...

    def accept_node(self) -> asyncio.Protocol:
        """The protocol for a connection from another node."""
        ...

    async def stop(self, seconds: float) -> None:
        """End what runs, after a while."""
        ...


class FollowingDoor(Protocol):
    """Which sessions this node answers by itself while another one serves (`node.following`)."""

    @property
    def instance(self) -> Instance | None:
        """What they run on; None while there are none."""
        ...

    def known(self) -> Instance | None:
        """The same, made now if this node can tell without waiting what there was a while ago."""
        ...

    async def ready(self, level: str) -> Instance | None:
        """The instance for a session of that level; None where this node has nothing for it."""
        ...


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The server's TLS, or None when none is configured. Raises NetworkError when the files cannot be used."""
    security = config.security
    if not security.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    try:
        context.load_cert_chain(Path(security.tls_certificate), Path(security.tls_key))
    except (OSError, ssl.SSLError) as error:
        raise NetworkError(
            f"security.tls_certificate = {security.tls_certificate!r}, security.tls_key = {security.tls_key!r}: "
            f"cannot be used: {error}",
            "F0000",
        ) from error
    return context


class Server:
    """Serves the PostgreSQL protocol on the configured address, and lets gRPC and other nodes in there."""

    def __init__(self, config: Config, telemetry: Telemetry, clock: Clock) -> None:
        self.config = config
        self.instance: Instance | None = None
        """What sessions run on; None while this node does not serve."""
        self.telemetry = telemetry
        self._clock = clock
        self.peers: PeerNetwork | None = None
        """Set before `listen` when there are other nodes."""
        self.forward_to: Callable[[], NodeId | None] = lambda: None
        """Which other node serves clients; None: this one does, or nobody is known to."""
        self.grpc: GrpcDoor | None = None
        """Set before `listen` when gRPC is served too."""
        self.following: FollowingDoor | None = None
        """Set before `listen` where other nodes may serve."""
        self.calls: set[Call] = set()
        """Sessions without a connection."""
        self.forwarded: set[Forwarded] = set()
        self.serving_seconds = SERVING_SECONDS
        self._waiting: list[asyncio.Future[None]] = []
        self.tls = tls_context(config)
        self.connections: set[Connection] = set()
        self._listener: Listener | None = None
        self.record_span: Callable[[str, str, int, int], None] | None = None
        """Set when tracing is on: (kind, statement, start, end in nanoseconds since 1970)."""
        self._slow_seconds = config.sql.slow_statement_ms / 1000

    async def listen(self) -> tuple[str, int]:
        """Accept clients; returns the address. Raises NetworkError when it is in use."""
        host, port = split_address(self.config.cluster.bind_address)
        callers = Callers(
            lambda tls: Connection(self, tls=tls),
            grpc=None if self.grpc is None else self.grpc.accept,
            tls=self.tls,
        )
        if self.peers is not None:
            callers.peer = self.peers.accept
            self.peers.on_splice(self._take_forwarded)
        listener = Listener(callers, STARTUP_SECONDS_MAX)
        try:
            address = await listener.listen(host, port)
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                "08006",
                hint="Stop what uses the port, or choose another with --bind.",
            ) from error
        self._listener = listener
        return address

    def _take_forwarded(
        self, node: NodeId, preamble: bytes, transport: asyncio.Transport
    ) -> Callable[[], asyncio.Protocol]:
        """A client, or calls, that another node forwards. Raises DatabaseError when they cannot be served here."""
        if self.grpc is not None and unpack_origin(preamble).packet == GRPC:
            return self.grpc.accept_node
        origin, judged_host = read_origin(preamble, transport)
        if not self.serves:
            here = self.config.cluster.node_id if self.peers is None else self.peers.node
            raise ConsensusError(f"node {here} does not serve at present")
        return lambda: Connection(self, origin=origin, judged_host=judged_host)

    def serve(self, instance: Instance) -> None:
        """Let sessions begin."""
        instance.interrupt_session = self.interrupt_session
        self.instance = instance
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            _settle(waiter)

    async def wait_serving(self, seconds: float) -> None:
        """Return when this node serves, or after a while."""
        if self.instance is None:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiting.append(waiter)
            timer = loop.call_later(seconds, _settle, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                if waiter in self._waiting:
                    self._waiting.remove(waiter)

    async def serving(self) -> Instance:
        """The instance, awaited for a while if this node does not serve yet. Raises ConsensusError 57P03."""
        await self.wait_serving(self.serving_seconds)
        if self.instance is None:
            raise ConsensusError(
                "no node leads the cluster at present",
                hint="Try again in a moment, or look at it with: shardforge cluster status",
            )
        return self.instance

    @property
    def serves(self) -> bool:
        """Whether this node serves, and not only what it holds of the past."""
        return self.instance is not None and not self.instance.standby

    @property
    def instances(self) -> list[Instance]:
        """What sessions run on: the tenure's instance, and a follower's."""
        following = None if self.following is None else self.following.instance
        return [one for one in (self.instance, following) if one is not None]

    async def end_tenure(self, reason: TransactionError) -> None:
        """End every session of the tenure, telling its client why: this node serves no more."""
        instance, self.instance = self.instance, None
        if instance is not None:
            await self.end_sessions(instance, reason)

    async def end_sessions(self, instance: Instance, reason: TransactionError) -> None:
        """End every session of an instance, telling its client why."""
        connections = [
            connection
            for connection in self.connections
            if connection.conversation is not None
            and connection.conversation.session.instance is instance
        ]
        calls = [call for call in self.calls if call.session.instance is instance]
        for connection in connections:
            connection.terminate(reason)
        for call in calls:
            call.interrupt(reason)
        for connection in connections:
            await connection.wait_closed()
        for call in calls:
            await call.wait_ended()

    def session_defaults(self, instance: Instance, role: Role, user: str) -> dict[str, str]:
        """The values that a session of `user` starts with."""
        timeout_ms = round(self.config.sql.query_timeout_sec * 1000)
        return {
            "statement_timeout": normalized("statement_timeout", f"{timeout_ms}ms"),
            "max_connections": str(self.config.sql.max_connections),
            "session_authorization": user,
            "is_superuser": "on" if role.superuser else "off",
            "ssl": "on" if self.tls is not None else "off",
            "shardforge.consistency_level": self.config.replication.consistency_level,
            **role.settings,
            **(_STANDBY if instance.reads_past else {}),
        }

    def cancel(self, process_id: int, secret: bytes) -> bool:
        """A cancel request: end the session's statement, if the secret is right; False where it has no session here."""
        for instance in self.instances:
            session = instance.sessions.get(process_id)
            if session is not None and session.secret == secret:
                self.interrupt(
                    session, QueryError("canceling statement due to user request", "57014")
                )
                return True
        return False

    def interrupt(self, session: Session, reason: QueryError) -> bool:
        """Cancel what `session` runs; False when nothing of it can be cancelled."""
        for connection in self.connections:
            if connection.conversation is not None and connection.conversation.session is session:
                connection.interrupt(reason)
                return True
        return self._interrupt_call(session, reason)

    def _interrupt_call(self, session: Session, reason: QueryError) -> bool:
        for call in self.calls:
            if call.session is session:
                call.interrupt(reason)
                return True
        return False

    def interrupt_session(self, session: Session, terminate: bool) -> bool:  # a callback
        if not terminate:
            return self.interrupt(
                session, QueryError("canceling statement due to user request", "57014")
            )
        reason = QueryError("terminating connection due to administrator command", "57P01")
        for connection in self.connections:
            if connection.conversation is not None and connection.conversation.session is session:
                connection.terminate(reason)
                return True
        return self._interrupt_call(session, reason)

    def statement_done(self, session: Session, kind: str, seconds: float) -> None:
        """Count a statement, and write down a slow one."""
        self.telemetry.statement_done(kind, seconds)
        if self.record_span is not None:
            end_ns = self._clock.wall_us() * 1000
            self.record_span(kind, session.query, end_ns - int(seconds * 1e9), end_ns)
        if 0 <= self._slow_seconds <= seconds:
            query_log.info(
                "slow statement",
                extra={"fields": {
                    "user": session.user, "database": session.database, "process": session.process_id,
                    "milliseconds": round(seconds * 1000, 3), "kind": kind, "statement": session.query[:10_000],
                }},
            )  # fmt: skip

    def log_error(self, error: DatabaseError, who: Any) -> None:
        """Write an error down with the words that the client gets."""
        severe = error.reaction is Reaction.INTERNAL
        error_log.log(
            logging.ERROR if severe else logging.WARNING,
            str(error),
            exc_info=error if severe else None,
            extra={"fields": {
                "sqlstate": error.sqlstate, "detail": error.detail, "hint": error.hint,
                "user": getattr(who, "user", ""), "database": getattr(who, "database", ""),
                "statement": getattr(who, "query", "")[:2000],
            }},
        )  # fmt: skip

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let running statements end, then close what is left."""
        if self._listener is not None:
            self._listener.close()
        clients: list[Connection | Forwarded] = [*self.connections, *self.forwarded]
        for client in clients:
            client.shut_down()
        grpc = None if self.grpc is None else asyncio.ensure_future(self.grpc.stop(seconds))
        waiting = [asyncio.ensure_future(client.wait_closed()) for client in clients]
        if waiting:
            _, pending = await asyncio.wait(waiting, timeout=seconds)
            for connection in list(self.connections):
                connection.terminate(
                    QueryError("terminating connection due to administrator command", "57P01")
                )
            if pending:
                _, pending = await asyncio.wait(pending, timeout=LAST_WORD_SECONDS)
            for connection in list(self.connections):
                connection.abort()
            for forwarded in list(self.forwarded):
                forwarded.abort()
            for task in pending:
                task.cancel()
        if grpc is not None:
            await grpc
        if self._listener is not None:
            await self._listener.abort()
