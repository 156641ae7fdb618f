"""What a node does for callers of the public gRPC API, beside running statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardforge.errors import ConsensusError
from shardforge.ids import NodeId
from shardforge.node.joining import Admission, JoinRequest
from shardforge.node.operations import Operations
from shardforge.node.reports import pack, unpack
from shardforge.server.grpc.gateway import Cluster, Joined

if TYPE_CHECKING:
    from shardforge.node.node import Node


def cluster_of(node: Node) -> Cluster:
    """The node's answers, which other nodes and the command line get too."""

    def operations() -> Operations:
        if node.operations is None:
            raise ConsensusError("this node is being started", hint="Try again in a moment.")
        return node.operations

    async def status() -> dict[str, Any]:
        return await operations().status()

    async def leave(member: NodeId) -> None:
        await operations().leave(member)

    async def join(token: str, address: str, version: str, wanted: int) -> Joined:
        operations()
        assert node.admitting is not None, "made before the operations"
        request = JoinRequest(token, address, version, NodeId(wanted))
        made = unpack(await node.admitting.admit(pack(request)), Admission)
        return Joined(made.node, made.cluster_id, made.cluster_name, made.book.nodes)

    def metrics() -> str:
        from shardforge.adapters.metrics import metrics_text  # 3 MB that few nodes need

        return metrics_text(node.telemetry, node.metrics)

    return Cluster(status, leave, join, metrics)
