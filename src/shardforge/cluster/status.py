"""The cluster as `shardforge cluster status --json` prints it: a stable document for scripts, made of plain figures.

Names only get added, never changed or removed; docs/operations.md lists them.
PURE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from shardforge.cluster.members import Member
from shardforge.ids import NodeId, ShardId
from shardforge.raft.messages import ConfState
from shardforge.shard.descriptor import Span


class ShardFigures(NamedTuple):
    """One shard, as its leader knows it, or as one replica does where nobody leads."""

    id: ShardId
    span: Span
    leader: NodeId | None
    term: int
    applied: int
    last: int
    members: ConfState
    match: Mapping[NodeId, int]
    size_bytes: int
    load: float = 0.0
    """Requests a second that the serving node sends to another, which leads."""


class NodeFigures(NamedTuple):
    """One node, as it said of itself, or as its record says."""

    member: Member
    alive: bool
    serving: bool
    replicas: int
    leaders: int
    silent_seconds: float
    lag_ms: float


class Known(NamedTuple):
    """How many shards are not as they should be."""

    under_replicated: int
    unavailable: int


def counts(document: Mapping[str, Any]) -> Known:
    """The same of a document."""
    return Known(document["under_replicated_shards"], document["unavailable_shards"])


def document(
    name: str,
    cluster_id: str,
    serving: NodeId | None,
    nodes: Sequence[NodeFigures],
    shards: Sequence[ShardFigures],
    factor: int,
    events: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The whole document."""
    alive = {figures.member.id for figures in nodes if figures.alive}
    wanted = min(factor, sum(not figures.member.observer for figures in nodes))
    described = [_shard(shard, alive, wanted - (wanted % 2 == 0)) for shard in shards]
    return {
        "cluster": name,
        "cluster_id": cluster_id,
        "serving_node": serving,
        "read_only": serving is None,
        "replication_factor": factor,
        "nodes": [_node(figures) for figures in nodes],
        "shards": described,
        "under_replicated_shards": sum(not shard["replicated"] for shard in described),
        "unavailable_shards": sum(not shard["available"] for shard in described),
        "events": list(events),
    }


def _node(figures: NodeFigures) -> dict[str, Any]:
    member = figures.member
    return {
        "id": member.id,
        "address": member.address,
        "state": member.state,
        "alive": figures.alive,
        "serving": figures.serving,
        "observer": member.observer,
        "version": member.version,
        "replicas": figures.replicas,
        "leaders": figures.leaders,
        "silent_seconds": round(figures.silent_seconds, 1),
        "loop_lag_ms": round(figures.lag_ms, 1),
        "joined_us": member.joined_us,
        "locality": member.locality,
    }


def _shard(shard: ShardFigures, alive: Collection[NodeId], wanted: int) -> dict[str, Any]:
    voters = [NodeId(node) for node in shard.members.voters]
    living = [node for node in voters if node in alive]
    available = shard.leader is not None and len(living) * 2 > len(voters)
    lags = {node: max(0, shard.last - index) for node, index in shard.match.items()}
    return {
        "id": shard.id,
        "start": shard.span.start.hex(),
        "end": shard.span.end.hex(),
        "leader": shard.leader,
        "voters": voters,
        "voters_outgoing": list(shard.members.voters_outgoing),
        "learners": list(shard.members.learners),
        "term": shard.term,
        "applied": shard.applied,
        "last": shard.last,
        "lag": {str(node): lag for node, lag in sorted(lags.items())},
        "bytes": shard.size_bytes,
        "load": round(shard.load, 1),
        "available": available,
        "replicated": available and len(living) >= wanted and not shard.members.voters_outgoing,
    }
