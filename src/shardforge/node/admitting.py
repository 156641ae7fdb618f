"""The cluster's side of joining: whoever is asked to admit a node has the serving node do so.

Invariant: only the serving node admits, by a row that a majority has; a repeated request gets the same id.
"""

from __future__ import annotations

from collections.abc import Callable

from shardforge.errors import ConsensusError
from shardforge.ids import NodeId
from shardforge.node.governing import Governing
from shardforge.node.joining import ASK_SECONDS, JOIN, Admission, JoinRequest
from shardforge.node.peering import Peering
from shardforge.node.reports import pack, unpack
from shardforge.storage.layout import NodeIdentity


class Admitting:
    """One node's answers to those who want to join."""

    def __init__(
        self, identity: NodeIdentity, node: NodeId, peering: Peering,
        governing: Callable[[], Governing | None],
    ) -> None:  # fmt: skip
        self._identity = identity
        self._node = node
        self._peering = peering
        self._governing = governing
        peering.network.on_call(JOIN, lambda _sender, body: self.admit(body))

    async def admit(self, body: bytes) -> bytes:
        """Admit the node of a `JoinRequest`, or have the serving node do so; an `Admission`. Raises DatabaseError."""
        serving = self._peering.serving_node()
        if serving is None:
            raise ConsensusError(
                "no node leads the cluster at present", hint="Try again in a moment."
            )
        if serving != self._node:
            return await self._peering.network.call(serving, JOIN, body, ASK_SECONDS)
        governing = self._governing()
        if governing is None:
            raise ConsensusError("this node begins to lead at this moment", hint="Try again.")
        request = unpack(body, JoinRequest)
        member = await governing.admit(
            request.token, request.address, request.version, request.node,
            observer=request.observer, locality=request.locality,
        )  # fmt: skip
        identity = self._identity
        return pack(
            Admission(member.id, identity.cluster_id, identity.cluster_name, self._peering.book)
        )
