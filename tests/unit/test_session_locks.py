"""Who holds and awaits what: pg_locks, and the document of `cluster status --locks`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rich.console import Console

from shardforge.cli import cluster_tables
from shardforge.node import Node
from shardforge.sql.session.session import Session
from tests.inprocess import run, running_node, session_of

Scenario = Callable[[Node, Session, Session, Session], Awaitable[None]]
LOCKS = "SELECT relation::regclass::text, pid, mode, granted FROM pg_locks WHERE locktype = 'tuple' ORDER BY 1, 4, 2"


def play(scenario: Scenario) -> None:
    async def main() -> None:
        async with running_node() as node:
            one, two, three = (session_of(node) for _ in range(3))
            await run(one, "CREATE TABLE hashed (id int PRIMARY KEY)")
            await run(one, "CREATE TABLE ranged (id int PRIMARY KEY) WITH (sharding = 'range')")
            await run(one, "CREATE TABLE placed (id int PRIMARY KEY) WITH (shard_key = 'id')")
            for table in ("hashed", "ranged", "placed"):
                await run(one, f"INSERT INTO {table} VALUES (1), (2)")
            await asyncio.wait_for(scenario(node, one, two, three), 10)

    asyncio.run(main())


async def begin_waiting(session: Session, sql: str) -> asyncio.Task[object]:
    task: asyncio.Task[object] = asyncio.create_task(run(session, sql))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    return task


@pytest.mark.parametrize("table", ["hashed", "ranged", "placed"])
def test_pg_locks_names_rows_by_their_table(table: str) -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        await run(one, "BEGIN")
        await run(one, f"SELECT * FROM {table} WHERE id = 1 FOR UPDATE")
        await run(one, f"SELECT * FROM {table} WHERE id = 2 FOR SHARE")
        await run(two, "BEGIN")
        await run(two, f"SELECT * FROM {table} WHERE id = 2 FOR KEY SHARE")
        waiting = await begin_waiting(two, f"SELECT * FROM {table} WHERE id = 1 FOR NO KEY UPDATE")
        first, second = one.process_id, two.process_id
        assert sorted(await run(three, LOCKS), key=str) == sorted(
            [
                (table, first, "AccessExclusiveLock", True),
                (table, first, "RowShareLock", True),
                (table, second, "AccessShareLock", True),
                (table, second, "ExclusiveLock", False),
            ],
            key=str,
        )
        await run(one, "COMMIT")
        await waiting
        await run(two, "COMMIT")
        assert await run(three, LOCKS) == []

    play(scenario)


def test_pg_locks_shows_who_waits_for_a_table() -> None:
    async def scenario(_: Node, one: Session, two: Session, three: Session) -> None:
        await run(one, "BEGIN")
        await run(one, "SELECT * FROM hashed")
        waiting = await begin_waiting(two, "DROP TABLE hashed")
        found = await run(
            three,
            "SELECT pid, mode, granted FROM pg_locks WHERE relation = 'hashed'::regclass ORDER BY granted",
        )
        assert found == [
            (two.process_id, "AccessExclusiveLock", False),
            (one.process_id, "AccessShareLock", True),
        ]
        await run(one, "COMMIT")
        await waiting

    play(scenario)


def test_the_document_has_waiters_first_and_fits_a_terminal() -> None:
    async def scenario(node: Node, one: Session, two: Session, three: Session) -> None:
        await run(one, "BEGIN")
        await run(one, "UPDATE hashed SET id = id WHERE id = 1")
        waiting = await begin_waiting(two, "UPDATE hashed SET id = id WHERE id = 1")
        found = await node.operations.locks()
        assert found["row_locks"] == 1
        assert [(lock["table"], lock["pid"], lock["granted"]) for lock in found["rows"]] == [
            ("hashed", two.process_id, False),
            ("hashed", one.process_id, True),
        ]
        assert {lock["mode"] for lock in found["tables"]} == {"row exclusive"}
        console = Console(width=100, record=True)
        for table in cluster_tables.locks(found):
            console.print(table)
        assert "hashed" in console.export_text()
        await run(one, "COMMIT")
        await waiting
        assert (await node.operations.locks())["rows"] == []

    play(scenario)
