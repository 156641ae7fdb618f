"""What to do with all shards in one round: whose replicas go where now, and who hands over leadership.

Repairs come before moves, and of the repairs those of shards that have the fewest voters left. At most `moves_max`
shards get a new copy at a time, whatever for; copies under way go on, the others wait. Changes that copy nothing
(votes, removals) wait for nobody. What is forgotten when the serving node goes is no loss: a copy that was begun is
removed, or is the first choice where one is missing.
PURE: the caller tells the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from shardforge.cluster.goal import Goal, nodes_of, voters_of
from shardforge.cluster.leaders import Transfer, transfers_of
from shardforge.cluster.placement import Move, ShardState, View, shard_goal
from shardforge.cluster.rebalance import Balance, byte_moves, movable, spread_moves, will_hold
from shardforge.ids import NodeId, ShardId

REST_SECONDS = 60.0
"""So long a shard is left alone after it was moved, split, merged or handed over."""
MOVE_SECONDS = 900.0
"""A move that takes longer is given up."""


class History:
    """Moves under way, and which shards changed lately; all times in seconds of one monotonic clock."""

    def __init__(self, rest_seconds: float = REST_SECONDS) -> None:
        self.under_way: dict[ShardId, Move] = {}
        self._rest_seconds = rest_seconds
        self._began_at: dict[ShardId, float] = {}
        self._touched_at: dict[ShardId, float] = {}
        self._led_at: dict[ShardId, float] = {}

    def begin(self, moves: Iterable[Move], now: float) -> None:
        """Moves begin."""
        for move in moves:
            self.under_way[move.shard] = move
            self._began_at[move.shard] = now

    def touch(self, shard: ShardId, now: float) -> None:
        """A shard was moved, split or merged, or came out of a split."""
        self._touched_at[shard] = now

    def hand_over(self, shard: ShardId, now: float) -> None:
        """A shard's leadership is handed over."""
        self._led_at[shard] = now

    def settle(self, view: View, shards: Mapping[ShardId, ShardState], now: float) -> None:
        """Note which moves have ended or are given up, and forget what was long ago.

        Of a shard that is on its way to another leader nothing may be known for a moment: its move goes on.
        """
        for move in list(self.under_way.values()):
            shard = shards.get(move.shard)
            late = now - self._began_at[move.shard] > MOVE_SECONDS
            if late or (shard is not None and _over(view, shard, move)):
                del self.under_way[move.shard], self._began_at[move.shard]
                self.touch(move.shard, now)
        for known in (self._touched_at, self._led_at):
            for old in [s for s, at in known.items() if now - at > self._rest_seconds]:
                del known[old]

    def keep(self, there: Collection[ShardId]) -> None:
        """Forget the moves of shards that are not there any more."""
        for shard in self.under_way.keys() - set(there):
            del self.under_way[shard], self._began_at[shard]

    def resting(self) -> set[ShardId]:
        """Shards whose replicas are left alone."""
        return {*self._touched_at, *self.under_way}

    def resting_leaders(self) -> set[ShardId]:
        """Shards whose leader is left alone."""
        return set(self._led_at)


def _over(view: View, shard: ShardState, move: Move) -> bool:
    """Whether a move has ended, or has lost its sense because of what happened meanwhile."""
    voters = shard.members.voters
    changed = move.target in voters or move.source not in voters
    return move.target not in view.up or (changed and not shard.members.voters_outgoing)


class Settings(NamedTuple):
    """What bounds a plan."""

    balance: Balance
    moves_max: int = 4
    """Shards that get a new copy at a time."""
    transfers_max: int = 8
    """Leaderships handed over in one round for the sake of balance."""


class Plan(NamedTuple):
    """One round. A shard with neither is where it belongs, or waits for its turn."""

    goals: dict[ShardId, Goal]
    """Of shards that are not where they belong, and may take their next step now."""
    moves: list[Move]
    """Those that begin now; they are in `goals` and in the history."""
    transfers: list[Transfer]
    """To be made before the shard's next step."""


def plan_of(
    view: View,
    shards: Sequence[ShardState],
    history: History,
    settings: Settings,
    now: float,
    *,
    prefer: NodeId | None = None,
    balancing: bool = True,
) -> Plan:
    """The plan of one round; moves that begin are noted in the history. Without `balancing` only repairs are planned.

    Cost: a look at every shard; balancing looks at every replica as well, so every few seconds is enough.
    """
    by_id = {shard.id: shard for shard in shards}
    history.settle(view, by_id, now)
    held = will_hold(shards, {}, view.able)
    goals = _goals(view, shards, history.under_way, held)
    copying = [s for s in shards if s.id in goals and _copies(view, s, goals[s.id])]
    copying.sort(key=lambda shard: _urgency(view, shard, goals[shard.id]))
    for shard in copying[settings.moves_max :]:
        del goals[shard.id]
    moves: list[Move] = []
    if balancing:
        room = max(0, settings.moves_max - len(copying))
        moves = _moves(view, movable(view, shards, history.resting()), held, settings, room)
        history.begin(moves, now)
        goals.update((m.shard, shard_goal(view, by_id[m.shard], held, m)) for m in moves)
    transfers = transfers_of(
        view,
        shards,
        goals,
        prefer=prefer,
        threshold=settings.balance.threshold,
        resting=history.resting_leaders(),
        room=settings.transfers_max if balancing else 0,
    )
    for transfer in transfers:
        history.hand_over(transfer.shard, now)
    return Plan(goals, moves, transfers)


def _goals(
    view: View,
    shards: Iterable[ShardState],
    under_way: Mapping[ShardId, Move],
    held: dict[NodeId, int],
) -> dict[ShardId, Goal]:
    """Where shards belong that are not there; what is decided counts at once for what is decided next."""
    goals = {}
    for shard in shards:
        move = under_way.get(shard.id)
        if move is None and view.settled(shard.members):
            continue
        goal = shard_goal(view, shard, held, move)
        if not goal.voters:
            continue
        present = nodes_of(shard.members)
        there = present == goal.nodes and voters_of(shard.members) == goal.voters
        if there and not shard.members.voters_outgoing:
            continue
        goals[shard.id] = goal
        for node in present & held.keys():
            held[node] -= shard.size_bytes
        for node in goal.nodes & held.keys():
            held[node] += shard.size_bytes
    return goals


def _copies(view: View, shard: ShardState, goal: Goal) -> bool:
    """Whether the way to the goal begins with a copy, on a node that answers."""
    missing = goal.nodes - nodes_of(shard.members)
    learning = goal.voters - voters_of(shard.members)
    return not view.sight.alive.isdisjoint(missing | learning)


def _urgency(view: View, shard: ShardState, goal: Goal) -> tuple[bool, int, int, ShardId]:
    """Copies under way come first, and then shards by how many voters they have left, the smallest first."""
    begun = not goal.voters.isdisjoint(shard.members.learners)
    living = sum(node in view.ready for node in shard.members.voters)
    return not begun, living, shard.size_bytes, shard.id


def _moves(
    view: View,
    shards: Sequence[ShardState],
    held: Mapping[NodeId, int],
    settings: Settings,
    room: int,
) -> list[Move]:
    """Moves that begin now."""
    moves = spread_moves(view, shards, held, room)
    moving = {move.shard: move for move in moves}
    full = dict(held)
    for shard in shards:
        if shard.id in moving:
            full[moving[shard.id].source] -= shard.size_bytes
            full[moving[shard.id].target] += shard.size_bytes
    rest = [shard for shard in shards if shard.id not in moving]
    return moves + byte_moves(view, rest, full, settings.balance, room - len(moves))
