"""Whether this node still belongs to its cluster, and where it is: one that left finds out, one that moved is found.

The serving node asks every member how it is, all the time. A node that starts, or is asked no more, announces itself to
the others. They learn by that where to reach it, should it have another address now, and tell it what the members' rows
say of it, so that neither a partition nor an election is mistaken for the end.
Invariant: nothing but the row of a node that has left ends a node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from shardforge.cluster.members import ACTIVE, LEFT
from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import NodeId
from shardforge.node.governing import Governing
from shardforge.node.peering import Peering
from shardforge.node.reports import pack, unpack
from shardforge.ports import Clock, Network

ANNOUNCE = "announce"
"""Says where a member is, and asks what its state is: "" when there was never such a member."""
LOOK_SECONDS = 1.0
UNASKED_SECONDS = 3.0
"""A node that was not asked for so long asks: longer than a change of who serves."""
ANSWER_SECONDS = 2.0

log = logging.getLogger("shardforge.cluster")


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """A member, and where the others reach it. It is passed on once, by who takes another node for the serving one."""

    node: NodeId
    address: str
    passed_on: bool = False


class Belonging:
    """One node's announcements, and its answers to those of others."""

    def __init__(
        self, node: NodeId, peering: Peering, network: Network, clock: Clock,
        governing: Callable[[], Governing | None], address: Callable[[], str],
    ) -> None:  # fmt: skip
        self._node = node
        self._address = address
        self._peering = peering
        self._network = network
        self._clock = clock
        self._governing = governing
        network.on_call(ANNOUNCE, self._on_announce)

    async def end(self) -> None:
        """Announce this node whenever there is need; return when it is known to have left."""
        unheard = True
        while True:
            if unheard or self._peering.unasked_seconds > UNASKED_SECONDS:
                states = await self._announce()
                unheard = not any(states)
                if LEFT in states:
                    log.warning("node %d has left the cluster", self._node)
                    return
            await self._clock.sleep(LOOK_SECONDS)

    async def _announce(self) -> list[str]:
        """What the others say of this node; those that can say something."""
        if self._peering.serving_node() == self._node:
            return [ACTIVE]
        others = [node for node, _ in self._peering.book.nodes if node != self._node]
        return await asyncio.gather(*(self._announce_to(node) for node in others))

    async def _announce_to(self, node: NodeId) -> str:
        body = pack(Announcement(self._node, self._address()))
        try:
            return unpack(await self._network.call(node, ANNOUNCE, body, ANSWER_SECONDS), str)
        except DatabaseError as error:
            log.debug("node %d cannot say whether this one belongs: %s", node, error)
            return ""

    async def _on_announce(self, _sender: NodeId, body: bytes) -> bytes:
        announced = unpack(body, Announcement)
        known = dict(self._peering.book.nodes).get(announced.node)
        if known is not None and known != announced.address:
            # Until its new address is in the members' row, and so in everybody's book.
            self._network.set_address(announced.node, announced.address)
        serving = self._peering.serving_node()
        if serving is not None and serving != self._node and not announced.passed_on:
            passed = pack(replace(announced, passed_on=True))
            return await self._network.call(serving, ANNOUNCE, passed, ANSWER_SECONDS)
        governing = self._governing()
        if governing is None:
            raise ConsensusError(f"node {self._node} does not serve at present")
        return pack(next((m.state for m in governing.members if m.id == announced.node), ""))
