"""What happens to a simulated cluster, from a seed: crashes, partitions, bad weather, disks, clocks, pauses."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence

from shardforge.cluster.leaders import Transfer
from shardforge.cluster.placement import Move
from shardforge.errors import QueryError
from shardforge.ids import META_SHARD, NodeId
from shardforge.keys import BUCKETS, bucket_boundary
from shardforge.sim.cluster import DOWN_AFTER_SECONDS, SimNode
from shardforge.sim.world import Weather, World

AT_A_TIME = 2
SHARDS_MAX = 9
SPLIT_SECONDS = 5.0
MOVES_AWAY = 0.5
"""How often it is a replica, and not the leadership, that goes to another node."""
AT_A_BUCKET = 0.7
"""How often a shard is split between buckets, which may be empty, and not where it balances."""
PAUSE_SECONDS = (0.2, 2.0)
FAULT_SECONDS = (0.1, 2.5)
JUMP_US_MAX = 100_000_000
LAG_SECONDS_MAX = 6.0
"""How long a node is cut off, at most, until the others' logs have gone on without it."""
TRANSFER_SECONDS_MAX = 3.0
LOOK_SECONDS = 0.002


class Faults:
    """Injects faults of some kinds for a while, up to two at a time, and then undoes them all."""

    def __init__(self, world: World, nodes: Sequence[SimNode], kinds: Sequence[str]) -> None:
        self._world = world
        self._nodes = nodes
        self._kinds = [KINDS[kind] for kind in kinds]
        self.injected = 0
        self.moves = 0
        """Replicas and leaderships that were sent elsewhere."""
        self.splits = 0
        """Shards that were split, as far as the serving node could tell."""
        self.merges = 0
        """Shards that became a part of others, as far as the serving node could tell."""
        self.interruptions = 0
        """Snapshots that were disturbed in the midst of their transfer."""

    async def run(self, seconds: float) -> None:
        """Inject faults for some time, then heal."""
        end = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._inject_until(end) for _ in range(AT_A_TIME)))
        await self.heal()

    async def _inject_until(self, end: float) -> None:
        loop, choice = asyncio.get_running_loop(), self._world.random
        while self._kinds and loop.time() < end:
            await asyncio.sleep(choice.uniform(*PAUSE_SECONDS))
            inject = choice.choice(self._kinds)
            self.injected += 1
            await inject(self, choice.choice(self._nodes), choice.uniform(*FAULT_SECONDS))
        await asyncio.sleep(max(0.0, end - loop.time()))

    async def heal(self) -> None:
        """Undo everything; nodes whose disks failed are started anew."""
        self._world.cut.clear()
        self._world.slow.clear()
        self._world.broken.clear()
        self._world.weather = Weather()
        for node in self._nodes:
            self._resume(node)
            if node.damaged:
                await self._down(node)
            self._up(node)

    async def crash(self, node: SimNode, seconds: float) -> None:
        """One node is gone for a while, with what it had not synced."""
        await self._down(node)
        await asyncio.sleep(seconds)
        self._up(node)

    async def loss(self, node: SimNode, seconds: float) -> None:
        """One node is gone for so long that others may take its place."""
        await self.crash(node, DOWN_AFTER_SECONDS + 2 * seconds)

    async def crash_all(self, _node: SimNode, seconds: float) -> None:
        """The power fails everywhere."""
        for node in self._nodes:
            await self._down(node)
        await asyncio.sleep(seconds / 4)
        for node in self._nodes:
            self._up(node)
            await asyncio.sleep(self._world.random.uniform(0, 0.3))

    async def _down(self, node: SimNode) -> None:
        self._resume(node)  # a process that stands still can be killed, and is not missed
        if node.running:
            await node.crash()

    def _up(self, node: SimNode) -> None:
        if not node.running:
            node.start()

    async def partition(self, _node: SimNode, seconds: float) -> None:
        """Two sides that do not hear each other."""
        side = {n.id for n in self._nodes if self._world.random.random() < 0.5}
        self._world.cut |= {
            (a.id, b.id)
            for a in self._nodes
            for b in self._nodes
            if (a.id in side) != (b.id in side)
        }
        await asyncio.sleep(seconds)
        self._world.cut.clear()

    async def one_way(self, node: SimNode, seconds: float) -> None:
        """One node is not heard, or does not hear."""
        deaf = self._world.random.random() < 0.5
        others = [other.id for other in self._nodes if other is not node]
        self._world.cut |= {(o, node.id) if deaf else (node.id, o) for o in others}
        await asyncio.sleep(seconds)
        self._world.cut.clear()

    async def weather(self, _node: SimNode, seconds: float) -> None:
        """Loss, duplicates, delay and overtaking."""
        choice = self._world.random
        self._world.weather = Weather(
            choice.uniform(0, 0.3), choice.uniform(0, 0.3), choice.uniform(0.0005, 0.02), 0.1
        )
        await asyncio.sleep(seconds)
        self._world.weather = Weather()

    async def slow_disk(self, node: SimNode, seconds: float) -> None:
        """A disk takes a hundred times as long."""
        self._world.slow.add(node.id)
        await asyncio.sleep(seconds)
        self._world.slow.discard(node.id)

    async def broken_disk(self, node: SimNode, seconds: float) -> None:
        """A disk is full or fails; the node is started anew when it is mended."""
        self._world.broken[node.id] = self._world.random.choice((errno.ENOSPC, errno.EIO))
        await asyncio.sleep(seconds)
        self._world.broken.pop(node.id, None)
        if node.damaged:
            await self._down(node)
            self._up(node)

    async def clock(self, node: SimNode, seconds: float) -> None:
        """A node's time of day jumps."""
        node.clock.wall_offset_us += self._world.random.randrange(-JUMP_US_MAX, JUMP_US_MAX)

    async def pause(self, node: SimNode, seconds: float) -> None:
        """A node stands still."""
        self._world.pause(node.id)
        await asyncio.sleep(seconds)
        self._resume(node)

    async def split(self, _node: SimNode, _seconds: float) -> None:
        """A shard is split: no fault, but everything has to go on in the midst of others."""
        for node in self._nodes:
            splitting = None if node.governing is None else node.governing.splitting
            if splitting is None or len(splitting.shards) >= SHARDS_MAX:
                continue
            shards = [shard for shard in splitting.shards if shard != META_SHARD]
            self._world.random.shuffle(shards)
            for shard in shards:
                bucket = self._world.random.randrange(1, BUCKETS)
                at = bucket_boundary(bucket) if self._world.random.random() < AT_A_BUCKET else None
                work = node.begin(splitting.split(shard, at))
                await asyncio.wait({work}, timeout=SPLIT_SECONDS)
                work.cancel()
                (outcome,) = await asyncio.gather(work, return_exceptions=True)
                if isinstance(outcome, int):
                    self.splits += 1
                if not isinstance(outcome, QueryError):  # a shard with one key, or a key of another
                    return

    async def merge(self, _node: SimNode, _seconds: float) -> None:
        """A shard becomes a part of the one before it: no fault either."""
        for node in self._nodes:
            governing = node.governing
            merging = None if governing is None else governing.merging
            if governing is None or merging is None or governing.splitting is None:
                continue
            shards = governing.splitting.shards[
                :-2
            ]  # not the last one, nor the meta shard after it
            if not shards:
                return
            work = node.begin(merging.merge(self._world.random.choice(shards)))
            await asyncio.wait({work}, timeout=SPLIT_SECONDS)
            work.cancel()
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
            if isinstance(outcome, int):
                self.merges += 1
            return

    async def move(self, _node: SimNode, seconds: float) -> None:
        """A shard is led by another node for a while, or lives elsewhere from now on: no fault either."""
        choice = self._world.random
        for node in self._nodes:
            governing = node.governing
            if governing is None:
                continue
            known = [shard for shard in governing.shards() if shard.leader is not None]
            shard = choice.choice(
                [one for one in known if one.descriptor.id != META_SHARD] or [None]
            )
            if shard is None or shard.leader is None:
                continue
            voters = [NodeId(voter) for voter in shard.members.voters]
            others = [voter for voter in voters if voter != shard.leader]
            strangers = [other.id for other in self._nodes if other.id not in voters]
            now = node.clock.monotonic_ns() / 1e9
            if strangers and choice.random() < MOVES_AWAY:
                target = choice.choice(strangers)
                governing.history.begin(
                    [Move(shard.descriptor.id, choice.choice(voters), target)], now
                )
            elif others:
                there = Transfer(shard.descriptor.id, shard.leader, choice.choice(others))
                governing.history.hand_over(shard.descriptor.id, now)
                governing.relocation.hand_over(there)
                await asyncio.sleep(seconds)
                if node.governing is governing:
                    back = Transfer(there.shard, there.target, there.source)
                    governing.relocation.hand_over(back)
            self.moves += 1
            await asyncio.sleep(seconds)
            return

    async def snapshot(self, node: SimNode, seconds: float) -> None:
        """A node lags until it needs snapshots, and something befalls one of the two sides in the midst of one."""
        others = [other for other in self._nodes if other is not node]
        cuts = self._cut_off(node)
        await _until(
            lambda: not cuts <= self._world.cut or _left_behind(node, others), LAG_SECONDS_MAX
        )
        self._world.cut -= cuts
        before = _received_bytes(node)
        await _until(
            lambda: _receives(node) and _received_bytes(node) > before, TRANSFER_SECONDS_MAX
        )
        if _receives(node):
            self.interruptions += 1
            senders = [other for other in others if other.serves]
            befalls = self._world.random.choice((self.crash, self.pause, self.partition_off))
            await befalls(self._world.random.choice([node, *senders]), seconds)

    async def partition_off(self, node: SimNode, seconds: float) -> None:
        """One node hears nobody and is not heard."""
        cuts = self._cut_off(node)
        await asyncio.sleep(seconds)
        self._world.cut -= cuts

    def _cut_off(self, node: SimNode) -> set[tuple[NodeId, NodeId]]:
        others = [other.id for other in self._nodes if other is not node]
        cuts = {pair for o in others for pair in ((o, node.id), (node.id, o))}
        self._world.cut |= cuts
        return cuts

    def _resume(self, node: SimNode) -> None:
        self._world.resume(node.id)
        network = self._world.networks.get(node.id)
        if network is not None:
            network.wake()


