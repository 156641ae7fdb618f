"""A founder whose shards went to other nodes, or were lost, never founds its cluster again when it starts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from shardforge.config import Config
from shardforge.errors import StorageError
from shardforge.ids import NodeId
from shardforge.node import Node
from shardforge.shard.bootstrap import open_shards
from shardforge.storage.layout import ClusterIdentity, DataDirectory


def node_in(path: Path) -> Node:
    cluster = replace(
        Config().cluster, data_directory=str(path), bind_address="127.0.0.1:0", node_id=1
    )
    return Node(replace(Config(), cluster=cluster))


def test_a_founder_whose_replicas_were_removed_starts_without_them(tmp_path: Path):
    async def test() -> None:
        first = node_in(tmp_path / "data")
        await first.start()
        assert first.host is not None
        assert first.peering is not None
        for replica in first.host.replicas:
            await first.peering._remove(replica.id)
        await first.stop()
        again = node_in(tmp_path / "data")
        await again.start()
        assert again.host is not None
        assert not again.host.replicas
        assert again.instance is None, "it serves nobody from a cluster of its own"
        await again.stop()

    asyncio.run(test())


def test_a_founder_of_several_nodes_without_its_shards_is_refused(tmp_path: Path):
    directory = DataDirectory.open(tmp_path / "data", node_id=1, cluster_name="c")
    found = open_shards(directory, 1, [NodeId(1)])
    for shard in found:
        directory.remove_shard(shard.id)
    identity = directory.identity
    directory.write_identity(ClusterIdentity(identity.cluster_id, "c", (1, 2), ("a:1", "b:1")))
    with pytest.raises(StorageError, match="no meta shard"):
        open_shards(directory, 1, [NodeId(1)])
    assert directory.shard_ids() == []
    directory.close()
