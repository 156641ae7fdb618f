"""The nodes of a cluster as rows of the meta shard, and who may become one or cease to be.

A node's id is given once and never again, also when the node has left: its record stays, as `left`. A newcomer is known
by the token of its request, so that a request that is repeated, because its answer was lost, gets the same id. Nobody
goes unless those that stay, and answer now, are a majority of the voters that there will be then.
PURE.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec.structs import replace

from shardforge.cluster.liveness import Sight
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
    observer: bool = False
    """Its replicas never vote."""
    locality: str = ""
    """Where it stands, as tags from the widest place to the narrowest: "zone=a,host=h1"."""

    @property
    def may_vote(self) -> bool:
        """Whether replicas that vote belong on it."""
        return self.state == ACTIVE and not self.observer


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


def odd(count: int) -> int:
    """The largest odd number up to this one; 0 below 1."""
    return max(0, count - (count % 2 == 0))


def admit(
    members: Sequence[Member],
    token: str,
    address: str,
    version: str,
    wanted: int,
    now_us: int,
    *,
    observer: bool = False,
    locality: str = "",
) -> Member:
    """The record of a node that asks to join; an earlier one when the request was repeated.

    Raises: StorageError F0000 when the node has left or the id that it wants was given before, ConsensusError 55000
    when its program is older than one that is in use, whose commands it might not know.
    """
    newest = max((m.version for m in present(members)), key=_release, default=version)
    if _release(version) < _release(newest):
        raise ConsensusError(
            f"the node runs version {version}, but the cluster has nodes of version {newest}",
            "55000",
            hint=f"Install version {newest} or newer.",
        )
    for member in members:
        if token and member.token == token:
            if member.state == LEFT:
                raise StorageError(
                    f"node {member.id} has left the cluster",
                    "F0000",
                    hint="Join again with an empty data directory.",
                )
            return replace(member, address=address, version=version, locality=locality)
    taken = {member.id for member in members}
    if wanted in taken:
        raise StorageError(
            f"node id {wanted} was given to another node",
            "F0000",
            hint="Leave cluster.node_id at 0, and the cluster chooses one.",
        )
    chosen = wanted or max(taken, default=0) + 1
    return Member(NodeId(chosen), address, ACTIVE, token, version, now_us, observer, locality)


def drained(
    members: Sequence[Member], node: NodeId, factor: int, alive: Collection[NodeId]
) -> Member:
    """The record of a node that is to leave. Raises QueryError 42704, ConsensusError 55000."""
    member = _existing(members, node)
    if member.state != ACTIVE:
        return member
    rest = [m.id for m in members if m.id != node and m.may_vote]
    if not rest:
        raise ConsensusError(
            f"node {node} is the last one of the cluster that may vote",
            "55000",
            hint="Stop it instead; its data directory is the cluster.",
        )
    wanted = odd(min(factor, len(rest)))
    answering = sum(other in alive for other in rest)
    if member.may_vote and 2 * answering <= wanted:
        raise ConsensusError(
            f"without node {node} too few nodes would answer: {answering} of {wanted} voters",
            "55000",
            hint="Start the nodes that are down, or add others, and try again.",
        )
    return replace(member, state=DRAINING)


def decommissioned(members: Sequence[Member], node: NodeId, factor: int, sight: Sight) -> Member:
    """The record of a node that will not come back.

    Raises: QueryError 42704, ConsensusError 55006 unless it is known to be silent, 55000 as for one that leaves.
    """
    member = _existing(members, node)
    if node not in sight.silent:
        raise ConsensusError(
            f"node {node} is alive, or was a moment ago",
            "55006",
            hint=f"Use: shardforge cluster leave --node {node}",
        )
    return drained(members, member.id, factor, sight.alive)


def _existing(members: Sequence[Member], node: NodeId) -> Member:
    for member in members:
        if member.id == node and member.state != LEFT:
            return member
    raise QueryError(f"there is no node {node} in the cluster", "42704")


def _release(version: str) -> tuple[int, ...]:
    """Major and minor of a version; members of before versions were noted have none."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
