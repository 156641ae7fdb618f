"""Transactions whose snapshot is older than the definition of what they read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.sql.session.session import Session
from tests.inprocess import failure, run, running_node, session_of

Scenario = Callable[[Session, Session], Awaitable[None]]

ITEMS = (
    "create table items (id int primary key, n int, code int)",
    "insert into items select g, g % 5, g * 10 from generate_series(1, 110) g",
    "create table other (id int)",
)
LEVELS = ("repeatable read", "serializable")
CREATE = "create index items_n on items (n)"


def play(scenario: Scenario, *setup: str) -> None:
    """Run a scenario of two sessions after some statements."""

    async def main() -> None:
        async with running_node() as node:
            first, second = session_of(node), session_of(node)
            for sql in setup:
                await run(first, sql)
            await scenario(first, second)

    asyncio.run(main())


async def waits(task: asyncio.Task[object]) -> None:
    """Let a statement run until it cannot go on."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()


async def begin(session: Session, level: str, sql: str = "select * from other") -> None:
    """A block that has drawn its snapshot."""
    await run(session, f"begin isolation level {level}")
    await run(session, sql)


async def plan(session: Session, sql: str) -> str:
    return "\n".join(str(line) for (line,) in await run(session, f"explain analyze {sql}"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("first", ["select * from other", "select count(*) from items"])
def test_an_index_newer_than_the_snapshot_is_not_read(level: str, first: str) -> None:
    async def scenario(reader: Session, ddl: Session) -> None:
        await begin(reader, level, first)
        await run(ddl, CREATE)
        assert await run(reader, "select count(*) from items where n = 2") == [(22,)]
        assert await run(reader, "select max(n) from items") == [(4,)]
        assert await run(reader, "select n from items order by n limit 1") == [(0,)]
        assert "items_n" not in await plan(reader, "select * from items where n = 2")
        await run(reader, "commit")
        assert "items_n" in await plan(reader, "select * from items where n = 2")

    play(scenario, *ITEMS)


def test_a_statement_prepared_by_somebody_else_is_shared_without_its_index() -> None:
    async def scenario(reader: Session, ddl: Session) -> None:
        count = "select count(*) from items where n = 2"
        await begin(reader, "repeatable read")
        await run(reader, "prepare counted(int) as select count(*) from items where n = $1")
        await run(ddl, CREATE)
        assert await run(ddl, count) == [(22,)]
        await run(ddl, "insert into items values (1000, 2, 0)")
        assert await run(reader, count) == [(22,)]
        assert await run(reader, "execute counted(2)") == [(22,)]
        await run(reader, f"declare c cursor for {count}")
        assert await run(reader, "fetch all from c") == [(22,)]
        assert await run(ddl, count) == [(23,)]
        await run(reader, "commit")
        assert await run(reader, "execute counted(2)") == [(23,)]

    play(scenario, *ITEMS)


def test_changes_find_their_rows_without_the_index_and_keep_it_up() -> None:
    async def scenario(writer: Session, ddl: Session) -> None:
        await begin(writer, "repeatable read")
        await run(ddl, CREATE)
        assert len(await run(writer, "update items set n = 7 where n = 2 returning id")) == 22
        assert len(await run(writer, "delete from items where n = 3 returning id")) == 22
        await run(writer, "commit")
        for n, expected in ((2, 0), (3, 0), (4, 22), (7, 22)):
            for key in ("n", "n + 0"):
                found = await run(ddl, f"select count(*) from items where {key} = {n}")
                assert found == [(expected,)]

    play(scenario, *ITEMS)


def test_a_unique_index_newer_than_the_snapshot_is_kept_up_and_checked() -> None:
    async def scenario(writer: Session, ddl: Session) -> None:
        await begin(writer, "repeatable read")
        await run(ddl, "create unique index items_code on items (code)")
        free = "insert into items values (2000, 0, 7) on conflict (code) do nothing returning id"
        assert await run(writer, free) == [(2000,)]
        for clause in ("", "on conflict (code) do nothing"):
            await run(writer, "savepoint s")
            error = await failure(writer, f"insert into items values (2001, 0, 10) {clause}")
            assert error.sqlstate == "40001"  # the entry is newer than the snapshot
            await run(writer, "rollback to s")
        await run(writer, "commit")
        assert await run(ddl, "select id from items where code = 7") == [(2000,)]
        assert (await failure(ddl, "insert into items values (2001, 0, 7)")).sqlstate == "23505"

    play(scenario, *ITEMS)


def test_a_foreign_key_newer_than_the_snapshot_is_checked() -> None:
    async def scenario(writer: Session, ddl: Session) -> None:
        await run(ddl, "create table child (id int primary key, item int)")
        await run(ddl, "insert into child select g, g from generate_series(1, 20) g")
        await begin(writer, "repeatable read")
        await run(ddl, "create index child_item on child (item)")
        await run(ddl, "alter table child add foreign key (item) references items")
        await run(writer, "insert into child values (30, 30)")
        for sql in ("insert into child values (31, 500)", "delete from items where id = 20"):
            await run(writer, "savepoint s")
            assert (await failure(writer, sql)).sqlstate == "23503"
            await run(writer, "rollback to s")
        await run(writer, "delete from items where id = 40")
        await run(writer, "commit")
        assert (await failure(ddl, "delete from items where id = 30")).sqlstate == "23503"

    play(scenario, *ITEMS)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "change",
    [
        "truncate items",
        "alter table items alter column n type text",
        "alter table items drop constraint items_pkey, add primary key (code)",
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        "select count(*) from items",
        "select n from items where id = 3",
        "update items set code = 1 where id = 3",
        "delete from items where id = 3",
    ],
)
def test_rows_that_were_rewritten_after_the_snapshot_are_not_taken_for_none(
    level: str, change: str, use: str
) -> None:
    async def scenario(reader: Session, ddl: Session) -> None:
        await begin(reader, level)
        await run(ddl, change)
        error = await failure(reader, use)
        assert error.sqlstate == "40001"
        assert error.message == "could not serialize access due to concurrent DDL"
        await run(reader, "rollback")
        expected = 0 if "truncate" in change else 110
        assert await run(reader, "select count(*) from items") == [(expected,)]

    play(scenario, *ITEMS)


def test_read_committed_uses_the_new_index_in_its_next_statement() -> None:
    async def scenario(reader: Session, ddl: Session) -> None:
        await begin(reader, "read committed", "select count(*) from items")
        await run(ddl, CREATE)
        assert "items_n" in await plan(reader, "select * from items where n = 2")
        assert await run(reader, "select count(*) from items where n = 2") == [(22,)]
        await run(ddl, "insert into other values (1)")
        await run(reader, "commit")

    play(scenario, *ITEMS)


def test_an_index_that_the_transaction_made_itself_is_read() -> None:
    async def scenario(writer: Session, ddl: Session) -> None:
        await run(writer, "begin isolation level repeatable read")
        await run(writer, CREATE)
        await run(ddl, "create table third (id int primary key)")
        assert "items_n" in await plan(writer, "select * from items where n = 2")
        assert await run(writer, "select count(*) from items where n = 2") == [(22,)]
        await run(writer, "commit")

    play(scenario, *ITEMS)


def test_a_table_newer_than_the_snapshot_is_empty_there() -> None:
    async def scenario(reader: Session, ddl: Session) -> None:
        await begin(reader, "repeatable read")
        await run(ddl, "create table third as select 1 as id")
        assert await run(reader, "select * from third") == []
        await run(reader, "insert into third values (2)")
        assert await run(reader, "select * from third") == [(2,)]
        await run(reader, "commit")
        assert len(await run(reader, "select * from third")) == 2

    play(scenario, *ITEMS)


@pytest.mark.parametrize("use", ["explain analyze insert into items values (3000, 2, 0)", "copy"])
def test_whatever_changes_rows_keeps_an_index_from_being_made_meanwhile(use: str) -> None:
    async def scenario(writer: Session, ddl: Session) -> None:
        await run(writer, "begin")
        if use == "copy":
            prepared = writer.prepare("copy items from stdin")
            assert prepared is not None
            copy_in = (await writer.run(prepared)).copy_in
            assert copy_in is not None
        else:
            copy_in = None
            await run(writer, use)
        making = asyncio.create_task(run(ddl, CREATE))
        await waits(making)
        if copy_in is not None:
            await copy_in.feed(b"3000\t2\t0\n")
            await copy_in.finish()
        await run(writer, "commit")
        await making
        for key in ("n", "n + 0"):
            found = await run(ddl, f"select count(*) from items where {key} = 2")
            assert found == [(23,)]

    play(scenario, *ITEMS)


def test_what_every_snapshot_sees_is_forgotten() -> None:
    async def scenario(reader: Session, ddl: Session) -> None:
        catalog = reader.instance.catalog
        await begin(reader, "repeatable read")
        await run(ddl, CREATE)
        await run(ddl, "truncate items")
        await run(ddl, "create table third (id int)")
        assert len(catalog.readable_from) == 2
        await run(reader, "commit")
        await run(ddl, "create table fourth (id int)")
        assert not catalog.readable_from

    play(scenario, *ITEMS)


@pytest.mark.parametrize("level", ["read committed", *LEVELS])
def test_what_the_transaction_itself_wrote_in_batches_is_not_taken_for_none(level: str) -> None:
    async def scenario(writer: Session, ddl: Session) -> None:
        await run(ddl, "insert into items select g, 9, g from generate_series(1000, 4000) g")
        await run(writer, f"begin isolation level {level}")
        await run(writer, CREATE)
        assert await run(writer, "select count(*) from items where n = 9") == [(3001,)]
        await run(writer, "commit")
        assert "items_n" in await plan(writer, "select * from items where n = 9")
        await run(writer, f"begin isolation level {level}")
        await run(writer, "alter table items alter column n type text")
        if level == "read committed":
            assert await run(writer, "select count(*) from items") == [(3111,)]
        else:
            assert (await failure(writer, "select count(*) from items")).sqlstate == "0A000"
        await run(writer, "commit" if level == "read committed" else "rollback")
        assert await run(ddl, "select count(*) from items") == [(3111,)]

    play(scenario, *ITEMS)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "change",
    [
        "add check (n < 3)",
        "add column more int not null",
        "add foreign key (n) references third",
        "alter code set not null",
    ],
)
def test_a_constraint_is_not_verified_at_an_older_snapshot(level: str, change: str) -> None:
    async def scenario(ddl: Session, writer: Session) -> None:
        await run(ddl, "create table fresh (id int primary key, n int, code int)")
        await run(ddl, "create table third (id int primary key)")
        await begin(ddl, level)
        await run(writer, "insert into fresh values (1, 9, null)")
        assert (await failure(ddl, f"alter table fresh {change}")).sqlstate == "0A000"
        await run(ddl, "rollback")

    play(scenario, *ITEMS)
