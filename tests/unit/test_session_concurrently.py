"""CREATE INDEX CONCURRENTLY: writers go on, and the index tells the truth in the end; a failure leaves it not valid."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.sql.ddl import concurrently
from shardforge.sql.session.session import Session
from tests.inprocess import failure, run, running_node, session_of

ROWS = 600
VALUES = 7
TABLE = (
    "create table items (id int primary key, n int, code int)",
    f"insert into items select g, g % {VALUES}, g from generate_series(1, {ROWS}) g",
)
CREATE = "create index concurrently items_n on items (n)"
STATE = "select indisvalid from pg_index where indexrelid = 'items_n'::regclass"


def play(scenario: Callable[[Node, Session], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            for sql in TABLE:
                await run(session, sql)
            await scenario(node, session)

    asyncio.run(main())


async def agree(session: Session, values: int = VALUES) -> None:
    """The index has what the table has."""
    for n in range(values):
        by_index = await run(session, f"select id from items where n = {n} order by id")
        by_table = await run(session, f"select id from items where n + 0 = {n} order by id")
        assert by_index == by_table


@pytest.mark.parametrize("seed", range(6))
def test_an_index_built_beside_writers_has_what_the_table_has(seed: int) -> None:
    async def scenario(node: Node, session: Session) -> None:
        choice = random.Random(seed)
        over = asyncio.Event()
        statements = 0

        async def write(number: int) -> None:
            nonlocal statements
            writer = session_of(node)
            while not over.is_set():
                key = choice.randint(1, ROWS + 200)
                sql = choice.choice([
                    f"update items set n = {choice.randrange(VALUES)} where id = {key}",
                    f"delete from items where id = {key}",
                    f"insert into items values ({key}, {choice.randrange(VALUES)}, 0) on conflict do nothing",
                    f"update items set n = (n + 1) % {VALUES} where id % 97 = {key % 97}",
                ])  # fmt: skip
                try:
                    await run(writer, sql)
                    statements += 1
                except DatabaseError as error:
                    assert error.sqlstate == "40P01"  # noqa: PT017
                await asyncio.sleep(0)
            await writer.close()

        writers = [asyncio.create_task(write(number)) for number in range(3)]
        await asyncio.sleep(0)
        await run(session, CREATE)
        assert statements, "writers were not kept waiting"
        over.set()
        await asyncio.gather(*writers)
        assert await run(session, STATE) == [(True,)]
        assert "items_n" in str(await run(session, "explain select * from items where n = 3"))
        await agree(session)

    play(scenario)


def test_writers_keep_up_what_is_not_read_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node, session: Session) -> None:
        gate, reached = asyncio.Event(), asyncio.Event()
        fill = concurrently._fill_batch

        async def held(*arguments: object) -> None:
            reached.set()
            await gate.wait()
            await fill(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(concurrently, "_fill_batch", held)
        other = session_of(node)
        building = asyncio.create_task(run(session, CREATE))
        await reached.wait()
        assert await run(other, STATE) == [(False,)]
        assert "items_n" not in str(await run(other, "explain select * from items where n = 3"))
        await run(other, "update items set n = 6 where id <= 300")
        await run(other, "delete from items where id between 100 and 200")
        await run(other, "insert into items values (5000, 6, 0)")
        assert not building.done()
        gate.set()
        await building
        await agree(other)
        assert await run(other, "select count(*) from items where n = 6 and id < 301") == [(199,)]

    play(scenario)


def test_a_duplicate_leaves_an_index_that_is_not_valid() -> None:
    async def scenario(node: Node, session: Session) -> None:
        await run(session, "update items set code = 1 where id in (7, 400)")
        error = await failure(
            session, "create unique index concurrently items_code on items (code)"
        )
        assert error.sqlstate == "23505"
        assert error.message == 'could not create unique index "items_code"'
        assert error.detail == "Key (code)=(1) is duplicated."
        valid = "select indisvalid from pg_index where indexrelid = 'items_code'::regclass"
        assert await run(session, valid) == [(False,)]
        await run(session, "drop index items_code")
        await run(session, "delete from items where code = 1 and id <> 7")
        await run(session, "create unique index concurrently items_code on items (code)")
        assert await run(session, valid) == [(True,)]
        assert (await failure(session, "insert into items values (9002, 0, 1)")).sqlstate == "23505"

    play(scenario)


def test_it_is_refused_where_something_came_before() -> None:
    async def scenario(node: Node, session: Session) -> None:
        await run(session, "begin")
        error = await failure(session, CREATE)
        assert error.sqlstate == "25001"
        assert error.message == "CREATE INDEX CONCURRENTLY cannot run inside a transaction block"
        await run(session, "rollback")
        await run(session, CREATE)
        await run(session, "create index concurrently if not exists items_n on items (n)")
        assert (await failure(session, CREATE)).sqlstate == "42P07"

    play(scenario)


def test_a_snapshot_from_before_does_not_read_it() -> None:
    async def scenario(node: Node, session: Session) -> None:
        reader = session_of(node)
        await run(reader, "begin isolation level repeatable read")
        expected = await run(reader, "select count(*) from items where n = 3")
        await run(session, CREATE)
        await run(session, "delete from items where n = 3")
        assert await run(reader, "select count(*) from items where n = 3") == expected
        await run(reader, "commit")
        assert await run(reader, "select count(*) from items where n = 3") == [(0,)]

    play(scenario)
