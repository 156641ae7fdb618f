"""SHOW SHARDS [FROM TABLE name]: the shards of the cluster, or those that hold a table and its indexes.

Asked of the node that serves, or of one that stands by, so every shard is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardforge.ids import ShardId
from shardforge.sql.bind.tree import ColumnId, OutputColumn
from shardforge.sql.execute.keyspace import IndexSpace, storage_number

if TYPE_CHECKING:
    from shardforge.sql.catalog.descriptors import Table
    from shardforge.sql.session.instance import Instance
    from shardforge.sql.session.session import Session

NAME = "shards"
_BOOL, _INT8, _TEXT = 16, 20, 25
_COLUMNS = (
    ("shard", _INT8), ("start_key", _TEXT), ("end_key", _TEXT), ("epoch", _INT8), ("leader", _INT8),
    ("voters", _TEXT), ("bytes", _INT8), ("sticky", _BOOL),
)  # fmt: skip
_EDGES = {b"": "min", b"t": "max"}


def columns() -> tuple[OutputColumn, ...]:
    """The result columns."""
    return tuple(
        OutputColumn(ColumnId(-1 - offset), name, oid)
        for offset, (name, oid) in enumerate(_COLUMNS)
    )


def rows(session: Session, relation: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    """One row a shard, in key order. Raises QueryError 42P01 for a table that is not there."""
    snapshot = session.catalog
    names = {storage_number(table): table.name for table in snapshot.tables()}
    spans = None
    if relation is not None:
        schema, name = relation.get("schemaname"), relation["relname"]
        spans = _spans(snapshot.table(schema, name, session.search_path))
    found = []
    sticky = session.instance.store.sticky
    for participant in session.instance.store.coordinator.router.shards:
        shard = participant.descriptor
        if spans is not None and not any(shard.span.overlaps(*span) for span in spans):
            continue
        replica = participant.replica
        found.append((
            shard.id, printed(shard.span.start, names), printed(shard.span.end, names), shard.epoch,
            replica.lead, ",".join(str(node) for node in replica.members.voters), replica.size_bytes,
            shard.id in sticky,
        ))  # fmt: skip
    return found


def shards_of(instance: Instance, database: str, schema: str, table: str) -> set[ShardId]:
    """The shards that hold a table and its indexes. Raises QueryError 42P01, 3D000."""
    spans = _spans(instance.catalog.current(database).table(schema, table, ()))
    return {
        participant.descriptor.id
        for participant in instance.store.coordinator.router.shards
        if any(participant.descriptor.span.overlaps(*span) for span in spans)
    }


def _spans(table: Table) -> list[tuple[bytes, bytes]]:
    return [span for index in table.indexes for span in IndexSpace(table, index).whole()]


def printed(key: bytes, names: dict[int, str]) -> str:
    """A boundary for people: kind, bucket or hash, table and index as far as the key says, the rest in hex."""
    edge = _EDGES.get(key)
    if edge is not None:
        return edge
    kind, at, parts = key[:1].decode("latin-1"), 1, []
    if kind in "hg":
        placed = int.from_bytes(key[1:3].ljust(2, b"\x00"))
        parts.append(str(placed) if kind == "h" else f"{placed:04x}")
        at = 3
    if kind in "hr" and len(key) >= at + 8:
        table = int.from_bytes(key[at : at + 4])
        parts += [names.get(table, str(table)), str(int.from_bytes(key[at + 4 : at + 8]))]
        at += 8
    if key[at:]:
        parts.append(f"0x{key[at:].hex()}")
    return "/".join([kind, *parts])
