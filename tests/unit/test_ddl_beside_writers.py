"""ALTER TABLE that writes all rows again while clients write: nothing is lost, and a failure leaves nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.sql.catalog import store
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl import catchup, rewrite
from shardforge.sql.ddl.backfill import row_writer
from shardforge.sql.ddl.bulk import BulkWriter
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.session.ddl_context import begin_ddl
from shardforge.sql.session.session import Session
from shardforge.txn import feed as feeds
from shardforge.txn.coordinator import Isolation
from tests.inprocess import failure, run, running_node, session_of

Scenario = Callable[[Node, Session], Awaitable[None]]
ROWS = rewrite.ROWS_UNDER_THE_LOCK + 500
WIDEN = "alter table t alter n type bigint"
TABLE = (
    "create table t (id int primary key, n int, u int unique, s text)",
    "create index t_n on t (n)",
    "create index t_even on t (upper(s)) where n % 2 = 0",
    f"insert into t select g, g, g * 10, 's' || g from generate_series(1, {ROWS}) g",
)
BARE = (
    "create table t (id int not null, n int, u int unique, s text)",
    *TABLE[1:],
)


def play(scenario: Scenario, table: tuple[str, ...] = TABLE) -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            for sql in table:
                await run(session, sql)
            await asyncio.wait_for(scenario(node, session), 60)

    asyncio.run(main())


async def described(session: Session) -> Table:
    found = session.catalog.relation_by_id((await run(session, "select 't'::regclass::oid"))[0][0])
    assert isinstance(found, Table)
    return found


async def stored(node: Node, table: Table) -> list[dict[bytes, bytes]]:
    """What is stored of each of its indexes, the rows first."""
    assert node.instance is not None
    reading = node.instance.store.coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
    found = []
    for index in table.indexes:
        space = IndexSpace(table, index)
        owns = space.owner() or (lambda key: True)
        pairs: dict[bytes, bytes] = {}
        async for chunk in reading.scan_spans(space.whole()):
            pairs.update((key, value) for key, value in chunk if owns(key))
        found.append(pairs)
    await reading.rollback()
    return found


async def indexes_agree(node: Node, session: Session) -> None:
    """The table's indexes have the entries of its rows, and no others."""
    table = await described(session)
    rows, *entries = await stored(node, table)
    ddl = Ddl(begin_ddl(session))
    writer = row_writer(ddl, table)
    decoded = {key: writer.decode(value) for key, value in rows.items()}
    assert all(writer.row_key(row) == key for key, row in decoded.items())
    for index, found in zip(writer.indexes, entries, strict=True):
        made = [(index.entry(row, ddl.ctx.execution), key) for key, row in decoded.items()]
        assert found == {entry.key: key for entry, key in made if entry is not None}
    await session.rollback()


async def nothing_is_held(node: Node) -> None:
    """No lock, no snapshot, no feed."""
    assert node.instance is not None
    coordinator = node.instance.store.coordinator
    assert not list(node.instance.catalog.locks.held())
    assert not coordinator.feeds
    assert not len(coordinator.snapshots)


