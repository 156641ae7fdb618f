"""What people ask of a cluster, on whichever node they ask it: how it is, that a node leaves, that one is given up.

The serving node answers; any other passes the question on. Where nobody leads, a node tells what it knows itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from shardforge import __version__
from shardforge.cluster.members import Member, odd, present
from shardforge.cluster.plan import MOVE_SECONDS
from shardforge.cluster.status import Known, NodeFigures, ShardFigures, counts, document
from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import NodeId, ShardId
from shardforge.node.governing import ROUND_SECONDS, Governing
from shardforge.node.overview import ShardSight
from shardforge.node.peering import Peering
from shardforge.node.reports import pack, unpack
from shardforge.ports import Network
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.sql.session import lock_view, shard_view
from shardforge.storage.layout import NodeIdentity

if TYPE_CHECKING:
    from shardforge.config import Config
    from shardforge.sql.session.instance import Instance

STATUS = "status"
LOCKS = "locks"
LEAVE = "leave"
DECOMMISSION = "decommission"
SPLIT = "shard.split"
MERGE = "shard.merge"
SPLIT_SECONDS = 60.0
MOVE = "shard.move"
SCATTER = "shard.scatter"
ANSWER_SECONDS = 5.0
ALIVE_SECONDS = 3 * ROUND_SECONDS


class Operations:
    """The operations of one node."""

    def __init__(
        self, config: Config, identity: NodeIdentity, host: Host, peering: Peering, network: Network,
        governing: Callable[[], Governing | None], now: Callable[[], float],
        instance: Callable[[], Instance | None],
    ) -> None:  # fmt: skip
        self._config = config
        self._identity = identity
        self._host = host
        self._peering = peering
        self._network = network
        self._governing = governing
        self._now = now
        self._instance = instance
        network.on_call(STATUS, self._on_status)
        network.on_call(LOCKS, self._on_locks)
        network.on_call(LEAVE, self._on_leave)
        network.on_call(DECOMMISSION, self._on_decommission)
        network.on_call(SPLIT, self._on_split)
        network.on_call(MOVE, self._on_move)
        network.on_call(SCATTER, self._on_scatter)
        network.on_call(MERGE, self._on_merge)

    # ---- asked here ------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """The status document, by the serving node where there is one."""
        serving = self._peering.serving_node()
        if serving is not None and serving != self._host.node:
            try:
                answer = await self._network.call(serving, STATUS, b"", ANSWER_SECONDS)
                found: dict[str, Any] = json.loads(answer)
            except DatabaseError:
                return self._own_status(None)
            else:
                return found
        return self._own_status(serving)

    async def locks(self) -> dict[str, Any]:
        """Who holds and awaits which lock, by the serving node. Raises DatabaseError."""
        serving, instance = self._peering.serving_node(), self._instance()
        if serving is not None and serving != self._host.node:
            found: dict[str, Any] = json.loads(
                await self._network.call(serving, LOCKS, b"", ANSWER_SECONDS)
            )
            return found
        if serving is None or instance is None:
            raise ConsensusError(
                "no node leads the cluster at present", hint="Try again in a moment."
            )
        return lock_view.document(instance)

    async def leave(self, node: NodeId) -> None:
        """Have a node drained; it has left when `status` has it no more. Raises DatabaseError."""
        await self._forward(LEAVE, node)

    async def decommission(self, node: NodeId) -> None:
        """Do without a node that will not come back. Raises DatabaseError."""
        await self._forward(DECOMMISSION, node)

    async def split(self, shard: ShardId, at: bytes) -> ShardId:
        """Split a shard at a key, or where it balances (no key); the new shard. Raises DatabaseError."""
        serving = self._serving_node()
        if serving != self._host.node:
            answer = await self._network.call(serving, SPLIT, pack((shard, at)), SPLIT_SECONDS)
            return ShardId(unpack(answer, int))
        splitting = self._require().splitting
        if splitting is None:
            raise ConsensusError("this node begins to lead at this moment", hint="Try again.")
        return await splitting.split(shard, at or None)

    async def move(self, shard: ShardId, source: NodeId, target: NodeId) -> None:
        """Give one replica of a shard another home; return when it has. Raises DatabaseError."""
        serving = self._serving_node()
        if serving != self._host.node:
            await self._network.call(serving, MOVE, pack((shard, source, target)), MOVE_SECONDS)
        else:
            await self._require().placing.move(shard, source, target)

    async def scatter(self, database: str, schema: str, table: str) -> tuple[int, int]:
        """Have all shards, or those of a table ("" is all), made even: moves, transfers. Raises DatabaseError."""
        serving = self._serving_node()
        if serving != self._host.node:
            body = pack((database, schema, table))
            answer = await self._network.call(serving, SCATTER, body, ANSWER_SECONDS)
            return unpack(answer, tuple[int, int])
        governing, instance = self._require(), self._instance()
        if table and instance is not None:
            return governing.placing.scatter(
                shard_view.shards_of(instance, database, schema, table)
            )
        return governing.placing.scatter(None)

    def leader_of(self, shard: ShardId) -> NodeId | None:
        """Who leads a shard, as the node knows that serves. Raises QueryError 42704, ConsensusError."""
        here = self._host.find(shard)
        if here is not None and here.serving_term:
            return self._host.node
        return self._require().sight_of(shard).leader

    async def merge(self, shard: ShardId) -> ShardId:
        """Make the next shard a part of one; which that was. Raises DatabaseError."""
        serving = self._serving_node()
        if serving != self._host.node:
            answer = await self._network.call(serving, MERGE, pack(shard), SPLIT_SECONDS)
            return ShardId(unpack(answer, int))
        merging = self._require().merging
        if merging is None:
            raise ConsensusError("this node begins to lead at this moment", hint="Try again.")
        return await merging.merge(shard)

    def _serving_node(self) -> NodeId:
        serving = self._peering.serving_node()
        if serving is None:
            raise ConsensusError(
                "no node leads the cluster at present", hint="Try again in a moment."
            )
        return serving

    async def _forward(self, method: str, node: NodeId) -> None:
        serving = self._serving_node()
        if serving != self._host.node:
            await self._network.call(serving, method, pack(node), ANSWER_SECONDS)
            return
        governing = self._require()
        await (governing.drain(node) if method == LEAVE else governing.decommission(node))

    def known(self) -> Known:
        """What this node can say of the shards: where another one serves, only whether they have leaders and voters."""
        serving = self._peering.serving_node()
        if self._governing() is not None or serving is None:
            return counts(self._own_status(serving))
        book = self._peering.book
        able = len(book.nodes) - len(book.observers)
        wanted = odd(min(self._config.replication.factor, able))
        replicas = self._host.live
        return Known(
            sum(
                len(r.members.voters) < wanted or bool(r.members.voters_outgoing) for r in replicas
            ),
            sum(r.lead is None for r in replicas),
        )

    # ---- asked by other nodes --------------------------------------------------------------------

    async def _on_status(self, _sender: NodeId, _body: bytes) -> bytes:
        return json.dumps(await self.status()).encode()

    async def _on_locks(self, _sender: NodeId, _body: bytes) -> bytes:
        return json.dumps(await self.locks()).encode()

    async def _on_leave(self, _sender: NodeId, body: bytes) -> bytes:
        await self.leave(NodeId(unpack(body, int)))
        return b""

    async def _on_decommission(self, _sender: NodeId, body: bytes) -> bytes:
        await self.decommission(NodeId(unpack(body, int)))
        return b""

    async def _on_split(self, _sender: NodeId, body: bytes) -> bytes:
        shard, at = unpack(body, tuple[int, bytes])
        return pack(await self.split(ShardId(shard), at))

    async def _on_move(self, _sender: NodeId, body: bytes) -> bytes:
        shard, source, target = unpack(body, tuple[int, int, int])
        await self.move(ShardId(shard), NodeId(source), NodeId(target))
        return b""

    async def _on_scatter(self, _sender: NodeId, body: bytes) -> bytes:
        return pack(await self.scatter(*unpack(body, tuple[str, str, str])))

    async def _on_merge(self, _sender: NodeId, body: bytes) -> bytes:
        return pack(await self.merge(ShardId(unpack(body, int))))

    def _require(self) -> Governing:
        governing = self._governing()
        if governing is None:
            raise ConsensusError(
                f"node {self._host.node} does not serve at present", hint="Try again in a moment."
            )
        return governing

    # ---- the document ----------------------------------------------------------------------------

    def _own_status(self, serving: NodeId | None) -> dict[str, Any]:
        governing = self._governing()
        host = self._host
        if governing is not None:
            members = present(governing.members)
        else:
            book = self._peering.book
            members = [Member(n, at, observer=n in book.observers) for n, at in book.nodes]
        if governing is not None:
            shards = [_sighted(sight) for sight in governing.shards()]
        else:
            shards = [self._figures(replica) for replica in host.replicas]
        nodes = [self._node_figures(member, governing, serving) for member in members]
        return document(
            self._identity.cluster_name, self._identity.cluster_id, serving, nodes, shards,
            self._config.replication.factor, [] if governing is None else list(governing.events),
        )  # fmt: skip

    @staticmethod
    def _figures(replica: Replica) -> ShardFigures:
        return ShardFigures(
            replica.id, replica.descriptor.span, replica.lead, replica.term, replica.applied,
            replica.last_index, replica.members, replica.followers() if replica.is_leader else {},
            replica.size_bytes,
        )  # fmt: skip

    def _node_figures(
        self, member: Member, governing: Governing | None, serving: NodeId | None
    ) -> NodeFigures:
        host = self._host
        if governing is not None:
            leaders = sum(sight.leader == member.id for sight in governing.shards())
        else:
            leaders = sum(replica.lead == member.id for replica in host.replicas)
        if member.id == host.node:
            return NodeFigures(
                replace(member, token="", version=__version__),
                True, serving == host.node, len(host.replicas), leaders, 0.0, host.lag_ms,
            )  # fmt: skip
        if governing is None:
            return NodeFigures(member, False, serving == member.id, 0, leaders, 0.0, 0.0)
        heard = governing.heard_at.get(member.id)
        silent = self._now() - (heard or governing.began)
        report = governing.reports.get(member.id)
        return NodeFigures(
            member, heard is not None and silent < ALIVE_SECONDS, False,
            0 if report is None else len(report.shards), leaders, silent,
            0.0 if report is None else report.lag_ms,
        )  # fmt: skip


def _sighted(shard: ShardSight) -> ShardFigures:
    return ShardFigures(
        shard.descriptor.id, shard.descriptor.span, shard.leader, shard.term, shard.applied, shard.last,
        shard.members, dict(shard.match), shard.size_bytes, shard.load,
    )  # fmt: skip
