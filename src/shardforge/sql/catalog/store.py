"""The catalog of the node: descriptors loaded at start, current snapshots, and what committed DDL does to them.

Descriptors are rows of the meta shard, written by each DDL inside the session's own transaction, so DDL commits or
rolls back together with data. The life of a change:

    DDL         puts the new descriptor rows in its transaction and gives the session an overlay snapshot
    commit      makes the rows durable
    publish     makes the overlay's changes the next committed snapshot of every database they concern

Between a statement's start and end a session keeps one snapshot; `refresh` moves its overlay onto newer committed
ones in between. Table locks (`locks`) keep a table's users and its DDL apart, so what `publish` changes has no readers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from shardforge.errors import DatabaseError, QueryError
from shardforge.ids import Timestamp
from shardforge.keys import prefix_end
from shardforge.ports import Clock
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import (
    FIRST_USER_OID,
    POSTGRES_DATABASE,
    PUBLIC_SCHEMA,
    SUPERUSER,
    Database,
    Enum,
    Role,
    Schema,
    Sequence,
    Table,
    View,
)
from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.catalog.sequences import SequenceStore
from shardforge.sql.catalog.snapshot import (
    KIND_OF,
    SYSTEM_SCHEMAS,
    CatalogSnapshot,
    Change,
    Descriptor,
    StoredRelation,
)
from shardforge.sql.catalog.tablelocks import TableLocks
from shardforge.sql.catalog.virtual import virtual_tables
from shardforge.txn.coordinator import Coordinator, Isolation, LockStrength, Transaction, WaitPolicy

if TYPE_CHECKING:
    from shardforge.txn.standby import StandbyStore
    from shardforge.txn.store import Store

log = logging.getLogger("shardforge.catalog")

_OID_BATCH: Final = 64
PURGE_PAUSE_SECONDS: Final = 1.0
"""How long dropped rows stay for those who read the past on other nodes: longer than they usually are behind."""

SYSTEM_SCHEMA_DESCRIPTORS: Final = tuple(
    Schema(id=oid, name=name, database_id=0) for name, oid in SYSTEM_SCHEMAS.items()
)


async def _at_once() -> None:
    """No pause."""


class CatalogStore:
    """What every session of the node shares: snapshots, oids, sequences, table locks."""

    def __init__(
        self,
        coordinator: Coordinator,
        virtual: Mapping[tuple[str, str], VirtualTable] | None = None,
        *,
        default_sharding: str = "hash",
    ) -> None:
        self.coordinator = coordinator
        self.default_sharding = default_sharding
        """sharding.strategy of the configuration: for tables that name none."""
        self.locks = TableLocks()
        self.locks.row_blockers = coordinator.waits.blockers
        coordinator.waits.elsewhere = self.locks.blocking_transactions
        self.sequences = SequenceStore(coordinator)
        self.building: dict[bytes, Transaction] = {}
        """Markers of storage that a DDL under way is filling: not to be removed before its transaction ends."""
        self.purge_wanted = asyncio.Event()
        """Set when a committed DDL left something for `purge_dropped`, or one under way may leave it."""
        self.redefined: dict[int, int] = {}
        """Tables whose definition changed since the start, and a timestamp from which they are as they are now."""
        self.changed = Timestamp(0)
        """A timestamp from which on the catalog is as it is now."""
        self.readable_from: dict[int, Timestamp] = {}
        """Indexes, and storages of rewritten tables, whose entries and rows a snapshot in use may be too old to see:
        a timestamp from which on they are seen."""
        self._virtual = {} if virtual is None else virtual
        self._current: dict[int, CatalogSnapshot] = {}
        self._by_name: dict[str, CatalogSnapshot] = {}
        self._next_oid = 0
        self._oid_limit = 0

    # ---- start -----------------------------------------------------------------------------------

    @classmethod
    async def open(cls, store: Store, *, default_sharding: str = "hash") -> CatalogStore:
        """The catalog of a running transactional store, loaded; the first one is written into an empty store."""
        catalog = cls(store.coordinator, virtual_tables(), default_sharding=default_sharding)
        await catalog.load()
        return catalog

    @classmethod
    async def open_standby(cls, store: StandbyStore) -> CatalogStore:
        """The catalog as it was at a standby's timestamp."""
        catalog = cls(store.coordinator, virtual_tables())
        catalog.adopt(await catalog.read_all())
        return catalog

    async def load(self) -> None:
        """Read the catalog, or write the first one into an empty meta shard.

        Temporary tables of a process that is gone are dropped here.
        """
        descriptors = await self.read_all()
        if not descriptors:
            await self._bootstrap()
            descriptors = await self.read_all()
        leftovers = [d for d in descriptors if getattr(d[2], "temporary_session", 0)]
        if leftovers:
            await self._drop_leftovers(leftovers)
            descriptors = [d for d in descriptors if d not in leftovers]
        self.adopt(descriptors)

    def adopt(self, descriptors: list[tuple[str, int, Descriptor]]) -> None:
        """Make these the current catalog."""
        self._current = _snapshots(descriptors, self._virtual)
        self._index_names()

    async def read_all(self) -> list[tuple[str, int, Descriptor]]:
        """Every descriptor, with its kind and its database's id."""
        found: list[tuple[str, int, Descriptor]] = []
        transaction = self.coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
        try:
            start = codec.CATALOG_PREFIX
            async for rows in transaction.scan(start, prefix_end(start)):
                for _, value in rows:
                    database_id, descriptor = codec.decode_row(value)
                    found.append((KIND_OF[type(descriptor)], database_id, descriptor))
        finally:
            await transaction.rollback()
        return found

    async def _bootstrap(self) -> None:
        role = Role(id=SUPERUSER, name="shardforge", superuser=True, create_database=True,
                    create_role=True, replication=True, bypass_rls=True)  # fmt: skip
        databases = (
            Database(id=POSTGRES_DATABASE, name="postgres",
                     comment="default administrative connection database"),
            Database(id=FIRST_USER_OID, name="shardforge"),
        )  # fmt: skip
        changes = [Change("role", 0, role.id, role)]
        for database in databases:
            changes.append(Change("database", 0, database.id, database))
            changes.append(public_schema(database.id))
        transaction = self.coordinator.begin(Isolation.READ_COMMITTED)
        try:
            await write_changes(transaction, changes)
            await put_locked(transaction, {codec.OID_COUNTER: codec.encode(FIRST_USER_OID + 1)})
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()

    async def _drop_leftovers(self, leftovers: Iterable[tuple[str, int, Descriptor]]) -> None:
        transaction = self.coordinator.begin(Isolation.READ_COMMITTED)
        try:
            writes: dict[bytes, bytes | None] = {}
            for kind, database_id, descriptor in leftovers:
                writes[codec.descriptor_key(kind, database_id, descriptor.id)] = None
                if isinstance(descriptor, Table):
                    dropped = codec.Dropped(descriptor)
                    writes[codec.dropped_key(descriptor.storage_id)] = codec.encode(dropped)
                for key in names_of(database_id, descriptor):
                    writes[key] = None
            await put_locked(transaction, writes)
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()

    async def purge_dropped(self, pause: Callable[[], Awaitable[None]] = _at_once) -> int:
        """Remove stored rows that nothing names any more; call it now and then. Returns how many keys went."""
        from shardforge.sql.catalog.purge import purge  # the executor's key space, needed only here

        self.purge_wanted.clear()
        return await purge(self.coordinator, self.building, pause)

    async def purge_forever(self, clock: Clock) -> None:
        """`purge_dropped` at the start, after each commit that dropped something, and after a DDL that failed while it
        filled some storage; for a background task."""

        async def pause() -> None:
            await clock.sleep(PURGE_PAUSE_SECONDS)

        self.purge_wanted.set()
        while True:
            await self.purge_wanted.wait()
            try:
                while await self.purge_dropped(pause) or self.building:
                    if self.building:
                        await pause()
            except DatabaseError as failure:
                log.warning("dropped rows stay for now: %s", failure)

    # ---- snapshots -------------------------------------------------------------------------------

    def current(self, database: str) -> CatalogSnapshot:
        """The committed snapshot of the database of that name. Raises: 3D000 when there is none."""
        found = self._by_name.get(database)
        if found is None:
            raise QueryError(f'database "{database}" does not exist', "3D000")
        return found

    def database_named(self, name: str) -> Database | None:
        """The database of that name, for a connection's start."""
        found = self._by_name.get(name)
        return None if found is None else found.database

    def role_named(self, name: str) -> Role | None:
        """The role of that name, for a connection's start."""
        for snapshot in self._current.values():
            return snapshot.role_named(name)
        return None

    def refresh(self, snapshot: CatalogSnapshot) -> CatalogSnapshot:
        """The session's view on top of the newest committed snapshot; the same object when that is unchanged.

        Also undoes DDL: give it the snapshot from before.
        """
        base = self._current.get(snapshot.database.id)
        if base is None or base.version == snapshot.base_version:
            return snapshot
        return base.with_changes(snapshot.changes) if snapshot.changes else base

    def publish(self, snapshot: CatalogSnapshot) -> CatalogSnapshot:
        """Make a committed session's changes everybody's; returns the session's new snapshot."""
        changes = snapshot.changes
        if changes:
            self.changed = self.coordinator.oracle.last
            self._forget_seen()
            for database_id, current in list(self._current.items()):
                if any(change.database_id in (0, database_id) for change in changes):
                    self._note_redefined(current, changes)
                    self._current[database_id] = current.advanced(changes)
            self._publish_databases(snapshot, changes)
            self._index_names()
            self.purge_wanted.set()
        return self._current.get(snapshot.database.id, snapshot)

    def _note_redefined(self, before: CatalogSnapshot, changes: Iterable[Change]) -> None:
        for change in changes:
            if isinstance(change.descriptor, Table):
                known = before.table_by_id(change.id)
                if known is None or known.stored() != change.descriptor.stored():
                    self.redefined[change.id] = self.changed
                if known is not None:  # of a new table every older snapshot sees no rows anyway
                    self.note_unseen(_new_numbers(known, change.descriptor))

    def note_unseen(self, oids: Iterable[int]) -> None:
        """Indexes or storages (of tables) got their entries or rows just now: older snapshots do not see them."""
        self.changed = self.coordinator.oracle.last  # no commit before was later
        self.readable_from.update(dict.fromkeys(oids, self.changed))

    def _forget_seen(self) -> None:
        oldest = self.coordinator.snapshots.oldest(self.changed)
        self.readable_from = {oid: at for oid, at in self.readable_from.items() if at > oldest}

    def _index_names(self) -> None:
        self._by_name = {s.database.name: s for s in self._current.values()}

    def contents(self, database: str) -> list[Change]:
        """The changes that remove everything in a database."""
        inside = self.current(database)
        oid = inside.database.id
        stored = [s for s in inside.schemas() if s.id not in SYSTEM_SCHEMAS.values()]
        return [
            *(Change("relation", oid, r.id, None) for r in inside.relations()),
            *(Change("type", oid, e.id, None) for e in inside.enums()),
            *(Change("schema", oid, s.id, None) for s in stored),
        ]

    def _publish_databases(self, snapshot: CatalogSnapshot, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if change.kind != "database":
                continue
            if change.descriptor is None:
                self._current.pop(change.id, None)
            elif change.id not in self._current and isinstance(change.descriptor, Database):
                created = CatalogSnapshot(
                    change.descriptor,
                    relations={},
                    schemas={s.id: s for s in SYSTEM_SCHEMA_DESCRIPTORS},
                    databases={d.id: d for d in snapshot.databases()},
                    roles={r.id: r for r in snapshot.roles()},
                    enums={},
                    virtual=self._virtual,
                )
                self._current[change.id] = created.advanced(changes)

    # ---- oids ------------------------------------------------------------------------------------

    async def new_oid(self) -> int:
        """An oid that no object has or will have; never rolled back."""
        while self._next_oid >= self._oid_limit:
            await self._reserve_oids()
        self._next_oid += 1
        return self._next_oid - 1

    async def _reserve_oids(self) -> None:
        transaction = self.coordinator.begin(Isolation.READ_COMMITTED)
        try:
            [held] = await transaction.lock(
                [codec.OID_COUNTER], LockStrength.UPDATE, WaitPolicy.BLOCK
            )
            first = FIRST_USER_OID + 1 if held.value is None else codec.decode_int(held.value)
            transaction.put(codec.OID_COUNTER, codec.encode(first + _OID_BATCH))
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()
        if self._next_oid >= self._oid_limit:  # else another task filled it meanwhile
            self._next_oid, self._oid_limit = first, first + _OID_BATCH


def _new_numbers(before: Table, now: Table) -> set[int]:
    """Indexes that the table got, and its storage if that is another."""
    found: set[int] = {index.id for index in now.indexes}
    found.difference_update(index.id for index in before.indexes)
    if now.storage_id != before.storage_id:
        found.add(now.storage_id)
    return found


def public_schema(database_id: int) -> Change:
    """The schema that every new database has."""
    schema = Schema(PUBLIC_SCHEMA, "public", database_id, comment="standard public schema")
    return Change("schema", database_id, schema.id, schema)


def names_of(database_id: int, descriptor: Descriptor) -> list[bytes]:
    """The name rows that an object holds."""
    if isinstance(descriptor, Table):
        names = [descriptor.name, *(index.name for index in descriptor.indexes if index.name)]
        return [
            codec.name_key("relation", database_id, descriptor.schema_id, name) for name in names
        ]
    if isinstance(descriptor, (View, Sequence)):
        return [codec.name_key("relation", database_id, descriptor.schema_id, descriptor.name)]
    if isinstance(descriptor, Enum):
        return [codec.name_key("type", database_id, descriptor.schema_id, descriptor.name)]
    return [codec.name_key(KIND_OF[type(descriptor)], database_id, 0, descriptor.name)]


async def put_locked(transaction: Transaction, writes: Mapping[bytes, bytes | None]) -> None:
    """Lock the keys and write them (None deletes)."""
    if not writes:
        return
    keys = sorted(writes)
    await transaction.lock(keys, LockStrength.UPDATE, WaitPolicy.BLOCK)
    for key in keys:
        value = writes[key]
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)


