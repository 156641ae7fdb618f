"""What a DDL statement works with: `DdlContext` is the session's side, `Ddl` the statement's.

`Ddl.apply` is the only place where descriptors are written. It puts an object's row and the rows of its names
into the session's transaction, and moves the session to an overlay snapshot, so that the next step sees the change.

Invariant: a table is locked in the mode that PostgreSQL takes before its descriptor is read for a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from shardforge.errors import QueryError, TransactionError
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import (
    SUPERUSER,
    Enum,
    Role,
    Schema,
    Sequence,
    Table,
    View,
)
from shardforge.sql.catalog.snapshot import (
    TEMPORARY_PREFIX,
    CatalogSnapshot,
    Change,
    Descriptor,
)
from shardforge.sql.catalog.store import CatalogStore, names_of
from shardforge.sql.catalog.tablelocks import LockOwner, TableLockMode
from shardforge.sql.catalog.typenames import enums_of
from shardforge.sql.types.base import TypeSettings
from shardforge.txn.coordinator import Isolation, LockStrength, Transaction, WaitPolicy

if TYPE_CHECKING:
    from shardforge.sql.catalog.snapshot import StoredRelation

Node = dict[str, Any]
Object = TypeVar("Object", bound=Table | View | Sequence)


class DdlContext(Protocol):
    """The session as DDL sees it."""

    catalog: CatalogSnapshot
    """The catalog, own uncommitted changes included; DDL assigns the changed one."""

    @property
    def transaction(self) -> Transaction: ...
    @property
    def search_path(self) -> tuple[str, ...]: ...
    @property
    def settings(self) -> TypeSettings: ...
    @property
    def store(self) -> CatalogStore: ...
    @property
    def lock_owner(self) -> LockOwner: ...
    @property
    def session_id(self) -> int: ...
    @property
    def user(self) -> str: ...
    @property
    def in_block(self) -> bool: ...
    @property
    def execution(self) -> Any:
        """The executor's context, for expressions over rows (defaults, index expressions, checks)."""
        ...

    def sessions_of(self, database: str) -> int:
        """How many other sessions use a database."""
        ...

    def notice(
        self, severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = ""
    ) -> None: ...


