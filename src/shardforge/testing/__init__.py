"""A cluster inside a test's process: `cluster(nodes=3)`, and the pytest plugin in `shardforge.testing.plugin`."""

from shardforge.testing.cluster import Cluster, cluster

__all__ = ["Cluster", "cluster"]
