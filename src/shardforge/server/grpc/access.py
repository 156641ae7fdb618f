"""Who calls: the client behind a connection, its user, and the proof. The rules are those of PostgreSQL's protocol.

Basic credentials carry the password itself, so it is checked against the role's SCRAM verifier here. That takes
milliseconds on a thread, and once for each password: what was right is remembered as a keyed digest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import scramp

from shardforge.config import SecurityConfig
from shardforge.errors import NetworkError
from shardforge.ports import Blocking
from shardforge.server.pgwire.authentication import (
    ITERATIONS,
    MECHANISM,
    failed,
    needs_password,
    parse_verifier,
)
from shardforge.sql.catalog.descriptors import Role

DEFAULT_USER = "shardforge"
AUTHORIZATION = "authorization"
REMEMBERED_MAX = 1000


class Client(NamedTuple):
    """Who is at the other end. `node`: another node, which passes on what its own clients call."""

    host: str
    port: int
    tls: bool
    judged_host: str
    """The address by which it is decided whether a password is needed."""
    node: bool = False


class Credentials(NamedTuple):
    """Who a call says that it is by."""

    user: str
    password: str | None


def credentials_in(metadata: Iterable[tuple[str, str | bytes]]) -> Credentials:
    """The user that a call's metadata names. Raises NetworkError 28000."""
    given = [value for name, value in metadata if name == AUTHORIZATION]
    if not given:
        return Credentials(DEFAULT_USER, None)
    scheme, _, encoded = str(given[-1]).partition(" ")
    if scheme.lower() != "basic":
        raise _malformed(f'the scheme "{scheme[:20]}" is not known')
    try:
        user, colon, password = (
            base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        )
    except (binascii.Error, UnicodeDecodeError):
        raise _malformed("it is not base64 of user:password") from None
    if not user:
        raise _malformed("it names no user")
    return Credentials(user, password if colon else None)


def _malformed(detail: str) -> NetworkError:
    return NetworkError("invalid authorization metadata", "28000", detail=detail.capitalize() + ".",
                        hint="Give it as: Basic <base64 of user:password>.")  # fmt: skip


def check_tls(security: SecurityConfig, client: Client) -> None:
    """Refuse whoever came in the clear where TLS is required. Raises NetworkError 28000."""
    if security.tls_required and not client.tls:
        raise NetworkError("connection requires TLS", "28000", hint="Use TLS channel credentials.")


class Passwords:
    """Checks passwords of roles."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        """By verifier: a digest of the password that was right."""

    async def check(
        self, security: SecurityConfig, client: Client, given: Credentials, role: Role | None
    ) -> None:
        """Raises NetworkError 28P01 unless the password is right, where one is needed."""
        if not needs_password(security, client.judged_host):
            return
        verifier = None if role is None else role.verifier
        password = given.password or ""
        digest = hashlib.blake2b(password.encode(), key=self._key).digest()
        if verifier is not None and hmac.compare_digest(self._right.get(verifier, b""), digest):
            return
        right = await self._blocking.run(partial(_matches, verifier, password))
        if verifier is None or not right or given.password is None:
            raise failed(given.user)
        if len(self._right) >= REMEMBERED_MAX:
            self._right.clear()
        self._right[verifier] = digest


def _matches(verifier: str | None, password: str) -> bool:
    """Whether a password has that verifier; takes as long when there is none."""
    salt, stored, iterations = secrets.token_bytes(16), b"", ITERATIONS
    if verifier is not None:
        parsed = parse_verifier(verifier)
        salt, stored, iterations = parsed.salt, parsed.stored_key, parsed.iterations
    try:
        made = scramp.ScramMechanism(MECHANISM).make_auth_info(
            password, iteration_count=iterations, salt=salt
        )
    except scramp.ScramException:  # characters that no password may have
        return False
    return hmac.compare_digest(made[1], stored)
