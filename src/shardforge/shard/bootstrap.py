"""Which shards a data directory has; at the first start, making the initial ones.

The meta shard is made last: a directory without it was never served from, so what a crash left of the
others is made anew. From then on the folders are the truth, and `initial_shard_count` is history.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.errors import StorageError
from shardforge.ids import META_SHARD, NodeId, ShardId
from shardforge.shard.descriptor import (
    KEY_SPACE_END,
    KEY_SPACE_START,
    ShardDescriptor,
    Span,
    initial_shards,
)
from shardforge.shard.files import metadata_of
from shardforge.storage.layout import DataDirectory, ShardMetadata


def joined_shards(directory: DataDirectory) -> list[ShardDescriptor]:
    """The shards of a node that joined its cluster: those that it was given so far. Blocks."""
    return [_describe(directory.read_metadata(shard)) for shard in directory.shard_ids()]


def add_shards(directory: DataDirectory, shards: Sequence[ShardDescriptor]) -> None:
    """Make room for replicas that their groups will fill. Blocks."""
    for descriptor in shards:
        assert not descriptor.voters, "a newcomer learns its group from it"
        directory.create_shard(metadata_of(descriptor))


def open_shards(
    directory: DataDirectory, initial_count: int, voters: Sequence[NodeId]
) -> list[ShardDescriptor]:
    """The shards of a node that founded its cluster, made now if there are none. Blocks.

    Raises: StorageError XX001 if some are missing, which no other node can bring.
    """
    found = directory.shard_ids()
    if META_SHARD not in found:
        if len(directory.identity.members) > 1:
            raise StorageError(
                f'"{directory.shards}" has no meta shard, but the cluster has other nodes',
                "XX001",
                hint="Restore the directory as a whole, or have the node join again with an empty one.",
            )
        _create(directory, found, initial_shards(initial_count, voters))
    shards = joined_shards(directory)
    if len(directory.identity.members) <= 1:
        _check_complete(directory, shards)
    return shards


def _create(
    directory: DataDirectory, leftovers: Sequence[int], shards: Sequence[ShardDescriptor]
) -> None:
    for shard in leftovers:
        if any(directory.shard(shard).wal.iterdir()):
            raise StorageError(
                f'the meta shard is missing from "{directory.shards}", but shard {shard} was in use',
                "XX001",
                hint="Restore the directory as a whole.",
            )
        directory.remove_shard(shard)
    for descriptor in sorted(shards, key=lambda shard: shard.id, reverse=True):
        directory.create_shard(metadata_of(descriptor))


def _describe(metadata: ShardMetadata) -> ShardDescriptor:
    return ShardDescriptor(
        ShardId(metadata.id),
        Span(metadata.start, metadata.end),
        metadata.epoch,
        tuple(NodeId(node) for node in metadata.replicas),
    )


def _check_complete(directory: DataDirectory, shards: Sequence[ShardDescriptor]) -> None:
    at = KEY_SPACE_START
    for shard in sorted(shards, key=lambda shard: shard.span):
        if shard.span.start > at:
            break
        at = max(at, shard.span.end)  # a parent may not have noted yet that it was split
    if at != KEY_SPACE_END:
        raise StorageError(
            f'"{directory.shards}" is incomplete: no shard holds the keys from "{at.hex()}" on',
            "XX001",
            hint="Restore the directory as a whole.",
        )
