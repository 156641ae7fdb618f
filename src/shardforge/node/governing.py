"""The serving node's side of the cluster's government: it asks every node how it is, and moves replicas step by step.

Runs for one tenure. It holds no decision of its own: `cluster.members` says who belongs, `cluster.goal` what to do next
for each shard; this asks, writes rows and proposes. Every round begins from what the nodes say now, so a round that was
cut short is taken up by the next one, here or at the next serving node.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping

from msgspec.structs import replace

from shardforge.cluster.goal import (
    Goal,
    goal_of,
    meta_may_follow,
    next_step,
    nodes_of,
    voters_of,
)
from shardforge.cluster.liveness import Liveness, Sight
from shardforge.cluster.members import (
    ACTIVE,
    DRAINING,
    LEFT,
    Member,
    admit,
    decommissioned,
    drained,
    present,
)
from shardforge.errors import DatabaseError
from shardforge.ids import META_SHARD, NodeId
from shardforge.node.peering import Peering
from shardforge.node.reports import (
    CREATE,
    DROP,
    REPORT,
    AddressBook,
    Drop,
    NodeReport,
    pack,
    unpack,
)
from shardforge.node.rows import MemberRows
from shardforge.node.splitting import Splitting
from shardforge.ports import Clock, Network
from shardforge.raft.confchange import ChangeKind, ConfChange
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.host import Host
from shardforge.shard.replica import Replica
from shardforge.txn.closed import Closed

ROUND_SECONDS = 0.5
ANSWER_SECONDS = 1.0
CREATE_SECONDS = 10.0
SILENT_SECONDS = 2 * ROUND_SECONDS + ANSWER_SECONDS
"""A node that does not answer for so long is not alive."""
EVENTS_MAX = 200

log = logging.getLogger("shardforge.cluster")


def described(change: ConfChange) -> str:
    """A membership change in words."""
    words = {
        ChangeKind.ADD_VOTER: "votes",
        ChangeKind.ADD_LEARNER: "learns",
        ChangeKind.REMOVE: "goes",
    }
    return ", ".join(f"node {c.node} {words.get(c.kind, c.kind.name)}" for c in change.changes)


class Governing:
    """One tenure's government."""

    def __init__(
        self, host: Host, network: Network, peering: Peering, rows: MemberRows, clock: Clock, factor: int,
        down_after: float, closed: Callable[[], Closed], give_way: Callable[[NodeId], None],
    ) -> None:  # fmt: skip
        self.splitting: Splitting | None = None
        """Who splits shards in this tenure."""
        self.members: list[Member] = []
        self.reports: dict[NodeId, NodeReport] = {}
        self._host = host
        self._network = network
        self._peering = peering
        self._rows = rows
        self._clock = clock
        self._factor = factor
        self._closed = closed
        self._give_way = give_way
        self.began = self._now()
        self.liveness = Liveness(
            host.node, self.began, silent_after=SILENT_SECONDS, down_after=down_after
        )
        self.events: deque[dict[str, object]] = deque(maxlen=EVENTS_MAX)
        """What happened to the cluster of late, oldest first."""
        self._term = host.meta.serving_term
        self._changing = asyncio.Lock()
        self._asking: dict[NodeId, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        host.listen(self._on_change)

    def event(self, text: str) -> None:
        """Note what happened to the cluster."""
        log.info("%s", text)
        self.events.append({"at_us": self._clock.wall_us(), "event": text})

    def _on_change(self, _replica: Replica) -> None:
        self._wake.set()

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    # ---- who belongs -----------------------------------------------------------------------------

    async def begin(
        self, founders: Mapping[NodeId, str], address: str, version: str, observers: Collection[NodeId] = (),
    ) -> None:  # fmt: skip
        """Learn who the members are; before anybody was noted the founders, some as observers. Raises DatabaseError."""
        self.members = await self._rows.load()
        now_us = self._clock.wall_us()
        if not self.members:
            # All at once: who is not in the address book is not spoken to, and could not acknowledge the next.
            await self._put(
                *(
                    Member(n, at, ACTIVE, "", version, now_us, n in observers)
                    for n, at in founders.items()
                )
            )
        [own] = [member for member in self.members if member.id == self._host.node]
        here = self._peering.locality
        await self._put(replace(own, address=address, version=version, locality=here))
        await self._publish()
        self.event(f"node {own.id} serves")

    async def close(self) -> None:
        """Ask nobody any more."""
        self._host.unlisten(self._on_change)
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _put(self, *members: Member) -> None:
        changed = [member for member in members if member not in self.members]
        if not changed:
            return
        await self._rows.put(changed)
        ids = {member.id for member in changed}
        self.members = [m for m in self.members if m.id not in ids] + changed
        await self._publish()

    async def _publish(self) -> None:
        nodes = [(member.id, member.address) for member in present(self.members)]
        observers = [member.id for member in present(self.members) if member.observer]
        version = max(self._clock.wall_us(), self._peering.book.version + 1)
        book = AddressBook(version, self._host.node, nodes, observers, self._term)
        self._peering.learn(book)
        await self._peering.keep()
        self._wake.set()

    async def admit(
        self, token: str, address: str, version: str, node: NodeId,
        *, observer: bool = False, locality: str = "",
    ) -> Member:  # fmt: skip
        """Make a node a member. Raises StorageError F0000."""
        async with self._changing:
            now_us = self._clock.wall_us()
            member = admit(
                self.members, token, address, version, node, now_us,
                observer=observer, locality=locality,
            )  # fmt: skip
            await self._put(member)
        self.event(f"node {member.id} joined at {address}")
        return member

    async def drain(self, node: NodeId) -> None:
        """Begin to move a node's replicas away; it leaves when it has none. Raises QueryError, ConsensusError."""
        async with self._changing:
            alive = self.sight().alive
            await self._put(drained(self.members, node, self._factor, alive))
        self.event(f"node {node} is to leave")

    async def decommission(self, node: NodeId) -> None:
        """Do without a node that will not come back. Raises QueryError, ConsensusError."""
        async with self._changing:
            sight = self.sight()
            await self._put(decommissioned(self.members, node, self._factor, sight))
        self.event(f"node {node} is decommissioned")

    # ---- how they are ----------------------------------------------------------------------------

    @property
    def heard_at(self) -> Mapping[NodeId, float]:
        """When each of the other nodes last answered."""
        return self.liveness.heard_at

    def sight(self) -> Sight:
        """Which members answer now."""
        return self.liveness.sight((member.id for member in present(self.members)), self._now())

    def _ask_all(self) -> None:
        for member in present(self.members):
            if member.id != self._host.node and member.id not in self._asking:
                task = asyncio.create_task(self._ask(member.id), name=f"ask-{member.id}")
                self._asking[member.id] = task

    async def _ask(self, node: NodeId) -> None:
        try:
            body = pack((self._peering.book, self._closed()))
            answer = await self._network.call(node, REPORT, body, ANSWER_SECONDS)
            report = unpack(answer, NodeReport)
            if node not in self.reports:
                self._wake.set()
            self.reports[node] = report
            self.liveness.hear(node, self._now())
            await self._note(report)
        except DatabaseError as error:
            log.debug("node %d does not answer: %s", node, error)
        finally:
            del self._asking[node]

    async def _note(self, report: NodeReport) -> None:
        """Keep the record of a node that was moved, upgraded or put elsewhere."""
        async with self._changing:
            for member in self.members:
                known = (member.address, member.version, member.locality)
                said = (report.address, report.version, report.locality)
                if member.id == report.node and known != said:
                    address, version, locality = said
                    now = replace(member, address=address, version=version, locality=locality)
                    await self._put(now)

    # ---- where replicas belong -------------------------------------------------------------------

    async def run(self) -> None:
        """Govern until cancelled."""
        while True:
            self._wake.clear()
            self._peering.offer(self._closed())  # for when this node reaches no majority any more
            self._ask_all()
            try:
                await self._round()
            except DatabaseError as error:
                log.warning("the cluster could not be looked after: %s", error)
            try:
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _round(self) -> None:
        host = self._host
        self.liveness.listen(self._now())
        sight = self.sight()
        others = [replica for replica in host.replicas if replica.id != META_SHARD]
        meta = host.meta.members
        held = [replica.members for replica in others]
        goal = goal_of(self.members, self._factor, meta, held, sight, host.node)
        if host.node not in goal.voters:
            successors = sorted(goal.voters & voters_of(meta) & sight.alive)
            if successors:
                self._give_way(successors[0])
                return
        # What is on its way in one shard was decided for another goal, and is not yet in what the members are.
        if not host.meta.changing_members:
            for replica in others:
                await self._step(replica, goal, voters_of(meta))
        settled = not any(replica.changing_members for replica in others)
        if settled and meta_may_follow(goal, [replica.members for replica in others]):
            await self._step(host.meta, goal, set())
        await self._make_missing()
        await self._remove_spare(goal)
        await self._let_leave()

    async def _step(self, replica: Replica, goal: Goal, keep: set[NodeId]) -> None:
        if replica.changing_members:
            return
        match = replica.followers()
        alive = self.sight().alive
        step = next_step(replica.members, goal, keep, match, replica.last_index, alive)
        if step is None:
            return
        for node in step.create:
            await self._create(replica.descriptor, node)
        if replica.change_members(step.change):
            self.event(f"shard {replica.id}: {described(step.change)}")

    async def _create(self, descriptor: ShardDescriptor, node: NodeId) -> None:
        bare = replace(descriptor, voters=())
        await self._network.call(node, CREATE, pack([bare]), CREATE_SECONDS)

    async def _make_missing(self) -> None:
        """Have members make replicas that they miss: they got a shard's state from after it was split."""
        for node, report in list(self.reports.items()):
            if node not in self._asked_lately():
                continue
            held = {shard.shard for shard in report.shards}
            for replica in self._host.replicas:
                if node in nodes_of(replica.members) and replica.id not in held:
                    try:
                        await self._create(replica.descriptor, node)
                    except DatabaseError as error:
                        log.debug("node %d has no shard %d yet: %s", node, replica.id, error)

    async def _remove_spare(self, goal: Goal) -> None:
        """Have nodes delete replicas that their groups removed."""
        here = {replica.id: replica for replica in self._host.replicas}
        for node, report in list(self.reports.items()):
            if node in goal.nodes:
                continue
            gone = [
                Drop(shard.shard, here[shard.shard].applied)
                for shard in report.shards
                if shard.shard in here
                and node not in nodes_of(here[shard.shard].members)
                and not here[shard.shard].members.voters_outgoing
            ]
            if gone and node in self._asked_lately():
                await self._network.call(node, DROP, pack(gone), CREATE_SECONDS)
                self.reports.pop(node)  # what it said of them is no longer so

    def _asked_lately(self) -> set[NodeId]:
        now = self._now()
        return {node for node, at in self.heard_at.items() if now - at < 2 * ROUND_SECONDS}

    async def _let_leave(self) -> None:
        """A node that is to leave has left when no shard needs it any more."""
        async with self._changing:
            for member in self.members:
                if member.state != DRAINING:
                    continue
                if not any(member.id in nodes_of(r.members) for r in self._host.replicas):
                    await self._put(replace(member, state=LEFT))
                    self.reports.pop(member.id, None)
                    self.liveness.forget(member.id)
                    self.event(f"node {member.id} has left")
