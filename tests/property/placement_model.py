"""A model of a cluster whose shards are placed by `cluster.plan`: nodes come, leave and die, shards grow and split.

Each round is one plan, carried out as the real thing does: an empty replica, a learner that catches up after some
rounds, promotion by joint consensus, removal. The model keeps the score: bytes copied, shards short of voters, what
was moved back where it came from. It reads no clock: a round is a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random

from shardforge.cluster.goal import next_step, nodes_of
from shardforge.cluster.leaders import weight
from shardforge.cluster.liveness import Sight
from shardforge.cluster.members import ACTIVE, DRAINING, LEFT, Member, odd
from shardforge.cluster.placement import Move, ShardState, View, choose
from shardforge.cluster.plan import History, Plan, Settings, plan_of
from shardforge.cluster.rebalance import MIB, Balance, due_shares, will_hold
from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.raft.confchange import Configuration, apply, leave_joint, restore
from shardforge.raft.messages import ConfState

MAX_SHARD_SIZE = 64 * MIB
THRESHOLD = 0.2
REST_SECONDS = 8.0
LAST = 100
"""The log's last index; who has caught up is there."""
MIB_PER_ROUND = 32
"""How fast a copy is made."""


class Score:
    """What placement cost."""

    def __init__(self) -> None:
        self.moves = 0
        self.bytes_moved = 0
        self.bytes_repaired = 0
        self.transfers = 0
        self.back = 0
        """Moves to where the shard was moved away from."""


