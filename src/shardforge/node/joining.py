"""How a new node becomes a member: it asks any node of the cluster, and is given an id and the others' addresses.

The request carries a token that the newcomer made once and keeps until it has an answer, so asking again (of another
node, after a time-out) gives the same id. Whoever is asked and does not serve passes the request on.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import msgspec

from shardforge import __version__
from shardforge.errors import DatabaseError, NetworkError
from shardforge.ids import NodeId
from shardforge.node.reports import AddressBook, pack, unpack
from shardforge.server.peer.network import PeerNetwork

JOIN = "join"
"""Asks for membership; open to nodes that belong to no cluster."""
ASK_SECONDS = 10.0
JOIN_SECONDS = 60.0
PAUSE_SECONDS = 0.5


class JoinRequest(msgspec.Struct, frozen=True, array_like=True):
    """Who wants to join. `node` 0: any id."""

    token: str
    address: str
    version: str
    node: NodeId = NodeId(0)
    observer: bool = False
    locality: str = ""


class Admission(msgspec.Struct, frozen=True, array_like=True):
    """What a new member has to know."""

    node: NodeId
    cluster_id: str
    cluster_name: str
    book: AddressBook


async def join(
    network: PeerNetwork, seeds: Sequence[str], address: str, node: int,
    *, observer: bool = False, locality: str = "",
) -> Admission:  # fmt: skip
    """Ask the seeds, one after the other and again, until one admits this node.

    Raises DatabaseError when one refuses, NetworkError 08006 when none could be reached in `JOIN_SECONDS`.
    """
    token = str(uuid.uuid4())
    request = JoinRequest(token, address, __version__, NodeId(node), observer, locality)
    last: DatabaseError | None = None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + JOIN_SECONDS
    while loop.time() < deadline:
        for seed in seeds:
            try:
                answer = await network.ask(seed, JOIN, pack(request), ASK_SECONDS)
                return unpack(answer, Admission)
            except DatabaseError as error:
                last = error
                if error.sqlstate[:2] not in ("08", "57"):
                    raise
        await asyncio.sleep(PAUSE_SECONDS)
    raise NetworkError(
        f"no node of the cluster could be asked to let this one join: {last}",
        "08006",
        hint="Check the addresses given with --join, and that a majority of the cluster is up.",
    )
