"""Proof that a shard's replicas hold the same: each digests its whole engine as of one and the same applied entry.

Any node passes the question to the serving node, and that to the shard's leader. The leader names an entry a little
ahead, has every member watch for it, and drives the log there; whoever applies it keeps the engine's state of that
moment and digests that in the background. State machines that are equal at an entry are equal byte for byte, applied
index and membership included, so any difference is damage or a mistake of ours.
A member that was past the entry before it watched is asked again, with an entry farther ahead.
Source: CockroachDB's consistency checker, which has replicas compute a checksum at one command of the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import asdict

from shardforge.errors import ConsensusError, DatabaseError, StorageError
from shardforge.ids import NodeId, ShardId
from shardforge.node.reports import pack, unpack
from shardforge.ports import Blocking, Network
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.storage.engine import Snapshot

VERIFY = "verify"
"""Asks the serving node, through any other, for the comparison of one shard's replicas."""
COMPARE = "verify.led"
"""Asks a shard's leader for it."""
WATCH = "digest.watch"
"""Asks a node to keep a shard's state at an entry to come; refused when that entry is applied already."""
TAKE = "digest.take"
"""Asks for the digest of the state that was kept."""

VERIFY_SECONDS = 300.0
WATCH_SECONDS = 2.0
TAKE_SECONDS = 240.0
ARRIVE_SECONDS = 20.0
"""How long a member may take to apply the entry."""
AHEAD = (4, 32, 256, 2048)
"""How far ahead the entry is, in each attempt."""
STRETCH_BYTES = 1 << 20
"""What is digested at a time on a thread."""
_START, _END = b"", b"\xff"

log = logging.getLogger("shardforge.cluster")


class Watch(msgspec.Struct, frozen=True, array_like=True):
    """A shard's state at an entry."""

    shard: ShardId
    index: int


class Digest(msgspec.Struct, frozen=True, array_like=True):
    """What a replica holds: a BLAKE2b of all keys and values with their lengths, and how many and how long they are."""

    digest: str
    pairs: int
    bytes: int


