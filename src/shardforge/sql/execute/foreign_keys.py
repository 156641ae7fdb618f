"""Foreign keys, from both sides, at the end of the statement or of the transaction.

A row that refers takes a KEY SHARE lock on the row it refers to, which conflicts with that row's deletion and with a
change of its key: the check holds until commit. The other side looks for referring rows in a view taken after it holds
its own locks, so that none that committed meanwhile is missed; under REPEATABLE READ it also looks at what is newest,
and a row that the snapshot does not show is a serialization failure.
Source: PostgreSQL 15, src/backend/utils/adt/ri_triggers.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from shardforge.errors import QueryError
from shardforge.sql.execute.constraints import shown_key
from shardforge.sql.execute.context import Row, Run
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.execute.keyspace import IndexSpace, column_of
from shardforge.sql.execute.rowwriter import RowWriter, picker
from shardforge.sql.execute.scans import successive_spans
from shardforge.sql.plan.nodes import Referenced, Referencing, TableChange
from shardforge.sql.types.registry import sort_key
from shardforge.txn.coordinator import Isolation, LockStrength, WaitPolicy

if TYPE_CHECKING:
    from shardforge.sql.execute.target import Changed, Target

Values = tuple[Any, ...]


class Lost(NamedTuple):
    """A key that others may refer to and that is gone, and the one in its place after an update."""

    values: Values
    replacement: Values | None


class ForeignKeys:
    """Every foreign key from and to a changed table."""

    def __init__(self, change: TableChange, writer: RowWriter) -> None:
        self._change = change
        self._references = [
            _Reference(change, referenced, writer) for referenced in change.references
        ]
        self._writer = writer
        self._incoming: list[_Incoming] | None = None
        self.any = bool(change.references or change.referencing)

    @property
    def incoming(self) -> list[_Incoming]:
        """Keys of other tables to this one; compiled late, because tables may refer to each other."""
        if self._incoming is None:
            self._incoming = [
                _Incoming(self._change, referencing, self._writer)
                for referencing in self._change.referencing
            ]
        return self._incoming

    def inserted(self, rows: Iterable[tuple[bytes, Row]], run: Run) -> None:
        """New rows: what they refer to must be there in the end."""
        if not self._references:
            return
        found = list(rows)
        for reference in self._references:
            reference.expect(found, run)

    def updated(self, changes: Sequence[Changed], attnums: frozenset[int], run: Run) -> None:
        """Changed rows, on both sides."""
        for reference in self._references:
            if not attnums.isdisjoint(reference.columns):
                rows = [
                    (self._writer.row_key(c.new), c.new)
                    for c in changes
                    if c.new is not None and reference.differs(c)
                ]
                reference.expect(rows, run)
        for incoming in self.incoming:
            if not attnums.isdisjoint(incoming.columns):
                incoming.lose(
                    [lost for c in changes if (lost := incoming.lost(c)) is not None], run
                )

    def deleted(self, changes: Sequence[Changed], run: Run) -> None:
        """Rows that are gone."""
        for incoming in self.incoming:
            incoming.lose([lost for c in changes if (lost := incoming.lost(c)) is not None], run)


def _identity(types: Sequence[int]) -> Any:
    transforms = [sort_key(oid) for oid in types]
    if not any(transforms):
        return tuple
    return lambda values: tuple(
        [v if t is None or v is None else t(v) for v, t in zip(values, transforms, strict=True)]
    )


# ---------------------------------------------------------------- rows that refer


class _Reference:
    """One foreign key of the changed table."""

    def __init__(self, change: TableChange, referenced: Referenced, writer: RowWriter) -> None:
        self.key = referenced.key
        self.columns = frozenset(self.key.columns)
        self._change = change
        self._writer = writer
        self._pick = picker([writer.position[attnum] for attnum in self.key.columns])
        self._target = referenced.target
        self._space = IndexSpace(referenced.target, referenced.index)
        self._primary = referenced.index.primary
        order = {attnum: place for place, attnum in enumerate(self.key.target_columns)}
        self._order = [order[part.column_id] for part in referenced.index.columns]
        shard = self._space.shard_key
        self._shard = [order[attnum] for attnum in shard] if set(shard) <= set(order) else None

    def differs(self, change: Changed) -> bool:
        """Whether an update changed the referring columns."""
        assert change.old is not None, "an update has both rows"
        assert change.new is not None, "an update has both rows"
        return bool(self._pick(change.old) != self._pick(change.new))

    def expect(self, rows: Sequence[tuple[bytes, Row]], run: Run) -> None:
        """Check, when the statement (or transaction) ends, that these rows refer to something."""
        wanted: dict[Values, bytes] = {}
        for key, row in rows:
            values = tuple(self._pick(row))
            if None in values:
                if self.key.match_full and any(value is not None for value in values):
                    raise self._violation(
                        "MATCH FULL does not allow mixing of null and nonnull key values."
                    )
                continue
            wanted.setdefault(values, key)
        if not wanted:
            return
        deferral = run.exec.deferral
        if deferral.deferred(self.key):
            deferral.defer(self.key, lambda later: self._check_late(wanted, later))
            return
        memory: dict[Values, bytes] | None = run.memo.get(self)
        if memory is not None:
            memory.update(wanted)
            return
        run.memo[self] = wanted

        async def check(later: Run) -> None:
            due = later.memo.pop(self)
            await self._check(list(due), later)

        run.after.append(check)

    async def _check_late(self, wanted: dict[Values, bytes], run: Run) -> None:
        """At commit: rows that have gone or changed since no longer matter."""
        stored = await run.transaction.get_many(list(wanted.values()))
        still = [
            values
            for values, data in zip(wanted, stored, strict=True)
            if data is not None and tuple(self._pick(self._writer.decode(data))) == values
        ]
        await self._check(still, run)

    async def _check(self, wanted: list[Values], run: Run) -> None:
        keys = [self._key(values) for values in wanted]
        transaction = run.transaction
        if not self._primary:
            held = await transaction.lock(keys, LockStrength.KEY_SHARE, WaitPolicy.BLOCK)
            keys = []
            for values, lock in zip(wanted, held, strict=True):
                if lock.value is None:
                    raise self._missing(values, run)
                keys.append(lock.value)
        held = await transaction.lock(keys, LockStrength.KEY_SHARE, WaitPolicy.BLOCK)
        for values, lock in zip(wanted, held, strict=True):
            if lock.value is None:
                raise self._missing(values, run)

    def _key(self, values: Values) -> bytes:
        shard = () if not self._shard else [values[place] for place in self._shard]
        return self._space.unique_key([values[place] for place in self._order], shard)

    def _missing(self, values: Values, run: Run) -> QueryError:
        shown = shown_key(self._change.table, self.key.columns, values, run.eval.settings)
        return self._violation(f'Key {shown} is not present in table "{self._target.name}".')

    def _violation(self, detail: str) -> QueryError:
        table = self._change.table
        return QueryError(
            f'insert or update on table "{table.name}" violates foreign key constraint "{self.key.name}"',
            "23503",
            detail=detail,
            schema=self._change.schema,
            table=table.name,
            constraint=self.key.name,
        )


# ---------------------------------------------------------------- rows that are referred to


class _Incoming:
    """One foreign key of another table to the changed one."""

    def __init__(self, change: TableChange, referencing: Referencing, writer: RowWriter) -> None:
        from shardforge.sql.execute.target import Target  # tables and their keys know each other

        self.key = referencing.key
        self.columns = frozenset(self.key.target_columns)
        self._change = change
        self._pick = picker([writer.position[attnum] for attnum in self.key.target_columns])
        self._parent = writer
        self.child: Target = Target(referencing.change)
        self._index = referencing.index
        child = self.child.writer
        self._child_pick = picker([child.position[attnum] for attnum in self.key.columns])
        types = [column_of(referencing.source, attnum).type_oid for attnum in self.key.columns]
        self._identity = _identity(types)
        defaults = referencing.change.defaults
        self._defaults = [
            compile_expression(defaults[attnum], {}) if attnum in defaults else None
            for attnum in self.key.columns
        ]

    def lost(self, change: Changed) -> Lost | None:
        """The key that a change takes away."""
        assert change.old is not None, "the row was there"
        values = tuple(self._pick(change.old))
        if None in values:
            return None
        if change.new is None:
            return Lost(values, None)
        replacement = tuple(self._pick(change.new))
        return None if replacement == values else Lost(values, replacement)

    def lose(self, lost: Sequence[Lost], run: Run) -> None:
        """Do what the key says about rows that refer to these keys, when the statement has made its changes."""
        if not lost:
            return
        keys = list(lost)

        async def follow(later: Run) -> None:
            await self._follow(keys, later)

        run.after.append(follow)

    async def _follow(self, lost: list[Lost], run: Run) -> None:
        updates = [item for item in lost if item.replacement is not None]
        deletes = [item for item in lost if item.replacement is None]
        for items, action in ((deletes, self.key.on_delete), (updates, self.key.on_update)):
            if not items:
                continue
            deferral = run.exec.deferral
            if action == "a" and deferral.deferred(self.key):
                deferral.defer(self.key, lambda later, items=items: self._refuse(items, later))  # type: ignore[misc]
            elif action == "a":
                run.after.append(lambda later, items=items: self._refuse(items, later))  # type: ignore[misc]
            elif action == "r":
                await self._refuse(items, run)
            else:
                await self._act(items, action, run)

    async def _refuse(self, lost: list[Lost], run: Run) -> None:
        """No row may refer to a key that is gone, unless another row has taken it over."""
        referring = await self._referring(lost, run, LockStrength.KEY_SHARE)
        if not referring:
            return
        for item in lost:
            identity = self._identity(item.values)
            if any(found == identity for found, _ in referring):
                if self.key.on_delete != "r" and await self._present(item.values, run):
                    continue
                raise self._still_referenced(item.values, run)

    async def _present(self, values: Values, run: Run) -> bool:
        """Whether the changed table has a row with this key again."""
        table = self._change.table
        wanted = set(self.key.target_columns)
        index = next(
            i for i in table.indexes if i.unique and {p.column_id for p in i.columns} == wanted
        )
        order = dict(zip(self.key.target_columns, values, strict=True))
        space = IndexSpace(table, index)
        shard = [order[attnum] for attnum in space.shard_key]
        key = space.unique_key([order[part.column_id] for part in index.columns], shard)
        [held] = await run.transaction.lock([key], LockStrength.KEY_SHARE, WaitPolicy.BLOCK)
        return held.value is not None

    async def _act(self, lost: list[Lost], action: str, run: Run) -> None:
        from shardforge.sql.execute.target import Changed

        referring = await self._referring(lost, run, LockStrength.UPDATE)
        if not referring:
            return
        child = self.child
        if action == "c" and lost[0].replacement is None:
            await child.delete([Changed(key, row, None) for _, (key, row) in referring], run)
            return
        places = [child.writer.position[attnum] for attnum in self.key.columns]
        replacements = {self._identity(item.values): item.replacement for item in lost}
        changes = []
        for identity, (key, row) in referring:
            values = list(row)
            new_values: Sequence[Any] | None = replacements[identity] if action == "c" else None
            for number, place in enumerate(places):
                if action == "c":
                    assert new_values is not None, "an updated key has new values"
                    values[place] = new_values[number]
                else:
                    default = self._defaults[number] if action == "d" else None
                    values[place] = None if default is None else default((), run)
            changes.append(Changed(key, row, child.rules.completed(tuple(values), run)))
        generated = {attnum for attnum, _ in child.change.generated}
        await child.update(changes, frozenset(self.key.columns) | generated, run)
        if action == "d":  # the default may be the very key that is gone
            run.after.append(lambda later: self._refuse(lost, later))

    # ---- finding rows ----------------------------------------------------------------------------

    async def _referring(
        self, lost: list[Lost], run: Run, strength: LockStrength
    ) -> list[tuple[Any, tuple[bytes, Row]]]:
        """(identity of the key, (row key, row)) of every row that refers to a lost key, locked."""
        wanted = {self._identity(item.values) for item in lost}
        transaction = run.transaction
        while True:
            keys = await self._candidates(lost, wanted, run)
            if transaction.isolation is not Isolation.READ_COMMITTED:
                keys = list(dict.fromkeys([*keys, *await self._newest(lost, wanted, run)]))
            held = await transaction.lock(keys, strength, WaitPolicy.BLOCK)
            if not any(lock.changed for lock in held):
                break
            transaction.begin_statement()
        found = []
        for lock in held:
            if lock.value is None:
                continue
            row = self.child.writer.decode(lock.value)
            identity = self._identity(self._child_pick(row))
            if identity in wanted:
                found.append((identity, (lock.key, row)))
        return found

    async def _newest(self, lost: list[Lost], wanted: set[Any], run: Run) -> list[bytes]:
        """Referring rows in the newest state, whatever the transaction's snapshot shows."""
        reader = run.exec.coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
        own = run.transaction
        try:
            run.transaction = reader
            return await self._candidates(lost, wanted, run)
        finally:
            run.transaction = own
            await reader.rollback()

    async def _candidates(self, lost: list[Lost], wanted: set[Any], run: Run) -> list[bytes]:
        """Keys of rows that refer to a lost key, by the index on the referring columns or by reading all."""
        child = self.child.writer
        if self._index is None:
            keys: list[bytes] = []
            owns = child.primary.owner()
            spans = child.primary.whole()
            async with aclosing(successive_spans(run, spans, reverse=False, goal=None)) as chunks:
                async for chunk in chunks:
                    for key, value in chunk:
                        if owns is not None and not owns(key):
                            continue
                        if self._identity(self._child_pick(child.decode(value))) in wanted:
                            keys.append(key)
            return keys
        space = IndexSpace(self.child.table, self._index)
        order = {attnum: place for place, attnum in enumerate(self.key.columns)}
        leading = [order[part.column_id] for part in self._index.columns[: len(self.key.columns)]]
        found: list[bytes] = []
        for item in lost:
            values = [item.values[place] for place in leading]
            shard = [item.values[order[attnum]] for attnum in space.shard_key] or None
            spans = space.spans(values, shard=shard)
            async with aclosing(successive_spans(run, spans, reverse=False, goal=None)) as chunks:
                async for chunk in chunks:
                    found += [key if self._index.primary else value for key, value in chunk]
        return found

    def _still_referenced(self, values: Values, run: Run) -> QueryError:
        parent, child = self._change.table, self.child
        shown = shown_key(parent, self.key.target_columns, values, run.eval.settings)
        return QueryError(
            f'update or delete on table "{parent.name}" violates foreign key constraint "{self.key.name}"'
            f' on table "{child.table.name}"',
            "23503",
            detail=f'Key {shown} is still referenced from table "{child.table.name}".',
            schema=child.change.schema,
            table=child.table.name,
            constraint=self.key.name,
        )