class Model:
    """The cluster and the score."""

    def __init__(
        self, random: Random, nodes: int, shards: int, *, zones: int = 1, moves_max: int = 16,
        factor: int = 3, spread: bool = False,
    ) -> None:  # fmt: skip
        """`spread`: the shards are on nodes all over the cluster; otherwise all of them are on the first ones."""
        self.random = random
        self.factor = factor
        self.members: dict[NodeId, Member] = {}
        self.zones = zones
        self.dead: set[NodeId] = set()
        self.silent: set[NodeId] = set()
        """Those that do not answer at this moment."""
        self.now = 0.0
        self.history = History(REST_SECONDS)
        self.settings = Settings(Balance(THRESHOLD), moves_max, transfers_max=64)
        self.score = Score()
        self.prefer: NodeId | None = None
        self._caught_up: dict[tuple[ShardId, NodeId], float] = {}
        self._left_by: dict[ShardId, set[NodeId]] = {}
        for _ in range(nodes):
            self.join()
        self.shards: dict[ShardId, ShardState] = {}
        nodes_by_id = sorted(self.members)
        view = self.view()
        for number in range(shards):
            size = random.randrange(MAX_SHARD_SIZE // 8, MAX_SHARD_SIZE)
            chosen = nodes_by_id[: odd(min(factor, nodes))]
            if spread:
                few = random.sample(nodes_by_id, min(nodes, 4 * factor))
                order = {node: place for place, node in enumerate(few)}
                chosen = sorted(choose(view, (), few, factor, order))
            self._add(ConfState(tuple(chosen)), chosen[0], size if number else MIB)

    def _add(self, members: ConfState, leader: NodeId | None, size: int) -> ShardState:
        load = self.random.choice([0.0, 0.0, 1.0, 10.0]) * self.random.uniform(1, 100)
        shard = ShardState(ShardId(len(self.shards)), members, leader, size, load)
        self.shards[shard.id] = shard
        return shard

    # ---- what befalls ----------------------------------------------------------------------------

    def join(self) -> NodeId:
        """A node comes."""
        node = NodeId(len(self.members) + 1)
        zone, rank = node % self.zones, node // self.zones
        locality = f"zone=z{zone},host=h{rank // 2}"
        self.members[node] = Member(node, "", ACTIVE, locality=locality)
        return node

    def drain(self, node: NodeId) -> None:
        """A node is to leave."""
        member = self.members[node]
        self.members[node] = Member(node, "", DRAINING, locality=member.locality)

    def grow(self, share: float, near: Collection[NodeId] = ()) -> None:
        """Some shards grow, those with a voter near, and are split when they are too large."""
        for shard in list(self.shards.values()):
            if shard.id == META_SHARD or self.random.random() > share:
                continue
            if near and not set(shard.members.voters) & set(near):
                continue
            size = int(shard.size_bytes * self.random.uniform(1.0, 1.5))
            self.shards[shard.id] = shard._replace(size_bytes=size)
            if size > MAX_SHARD_SIZE and not shard.members.voters_outgoing:
                self._split(self.shards[shard.id])

    def _split(self, shard: ShardState) -> None:
        half = shard.size_bytes // 2
        self.shards[shard.id] = shard._replace(size_bytes=half)
        child = self._add(shard.members, shard.leader, half)
        for learner in shard.members.learners:
            key = shard.id, NodeId(learner)
            self._caught_up[child.id, NodeId(learner)] = self._caught_up.get(key, self.now)
        self.history.touch(shard.id, self.now)
        self.history.touch(child.id, self.now)

    def tremble(self, amount: float) -> None:
        """Sizes and loads are measured a little differently."""
        for shard in list(self.shards.values()):
            factor = self.random.uniform(1 - amount, 1 + amount)
            size, load = int(shard.size_bytes * factor), shard.load * factor
            self.shards[shard.id] = shard._replace(size_bytes=size, load=load)

    # ---- rounds ----------------------------------------------------------------------------------

    def view(self) -> View:
        """The nodes as they are seen: a dead one is down at once."""
        present = frozenset(n for n, m in self.members.items() if m.state != LEFT)
        down = present & self.dead
        silent = present & (self.dead | self.silent)
        return View(self.members.values(), Sight(present - silent, silent, down), self.factor)

    def round(self, *, balancing: bool = True) -> Plan:
        """One plan, and what comes of it."""
        view = self.view()
        shards = list(self.shards.values())
        plan = plan_of(
            view, shards, self.history, self.settings, self.now, prefer=self.prefer, balancing=balancing
        )  # fmt: skip
        assert len(plan.moves) <= self.settings.moves_max
        for move in plan.moves:
            self._note(move)
        handed = {transfer.shard: transfer.target for transfer in plan.transfers}
        self.score.transfers += len(handed)
        for shard in shards:
            if shard.id in handed:
                assert handed[shard.id] in shard.members.voters, "an heir votes"
                self.shards[shard.id] = shard._replace(leader=handed[shard.id])
            elif shard.id in plan.goals or shard.members.voters_outgoing:
                self._step(view, shard, plan)
            else:
                self._elect(view, shard)
        for member in list(self.members.values()):
            if member.state == DRAINING and not self._holds(member.id):
                self.members[member.id] = Member(member.id, "", LEFT)
        self.now += 1
        return plan

    def _holds(self, node: NodeId) -> bool:
        return any(node in nodes_of(shard.members) for shard in self.shards.values())

    def _note(self, move: Move) -> None:
        size = self.shards[move.shard].size_bytes
        self.score.moves += 1
        self.score.bytes_moved += size
        left = self._left_by.setdefault(move.shard, set())
        self.score.back += move.target in left
        left.add(move.source)

    def _elect(self, view: View, shard: ShardState) -> None:
        if shard.leader in view.sight.alive:
            return
        able = sorted(set(shard.members.voters) & view.sight.alive)
        assert 2 * len(able) > len(shard.members.voters), "no shard loses its majority"
        self.shards[shard.id] = shard._replace(leader=NodeId(able[0]))

    def _step(self, view: View, shard: ShardState, plan: Plan) -> None:
        configuration = restore(shard.members)
        if configuration.joint:
            configuration = leave_joint(configuration)
        else:
            match = {n: LAST for n in nodes_of(shard.members) if self._has_log(shard.id, n)}
            goal = plan.goals[shard.id]
            step = next_step(shard.members, goal, (), match, LAST, view.sight.alive)
            if step is None:
                self._elect(view, shard)
                return
            for node in step.create:
                self._copy(shard, node)
            configuration = apply(configuration, step.change)
        gone = shard.leader not in view.sight.alive
        assert gone or shard.leader in configuration.voters, "a leader hands over before it goes"
        self._check(restore(shard.members), configuration, view)
        self.shards[shard.id] = shard._replace(members=configuration.conf_state())

    def _has_log(self, shard: ShardId, node: NodeId) -> bool:
        answers = node not in self.dead | self.silent
        return answers and self._caught_up.get((shard, node), 0.0) <= self.now

    def _copy(self, shard: ShardState, node: NodeId) -> None:
        seconds = 1 + shard.size_bytes / (MIB_PER_ROUND * MIB)
        self._caught_up[shard.id, node] = self.now + seconds
        if shard.id not in self.history.under_way:
            self.score.bytes_repaired += shard.size_bytes

    def _check(self, before: Configuration, after: Configuration, view: View) -> None:
        alive = view.sight.alive
        for half in (after.incoming, after.outgoing):
            assert not half or 2 * len(half & alive) > len(half), "a majority lives"
        wanted = odd(min(self.factor, len(view.up)))
        staying = alive & view.able
        living = min(wanted, len(before.incoming & staying))
        assert len(after.incoming & staying) >= living, "a voter goes when another has come"

    # ---- what is seen ----------------------------------------------------------------------------

    def run(self, rounds_max: int) -> int:
        """Rounds until nothing is proposed any more; how many. Fails when there is no end."""
        quiet = 0
        for count in range(rounds_max):
            plan = self.round()
            joint = any(s.members.voters_outgoing for s in self.shards.values())
            busy = plan.goals or plan.transfers or joint or self.history.resting()
            quiet = 0 if busy or self.history.resting_leaders() else quiet + 1
            if quiet > 1:
                return count
        raise AssertionError(f"no end after {rounds_max} rounds: {self.score.moves} moves")

    def able(self) -> list[NodeId]:
        """Nodes on which voters belong, and that live."""
        return sorted(self.view().ready)

    def held(self) -> dict[NodeId, int]:
        """Bytes on each of them."""
        return will_hold(self.shards.values(), {}, self.able())

    def _surplus(self) -> tuple[float, list[float]]:
        """The mean of bytes on a node, and what each holds beyond its due."""
        held = self.held()
        total = sum(held.values())
        due = due_shares(self.view())
        return total / len(held), [held[node] - due[node] * total for node in held]

    def imbalance(self) -> float:
        """How far from its due the node is that is farthest from it, as a share of the mean."""
        mean, surplus = self._surplus()
        return max(map(abs, surplus)) / mean

    def needed(self) -> tuple[int, int]:
        """Bytes that must move at least, so that every node is within the threshold of its due; how many are not."""
        mean, surplus = self._surplus()
        over = sum(max(0.0, bytes_ - mean * THRESHOLD) for bytes_ in surplus)
        under = sum(max(0.0, -bytes_ - mean * THRESHOLD) for bytes_ in surplus)
        return int(max(over, under)), sum(abs(bytes_) > mean * THRESHOLD for bytes_ in surplus)

    def short(self) -> list[ShardId]:
        """Shards with fewer voters on living nodes than there could be."""
        able = set(self.able())
        wanted = odd(min(self.factor, len(able)))
        return [s.id for s in self.shards.values() if len(able & set(s.members.voters)) < wanted]

    def crowded(self) -> list[ShardId]:
        """Shards whose voters share more places than they have to."""
        view = self.view()
        return [
            shard.id
            for shard in self.shards.values()
            if view.crowding(_nodes(shard.members.voters)) > view.best
        ]

    def led(self) -> dict[NodeId, float]:
        """What each node's leaderships weigh."""
        loads = dict.fromkeys(self.able(), 0.0)
        for shard in self.shards.values():
            assert shard.leader is not None, "somebody leads"
            loads[shard.leader] += weight(shard)
        return loads


def _nodes(ids: Iterable[int]) -> list[NodeId]:
    return [NodeId(node) for node in ids]
