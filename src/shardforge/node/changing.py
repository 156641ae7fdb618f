"""A leader's part in moving its shard: membership changes, transfers, who is no member, as the serving node asks."""

from __future__ import annotations

from shardforge.cluster.goal import nodes_of
from shardforge.errors import ConsensusError
from shardforge.ids import NodeId, ShardId
from shardforge.node.reports import pack, unpack
from shardforge.ports import Network
from shardforge.raft.confchange import ConfChange
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica

CHANGE, HAND_OVER, SPARE = "change-members", "hand-over", "spare-replica"

ANSWER_SECONDS = 2.0


class Changing:
    """The shards led here, and by other nodes, as their members and leaders are to be others."""

    def __init__(self, host: Host, network: Network) -> None:
        self._host = host
        self._network = network
        network.on_call(CHANGE, self._on_change)
        network.on_call(HAND_OVER, self._on_hand_over)
        network.on_call(SPARE, self._on_spare)

    def _led(self, shard: ShardId) -> Replica:
        replica = self._host.find(shard)
        if replica is None or not replica.is_leader:
            raise ConsensusError(f"shard {shard} is not led by this node", hint="Try again.")
        return replica

    async def change(self, leader: NodeId, shard: ShardId, change: ConfChange) -> bool:
        """Have a membership change proposed; whether it was. Raises DatabaseError when that is not known."""
        if leader == self._host.node:
            return self._led(shard).change_members(change)
        answer = await self._network.call(leader, CHANGE, pack((shard, change)), ANSWER_SECONDS)
        return unpack(answer, bool)

    async def hand_over(self, leader: NodeId, shard: ShardId, to: NodeId) -> None:
        """Have a shard's leader let another node lead, once that has caught up. Raises DatabaseError."""
        if leader == self._host.node:
            self._led(shard).hand_over(to)
        else:
            await self._network.call(leader, HAND_OVER, pack((shard, to)), ANSWER_SECONDS)

    async def spare(self, leader: NodeId, shard: ShardId, node: NodeId) -> int:
        """The entry as of which a node is no member, as the leader says now. Raises DatabaseError: it is, or may be.

        What a report said will not do: a member that was added since may have acknowledged what it has from the leader,
        and must not forget it.
        """
        if leader == self._host.node:
            return self._spare(shard, node)
        answer = await self._network.call(leader, SPARE, pack((shard, node)), ANSWER_SECONDS)
        return unpack(answer, int)

    def _spare(self, shard: ShardId, node: NodeId) -> int:
        replica = self._led(shard)
        if not replica.serving_term or replica.changing_members:
            raise ConsensusError(f"the members of shard {shard} are changing", hint="Try again.")
        if node in nodes_of(replica.members):
            raise ConsensusError(f"node {node} is a member of shard {shard}", "55000")
        return replica.applied

    async def _on_spare(self, _sender: NodeId, body: bytes) -> bytes:
        shard, node = unpack(body, tuple[int, int])
        return pack(self._spare(ShardId(shard), NodeId(node)))

    async def _on_change(self, _sender: NodeId, body: bytes) -> bytes:
        shard, change = unpack(body, tuple[int, ConfChange])
        return pack(self._led(ShardId(shard)).change_members(change))

    async def _on_hand_over(self, _sender: NodeId, body: bytes) -> bytes:
        shard, to = unpack(body, tuple[int, int])
        self._led(ShardId(shard)).hand_over(NodeId(to))
        return b""
