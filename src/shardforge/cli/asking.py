"""Asking a node, as the commands about clusters do: over what nodes talk among themselves, with their certificates."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

from shardforge.cli.output import fail
from shardforge.config import load
from shardforge.errors import DatabaseError
from shardforge.ids import NodeId

HostOption = Annotated[str, typer.Option("--host", help="HOST:PORT of any node.")]
DEFAULT_HOST = "127.0.0.1:5432"
ASK_SECONDS = 6.0

logging.getLogger("shardforge").addHandler(logging.NullHandler())  # the error says it all

_certificates: ContextVar[tuple[ssl.SSLContext, ssl.SSLContext] | None] = ContextVar(
    "certificates", default=None
)


def use_certificates(
    config: Annotated[
        Path | None,
        typer.Option(help="A node's shardforge.toml, for its certificates (security.tls_ca)."),
    ] = None,
) -> None:
    """Of a group of commands: where nodes prove themselves to each other, this one must as well."""
    from shardforge.server.peer.tls import peer_contexts  # other commands need none of it

    try:
        _certificates.set(peer_contexts(load(config, os.environ, {})))
    except DatabaseError as error:
        fail(error)


def ask_node(host: str, method: str, body: bytes = b"", seconds: float = ASK_SECONDS) -> bytes:
    """What the node at `host` answers. Raises DatabaseError."""
    from shardforge.server.peer.network import PeerNetwork  # other commands need none of it

    async def ask() -> bytes:
        network = PeerNetwork(NodeId(0), "", random.Random(), _certificates.get())
        try:
            return await network.ask(host, method, body, seconds)
        finally:
            await network.close()

    return asyncio.run(ask())
