"""Who holds and awaits which lock: the lock tables as people see them, in pg_locks and `cluster status --locks`.

Keys are not decoded for anything else; here it is told to which table one belongs, where its prefix says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shardforge.ids import TxnId
from shardforge.sql.catalog.relations import AdvisoryLock, RowLock
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.session.advisory import Tag
from shardforge.txn.locks import LockStrength

if TYPE_CHECKING:
    from shardforge.sql.session.instance import Instance

LISTED_MAX = 1000


def row_locks(instance: Instance, *snapshots: CatalogSnapshot) -> Iterator[RowLock]:
    """Every lock and waiter; tables are looked for in the snapshots."""
    finders = [_tables(snapshot) for snapshot in snapshots]
    pids = _sessions(instance)
    locks = instance.store.coordinator.router.shards[0].locks  # those of all shards
    for key, txn, strength, granted in locks.entries():
        table = next((t for find in finders if (t := find(key)) is not None), None)
        yield RowLock(pids.get(txn), table, key.hex(), txn, strength, granted)


def advisory_locks(instance: Instance) -> Iterator[AdvisoryLock]:
    """Every advisory lock and waiter."""
    for session in instance.sessions.values():
        for key, shared in session.advisory.held():
            yield AdvisoryLock(session.process_id, *Tag.unpack(key), shared, granted=True)
    for key, number, strength, granted in instance.advisory.entries():
        if not granted:
            shared = strength is not LockStrength.UPDATE
            yield AdvisoryLock(-number, *Tag.unpack(key), shared, granted=False)


def _sessions(instance: Instance) -> dict[TxnId, int]:
    return {
        session.open_transaction.id: session.process_id
        for session in instance.sessions.values()
        if session.open_transaction is not None
    }


def _tables(snapshot: CatalogSnapshot) -> Callable[[bytes], int | None]:
    """A function from a row's key to the oid of its table."""
    spans: list[tuple[bytes, bytes, Callable[[bytes], bool] | None, int]] = []
    for table in snapshot.tables():
        space = IndexSpace(table, table.indexes[0])
        spans += [(start, end, space.owner(), table.id) for start, end in space.whole()]
    exact = {start: table for start, _, owns, table in spans if owns is None}
    lengths = sorted({len(start) for start in exact})
    shared = [(owns, table) for _, _, owns, table in spans if owns is not None]

    def table_of(key: bytes) -> int | None:
        for length in lengths:
            found = exact.get(key[:length])
            if found is not None:
                return found
        if key.startswith(b"g"):
            return next((table for owns, table in shared if owns(key)), None)
        return None

    return table_of


def document(instance: Instance) -> dict[str, Any]:
    """All locks on tables and rows as a JSON object: waiters first, and about `LISTED_MAX` of each kind."""
    databases = sorted({session.database for session in instance.sessions.values()})
    snapshots = [instance.catalog.current(name) for name in databases]
    names: dict[int, str] = {
        table.id: table.name for snapshot in snapshots for table in snapshot.tables()
    }
    tables = [
        {
            "table": names.get(table, str(table)), "pid": pid,
            "mode": TableLockMode(mode).name.lower().replace("_", " "), "granted": granted,
        }
        for pid, table, mode, granted in instance.catalog.locks.held()
    ]  # fmt: skip
    rows = [_row(lock, names) for lock in _most_wanted(row_locks(instance, *snapshots))]
    return {
        "row_locks": len(instance.store.coordinator.router.shards[0].locks),
        "rows": sorted(rows, key=_granted),
        "tables": sorted(tables, key=_granted)[:LISTED_MAX],
    }


def _most_wanted(locks: Iterable[RowLock]) -> Iterator[RowLock]:
    """Every waiter, and the first holders."""
    held = 0
    for lock in locks:
        held += lock.granted
        if not lock.granted or held <= LISTED_MAX:
            yield lock


def _row(lock: RowLock, names: dict[int, str]) -> dict[str, Any]:
    return {
        "table": None if lock.table is None else names[lock.table], "key": lock.key, "pid": lock.pid,
        "transaction": lock.transaction, "mode": LockStrength(lock.strength).name.lower().replace("_", " "),
        "granted": lock.granted,
    }  # fmt: skip


def _granted(lock: dict[str, Any]) -> bool:
    return bool(lock["granted"])