class Gate:
    """Holds the first call of a coroutine function, before or after it does its work."""

    def __init__(
        self, patch: pytest.MonkeyPatch, owner: object, name: str, *, after: bool = False
    ) -> None:
        self.reached, self._open = asyncio.Event(), asyncio.Event()
        real: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def held(*arguments: Any) -> Any:
            if not after:
                await self._wait()
            result = await real(*arguments)
            if after:
                await self._wait()
            return result

        patch.setattr(owner, name, held)

    async def _wait(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self._open.wait()

    @asynccontextmanager
    async def beside(self, session: Session, sql: str) -> AsyncIterator[asyncio.Task[Any]]:
        """The statement under way, held; it goes on afterwards."""
        task = asyncio.create_task(run(session, sql))
        await asyncio.wait([task, asyncio.create_task(self.reached.wait())],
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        assert not task.done(), task.exception()
        yield task
        self._open.set()


def after_the_copy(patch: pytest.MonkeyPatch) -> Gate:
    return Gate(patch, rewrite, "copy", after=True)


def at_the_first_batch(patch: pytest.MonkeyPatch) -> Gate:
    return Gate(patch, BulkWriter, "flush")


# ---- many writers --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("table", "sql"),
    [
        (TABLE, WIDEN),
        (TABLE, "alter table t alter id type bigint using id + 0"),
        (TABLE, "alter table t alter s type varchar(40) using s || '' "),
        (TABLE, "alter table t set (shard_key = 'id')"),
        (TABLE, "alter table t set (sharding = 'range')"),
        (TABLE, "alter table t add r float default random()"),
        (TABLE, "alter table t add r serial"),
        (TABLE, "alter table t add r int generated always as (n + u) stored"),
        (BARE, "alter table t add primary key (id)"),
        (BARE, WIDEN),
    ],
)
def test_writers_go_on_and_nothing_is_lost(table: tuple[str, ...], sql: str, seed: int) -> None:
    async def scenario(node: Node, session: Session) -> None:
        choice = random.Random(seed)
        busy, over = asyncio.Event(), asyncio.Event()
        expected = {i: (i, i * 10, f"s{i}") for i in range(1, ROWS + 1)}
        committed = 0

        async def write(number: int) -> None:
            nonlocal committed
            writer = session_of(node)
            while not over.is_set():
                key = choice.randint(1, ROWS + 300) * 4 + number  # its own: the order is known
                value = choice.randint(1, 10**6)
                there = expected.get(key)
                if there is None:
                    row = (value, key * 10, f"s{value}")
                    changes = [
                        (
                            f"insert into t values ({key}, {value}, {key * 10}, 's{value}')",
                            {key: row},
                        )
                    ]
                else:
                    moved = (key + 4 * 10**5, there[0], there[1], there[2])
                    changes = choice.choice([
                        [(f"update t set n = {value} where id = {key}", {key: (value, *there[1:])})],
                        [(f"update t set s = 'x{value}' where id = {key}", {key: (*there[:2], f"x{value}")})],
                        [(f"delete from t where id = {key}", {key: None})],
                        [(f"update t set id = {moved[0]} where id = {key}", {key: None, moved[0]: moved[1:]})],
                        [(f"delete from t where id = {key}", {}),
                         (f"insert into t values ({key}, {value}, {there[1]}, 'again')",
                          {key: (value, there[1], "again")})],
                    ])  # fmt: skip
                if len(changes) > 1:
                    await run(writer, "begin")
                for statement, effects in changes:
                    statement = statement.replace("t values", "t (id, n, u, s) values")
                    await run(writer, statement)
                    for at, row_now in effects.items():
                        if row_now is None:
                            expected.pop(at, None)
                        else:
                            expected[at] = row_now
                if len(changes) > 1:
                    await run(writer, "commit")
                committed += 1
                if committed == 20:
                    busy.set()
                await asyncio.sleep(0)
            await writer.close()

        writers = [asyncio.create_task(write(number)) for number in range(4)]
        await busy.wait()
        before = committed
        await run(session, sql)
        assert committed > before + 5, "writers were not kept waiting"
        over.set()
        await asyncio.gather(*writers)
        found = await run(session, "select id, n, u, s from t")
        assert len(found) == len(expected)
        assert {row[0]: row[1:] for row in found} == expected
        await indexes_agree(node, session)
        await nothing_is_held(node)

    play(scenario, table)


def test_so_many_changes_that_the_feed_looks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        monkeypatch.setattr(feeds, "HINTS_MAX", 100)
        monkeypatch.setattr(catchup, "CHANGES_A_COMMIT", 50)
        other = session_of(node)
        async with after_the_copy(monkeypatch).beside(session, WIDEN) as altering:
            await run(other, "update t set n = n + 7 where id % 2 = 0")
            await run(other, "delete from t where id % 5 = 0")
            for n in range(60):
                await run(other, f"update t set s = 'again', n = {n} where id = {3 * n + 1}")
        expected = await run(other, "select id, n, u, s from t order by id")
        await altering
        assert await run(other, "select id, n, u, s from t order by id") == expected
        await indexes_agree(node, session)

    play(scenario)


# ---- one change at a time ------------------------------------------------------------------------

WRITES = {
    "insert": ["insert into t values (9000, 2, 90000, 'new')"],
    "key changed": ["update t set id = 9000 where id = 7"],
    "indexed column changed": ["update t set n = 8, u = 77777 where id = 7"],
    "in and out of a partial index": ["update t set n = n + 1 where id between 7 and 8"],
    "nothing indexed changed": ["update t set s = 'other' where id = 7"],
    "delete": ["delete from t where id = 7"],
    "delete, insert": ["delete from t where id = 7", "insert into t values (7, 1, 70, 'b')"],
    "delete and insert at once": [
        "begin", "delete from t where id = 7", "insert into t values (7, 1, 70, 'b')", "commit"
    ],
    "unique values change places": [
        "begin", "update t set u = null where id = 7", "update t set u = 70 where id = 3",
        "update t set u = 30 where id = 7", "commit",
    ],
    "insert and delete": ["insert into t values (9000, 2, 70001, 'new')", "delete from t where id = 9000"],
    "rolled back": ["begin", "delete from t", "rollback"],
    "everything": ["update t set n = n + 1, u = u + 1", "delete from t where id % 3 = 0"],
}  # fmt: skip


@pytest.mark.parametrize("writes", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("held", [at_the_first_batch, after_the_copy])
def test_a_change_during_the_copy_is_in_it(
    writes: list[str], held: Callable[[pytest.MonkeyPatch], Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    if held is at_the_first_batch:
        monkeypatch.setattr(catchup, "CHANGES_A_COMMIT", 1)  # every transaction is larger

    async def scenario(node: Node, session: Session) -> None:
        other = session_of(node)
        async with held(monkeypatch).beside(session, WIDEN) as altering:
            for sql in writes:
                await run(other, sql)
            expected = await run(other, "select * from t order by id")
            assert await run(other, "select pg_typeof(n)::text from t limit 1") == [("integer",)]
        await altering
        assert await run(other, "select * from t order by id") == expected
        assert await run(other, "select pg_typeof(n)::text from t limit 1") == [("bigint",)]
        await indexes_agree(node, session)
        await nothing_is_held(node)

    play(scenario)


def test_versions_that_are_needed_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        assert node.instance is not None
        garbage = node.instance.store.garbage
        garbage._retention_us = 0
        other = session_of(node)
        async with at_the_first_batch(monkeypatch).beside(session, WIDEN) as altering:
            await run(other, "update t set n = n + 1, id = id + 10000 where id % 2 = 0")
            await run(other, "update t set n = n + 1 where id > 10000")
            await run(other, "delete from t where id % 3 = 0")
            garbage.collect()
            for participant in list(node.instance.store.router.shards):
                await garbage.sweep(participant)
            expected = await run(other, "select * from t order by id")
        await altering
        assert await run(other, "select * from t order by id") == expected
        await indexes_agree(node, session)
        garbage.collect()
        assert garbage.collected

    play(scenario)


def test_row_numbers_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        other = session_of(node)
        async with after_the_copy(monkeypatch).beside(session, WIDEN) as altering:
            await run(
                other, "insert into t select g, g, null, '' from generate_series(5001, 5100) g"
            )
        await altering
        await run(other, "insert into t select g, g, null, '' from generate_series(6001, 6100) g")
        assert await run(other, "select count(*), count(distinct id) from t") == [(ROWS + 200,) * 2]
        await indexes_agree(node, session)
        await run(session, "begin")
        await run(session, "alter table t alter n type int")
        await run(session, "insert into t select g, g, null, '' from generate_series(7001, 7100) g")
        await run(session, "commit")
        assert await run(other, "select count(*), count(distinct id) from t") == [(ROWS + 300,) * 2]

    play(scenario, BARE)


def test_a_sequence_gives_every_row_a_value_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        other = session_of(node)
        sql = "alter table t add r int generated by default as identity unique"
        async with after_the_copy(monkeypatch).beside(session, sql) as altering:
            await run(other, "insert into t values (9000, 1, 1, '')")
            await run(other, "update t set n = 3 where id % 7 = 0")
        await altering
        await run(other, "insert into t values (9001, 1, 2, '')")
        total = ROWS + 2
        assert await run(other, "select count(r), count(distinct r) from t") == [(total, total)]
        await indexes_agree(node, session)

    play(scenario)


# ---- failures ------------------------------------------------------------------------------------


async def nothing_is_left(node: Node, session: Session, begun: list[Table]) -> None:
    """The table is as it was, and of what was written elsewhere nothing remains."""
    assert node.instance is not None
    await nothing_is_held(node)
    table = await described(session)
    assert table.storage_id not in [one.storage_id for one in begun]
    while await node.instance.catalog.purge_dropped():
        pass
    for one in begun:
        assert not any(await stored(node, one))
    assert not node.instance.catalog.building
    await indexes_agree(node, session)
    assert await run(session, "select count(*) from t where id > 0") == await run(
        session, "select count(*) from t where id + 0 > 0"
    )
    await run(session, "update t set n = 1 where id = 1")


def watched(patch: pytest.MonkeyPatch) -> list[Table]:
    """The tables that rewriting begins to fill."""
    begun: list[Table] = []

    class Watched(rewrite.Conversion):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            begun.append(self.new)

    patch.setattr(rewrite, "Conversion", Watched)
    return begun


FAILING = {
    "unique, two new rows": (
        "alter table t alter u type int using u / 10",
        ["insert into t values (9000, 1, 12345671, ''), (9001, 1, 12345672, '')"],
        ("23505", 'could not create unique index "t_u_key"', "Key (u)=(1234567) is duplicated."),
    ),
    "unique, a new and an old row": (
        "alter table t alter u type int using u / 10",
        ["insert into t values (9000, 1, 11, '')"],
        ("23505", 'could not create unique index "t_u_key"', "Key (u)=(1) is duplicated."),
    ),
    "primary key": (
        "alter table t alter id type int using id % 8000",
        ["insert into t values (8004, 1, 1, '')"],
        ("23505", 'could not create unique index "t_pkey"', "Key (id)=(4) is duplicated."),
    ),
    "conversion": (
        "alter table t alter n type int using (case when n < 0 then 'none' else n::text end)::int",
        ["update t set n = -1 where id = 5"],
        ("22P02", 'invalid input syntax for type integer: "none"', ""),
    ),
    "not null": (
        "alter table t add g int generated always as (n * 2) stored not null",
        ["update t set n = null where id = 5"],
        ("23502", 'column "g" of relation "t" contains null values', ""),
    ),
}


@pytest.mark.parametrize(("sql", "writes", "error"), FAILING.values(), ids=FAILING)
def test_what_a_writer_makes_impossible_fails_and_leaves_nothing(
    sql: str, writes: list[str], error: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node, session: Session) -> None:
        begun = watched(monkeypatch)
        other = session_of(node)
        async with after_the_copy(monkeypatch).beside(session, sql) as altering:
            for statement in writes:
                await run(other, statement)
        with pytest.raises(DatabaseError) as failed:
            await altering
        assert (failed.value.sqlstate, failed.value.message, failed.value.detail) == error
        await nothing_is_left(node, session, begun)

    play(scenario)


def test_what_a_failure_leaves_is_removed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        assert node.instance is not None
        monkeypatch.setattr(store, "PURGE_PAUSE_SECONDS", 0)
        begun = watched(monkeypatch)
        async with after_the_copy(monkeypatch).beside(session, WIDEN) as altering:
            altering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await altering
        while node.instance.catalog.building:  # noqa: ASYNC110 - until it has been looked at
            await asyncio.sleep(0)
        while any(await stored(node, begun[0])):  # noqa: ASYNC110
            await asyncio.sleep(0)

    play(scenario)


def test_a_duplicate_that_the_conversion_makes_fails_before_anybody_waits() -> None:
    async def scenario(node: Node, session: Session) -> None:
        reader = session_of(node)
        await run(reader, "begin")
        await run(reader, "select 1 from t where id = 1")
        error = await failure(session, "alter table t alter u type int using u / 20")
        assert (error.sqlstate, error.message) == (
            "23505",
            'could not create unique index "t_u_key"',
        )
        await run(reader, "commit")
        await nothing_is_left(node, session, [])

    play(scenario)


PHASES: dict[str, tuple[object, str, bool]] = {
    "before anything is written": (rewrite, "copy", False),
    "in the copy": (BulkWriter, "flush", False),
    "after the copy": (rewrite, "copy", True),
    "in a round": (BulkWriter, "change", False),
    "after a round": (BulkWriter, "change", True),
    "before the new descriptor": (Ddl, "mark_dropped", False),
}


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_cancelled_it_leaves_nothing(
    phase: tuple[object, str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node, session: Session) -> None:
        begun = watched(monkeypatch)
        owner, name, after = phase
        other = session_of(node)
        if owner is BulkWriter and name == "change":
            copied = after_the_copy(monkeypatch)
            gate = Gate(monkeypatch, owner, name, after=after)
            async with copied.beside(session, WIDEN) as altering:
                await run(other, "update t set n = 0 where id % 10 = 0")
            await gate.reached.wait()
        else:
            gate = Gate(monkeypatch, owner, name, after=after)
            async with gate.beside(session, WIDEN) as altering:
                altering.cancel()
        altering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await altering
        assert begun
        await nothing_is_left(node, session, begun)

    play(scenario)


def test_cancelled_while_it_waits_for_a_writer_it_leaves_nothing() -> None:
    async def scenario(node: Node, session: Session) -> None:
        assert node.instance is not None
        writer = session_of(node)
        await run(writer, "begin")
        await run(writer, "update t set n = 5 where id = 5")
        altering = asyncio.create_task(run(session, WIDEN))
        await waiting(node, TableLockMode.ACCESS_EXCLUSIVE)
        altering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await altering
        await run(writer, "commit")
        await nothing_is_left(node, session, [])

    play(scenario)


async def waiting(node: Node, mode: TableLockMode) -> None:
    """Until somebody waits for a table lock of that mode."""
    assert node.instance is not None
    locks = node.instance.catalog.locks
    while (mode, False) not in [held[2:] for held in locks.held()]:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)


# ---- locks ---------------------------------------------------------------------------------------


def test_it_waits_for_a_transaction_that_has_written() -> None:
    async def scenario(node: Node, session: Session) -> None:
        writer = session_of(node)
        await run(writer, "begin")
        await run(writer, "update t set n = 5 where id = 6")
        altering = asyncio.create_task(run(session, WIDEN))
        await waiting(node, TableLockMode.ACCESS_EXCLUSIVE)
        await run(writer, "insert into t values (9000, 4, 4, 'late')")
        await run(writer, "delete from t where id = 7")
        await run(writer, "commit")
        await altering
        assert await run(session, "select id from t where n in (4, 5) order by id") == [
            (4,), (5,), (6,), (9000,)
        ]  # fmt: skip
        assert await run(session, "select count(*) from t") == [(ROWS,)]
        await indexes_agree(node, session)

    play(scenario)


def test_a_lock_timeout_ends_it() -> None:
    async def scenario(node: Node, session: Session) -> None:
        writer = session_of(node)
        await run(writer, "begin")
        await run(writer, "update t set n = 5 where id = 6")
        await run(session, "set lock_timeout = 1")
        error = await failure(session, WIDEN)
        assert error.sqlstate == "55P03"
        await run(writer, "commit")
        await nothing_is_left(node, session, [])

    play(scenario)


def test_a_writer_that_wants_the_table_for_itself_is_a_deadlock() -> None:
    async def scenario(node: Node, session: Session) -> None:
        writer = session_of(node)
        await run(writer, "begin")
        await run(writer, "update t set n = 5 where id = 6")
        altering = asyncio.create_task(run(session, WIDEN))
        await waiting(node, TableLockMode.ACCESS_EXCLUSIVE)
        assert (await failure(writer, "alter table t add x int")).sqlstate == "40P01"
        await run(writer, "rollback")
        await altering
        await indexes_agree(node, session)

    play(scenario)


def test_other_ddl_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        await run(session, "create table child (id int references t)")
        others = [
            "comment on table t is 'kept'", "alter table child drop constraint child_id_fkey",
            "create index t_s on t (s)", "alter table t add y int default 4",
        ]  # fmt: skip
        async with after_the_copy(monkeypatch).beside(session, WIDEN) as altering:
            waiters = [asyncio.create_task(run(session_of(node), sql)) for sql in others]
            for _ in range(50):
                await asyncio.sleep(0)
            assert not any(waiter.done() for waiter in waiters)
        await altering
        await asyncio.gather(*waiters)
        table = await described(session)
        assert table.comment == "kept"
        assert not table.referenced_by
        assert await run(session, "select count(*) from t where y = 4") == [(ROWS,)]
        await indexes_agree(node, session)

    play(scenario)


def test_a_view_that_came_meanwhile_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        begun = watched(monkeypatch)
        async with after_the_copy(monkeypatch).beside(session, WIDEN) as altering:
            await run(session_of(node), "create view v as select n from t")
        with pytest.raises(DatabaseError) as failed:
            await altering
        assert failed.value.message == "cannot alter type of a column used by a view or rule"
        await nothing_is_left(node, session, begun)

    play(scenario)


def test_a_snapshot_from_before_is_refused() -> None:
    async def scenario(node: Node, session: Session) -> None:
        reader = session_of(node)
        await run(session, "create table o (i int)")
        await run(reader, "begin isolation level repeatable read")
        await run(reader, "select * from o")
        await run(session, WIDEN)
        assert (await failure(reader, "select count(*) from t")).sqlstate == "40001"
        await run(reader, "rollback")
        assert await run(reader, "select count(*) from t") == [(ROWS,)]

    play(scenario)


@pytest.mark.parametrize(
    ("before", "sql"),
    [
        (["begin"], WIDEN),
        (["delete from t where id > 900"], WIDEN),
        (["set default_transaction_isolation = 'serializable'"], WIDEN),
        ([], "alter table t alter n type bigint, add y int"),
        ([], "alter table t alter id type bigint using (random() * 1e15)::bigint"),
        ([], "alter table t drop constraint t_pkey"),
    ],
)
def test_what_is_written_again_under_the_lock(
    before: list[str], sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(node: Node, session: Session) -> None:
        for statement in before:
            await run(session, statement)
        gate = after_the_copy(monkeypatch)
        async with gate.beside(session, sql) as altering:
            modes = Counter(held[2] for held in node.instance.catalog.locks.held())  # type: ignore[union-attr]
            assert modes[TableLockMode.ACCESS_EXCLUSIVE]
        await altering
        await session.commit()
        await indexes_agree(node, session)

    play(scenario)
