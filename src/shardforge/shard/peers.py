"""What the shards of two nodes say to each other: the messages of one turn, in one frame a node.

A frame holds (shard, Raft message) pairs of one version of this layout. Frames may be lost or come twice: Raft bears
both. Whoever sends within one turn of the event loop shares a frame, so heartbeats of all shards cost one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from shardforge.errors import NetworkError
from shardforge.ids import NodeId, ShardId
from shardforge.ports import Network
from shardforge.raft.messages import Message

Addressed = tuple[ShardId, Message]
"""A message and the shard whose group it is for."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[int, Message]])


def encode_frame(messages: Sequence[Addressed]) -> bytes:
    """Messages to one node as a frame."""
    return _encoder.encode(messages)


def decode_frame(frame: bytes) -> list[tuple[int, Message]]:
    """The messages of a frame. Raises NetworkError 08P01 for anything else."""
    try:
        return _decoder.decode(frame)
    except msgspec.MsgspecError as error:
        raise NetworkError(f"a frame between nodes cannot be read: {error}") from error


class Outbox:
    """Collects what all shards of a node send in one turn, and sends it by node."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._waiting: dict[int, list[Addressed]] = {}

    def add(self, shard: ShardId, messages: Sequence[Message]) -> None:
        """Send messages with this turn's others."""
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        for message in messages:
            waiting.setdefault(message.to, []).append((shard, message))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for node, messages in waiting.items():
            self._network.send(NodeId(node), encode_frame(messages))


class NoPeers:
    """`ports.Network` of a node that is alone and stays so."""

    def set_address(self, node: NodeId, address: str) -> None:
        """There is nobody to reach."""

    def forget(self, node: NodeId) -> None:
        """There is nobody to forget."""

    def send(self, node: NodeId, frame: bytes) -> None:
        """The frame is lost."""

    async def call(self, node: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        """Raises NetworkError 08006."""
        raise NetworkError(f"node {node} cannot be reached: this node has no peers", "08006")

    def on_frame(self, handler: Callable[[NodeId, bytes], None]) -> None:
        """Nothing will arrive."""

    def on_call(self, method: str, handler: Callable[[NodeId, bytes], Awaitable[bytes]]) -> None:
        """Nothing will arrive."""