class Ddl:
    """One DDL statement under way."""

    def __init__(self, ctx: DdlContext) -> None:
        self.ctx = ctx
        self.transaction = ctx.transaction
        self.store = ctx.store

    @property
    def catalog(self) -> CatalogSnapshot:
        """The catalog as changed so far."""
        return self.ctx.catalog

    @property
    def database_id(self) -> int:
        """The session's database."""
        return self.ctx.catalog.database.id

    @property
    def search_path(self) -> tuple[str, ...]:
        """The session's path; its temporary schema first once there is one, made in this statement or not."""
        return self.ctx.catalog.session_path(
            tuple(n for n in self.ctx.search_path if not n.startswith(TEMPORARY_PREFIX)),
            self.ctx.session_id,
        )

    @property
    def owner(self) -> int:
        """Who owns what is created."""
        role = self.catalog.role_named(self.ctx.user)
        return SUPERUSER if role is None else role.id

    def role(self, node: Node) -> Role:
        """The role of a RoleSpec. Raises: 42704."""
        kind = node.get("roletype", "ROLESPEC_CSTRING")
        if kind in ("ROLESPEC_CURRENT_USER", "ROLESPEC_SESSION_USER", "ROLESPEC_CURRENT_ROLE"):
            name = self.ctx.user
        else:
            name = node.get("rolename", "public")
        role = self.catalog.role_named(name)
        if role is None:
            raise QueryError(f'role "{name}" does not exist', "42704")
        return role

    def notice(self, message: str, sqlstate: str = "00000", *, detail: str = "") -> None:
        """A NOTICE to the client."""
        self.ctx.notice("NOTICE", sqlstate, message, detail=detail)

    def forbid_in_block(self, statement: str) -> None:
        """25001 inside a transaction block."""
        if self.ctx.in_block:
            raise TransactionError(f"{statement} cannot run inside a transaction block", "25001")

    async def new_oid(self) -> int:
        """An oid for a new object."""
        return await self.store.new_oid()

    @property
    def alone(self) -> bool:
        """Whether the statement is all of its transaction so far, and no BEGIN came before it."""
        begun = self.ctx.in_block or self.ctx.lock_owner.held or self.transaction.has_written
        return not begun and self.transaction.isolation is Isolation.READ_COMMITTED

    def is_committed(self, table: Table) -> bool:
        """Whether others know the table: this transaction has not made it."""
        return self.store.current(self.catalog.database.name).table_by_id(table.id) is not None

    # ---- locks -----------------------------------------------------------------------------------

    async def lock(self, table: Object, mode: TableLockMode) -> Object:
        """Lock a relation and return its descriptor as of then. Raises: 42P01 when it has gone meanwhile."""
        await self.store.locks.acquire(
            self.ctx.lock_owner,
            table.id,
            mode,
            timeout_ms=self.transaction.lock_timeout_ms,
            name=table.name,
        )
        self.ctx.catalog = self.store.refresh(self.ctx.catalog)
        found: Any = self.catalog.relation_by_id(table.id)
        if found is None or type(found) is not type(table):
            raise QueryError(f'relation "{table.name}" does not exist', "42P01")
        locked: Object = found
        return locked

    def admits_writers(self, table: Table) -> bool:
        """Whether others may write to the table beside this statement, which then holds a weaker lock."""
        locks, owner = self.store.locks, self.ctx.lock_owner
        return not locks.holds(owner, table.id, TableLockMode.ACCESS_EXCLUSIVE)

    async def lock_exclusively(self, table: Object) -> Object:
        """`lock` in ACCESS EXCLUSIVE mode, as most of ALTER and DROP."""
        return await self.lock(table, TableLockMode.ACCESS_EXCLUSIVE)

    # ---- changes ---------------------------------------------------------------------------------

    def change(self, descriptor: Descriptor, *, gone: bool = False) -> Change:
        """The change that makes `descriptor` current, or removes it."""
        if isinstance(descriptor, (Table, View, Sequence)):
            kind, database = "relation", self.database_id
        elif isinstance(descriptor, Enum):
            kind, database = "type", self.database_id
        elif isinstance(descriptor, Schema):
            kind, database = "schema", descriptor.database_id
        else:
            kind, database = ("role" if isinstance(descriptor, Role) else "database"), 0
        return Change(kind, database, descriptor.id, None if gone else descriptor)

    async def put(self, *descriptors: Descriptor) -> None:
        """Create or replace objects."""
        await self.apply(self.change(d) for d in descriptors)

    async def remove(self, *descriptors: Descriptor) -> None:
        """Remove objects."""
        await self.apply(self.change(d, gone=True) for d in descriptors)

    async def apply(self, changes: Iterable[Change]) -> None:
        """Write the changes into the transaction and let the session see them.

        Raises: 42P07 (or its kin) when a concurrent transaction took a name first, 42704 when it dropped a type.
        """
        changes = tuple(changes)
        await self._keep_types(changes)
        writes: dict[bytes, bytes | None] = {}
        taken: dict[bytes, Descriptor] = {}
        for change in changes:
            key = codec.descriptor_key(change.kind, change.database_id, change.id)
            old = self._current(change)
            new = change.descriptor
            writes[key] = None if new is None else codec.encode_row(change.database_id, new)
            before = set() if old is None else set(names_of(change.database_id, old))
            after = set() if new is None else set(names_of(change.database_id, new))
            for name in before - after:
                writes.setdefault(name, None)
            for name in after - before:
                assert new is not None, "only an object has names"
                writes[name] = codec.encode(change.id)
                taken[name] = new
        keys = sorted(writes)
        locked = await self.transaction.lock(keys, LockStrength.UPDATE, WaitPolicy.BLOCK)
        for lock in locked:
            if lock.key in taken and lock.value is not None:
                holder = codec.decode_int(lock.value)
                if not any(change.id == holder for change in changes):
                    raise already_exists(taken[lock.key])
        for key in keys:
            value = writes[key]
            if value is not None:
                self.transaction.put(key, value)
            else:
                self.transaction.delete(key)
        self.ctx.catalog = self.catalog.with_changes(changes)

    async def _keep_types(self, changes: Iterable[Change]) -> None:
        """Let nobody drop a type that something begins to use, before this transaction has ended."""
        for change in changes:
            new = change.descriptor
            if not isinstance(new, (Table, View)):
                continue
            old = self._current(change)
            known = enums_of(old) if isinstance(old, (Table, View)) else set()
            for oid in sorted(enums_of(new) - known):
                enum = self.catalog.enum_by_id(oid)
                if enum is None:  # dropped while the statement waited for something else
                    raise QueryError(f"type with OID {oid} does not exist", "42704")
                await self.lock_type(enum, TableLockMode.ACCESS_SHARE)

    async def lock_type(self, enum: Enum, mode: TableLockMode) -> Enum:
        """`lock` for a type. Raises: 42704 when it has gone meanwhile."""
        await self.store.locks.acquire(
            self.ctx.lock_owner, enum.id, mode, timeout_ms=self.transaction.lock_timeout_ms, name=enum.name
        )  # fmt: skip
        self.ctx.catalog = self.store.refresh(self.ctx.catalog)
        found = self.catalog.enum_by_id(enum.id)
        if found is None:
            raise QueryError(f'type "{enum.name}" does not exist', "42704")
        return found

    def _current(self, change: Change) -> Descriptor | None:
        catalog = self.catalog
        if change.kind == "relation":
            found = catalog.relation_by_id(change.id)
            return found if isinstance(found, (Table, View, Sequence)) else None
        if change.kind == "type":
            return catalog.enum_by_id(change.id) if change.database_id == self.database_id else None
        if change.kind == "schema":
            inside = change.database_id == catalog.database.id
            return catalog.schema_by_id(change.id) if inside else None
        if change.kind == "role":
            return catalog.role_by_id(change.id)
        return next((d for d in catalog.databases() if d.id == change.id), None)

    async def mark_dropped(self, table: Table, indexes: tuple[int, ...] = ()) -> None:
        """Let the stored rows of a table (or of some of its indexes) be removed once this commits."""
        # A marker of its own for each drop: one storage may lose several indexes one after the other.
        key = codec.dropped_key(await self.new_oid())
        dropped = codec.Dropped(table, indexes)
        await self.transaction.lock([key], LockStrength.UPDATE, WaitPolicy.BLOCK)
        self.transaction.put(key, codec.encode(dropped))

    # ---- names -----------------------------------------------------------------------------------

    def ensure_free(self, schema: Schema, name: str) -> None:
        """42P07 when the schema has a relation of that name, 42710 when it has a type."""
        if self.catalog.relation_in(schema, name) is not None:
            raise QueryError(f'relation "{name}" already exists', "42P07")
        self.ensure_no_type(schema, name)

    async def claim_name(self, schema: Schema, name: str) -> bool:
        """Let no other transaction make a relation of that name before this one has ended; false: one has."""
        key = codec.name_key("relation", self.database_id, schema.id, name)
        [claimed] = await self.transaction.lock([key], LockStrength.UPDATE, WaitPolicy.BLOCK)
        return claimed.value is None

    def ensure_no_type(self, schema: Schema, name: str) -> None:
        """42710 when a relation may not have that name because a type has it."""
        if self.catalog.enum_in(schema, name) is not None:
            raise QueryError(
                f'type "{name}" already exists', "42710",
                hint="A relation has an associated type of the same name, so you must use a name that doesn't"
                " conflict with any existing type.",
            )  # fmt: skip

    def free_name(self, schema: Schema, wanted: str, taken: Iterable[str] = ()) -> str:
        """`wanted`, or it with the first number that makes it free in the schema and not in `taken`."""
        used = set(taken)
        name, number = wanted, 0
        while name in used or self.catalog.relation_in(schema, name) is not None:
            number += 1
            name = f"{wanted}{number}"
        return name


def already_exists(descriptor: Descriptor | StoredRelation) -> QueryError:
    """The error for a name that is taken."""
    if isinstance(descriptor, (Table, View, Sequence)):
        return QueryError(f'relation "{descriptor.name}" already exists', "42P07")
    kind, sqlstate = {
        "Enum": ("type", "42710"),
        "Schema": ("schema", "42P06"),
        "Role": ("role", "42710"),
        "Database": ("database", "42P04"),
    }[type(descriptor).__name__]
    return QueryError(f'{kind} "{descriptor.name}" already exists', sqlstate)
