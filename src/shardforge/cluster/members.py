"""The nodes of a cluster as rows of the meta shard, and who may become one or cease to be.

A node's id is given once and never again, also when the node has left: its record stays, as `left`. A newcomer is known
by the token of its request, so that a request that is repeated, because its answer was lost, gets the same id.
PURE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from shardforge.errors import ConsensusError, QueryError, StorageError
from shardforge.ids import NodeId
from shardforge.keys import meta_key

ACTIVE = "active"
DRAINING = "draining"
"""Its replicas are being moved away; then it has left."""
LEFT = "left"


class Member(msgspec.Struct, frozen=True):
    """One node. `address` is where the others reach it, as "host:port"."""

    id: NodeId
    address: str
    state: str = ACTIVE
    token: str = ""
    version: str = ""
    joined_us: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Member)

MEMBERS_START = meta_key("node")
"""The common beginning of all members' keys."""


def member_key(node: NodeId) -> bytes:
    """Where a member's row is."""
    return meta_key("node", node)


def encode_member(member: Member) -> bytes:
    """A member as its row's value."""
    return _encoder.encode(member)


def decode_member(value: bytes) -> Member:
    """A row's value as a member."""
    return _decoder.decode(value)


def present(members: Iterable[Member]) -> list[Member]:
    """Those that have not left, by id."""
    return sorted((m for m in members if m.state != LEFT), key=lambda member: member.id)


def admit(
    members: Sequence[Member], token: str, address: str, version: str, wanted: int, now_us: int
) -> Member:
    """The record of a node that asks to join; an earlier one when the request was repeated.

    Raises: StorageError F0000 when the id that it wants was given before.
    """
    for member in members:
        if member.token == token and member.state != LEFT:
            return replace(member, address=address, version=version)
    taken = {member.id for member in members}
    if wanted in taken:
        raise StorageError(
            f"node id {wanted} was given to another node",
            "F0000",
            hint="Leave cluster.node_id at 0, and the cluster chooses one.",
        )
    chosen = wanted or max(taken, default=0) + 1
    return Member(NodeId(chosen), address, ACTIVE, token, version, now_us)


def drained(members: Sequence[Member], node: NodeId) -> Member:
    """The record of a node that is to leave. Raises QueryError 42704, ConsensusError 55000."""
    member = _existing(members, node)
    if not any(m.id != node and m.state == ACTIVE for m in members):
        raise ConsensusError(
            f"node {node} is the last one of the cluster",
            "55000",
            hint="Stop it instead; its data directory is the cluster.",
        )
    return replace(member, state=DRAINING) if member.state == ACTIVE else member


def decommissioned(members: Sequence[Member], node: NodeId, *, alive: bool) -> Member:
    """The record of a node that will not come back. Raises QueryError 42704, ConsensusError 55006 while it is alive."""
    if alive:
        raise ConsensusError(
            f"node {node} is alive",
            "55006",
            hint=f"Use: shardforge cluster leave --node {node}",
        )
    return drained(members, node)


def _existing(members: Sequence[Member], node: NodeId) -> Member:
    for member in members:
        if member.id == node and member.state != LEFT:
            return member
    raise QueryError(f"there is no node {node} in the cluster", "42704")
