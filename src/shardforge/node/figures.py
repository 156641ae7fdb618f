"""What a node tells monitoring: groups, peers and the cluster on every node, and the store where it serves.

Invariant: names in `_total` only grow while the node runs. Read on the event loop; other threads ask it (`asked_of`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as TookTooLong
from typing import Protocol

from shardforge.ids import NodeId, ShardId
from shardforge.node.operations import Operations
from shardforge.node.peering import Peering
from shardforge.raft.state import Role
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.telemetry import Labelled

Figures = Mapping[str, int | float | Labelled | Mapping[ShardId, int]]

PATIENCE_SECONDS = 2.0

log = logging.getLogger("shardforge.node")


class Traffic(Protocol):
    """What the connections to other nodes count."""

    frames_received: int

    @property
    def frames_sent(self) -> int:
        """Frames handed to connections."""
        ...

    @property
    def frames_dropped(self) -> int:
        """Frames that were never sent."""
        ...

    @property
    def reconnects(self) -> int:
        """Connections that were made again."""
        ...


def asked_of(loop: asyncio.AbstractEventLoop, read: Callable[[], Figures]) -> Callable[[], Figures]:
    """`read` for other threads than the loop's; nothing where the loop does not answer soon."""

    async def read_there() -> Figures:
        return read()

    def ask() -> Figures:
        asked = asyncio.run_coroutine_threadsafe(read_there(), loop)
        try:
            return asked.result(PATIENCE_SECONDS)
        except TookTooLong:
            asked.cancel()
            log.warning("the figures for monitoring were not had in %.0f s", PATIENCE_SECONDS)
            return {}

    return ask


class Elections:
    """Counts what the replicas of a node go through, as its host tells of it."""

    def __init__(self, host: Host) -> None:
        self.started = 0
        """A replica here ceased to follow and stood for election."""
        self.won = 0
        self.leader_changes = 0
        """A replica here learned of another leader than the last one that it knew."""
        self._roles: dict[ShardId, Role] = {}
        self._leaders: dict[ShardId, NodeId] = {}
        host.listen(self.look)

    def look(self, replica: Replica) -> None:
        """A replica's role, leader, members or state of service changed."""
        shard, role, lead = replica.id, replica.role, replica.lead
        before = self._roles.get(shard, Role.FOLLOWER)
        self._roles[shard] = role
        self.started += before is Role.FOLLOWER and role is not Role.FOLLOWER
        self.won += before is not Role.LEADER and role is Role.LEADER
        if lead is not None:
            self.leader_changes += self._leaders.get(shard, lead) != lead
            self._leaders[shard] = lead


class NodeFigures:
    """One node's figures."""

    def __init__(
        self, host: Host, peering: Peering, traffic: Traffic, operations: Operations,
        store: Callable[[], Figures],
    ) -> None:  # fmt: skip
        """`store` gives what there is besides while this node serves."""
        self._host = host
        self._peering = peering
        self._traffic = traffic
        self._operations = operations
        self._store = store
        self._elections = Elections(host)

    def read(self) -> Figures:
        """All of them, by name."""
        return {
            **self._groups(),
            **self._engines(),
            **self._logs(),
            **self._peers(),
            **self._cluster(),
            **self._store(),
        }

    def _groups(self) -> Figures:
        host, elections, snapshots = self._host, self._elections, self._host.snapshots
        replicas = host.replicas
        lags: dict[tuple[str, ...], float] = {
            (str(replica.id), str(node)): max(0, replica.last_index - match)
            for replica in replicas
            if replica.is_leader
            for node, match in replica.followers().items()
            if node != host.node
        }
        return {
            "elections_started_total": elections.started,
            "elections_won_total": elections.won,
            "leader_changes_total": elections.leader_changes,
            "snapshots_sent_total": snapshots.sent,
            "snapshot_bytes_sent_total": snapshots.sent_bytes,
            "snapshots_receiving": snapshots.receiving,
            "snapshots_received_total": snapshots.received,
            "snapshot_bytes_received_total": snapshots.received_bytes,
            "replication_lag_entries": Labelled(("shard", "node"), lags),
            "shard_leader": {replica.id: replica.lead or 0 for replica in replicas},
            "shard_applied_index": {replica.id: replica.applied for replica in replicas},
            "shard_bytes": {replica.id: replica.size_bytes for replica in replicas},
        }

    def _engines(self) -> Figures:
        found: dict[str, dict[ShardId, int]] = {}
        for replica in self._host.replicas:
            for name, value in replica.statistics().items():
                found.setdefault(f"engine_{name}", {})[replica.id] = value
        return found

    def _logs(self) -> Figures:
        counters = self._host.counters
        return {
            "log_appends_total": counters.appends,
            "log_entries_total": counters.entries,
            "log_bytes_total": counters.bytes,
            "log_fsyncs_total": counters.syncs,
            "log_fsync_seconds_total": counters.sync_ns / 1e9,
        }

    def _peers(self) -> Figures:
        return {
            "peer_frames_sent_total": self._traffic.frames_sent,
            "peer_frames_received_total": self._traffic.frames_received,
            "peer_frames_dropped_total": self._traffic.frames_dropped,
            "peer_reconnects_total": self._traffic.reconnects,
        }

    def _cluster(self) -> Figures:
        """As `cluster status` says on this node: of all nodes where it serves, else of what it knows itself."""
        known = self._operations.known()
        return {
            "read_only": int(self._peering.serving_node() is None),
            "under_replicated_shards": known.under_replicated,
            "unavailable_shards": known.unavailable,
        }
