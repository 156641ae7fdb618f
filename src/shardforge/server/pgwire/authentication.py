"""Who may connect: trust, or SCRAM-SHA-256 (RFC 5802, PostgreSQL chapter 55.3), by the client's address.

The server's side of the exchange is here because libpq sends an empty user name in it (the start-up packet has the
real one), which the SCRAM library that makes the verifiers refuses. The verifier is PostgreSQL's own text form.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from base64 import b64decode, b64encode
from typing import NamedTuple

from shardforge.config import SecurityConfig
from shardforge.errors import NetworkError
from shardforge.sql.catalog.descriptors import Role

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 4096

_FIRST = re.compile(r"([ny]),(?:a=[^,]*)?,(n=[^,]*,r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?)")
_FINAL = re.compile(
    r"(c=([A-Za-z0-9+/=]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,[^p][^,]*)*),p=([A-Za-z0-9+/=]+)"
)


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


class Verifier(NamedTuple):
    """What a role's verifier holds."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes


def parse_verifier(text: str) -> Verifier:
    """PostgreSQL's "SCRAM-SHA-256$iterations:salt$stored:server"."""
    _, parameters, keys = text.split("$")
    iterations, salt = parameters.split(":")
    stored, server = keys.split(":")
    return Verifier(int(iterations), b64decode(salt), b64decode(stored), b64decode(server))


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")


class ScramExchange:
    """One server side of the exchange. A role that is unknown or has no password fails only at its end.

    Raises NetworkError 28P01 when the proof is wrong, 08P01 when a message is not SCRAM.
    """

    def __init__(self, user: str, role: Role | None) -> None:
        self._user = user
        known = role.verifier if role is not None else None
        self._known = known is not None
        self._verifier = (
            parse_verifier(known)
            if known is not None
            else Verifier(ITERATIONS, *(secrets.token_bytes(size) for size in (16, 32, 32)))
        )
        self._header = ""
        self._nonce = ""
        self._messages = ""

    def first(self, data: bytes) -> bytes:
        """The answer to the client's first message."""
        match = _FIRST.fullmatch(_text(data))
        if match is None:
            raise _malformed()
        self._header = match[0][: match.start(2)]
        self._nonce = match[3] + secrets.token_urlsafe(18)
        salt = b64encode(self._verifier.salt).decode()
        answer = f"r={self._nonce},s={salt},i={self._verifier.iterations}"
        self._messages = f"{match[2]},{answer}"
        return answer.encode()

    def final(self, data: bytes) -> bytes:
        """The answer to the client's proof."""
        match = _FINAL.fullmatch(_text(data))
        if match is None:
            raise _malformed()
        messages = f"{self._messages},{match[1]}"
        try:
            binding, proof = b64decode(match[2]), b64decode(match[4])
        except ValueError:
            raise _malformed() from None
        signature = _hmac(self._verifier.stored_key, messages)
        key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
        right = hmac.compare_digest(hashlib.sha256(key).digest(), self._verifier.stored_key)
        agreed = binding == self._header.encode() and match[3] == self._nonce
        if not (right and agreed and self._known):
            raise failed(self._user)
        return b"v=" + b64encode(_hmac(self._verifier.server_key, messages))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _malformed() from None


def _malformed() -> NetworkError:
    return NetworkError("malformed SCRAM message", "08P01")
