"""The beginning of a connection: TLS, cancel requests, authentication, and the session's first parameters.

Source: PostgreSQL 15, chapters 55.2.1, 55.2.7 (cancel) and 55.2.10 (SSL).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardforge.errors import DatabaseError, NetworkError, QueryError, TransactionError
from shardforge.server.follower import follower_of
from shardforge.server.peer.forward import forward_cancel, forward_session
from shardforge.server.pgwire import authentication, backend, frontend
from shardforge.sql.catalog.descriptors import Role
from shardforge.sql.session.instance import Instance
from shardforge.sql.session.session import Session
from shardforge.sql.session.settings import Settings

if TYPE_CHECKING:
    from shardforge.server.pgwire.connection import Connection
    from shardforge.server.pgwire.server import Server

_CONNECTION_OPTIONS = {"user", "database", "options", "replication"}
PASSWORD_MESSAGE = ord("p")


class Closed(Exception):  # noqa: N818  # not an error: the client has gone
    """The connection has ended; there is nobody to tell."""


@dataclass(slots=True)
class Greeting:
    """Who the client turned out to be."""

    user: str
    database: str
    host: str
    session: Session


async def greet(connection: Connection) -> Greeting | None:
    """Go through start-up; None when nothing is left to do here: it was a cancel request, or another node serves it.

    Raises DatabaseError, or Closed.
    """
    while True:
        message = await connection.next_message()
        startup = frontend.read_startup(message.body)
        if startup.code == frontend.SSL_REQUEST:
            if connection.server.tls is not None and not connection.tls:
                await connection.start_tls()
            else:
                connection.write(b"N")
        elif startup.code == frontend.GSSENC_REQUEST:
            connection.write(b"N")
        elif startup.code == frontend.CANCEL_REQUEST:
            if not connection.server.cancel(startup.process_id, startup.secret):
                await forward_cancel(connection, message.body)
            return None
        elif startup.code >> 16 == 3:
            connection.start_messages()
            instance = await follower_for(connection, startup.parameters)
            if instance is None and await forward_session(connection, message.body):
                return None
            return await _log_in(connection, startup.code, startup.parameters, instance)
        else:
            version = f"{startup.code >> 16}.{startup.code & 0xFFFF}"
            raise NetworkError(
                f"unsupported frontend protocol {version}: server supports 3.0", "0A000"
            )


async def follower_for(connection: Connection, parameters: dict[str, str]) -> Instance | None:
    """The instance that answers the client here while another node serves, if it may and can."""
    if connection.origin is not None:
        return None
    try:
        given = dict(given_settings(parameters))
    except NetworkError:
        return None  # whoever serves says what is wrong
    user = parameters.get("user", "")
    database = parameters.get("database") or user
    return await follower_of(connection.server, user, database, given)


async def _log_in(
    connection: Connection, code: int, parameters: dict[str, str], follower: Instance | None
) -> Greeting:
    server = connection.server
    if server.config.security.tls_required and not connection.tls:
        raise NetworkError("connection requires TLS", "28000", hint="Connect with sslmode=require.")
    _negotiate(connection, code, parameters)
    user = parameters.get("user", "")
    if not user:
        raise NetworkError("no PostgreSQL user name specified in startup packet", "28000")
    database = parameters.get("database") or user
    host, _ = connection.address
    instance = follower or await server.serving()
    catalog = instance.catalog
    role = catalog.role_named(user)
    if authentication.needs_password(server.config.security, connection.judged_host):
        await _authenticate(connection, authentication.ScramExchange(user, role), user)
    if follower is not None and follower not in server.instances:
        raise TransactionError("this node does not hold all shards any more", "57P01")
    session = begin_session(server, instance, role, user, database, host, parameters)
    connection.start_queries()
    server.telemetry.connections_total += 1
    return Greeting(user, database, host, session)


def begin_session(
    server: Server, instance: Instance, role: Role | None, user: str, database: str, host: str,
    parameters: dict[str, str],
) -> Session:  # fmt: skip
    """A session for a user who has proved to be one. Raises DatabaseError when there can be none."""
    if role is None or not role.login:
        why = (
            f'role "{user}" does not exist'
            if role is None
            else f'role "{user}" is not permitted to log in'
        )
        raise NetworkError(why, "28000")
    if instance.catalog.database_named(database) is None:
        raise QueryError(f'database "{database}" does not exist', "3D000")
    if sum(len(one.sessions) for one in server.instances) >= server.config.sql.max_connections:
        server.telemetry.connections_refused_total += 1
        raise NetworkError("sorry, too many clients already", "53300")
    settings = _settings(server.session_defaults(instance, role, user), parameters)
    secret = secrets.token_bytes(4)
    return Session(
        instance, user=user, database=database, secret=secret, client=host, settings=settings
    )


def _negotiate(connection: Connection, code: int, parameters: dict[str, str]) -> None:
    """NegotiateProtocolVersion for a newer minor version or `_pq_.` options."""
    options = [name for name in parameters if name.startswith("_pq_.")]
    if code == frontend.PROTOCOL_3 and not options:
        return
    body = (0).to_bytes(4, "big") + len(options).to_bytes(4, "big")
    connection.write(
        backend.message(b"v", body + b"".join(name.encode() + b"\0" for name in options))
    )


async def _authenticate(
    connection: Connection, exchange: authentication.ScramExchange, user: str
) -> None:
    connection.write(backend.authentication(10, authentication.MECHANISM.encode() + b"\0\0"))
    mechanism, data = frontend.read_sasl_initial(await _password_message(connection))
    if mechanism != authentication.MECHANISM:
        raise NetworkError("client selected an invalid SASL authentication mechanism", "08P01")
    connection.write(backend.authentication(11, exchange.first(data)))
    proof = await _password_message(connection)
    connection.write(backend.authentication(12, exchange.final(proof)))


async def _password_message(connection: Connection) -> bytes:
    message = await connection.next_message()
    if message.kind != PASSWORD_MESSAGE:
        raise NetworkError(f"expected password response, got message type {message.kind}", "08P01")
    return message.body


def _settings(defaults: dict[str, str], parameters: dict[str, str]) -> Settings:
    """The session's settings: the server's defaults, then `options`, then the other start-up parameters."""
    settings = Settings(defaults)
    given = given_settings(parameters)
    for name, value in given:
        try:
            settings.set(name, value)
        except DatabaseError as error:
            if name == "client_encoding":
                raise QueryError(
                    f"conversion between {value} and UTF8 is not supported", "0A000"
                ) from error
            raise
    settings.end_transaction(committed=True)
    return Settings(dict(defaults, **{name: settings.show(name) for name, _ in given}))


def given_settings(parameters: dict[str, str]) -> list[tuple[str, str]]:
    """The settings of a start-up packet: those in `options`, then the others. Raises NetworkError."""
    given = list(_command_line(parameters.get("options", "")))
    given += [
        (n, v)
        for n, v in parameters.items()
        if n not in _CONNECTION_OPTIONS and not n.startswith("_pq_.")
    ]
    return given


def _command_line(options: str) -> list[tuple[str, str]]:
    """The `-c name=value` and `--name=value` of the `options` parameter."""
    words = options.replace("\\ ", "\0").split()
    words = [word.replace("\0", " ") for word in words]
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(words):
        word = words[position]
        if word == "-c" and position + 1 < len(words):
            position += 1
            word = words[position]
        elif word.startswith(("--", "-c")):
            word = word[2:]
        else:
            raise NetworkError(f"invalid command-line argument for server process: {word}", "42601")
        name, equals, value = word.partition("=")
        if not equals:
            raise NetworkError(f"invalid command-line argument for server process: {word}", "42601")
        found.append((name.replace("-", "_"), value))
        position += 1
    return found
