"""Mutual TLS between nodes: each proves with its certificate, signed by the nodes' own authority, that it is one."""

from __future__ import annotations

import ssl

from shardforge.config import Config
from shardforge.errors import NetworkError


def peer_contexts(config: Config) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    """The contexts for accepting and for dialling; None when security.tls_ca is not set.

    Raises: NetworkError F0000 when the files cannot be used.
    """
    security = config.security
    if not security.tls_ca:
        return None
    made = []
    try:
        for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
            context = ssl.SSLContext(protocol)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(security.tls_certificate, security.tls_key)
            context.load_verify_locations(security.tls_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            made.append(context)
    except (OSError, ssl.SSLError) as error:
        raise NetworkError(
            f"security.tls_ca = {security.tls_ca!r}: the nodes' certificates cannot be used: {error}",
            "F0000",
        ) from error
    return made[0], made[1]
