"""How a shard is cut in two: what a Split makes of it, decided alike by every replica and every replay.

A Split is alone in its entry. When that is applied, and before the next one is, the engine as it stands becomes the
child's: a checkpoint, from which what is not the child's is removed; then, in one batch with the applied index, the
parent's span shrinks, its epoch grows, and what is the child's goes. The child's own log begins at `FIRST`.

    engine at i-1  --checkpoint-->  child: durable in its place  -->  parent: keys removed, span, epoch, applied i

A crash before the child is in its place leaves nothing of it, and the replay makes it again out of the same state; one
after that finds it there, and a replay leaves it alone. So nothing is ever removed that is not durable elsewhere.

The child's first term is `FIRST`, and every first member's vote in it belongs to the proposer: it leads from the
beginning, without an election, unless it has ceased to lead the parent before; nobody else can win that term.
PURE.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shardforge.ids import META_SHARD, NodeId
from shardforge.raft.messages import ConfState
from shardforge.shard.command import Applied, Split, decode, encode_applied
from shardforge.shard.consensus import FIRST, encode_membership
from shardforge.shard.description import put_description
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.log import ShardLog
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine, Write


class Division(NamedTuple):
    """What a Split makes of a shard."""

    parent: ShardDescriptor
    child: ShardDescriptor
    members: ConfState
    leader: NodeId
    tenure: int

    @property
    def batch(self) -> list[Write]:
        """What the parent's batch has of it."""
        return [put_description(self.parent)]

    @property
    def cleared(self) -> list[tuple[bytes, bytes]]:
        """The engine's spans that are not the parent's any more."""
        return mvcc.everything_of(self.child.span.start, self.child.span.end)


def division(
    shard: ShardDescriptor, members: ConfState, data: bytes, term: int, tenure: int
) -> Division | None:
    """What the Split that is an entry's data makes of a shard; None: it is refused."""
    (command,) = decode(data)
    assert isinstance(command, Split), "told by its first bytes"
    span = shard.span
    if command.term != term or command.epoch != shard.epoch + 1 or shard.id == META_SHARD:
        return None
    if command.tenure != tenure:
        return None
    if not span.start < command.at < span.end or members.voters_outgoing:
        return None
    low, high = span.divide(command.at)
    replicas = tuple(NodeId(node) for node in sorted(members.voters))
    return Division(
        msgspec.structs.replace(shard, span=low, epoch=command.epoch),
        ShardDescriptor(command.child, high, command.epoch, replicas),
        members,
        command.leader,
        tenure,
    )


def begin(division: Division, engine: Engine, log: ShardLog) -> None:
    """Make a copy of the parent's engine, and an empty log, the child's. Durable once both are flushed."""
    span = division.child.span
    for kind, after in ((b"v", b"w"), (b"i", b"j"), (b"c", b"d")):
        engine.delete_span(kind, kind + span.start)
        engine.delete_span(kind + span.end, after)
    engine.write([
        put_description(division.child),
        mvcc.put_membership(encode_membership(division.members)),
        mvcc.put_applied(encode_applied(Applied(FIRST, FIRST, division.tenure))),
    ])  # fmt: skip
    log.reset(FIRST, FIRST)
    log.set_hard_state(FIRST, division.leader, FIRST)
