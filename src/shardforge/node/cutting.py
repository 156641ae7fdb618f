"""A leader's part in splitting its shard: where it balances, whether it can be done now, and the Split itself.

The serving node asks, of this node or of another; see `splitting` for the order of things.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import islice
from typing import NamedTuple

from shardforge.cluster.splitpoint import Survey, choose
from shardforge.errors import ConsensusError
from shardforge.ids import NodeId, ShardId
from shardforge.node.reports import pack, unpack
from shardforge.ports import Blocking, Network
from shardforge.shard.command import Outcome, Split
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.storage.engine import Pair, Snapshot

SURVEY, READY, CUT = "survey", "ready-to-split", "cut"

SURVEY_PAIRS = 20_000
"""What is looked at on a thread at a time."""
SURVEY_SECONDS = 60.0
CUT_SECONDS = 10.0
BEHIND_MAX = 1_000
"""By how many entries a follower may lag when a shard is split: it makes the child by itself only from the log."""
_SUFFIX = 8


class Balance(NamedTuple):
    """Bytes of a shard's versions, and the key at which it is best cut; none where there is no such key."""

    total: int
    at: bytes


class Cutting:
    """The shards led here, as they are to be cut; `for_node` asks another node for the same."""

    def __init__(self, host: Host, network: Network, blocking: Blocking) -> None:
        self._host = host
        self._network = network
        self._blocking = blocking
        network.on_call(SURVEY, self._on_survey)
        network.on_call(READY, self._on_ready)
        network.on_call(CUT, self._on_cut)

    def _led(self, shard: ShardId) -> Replica:
        replica = self._host.find(shard)
        if replica is None or not replica.serving_term:
            raise ConsensusError(f"shard {shard} is not led by this node", hint="Try again.")
        return replica

    # ---- asked for, wherever the shard is led ----------------------------------------------------

    async def survey(self, leader: NodeId, shard: ShardId) -> Balance:
        """Where the bytes of a shard are, by looking at all of its versions. Raises DatabaseError."""
        if leader == self._host.node:
            return await self._survey(self._led(shard))
        answer = await self._network.call(leader, SURVEY, pack(shard), SURVEY_SECONDS)
        return Balance(*unpack(answer, tuple[int, bytes]))

    async def ready(self, leader: NodeId, shard: ShardId) -> None:
        """Return when the shard can be split quickly. Raises ConsensusError when it cannot now."""
        if leader == self._host.node:
            await self._ready(self._led(shard))
        else:
            await self._network.call(leader, READY, pack(shard), SURVEY_SECONDS)

    async def cut(
        self, leader: NodeId, shard: ShardId, tenure: int, at: bytes, child: ShardId, epoch: int
    ) -> ShardDescriptor:
        """Split; what the shard is then. Raises DatabaseError, also when it is not known whether it is split."""
        if leader == self._host.node:
            return await self._cut(self._led(shard), tenure, at, child, epoch)
        body = pack((shard, tenure, at, child, epoch))
        return unpack(await self._network.call(leader, CUT, body, CUT_SECONDS), ShardDescriptor)

    # ---- asked of this node ----------------------------------------------------------------------

    async def _on_survey(self, _sender: NodeId, body: bytes) -> bytes:
        return pack(tuple(await self._survey(self._led(ShardId(unpack(body, int))))))

    async def _on_ready(self, _sender: NodeId, body: bytes) -> bytes:
        await self._ready(self._led(ShardId(unpack(body, int))))
        return b""

    async def _on_cut(self, _sender: NodeId, body: bytes) -> bytes:
        shard, tenure, at, child, epoch = unpack(body, tuple[int, int, bytes, int, int])
        return pack(await self._cut(self._led(ShardId(shard)), tenure, at, ShardId(child), epoch))

    async def _ready(self, replica: Replica) -> None:
        self._check_followers(replica)
        await replica.flush()

    def _check_followers(self, replica: Replica) -> None:
        """Raise unless a majority of the voters has about all of the log, and will make the child by itself."""
        if replica.changing_members:
            raise ConsensusError(
                f"the members of shard {replica.id} are changing", hint="Try again."
            )
        voters, match = replica.members.voters, replica.followers()
        fit = sum(match.get(NodeId(node), 0) >= replica.last_index - BEHIND_MAX for node in voters)
        if 2 * fit <= len(voters):
            raise ConsensusError(
                f"too few replicas of shard {replica.id} have caught up", hint="Try again."
            )

    async def _cut(
        self, replica: Replica, tenure: int, at: bytes, child: ShardId, epoch: int
    ) -> ShardDescriptor:
        command = Split(child, at, epoch, self._host.node, replica.serving_term, tenure)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        replica.propose(command, lambda o: None if outcome.done() else outcome.set_result(o))
        if await asyncio.shield(outcome) is Outcome.UNKNOWN:
            raise ConsensusError(f"shard {replica.id} is not led here any more")
        return replica.descriptor

    async def _survey(self, replica: Replica) -> Balance:
        survey = Survey(replica.size_bytes)
        span = replica.descriptor.span
        state = replica.engine.snapshot()
        try:
            place, end = b"v" + span.start, b"v" + span.end
            while pairs := await self._blocking.run(partial(_pairs, state, place, end)):
                for key, value in pairs:
                    survey.add(key[1:-_SUFFIX], len(key) + len(value))
                place = pairs[-1][0] + b"\x00"
                await asyncio.sleep(0)
        finally:
            state.close()
        return Balance(
            survey.total, choose(survey.candidates, survey.total, span.start, span.end) or b""
        )


def _pairs(state: Snapshot, start: bytes, end: bytes) -> list[Pair]:
    return list(islice(state.scan(start, end), SURVEY_PAIRS))
