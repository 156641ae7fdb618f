"""How the node that serves reaches shards that are led elsewhere, and how it knows whom to ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardforge.ids import NodeId, ShardId
from shardforge.node.governing import Governing
from shardforge.node.peering import Peering
from shardforge.ports import Clock, Network
from shardforge.shard.host import Host
from shardforge.shard.remote import calls
from shardforge.shard.remote.calls import Answer, Call
from shardforge.shard.remote.replica import Neighbours
from shardforge.shard.remote.service import ShardService

ANSWER_SECONDS = 5.0


def neighbours(
    host: Host, service: ShardService, network: Network, peering: Peering, clock: Clock,
    governing: Callable[[], Governing | None],
) -> Callable[[int], Neighbours]:  # fmt: skip
    """The neighbours of a tenure, by its number."""

    async def ask(node: NodeId, call: Call) -> Answer:
        if node == host.node:
            return await service.answer(call)
        answer = await network.call(node, calls.METHOD, calls.encode(call), ANSWER_SECONDS)
        return calls.decode_answer(answer)

    def holders(shard: ShardId) -> Sequence[NodeId]:
        here = host.find(shard)
        found: dict[NodeId, None] = {}
        if here is not None:
            if here.lead is not None:
                found[here.lead] = None
            found.update((NodeId(node), None) for node in here.members.voters)
        government = governing()
        reports = {} if government is None else government.reports
        told = [(r, s) for r in reports.values() for s in r.shards if s.shard == shard]
        found.update((s.lead, None) for _, s in told if s.lead)
        found.update((report.node, None) for report, _ in told)
        found.update((node, None) for node, _ in peering.book.nodes)
        return list(found)

    return lambda tenure: Neighbours(tenure, ask, holders, clock, host.hear_tenure)
