"""What a node says of itself when the serving node asks, and the other messages by which a cluster is governed.

Every message is a msgspec array with room to grow at its end; what cannot be read is refused, never guessed.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from shardforge.errors import NetworkError
from shardforge.ids import NodeId, ShardId
from shardforge.raft.messages import ConfState
from shardforge.shard.host import Host
from shardforge.txn.shardmap import NOBODY

REPORT = "report"
"""Asks a node for its `NodeReport`; the body is an `AddressBook` and the newest `Closed`."""
CREATE = "create"
"""Asks a node to make room for replicas; the body is a list of shard descriptors without voters."""
DROP = "drop"
"""Asks a node to remove replicas; the body is a list of `Drop`."""


class ShardReport(msgspec.Struct, frozen=True, array_like=True):
    """One replica, as its node sees it."""

    shard: ShardId
    term: int
    lead: NodeId
    """0: none is known."""
    applied: int
    last: int
    members: ConfState
    bytes: int = 0
    failure: str = ""
    match: dict[NodeId, int] = {}
    """A leader's: what each other member has acknowledged."""
    changing: bool = False
    """A leader's: whether a membership change may be under way."""


class NodeReport(msgspec.Struct, frozen=True, array_like=True):
    """One node, as it sees itself."""

    node: NodeId
    address: str
    version: str
    serving: bool
    shards: list[ShardReport]
    lag_ms: float = 0.0
    locality: str = ""


class AddressBook(msgspec.Struct, frozen=True, array_like=True):
    """Who is in the cluster and where, as the serving node has it; it grows in version, within a meta shard's term."""

    version: int
    serving: NodeId
    nodes: list[tuple[NodeId, str]]
    observers: list[NodeId] = []
    """Those that never vote."""
    term: int = 0
    """In which the serving node leads the meta shard: a book of an older one says what was."""

    @property
    def age(self) -> tuple[int, int]:
        """The larger, the newer."""
        return self.term, self.version


class Drop(msgspec.Struct, frozen=True, array_like=True):
    """A replica that its group removed by the entry at `index`; one that has applied more was added again."""

    shard: ShardId
    index: int
    heir: ShardId = NOBODY
    """The shard that it became a part of, whatever it has applied."""


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


def pack(value: object) -> bytes:
    """A message as a call's body or answer."""
    return _encoder.encode(value)


def unpack(data: bytes, kind: type[T]) -> T:
    """A body or answer as a message. Raises NetworkError 08P01."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise NetworkError(f"a message between nodes cannot be read: {error}") from error


def report_of(
    host: Host, address: str, version: str, *, serving: bool, locality: str = ""
) -> NodeReport:
    """What a node has to say now."""
    shards = [
        ShardReport(
            replica.id, replica.term, replica.lead or NodeId(0), replica.applied, replica.last_index,
            replica.members, replica.size_bytes, str(replica.failure or ""),
            replica.followers() if replica.is_leader else {}, replica.changing_members,
        )
        for replica in host.replicas
    ]  # fmt: skip
    return NodeReport(host.node, address, version, serving, shards, host.lag_ms, locality)
