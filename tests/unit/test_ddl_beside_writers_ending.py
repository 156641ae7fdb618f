"""ALTER TABLE beside writers that fails, is cancelled or has to wait: it leaves nothing, and holds nobody up."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.sql.catalog import store
from shardforge.sql.catalog.tablelocks import TableLockMode
from shardforge.sql.ddl import rewrite
from shardforge.sql.ddl.bulk import BulkWriter
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.session.session import Session
from tests.beside_writers import (
    ROWS,
    WIDEN,
    Gate,
    after_the_copy,
    described,
    indexes_agree,
    nothing_is_left,
    play,
    stored,
    watched,
)
from tests.inprocess import failure, run, session_of

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
