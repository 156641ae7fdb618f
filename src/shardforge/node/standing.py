"""Which node this is: the identity in its data directory, one that a new cluster gives it, or one that it asks for.

Invariant: a node has the identity of its data directory, whatever the configuration or the seeds say, and the directory
stays locked for as long as the node runs.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from shardforge.adapters import logs
from shardforge.config import Config
from shardforge.errors import ConsensusError
from shardforge.ids import NodeId
from shardforge.node.joining import join
from shardforge.node.reports import AddressBook
from shardforge.server.peer.network import PeerNetwork
from shardforge.storage.layout import DataDirectory, NodeIdentity

log = logging.getLogger("shardforge.node")


class Standing:
    """A node's id, its data directory, and the logs in it. `directory` None: in memory."""

    def __init__(self, config: Config) -> None:
        self.id = NodeId(config.cluster.node_id or 1)
        self.directory: DataDirectory | None = None
        self.book: AddressBook | None = None
        """Who the others are, as the node learned when it joined just now."""
        self._config = config
        self._closers: list[Callable[[], None]] = []

    @property
    def _path(self) -> Path | None:
        if self._config.storage.engine == "memory":
            return None
        return Path(self._config.cluster.data_directory)

    def open_known(self, *, joins: bool, cluster_id: str) -> NodeIdentity | None:
        """The identity that the data directory has, or that a new cluster gives it; None: a cluster is to be joined.

        `cluster_id` is that of a new cluster in memory, "" for any. Raises StorageError, ConsensusError.
        """
        path = self._path
        known = None if path is None else DataDirectory.known(path)
        name = self._config.cluster.name
        if known is None and joins:
            return None
        if known is None and self._config.cluster.observer:
            raise ConsensusError(
                "an observer cannot be the first node of a cluster: nobody would vote", "55000",
                hint="Name a node of the cluster to join, with --join HOST:PORT.",
            )  # fmt: skip
        if path is None:
            return NodeIdentity(self.id, cluster_id or str(uuid.uuid4()), name)
        if known is not None and not self._config.cluster.node_id:
            self.id = NodeId(known.node_id)
        directory = self._open(path, name if known is None else known.cluster_name, "")
        if self._config.cluster.observer and self.id not in directory.identity.observers:
            log.warning(
                "node %d did not join as an observer: cluster.observer changes nothing", self.id
            )
        return directory.node

    async def become_known(
        self, network: PeerNetwork, seeds: Sequence[str], address: str
    ) -> NodeIdentity:
        """Join the cluster of the seeds. Raises DatabaseError."""
        cluster = self._config.cluster
        admission = await join(
            network, seeds, address, cluster.node_id,
            observer=cluster.observer, locality=cluster.locality,
        )  # fmt: skip
        self.id, self.book = admission.node, admission.book
        network.node, network.cluster_id = admission.node, admission.cluster_id
        path = self._path
        if path is not None:
            self._open(path, admission.cluster_name, admission.cluster_id)
        return NodeIdentity(
            admission.node, admission.cluster_id, admission.cluster_name, founder=False
        )

    def _open(self, path: Path, name: str, joined: str) -> DataDirectory:
        directory = DataDirectory.open(path, node_id=self.id, cluster_name=name, joined=joined)
        self.directory = directory
        self._closers.append(directory.close)
        handlers = logs.open_logs(directory.logs, self._config.monitoring.log_level)
        self._closers.append(lambda: logs.close_logs(handlers))
        return directory

    def close(self) -> None:
        """Close the logs, and unlock the directory."""
        while self._closers:
            self._closers.pop()()
