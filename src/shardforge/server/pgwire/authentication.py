"""Who may connect: trust, or SCRAM-SHA-256 (RFC 5802, PostgreSQL chapter 55.3), by the client's address."""

from __future__ import annotations

import ipaddress
import secrets

from scramp import ScramException, ScramMechanism
from scramp.core import ScramServer

from shardforge.config import SecurityConfig
from shardforge.errors import NetworkError
from shardforge.sql.catalog.descriptors import Role

MECHANISM = "SCRAM-SHA-256"


def needs_password(security: SecurityConfig, host: str) -> bool:
    """Whether a client from `host` must prove a password. An empty host is a local socket."""
    if security.authentication == "trust":
        return False
    if security.authentication == "scram-sha-256":
        return True
    return bool(host) and not ipaddress.ip_address(host.split("%")[0]).is_loopback


def failed(user: str) -> NetworkError:
    """The one answer to every kind of wrong password, unknown role included."""
    return NetworkError(f'password authentication failed for user "{user}"', "28P01")


class ScramExchange:
    """One server side of the exchange. A role that is unknown or has no password fails only at its end.

    Raises NetworkError 28P01 when the proof is wrong, 08P01 when a message is not SCRAM.
    """

    def __init__(self, user: str, role: Role | None) -> None:
        self._user = user
        self._verifier = role.verifier if role is not None else None
        mechanism = ScramMechanism(MECHANISM)
        self._server: ScramServer = mechanism.make_server(lambda _: self._credentials(mechanism))

    def _credentials(self, mechanism: ScramMechanism) -> tuple[bytes, bytes, bytes, int]:
        if self._verifier is None:
            salt, stored, key, count = mechanism.make_auth_info(
                secrets.token_urlsafe(16), iteration_count=4096
            )
            return salt, stored, key, count
        return parse_verifier(self._verifier)

    def first(self, data: bytes) -> bytes:
        """The answer to the client's first message."""
        try:
            self._server.set_client_first(data.decode())
            return bytes(self._server.get_server_first().encode())
        except (ScramException, UnicodeDecodeError, ValueError) as error:
            raise NetworkError("malformed SCRAM message", "08P01") from error

    def final(self, data: bytes) -> bytes:
        """The answer to the client's proof."""
        try:
            self._server.set_client_final(data.decode())
            answer = bytes(self._server.get_server_final().encode())
        except (ScramException, UnicodeDecodeError, ValueError) as error:
            raise failed(self._user) from error
        if self._verifier is None:
            raise failed(self._user)
        return answer


def parse_verifier(text: str) -> tuple[bytes, bytes, bytes, int]:
    """(salt, stored key, server key, iterations) of PostgreSQL's "SCRAM-SHA-256$iterations:salt$stored:server"."""
    from base64 import b64decode  # used by this function alone

    _, parameters, keys = text.split("$")
    iterations, salt = parameters.split(":")
    stored, server = keys.split(":")
    return b64decode(salt), b64decode(stored), b64decode(server), int(iterations)