class _Kept:
    """A state that is to be digested; one a shard."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.state: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        if self.state.done() and not self.state.cancelled():
            self.state.result().close()
        self.state.cancel()


async def digest_of(state: Snapshot, blocking: Blocking) -> Digest:
    """The digest of a state, a stretch at a time."""
    hashed = hashlib.blake2b(digest_size=16)
    pairs = size = 0

    def stretch(start: bytes) -> bytes | None:
        """Take in the pairs from `start`; where to go on, None at the end."""
        nonlocal pairs, size
        before = size
        for key, value in state.scan(start, _END):
            hashed.update(len(key).to_bytes(4) + len(value).to_bytes(4) + key + value)
            pairs += 1
            size += len(key) + len(value)
            if size - before >= STRETCH_BYTES:
                return key + b"\x00"
        return None

    place: bytes | None = _START
    while place is not None:
        place = await blocking.run(partial(stretch, place))
    return Digest(hashed.hexdigest(), pairs, size)


class Verification:
    """One node's part in it, and the whole of it where the node leads."""

    def __init__(
        self, host: Host, network: Network, blocking: Blocking, serving: Callable[[], NodeId | None],
        leader: Callable[[ShardId], NodeId | None],
    ) -> None:  # fmt: skip
        """`leader`: who leads a shard, as the serving node knows. Raises QueryError: there is no such shard."""
        self._host = host
        self._network = network
        self._blocking = blocking
        self._serving = serving
        self._leader = leader
        self._kept: dict[ShardId, _Kept] = {}
        network.on_call(VERIFY, self._on_verify)
        network.on_call(COMPARE, self._on_compare)
        network.on_call(WATCH, self._on_watch)
        network.on_call(TAKE, self._on_take)

    # ---- asked of this node ----------------------------------------------------------------------

    async def verify(self, shard: ShardId) -> dict[str, Any]:
        """How a shard's replicas compare, by the serving node. Raises DatabaseError."""
        serving = self._serving()
        if serving is None:
            raise ConsensusError(
                "no node leads the cluster at present", hint="Try again in a moment."
            )
        if serving != self._host.node:
            answer = await self._network.call(serving, VERIFY, pack(shard), VERIFY_SECONDS)
            return unpack(answer, dict[str, Any])
        leader = self._leader(shard)
        if leader is None:
            raise ConsensusError(
                f"shard {shard} has no leader at present", hint="Try again in a moment."
            )
        if leader == self._host.node:
            return await self._led(shard)
        answer = await self._network.call(leader, COMPARE, pack(shard), VERIFY_SECONDS)
        return unpack(answer, dict[str, Any])

    async def _on_verify(self, _sender: NodeId, body: bytes) -> bytes:
        return pack(await self.verify(ShardId(unpack(body, int))))

    async def _on_compare(self, _sender: NodeId, body: bytes) -> bytes:
        return pack(await self._led(ShardId(unpack(body, int))))

    async def _led(self, shard: ShardId) -> dict[str, Any]:
        """How the replicas of a shard compare that is led here."""
        replica = self._host.find(shard)
        if replica is None or not replica.serving_term:
            raise ConsensusError(f"shard {shard} is not led by this node", hint="Try again.")
        found = await self._compare(replica)
        if not found["equal"]:
            log.error("replicas of shard %d differ at entry %d: %s", shard, found["index"], found)
        return found

    # ---- a member's part -------------------------------------------------------------------------

    async def _on_watch(self, _sender: NodeId, body: bytes) -> bytes:
        self._watch(unpack(body, Watch))
        return b""

    async def _on_take(self, _sender: NodeId, body: bytes) -> bytes:
        return pack(await self._take(unpack(body, Watch)))

    def _watch(self, wanted: Watch) -> None:
        replica = self._host.find(wanted.shard)
        if replica is None or replica.failure is not None:
            raise StorageError(f"shard {wanted.shard} is not whole on node {self._host.node}")
        kept = _Kept(wanted.index)

        def keep() -> None:
            if not kept.state.done():
                kept.state.set_result(replica.engine.snapshot())

        if not replica.when_applied(wanted.index, keep):
            raise StorageError(f"entry {wanted.index} is applied already", "55000")
        self._let_go(wanted.shard)
        self._kept[wanted.shard] = kept
        asyncio.get_running_loop().call_later(
            TAKE_SECONDS, lambda: self._let_go(wanted.shard, kept)
        )

    def _let_go(self, shard: ShardId, only: _Kept | None = None) -> None:
        kept = self._kept.get(shard)
        if kept is not None and (only is None or kept is only):
            del self._kept[shard]
            kept.close()

    async def _take(self, wanted: Watch) -> Digest:
        kept = self._kept.get(wanted.shard)
        if kept is None or kept.index != wanted.index:
            raise StorageError("the state to be digested is not kept any more", "55000")
        try:
            async with asyncio.timeout(ARRIVE_SECONDS):
                state = await asyncio.shield(kept.state)
            return await digest_of(state, self._blocking)
        except TimeoutError as error:
            message = f"node {self._host.node} has not applied entry {wanted.index}"
            raise ConsensusError(message) from error
        finally:
            self._let_go(wanted.shard, kept)

    # ---- the leader's part --------------------------------------------------------------------------

    async def _compare(self, replica: Replica) -> dict[str, Any]:
        members = replica.members
        nodes = sorted({*members.voters, *members.voters_outgoing, *members.learners})
        wanted = Watch(replica.id, 0)
        failed: dict[NodeId, DatabaseError] = {}
        for ahead in AHEAD:
            wanted = Watch(replica.id, replica.last_index + ahead)
            answers = await asyncio.gather(
                *(self._ask(NodeId(node), WATCH, wanted, WATCH_SECONDS) for node in nodes)
            )
            failed = {
                NodeId(node): answer
                for node, answer in zip(nodes, answers, strict=True)
                if isinstance(answer, DatabaseError)
            }
            if not any(error.sqlstate == "55000" for error in failed.values()):
                break
        await self._drive(replica, wanted.index)
        living = [NodeId(node) for node in nodes if NodeId(node) not in failed]
        taken = await asyncio.gather(
            *(self._ask(node, TAKE, wanted, TAKE_SECONDS) for node in living)
        )
        found: dict[NodeId, Digest | DatabaseError] = {**failed}
        for node, answer in zip(living, taken, strict=True):
            found[node] = unpack(answer, Digest) if isinstance(answer, bytes) else answer
        return _compared(wanted, found)

    async def _ask(
        self, node: NodeId, method: str, wanted: Watch, seconds: float
    ) -> bytes | DatabaseError:
        """A member's answer, or why there is none."""
        try:
            if node != self._host.node:
                return await self._network.call(node, method, pack(wanted), seconds)
            if method == TAKE:
                return pack(await self._take(wanted))
            self._watch(wanted)
        except DatabaseError as error:
            return error
        return b""

    async def _drive(self, replica: Replica, index: int) -> None:
        """Fill the log with entries that do nothing, up to `index`. Raises ConsensusError: this node leads no more."""
        term = replica.serving_term
        while replica.applied < index:
            if not term or replica.serving_term != term:
                raise ConsensusError(
                    f"shard {replica.id} has another leader now", hint="Try again in a moment."
                )
            await replica.drain()


def _compared(wanted: Watch, found: Mapping[NodeId, Digest | DatabaseError]) -> dict[str, Any]:
    """A shard as the command shows it. What most replicas hold counts as right; of a tie, what the lowest node does."""
    digests = [one.digest for _, one in sorted(found.items()) if isinstance(one, Digest)]
    usual = max(digests, key=digests.count, default="")
    replicas: list[dict[str, Any]] = []
    for node, one in sorted(found.items()):
        if isinstance(one, Digest):
            told = {**asdict(one), "differs": one.digest != usual, "error": None}
        else:
            told = {
                "digest": None,
                "pairs": None,
                "bytes": None,
                "differs": False,
                "error": one.message,
            }
        replicas.append({"node": node, **told})
    return {
        "id": wanted.shard,
        "index": wanted.index,
        "equal": len(set(digests)) <= 1,
        "complete": len(digests) == len(found),
        "replicas": replicas,
    }
