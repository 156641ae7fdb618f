"""Every shard as the serving node sees it: by its own replica where it leads, by its leader's report elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from shardforge.cluster.placement import ShardState
from shardforge.ids import NodeId
from shardforge.node.reports import NodeReport, ShardReport
from shardforge.raft.messages import ConfState
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.txn.participant import Participant


class ShardSight(NamedTuple):
    """One shard at one moment."""

    descriptor: ShardDescriptor
    members: ConfState
    leader: NodeId | None
    term: int
    applied: int
    last: int
    match: Mapping[NodeId, int]
    """What each other member has acknowledged; nothing while the leader is silent."""
    changing: bool
    """Whether no membership change can be proposed now."""
    size_bytes: int
    here: Replica | None
    """The replica, where this node leads."""
    load: float = 0.0
    """Requests a second that go to another node; what is led here costs none a message."""

    @property
    def state(self) -> ShardState:
        """What placement asks of it."""
        return ShardState(self.descriptor.id, self.members, self.leader, self.size_bytes, self.load)


def overview(
    participants: Iterable[Participant], host: Host, reports: Mapping[NodeId, NodeReport]
) -> list[ShardSight]:
    """All shards that can be told of, in key order; one elsewhere of which nothing is reported yet is left out."""
    told: dict[int, list[tuple[NodeId, ShardReport]]] = {}
    for node, report in reports.items():
        for shard in report.shards:
            told.setdefault(shard.shard, []).append((node, shard))
    found = []
    for participant in participants:
        replica = participant.replica
        here = host.find(replica.id)
        if here is not None and (here is replica or here.is_leader):
            found.append(_led_here(here))
        elif said := told.get(replica.id):
            found.append(_reported(participant, said))
    return found


def _led_here(replica: Replica) -> ShardSight:
    return ShardSight(
        replica.descriptor, replica.members, replica.lead, replica.term, replica.applied,
        replica.last_index, replica.followers(), replica.changing_members, replica.size_bytes, replica,
    )  # fmt: skip


def _reported(participant: Participant, said: list[tuple[NodeId, ShardReport]]) -> ShardSight:
    """Whoever leads, in the newest term, knows best; else whoever has applied most."""
    node, best = max(said, key=lambda one: (one[1].lead == one[0], one[1].term, one[1].applied))
    leads = best.lead == node
    return ShardSight(
        participant.descriptor, best.members, node if leads else None, best.term, best.applied, best.last,
        best.match if leads else {}, best.changing or not leads, best.bytes, None, participant.load,
    )  # fmt: skip
