"""The identifiers of the system; with `keys`, the glossary in code.

A *node* is one running server. A *shard* is a half-open span of the key space with one Raft group;
a *replica* is a shard's copy on a node. No other words (range, region, tablet) name these.
"""

from typing import NewType

NodeId = NewType("NodeId", int)
"""A node of the cluster; 1 or more, never reused."""

ShardId = NewType("ShardId", int)
"""A shard; 0 is the meta shard."""

TableId = NewType("TableId", int)
"""A relation (table, index, sequence, view) of the catalog; equals its PostgreSQL oid."""

TxnId = NewType("TxnId", int)
"""A transaction, unique in the cluster: node id in the high 16 bits, a counter below."""

Timestamp = NewType("Timestamp", int)
"""A point in commit order, drawn from the oracle; 1 or more. 0 is before everything."""

META_SHARD = ShardId(0)
INFINITY = Timestamp(2**63 - 1)
"""The read timestamp of a read without a timestamp: it sees the newest committed version."""