KINDS: dict[str, Callable[[Faults, SimNode, float], Awaitable[None]]] = {
    "crash": Faults.crash,
    "loss": Faults.loss,
    "power": Faults.crash_all,
    "partition": Faults.partition,
    "one-way": Faults.one_way,
    "weather": Faults.weather,
    "slow-disk": Faults.slow_disk,
    "broken-disk": Faults.broken_disk,
    "clock": Faults.clock,
    "pause": Faults.pause,
    "split": Faults.split,
    "merge": Faults.merge,
    "move": Faults.move,
    "snapshot": Faults.snapshot,
}
"""The faults by the names that --faults takes."""


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end and not holds():  # noqa: ASYNC110 - several nodes, looked at from outside
        await asyncio.sleep(LOOK_SECONDS)


def _left_behind(node: SimNode, others: Sequence[SimNode]) -> bool:
    """Whether a leader's log begins after what a node has of its shard."""
    if node.host is None:
        return False
    leaders = [
        replica
        for other in others
        if other.host is not None
        for replica in other.host.replicas
        if replica.serving_term
    ]
    for leader in leaders:
        own = node.host.find(leader.id)
        if own is not None and own.last_index + 1 < leader.first_index:
            return True
    return False


def _receives(node: SimNode) -> bool:
    return node.host is not None and node.host.snapshots.receiving > 0


def _received_bytes(node: SimNode) -> int:
    return 0 if node.host is None else node.host.snapshots.received_bytes