async def write_changes(transaction: Transaction, changes: Iterable[Change]) -> None:
    """Write new objects' descriptor and name rows; for changed ones see ddl.context, which compares names."""
    writes: dict[bytes, bytes | None] = {}
    for change in changes:
        assert change.descriptor is not None, "a new object has a descriptor"
        key = codec.descriptor_key(change.kind, change.database_id, change.id)
        writes[key] = codec.encode_row(change.database_id, change.descriptor)
        for name in names_of(change.database_id, change.descriptor):
            writes[name] = codec.encode(change.id)
    await put_locked(transaction, writes)


def _snapshots(
    descriptors: Iterable[tuple[str, int, Descriptor]],
    virtual: Mapping[tuple[str, str], VirtualTable],
) -> dict[int, CatalogSnapshot]:
    databases: dict[int, Database] = {}
    roles: dict[int, Role] = {}
    schemas: dict[int, dict[int, Schema]] = {}
    relations: dict[int, dict[int, StoredRelation]] = {}
    enums: dict[int, dict[int, Enum]] = {}
    for _, database_id, descriptor in descriptors:
        if isinstance(descriptor, Database):
            databases[descriptor.id] = descriptor
        elif isinstance(descriptor, Role):
            roles[descriptor.id] = descriptor
        elif isinstance(descriptor, Schema):
            schemas.setdefault(database_id, {})[descriptor.id] = descriptor
        elif isinstance(descriptor, Enum):
            enums.setdefault(database_id, {})[descriptor.id] = descriptor
        else:
            relations.setdefault(database_id, {})[descriptor.id] = descriptor
    system = {schema.id: schema for schema in SYSTEM_SCHEMA_DESCRIPTORS}
    return {
        database.id: CatalogSnapshot(
            database,
            relations=relations.get(database.id, {}),
            schemas=system | schemas.get(database.id, {}),
            databases=databases,
            roles=roles,
            enums=enums.get(database.id, {}),
            virtual=virtual,
        )
        for database in databases.values()
    }
