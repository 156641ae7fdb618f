"""Statements at a snapshot that is older than the catalog, which is always the newest.

CREATE INDEX lets readers go on: one of them whose snapshot is older than the commit that brought the index's entries
sees none of them, so that its statements are planned without the index. Rows that a rewrite or TRUNCATE put elsewhere
since cannot be seen either, and those of before are being removed: PostgreSQL shows such a table empty, we refuse.
A transaction's own DDL over many rows commits them in batches (`ddl.bulk`), which its snapshot may not see either.
Source: PostgreSQL 15, pg_index.indcheckxmin; the manual, chapter 13.6 (Caveats).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from shardforge.errors import serialization_failure, unsupported
from shardforge.ids import Timestamp
from shardforge.sql.catalog.descriptors import Index
from shardforge.sql.catalog.snapshot import Change

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session


def adapted(session: Session, prepared: Prepared, snapshot: Timestamp) -> Prepared:
    """The statement without indexes that are newer than the snapshot; 40001 when rows of a table are."""
    catalog, readable_from = session.catalog, session.instance.catalog.readable_from

    def seen(index: Index) -> Index:
        newer = readable_from.get(index.id, 0) > snapshot
        return replace(index, state="newer") if newer else index

    changes = []
    for use in prepared.locks:
        table = catalog.table_by_id(use.table)
        if table is None:
            continue
        if readable_from.get(table.storage_id, 0) > snapshot:
            if any(change.id == table.id for change in catalog.changes):
                raise unsupported(
                    "a table that the same REPEATABLE READ or SERIALIZABLE transaction has rewritten"
                )
            raise serialization_failure(
                f'Rows of table "{table.name}" were moved or removed after the transaction\'s snapshot.',
                cause="DDL",
            )
        indexes = tuple(map(seen, table.indexes))
        if indexes != table.indexes:
            changed = replace(table, indexes=indexes)
            changes.append(Change("relation", catalog.database.id, table.id, changed))
    if not changes:
        return prepared
    return session.prepare_parsed(
        prepared.parsed(), prepared.declared_types, catalog.with_changes(changes)
    )
