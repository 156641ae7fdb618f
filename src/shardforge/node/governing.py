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

from shardforge.cluster.goal import Goal, next_step, nodes_of
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
from shardforge.cluster.placement import View
from shardforge.cluster.plan import History, Settings, plan_of
from shardforge.errors import ConsensusError, DatabaseError, QueryError
from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.node.changing import Changing
from shardforge.node.merging import Merging
from shardforge.node.overview import ShardSight, overview
from shardforge.node.peering import Peering
from shardforge.node.placing import Placing
from shardforge.node.relocation import Relocation
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
from shardforge.txn.closed import Closed, closed_now
from shardforge.txn.store import Store

ROUND_SECONDS = 0.5
ANSWER_SECONDS = 1.0
CREATE_SECONDS = 10.0
BALANCE_SECONDS = 3.0
"""How often it is looked at whether replicas and leaders would better be elsewhere."""
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
        self, host: Host, network: Network, peering: Peering, store: Store, clock: Clock, changer: Changing,
        factor: int, settings: Settings, down_after: float, give_way: Callable[[NodeId], None],
    ) -> None:  # fmt: skip
        self.history = History()
        self.relocation = Relocation(store, clock, changer, self.event)
        self.placing = Placing(self, host.node, settings.moves_max)
        self.splitting: Splitting | None = None
        """Who splits shards in this tenure."""
        self.merging: Merging | None = None
        """Who merges them."""
        self.members: list[Member] = []
        self.reports: dict[NodeId, NodeReport] = {}
        self._host = host
        self._network = network
        self._peering = peering
        self._rows = MemberRows(store.coordinator)
        self._store = store
        self._clock = clock
        self._changer = changer
        self._factor = factor
        self._settings = settings
        self._balanced_at = 0.0
        self._give_way = give_way
        self.began = self.now()
        self.liveness = Liveness(
            host.node, self.began, silent_after=SILENT_SECONDS, down_after=down_after
        )
        self.events: deque[dict[str, object]] = deque(maxlen=EVENTS_MAX)
        """What happened to the cluster of late, oldest first."""
        self._term = host.meta.serving_term
        self._changing = asyncio.Lock()
        self._asking: dict[NodeId, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        host.listen(self._on_change)

    def event(self, text: str) -> None:
        """Note what happened to the cluster."""
        log.info("%s", text)
        self.events.append({"at_us": self._clock.wall_us(), "event": text})

    def rest(self, *shards: ShardId) -> None:
        """Shards were split or merged: the plan leaves their replicas where they are for a while."""
        for shard in shards:
            self.history.touch(shard, self.now())

    def _closed(self) -> Closed:
        return closed_now(self._store.oracle.last, self._store.participants)

    def _on_change(self, _replica: Replica) -> None:
        self.wake()

    def wake(self) -> None:
        """Have the next round begin at once."""
        self._changed.set()

    def now(self) -> float:
        """Seconds of the monotonic clock."""
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
        self.placing.close()
        await self.relocation.close()
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
        self._changed.set()

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
        return self.liveness.sight((member.id for member in present(self.members)), self.now())

    def view(self) -> View:
        """The nodes as placement sees them now."""
        return View(self.members, self.sight(), self._factor)

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
                self._changed.set()
            self.reports[node] = report
            self.liveness.hear(node, self.now())
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
            self._changed.clear()
            self._peering.offer(self._closed())  # for when this node reaches no majority any more
            self._ask_all()
            try:
                await self._round()
            except DatabaseError as error:
                log.warning("the cluster could not be looked after: %s", error)
            try:
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def shards(self) -> list[ShardSight]:
        """Every shard, as far as it can be told of."""
        return overview(self._store.participants, self._host, self.reports)

    def sight_of(self, shard: ShardId) -> ShardSight:
        """One shard. Raises QueryError 42704, ConsensusError when nothing is known of it yet."""
        if all(participant.replica.id != shard for participant in self._store.participants):
            raise QueryError(f"there is no shard {shard}", "42704")
        for sight in self.shards():
            if sight.descriptor.id == shard:
                return sight
        raise ConsensusError(
            f"nothing is known of shard {shard} yet", hint="Try again in a moment."
        )

    async def _round(self) -> None:
        now = self.now()
        self.liveness.listen(now)
        sights = {sight.descriptor.id: sight for sight in self.shards()}
        self.relocation.keep_up(sights.values())
        balancing = now - self._balanced_at > BALANCE_SECONDS and len(sights) == len(
            self._store.participants
        )
        if balancing:
            self._balanced_at = now
        self.history.keep([participant.replica.id for participant in self._store.participants])
        self.placing.begin()
        view = self.view()
        plan = plan_of(
            view, [sight.state for sight in sights.values()], self.history, self._settings, now,
            prefer=self._host.node, balancing=balancing,
        )  # fmt: skip
        self.placing.look(sights)
        for move in plan.moves:
            self.event(f"shard {move.shard}: moves from node {move.source} to node {move.target}")
        for transfer in plan.transfers:
            if transfer.shard == META_SHARD:
                self._give_way(transfer.target)
                return
            self.relocation.hand_over(transfer)
        handed = {transfer.shard for transfer in plan.transfers}
        for shard, goal in plan.goals.items():
            if shard not in handed and not self.relocation.busy(shard):
                await self._step(sights[shard], goal, view.sight)
        if balancing and self.merging is not None:
            busy = {*handed, *plan.goals, *self.history.under_way}
            self.merging.look(list(sights.values()), busy, now)
        await self._make_missing(sights)
        await self._remove_spare({
            shard: sight
            for shard, sight in sights.items()
            if shard not in plan.goals and not sight.changing
        })  # fmt: skip
        await self._let_leave(sights)

    async def _step(self, shard: ShardSight, goal: Goal, sight: Sight) -> None:
        if shard.changing or shard.leader is None:
            return
        step = next_step(shard.members, goal, (), shard.match, shard.last, sight.alive)
        if step is None:
            return
        try:
            for node in step.create:
                await self._create(shard.descriptor, node)
            if await self._changer.change(shard.leader, shard.descriptor.id, step.change):
                self.event(f"shard {shard.descriptor.id}: {described(step.change)}")
        except DatabaseError as error:
            log.debug("shard %d is not changed now: %s", shard.descriptor.id, error)

    async def _create(self, descriptor: ShardDescriptor, node: NodeId) -> None:
        body = pack([replace(descriptor, voters=())])
        if node == self._host.node:
            await self._peering.create(body)
        else:
            await self._network.call(node, CREATE, body, CREATE_SECONDS)

    async def _make_missing(self, sights: Mapping[ShardId, ShardSight]) -> None:
        """Have members make replicas that they miss: they got a shard's state from after it was split."""
        for node, held in self._holdings():
            for shard, sight in sights.items():
                if node in nodes_of(sight.members) and shard not in held:
                    try:
                        await self._create(sight.descriptor, node)
                    except DatabaseError as error:
                        log.debug("node %d has no shard %d yet: %s", node, shard, error)

    async def _remove_spare(self, sights: Mapping[ShardId, ShardSight]) -> None:
        """Have nodes delete replicas that their groups removed, and those of shards that are a part of others."""
        ended = {row.id: row.heir for row in self._store.rows.values() if row.ended}
        for node, held in self._holdings():
            gone = [
                drop
                for shard in sorted(held & sights.keys())
                if (drop := await self._spare(sights[shard], node)) is not None
            ]
            gone += [Drop(shard, 0, ended[shard]) for shard in held if shard in ended]
            if not gone:
                continue
            try:
                if node == self._host.node:
                    await self._peering.drop(gone, node)
                else:
                    await self._network.call(node, DROP, pack(gone), CREATE_SECONDS)
            except DatabaseError as error:
                log.debug("node %d keeps replicas for now: %s", node, error)
            self._forget({drop.shard for drop in gone}, node)

    async def _spare(self, shard: ShardSight, node: NodeId) -> Drop | None:
        """How to remove a replica, if its group's leader says now that it is none of it."""
        members = shard.members
        if shard.leader is None or members.voters_outgoing or node in nodes_of(members):
            return None
        try:
            index = await self._changer.spare(shard.leader, shard.descriptor.id, node)
        except DatabaseError as error:
            log.debug("node %d keeps its replica of shard %d: %s", node, shard.descriptor.id, error)
            return None
        return Drop(shard.descriptor.id, index)

    def _forget(self, shards: Collection[ShardId], node: NodeId) -> None:
        """What a node said of replicas that it was to remove is no longer so; what it said of others is."""
        report = self.reports.get(node)
        if report is not None:
            rest = [one for one in report.shards if one.shard not in shards]
            self.reports[node] = replace(report, shards=rest)

    def _holdings(self) -> list[tuple[NodeId, set[ShardId]]]:
        """The shards that nodes which were asked lately, and this one, have replicas of."""
        now = self.now()
        asked = {node for node, at in self.heard_at.items() if now - at < 2 * ROUND_SECONDS}
        others = [
            (node, {shard.shard for shard in report.shards})
            for node, report in self.reports.items()
            if node in asked
        ]
        return [*others, (self._host.node, {replica.id for replica in self._host.replicas})]

    async def _let_leave(self, sights: Mapping[ShardId, ShardSight]) -> None:
        """A node that is to leave has left when no shard needs it any more."""
        if len(sights) < len(self._store.participants):
            return
        async with self._changing:
            for member in self.members:
                if member.state != DRAINING:
                    continue
                if not any(member.id in nodes_of(sight.members) for sight in sights.values()):
                    await self._put(replace(member, state=LEFT))
                    self.reports.pop(member.id, None)
                    self.liveness.forget(member.id)
                    self.event(f"node {member.id} has left")
