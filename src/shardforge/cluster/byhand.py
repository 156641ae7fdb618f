"""What people ask of placement: that one replica has another home now, or that all are as even as they can be.

It is carried out as what the plan decides is (`plan.History`), so it is bounded alike, and the shard rests afterwards.
What the plan would undo is refused: more crowding, or a voter on a node that is not to have any.
PURE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from shardforge.cluster.goal import nodes_of
from shardforge.cluster.leaders import Transfer, transfers_of
from shardforge.cluster.placement import Move, ShardState, View, shard_goal
from shardforge.cluster.rebalance import Balance, byte_moves, movable, will_hold
from shardforge.errors import ConsensusError, QueryError
from shardforge.ids import META_SHARD, NodeId, ShardId


class Scattering(NamedTuple):
    """What makes shards even."""

    moves: list[Move]
    transfers: list[Transfer]


def check_move(
    view: View, shard: ShardState, move: Move, serving: NodeId, busy: Collection[ShardId]
) -> None:
    """Raise unless the move may begin now; `busy` shards move already.

    Raises: QueryError 42704 for a node without a vote in the shard or that is not there, 42710 where there is a replica
    already; ConsensusError 55006 while the shard changes, 55000 where the rules of placement do not allow it.
    """
    name, source, target = f"shard {shard.id}", move.source, move.target
    if target not in view.known:
        raise QueryError(f"there is no node {target} in the cluster", "42704")
    if source not in shard.members.voters:
        raise QueryError(f"node {source} has no vote in {name}", "42704")
    if target in nodes_of(shard.members):
        raise QueryError(f"node {target} has a replica of {name} already", "42710")
    if shard.id in busy or not view.settled(shard.members) or shard.leader is None:
        raise ConsensusError(
            f"the members of {name} are changing, or too few", "55006", hint="Try again."
        )
    if target not in view.able:
        raise ConsensusError(f"node {target} is not to hold replicas that vote", "55000")
    if shard.id == META_SHARD and source == serving:
        raise ConsensusError(
            f"node {source} serves, so the meta shard stays on it", "55000",
            hint="Move another of its replicas, or have the node leave.",
        )  # fmt: skip
    silent = ({NodeId(node) for node in shard.members.voters} | {target}) - view.ready
    if silent:
        raise ConsensusError(f"node {min(silent)} does not answer", "55000", hint="Try again.")
    rest = [NodeId(node) for node in shard.members.voters if node != source]
    if view.crowd(target, rest) > view.crowd(source, rest):
        raise ConsensusError(
            f"{name} would have more voters in one place than it has now", "55000",
            hint="Choose a node elsewhere; see cluster.locality.",
        )  # fmt: skip


def scattering(
    view: View,
    shards: Sequence[ShardState],
    under_way: Mapping[ShardId, Move],
    serving: NodeId,
) -> Scattering:
    """What makes these shards even, whatever the thresholds and however lately they changed.

    Bytes differ afterwards by about one shard, as far as places and moves under way allow. Shards that the serving node
    votes in are led there, the others evenly.
    """
    shards = [shard for shard in shards if shard.id != META_SHARD]
    held = dict.fromkeys(view.able, 0)
    goals = {
        shard.id: shard_goal(view, shard, held, under_way[shard.id])
        for shard in shards
        if shard.id in under_way
    }
    held = will_hold(shards, goals, view.able)
    free = movable(view, shards, under_way)
    slack = max((shard.size_bytes for shard in shards), default=0) // 2
    moves = byte_moves(view, free, held, Balance(0.0, slack), len(free))
    moving = {move.shard for move in moves}
    staying = [shard for shard in free if shard.id not in moving]
    transfers = transfers_of(
        view, staying, {}, prefer=serving, threshold=0.0, resting=(), room=len(staying)
    )
    return Scattering(moves, transfers)
