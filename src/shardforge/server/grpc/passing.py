"""Calls that another node answers: made again on a channel to that node, which is told whose they are.

A call that certainly did not begin there (`NotRun`) may be tried elsewhere. One whose connection broke may have been
carried out: its outcome is unknown (08007), and nothing is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc.aio import Channel, ServicerContext

from shardforge.errors import NetworkError
from shardforge.ids import NodeId
from shardforge.server.grpc.access import AUTHORIZATION, Client
from shardforge.server.peer.forward import GRPC, Origin, pack_origin, unpack_origin
from shardforge.v1.details import DETAILS

SERVICE = "shardforge.v1.DatabaseService"
ORIGIN = "shardforge-origin-bin"
"""Metadata between nodes: the client whose call is passed on."""
NOT_RUN = "shardforge-not-run"
"""Trailing metadata between nodes: nothing of the call was carried out, as this node does not serve."""
CONNECT_SECONDS = 0.25
"""After so long it is looked again who serves; the channel goes on connecting."""
MESSAGE_BYTES_MAX = 80 * 1024 * 1024
OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.max_pings_without_data", 0),
)

Metadata = Sequence[tuple[str, str | bytes]]


class NotRun(Exception):  # noqa: N818  # an outcome
    """The node does not serve, or cannot be reached."""


class Passed(Exception):  # noqa: N818  # an answer
    """What the other node answered is an error."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailing = trailing


def origin_in(metadata: Metadata, link: Client) -> Client:
    """The client of a call that came over the connection of a node. Raises NetworkError 08P01."""
    found = [value for name, value in metadata if name == ORIGIN]
    if not found or not isinstance(found[0], bytes):
        raise NetworkError("a call that a node passes on does not tell whose it is", "08P01")
    origin = unpack_origin(found[0])
    if origin.packet == GRPC:
        raise NetworkError("a call that a node passes on does not tell whose it is", "08P01")
    return Client(origin.host, origin.port, origin.tls, link.judged_host or origin.host, node=True)


class Passing:
    """Channels to other nodes. `door_to` gives the socket that leads to one."""

    def __init__(self, door_to: Callable[[NodeId], Awaitable[str]]) -> None:
        self._door_to = door_to
        self._channels: dict[NodeId, Channel] = {}

    async def call(
        self, node: NodeId, method: str, request: bytes, context: ServicerContext, client: Client
    ) -> bytes:  # fmt: skip
        """The node's answer to the call in `context`. Raises NotRun, Passed, NetworkError."""
        channel = await self._channel(node)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await channel.channel_ready()
        except TimeoutError:
            raise NotRun from None
        origin = pack_origin(Origin(client.host, client.port, client.tls, b""))
        metadata: list[tuple[str, str | bytes]] = [(ORIGIN, origin)]
        metadata += [pair for pair in context.invocation_metadata() if pair[0] == AUTHORIZATION]
        call = channel.unary_unary(f"/{SERVICE}/{method}")  # bytes in, bytes out
        try:
            answer: bytes = await call(request, metadata=metadata, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:
            trailing = list(error.trailing_metadata() or ())
            names = {name for name, _ in trailing}
            if NOT_RUN in names:
                raise NotRun from None
            if DETAILS not in names and error.code() is grpc.StatusCode.UNAVAILABLE:
                raise NetworkError(
                    f"the connection to node {node}, which ran the statement, was lost", "08007",
                    hint="Check whether the statement's effects are there before repeating it.",
                ) from None  # fmt: skip
            raise Passed(error.code(), error.details() or "", trailing) from None
        return answer

    async def _channel(self, node: NodeId) -> Channel:
        path = await self._door_to(node)
        found = self._channels.get(node)
        if found is None:
            found = grpc.aio.insecure_channel(f"unix:{path}", options=OPTIONS)
            self._channels[node] = found
        return found

    async def close(self) -> None:
        """Close the channels."""
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close()
