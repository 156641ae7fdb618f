"""Change feeds: COPY table TO STDOUT (CHANGEFEED), as a witness of what committed."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.sql.session.session import Session
from shardforge.txn import feed as feeds
from tests.inprocess import MEMORY, run, running_node, session_of

Scenario = Callable[[Node, Session], Awaitable[None]]


class Event(NamedTuple):
    timestamp: int
    kind: str
    before: Any
    after: Any


def play(scenario: Scenario, shards: int = 1, table: str = "WITH (sharding = 'hash')") -> None:
    sharding = replace(MEMORY.sharding, initial_shard_count=shards)

    async def main() -> None:
        async with running_node(replace(MEMORY, sharding=sharding)) as node:
            session = session_of(node)
            await run(session, f"CREATE TABLE t (id int PRIMARY KEY, v int) {table}")
            await asyncio.wait_for(scenario(node, session), 20)

    asyncio.run(main())


async def follow(session: Session, options: str = "") -> AsyncIterator[Event]:
    """The events of a feed over t, as a client reads them."""
    sql = f"COPY t TO STDOUT (CHANGEFEED, RESOLVED 0.02{options})"
    session.begin_statement(sql)
    prepared = session.prepare(sql)
    assert prepared is not None, "a statement"
    outcome = await session.run(prepared)
    assert outcome.copy_out is not None, "a stream"
    async with aclosing(outcome.copy_out.pieces()) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            for line in piece.decode().splitlines():
                timestamp, kind, before, after = line.split("\t")
                yield Event(int(timestamp), kind, _row(before), _row(after))
    await session.finish_implicit()


def _row(text: str) -> Any:
    return None if text == "\\N" else json.loads(text)


async def now(node: Node) -> int:
    assert node.instance is not None, "running"
    return int(await node.instance.store.coordinator.oracle.next())


async def everything(node: Node, since: int) -> list[Event]:
    until = await now(node)
    found = follow(session_of(node), f", CURSOR '{since}', UNTIL '{until}'")
    return [event async for event in found]


def test_changes_come_with_both_rows_and_end_resolved() -> None:
    async def scenario(node: Node, session: Session) -> None:
        since = await now(node)
        await run(session, "INSERT INTO t VALUES (1, 10), (2, 20)")
        await run(session, "UPDATE t SET v = 11 WHERE id = 1")
        await run(session, "DELETE FROM t WHERE id = 2")
        found = await everything(node, since)
        assert [e[1:] for e in found if e.kind != "resolved"] == [
            ("insert", None, {"id": 1, "v": 10}),
            ("insert", None, {"id": 2, "v": 20}),
            ("update", {"id": 1, "v": 10}, {"id": 1, "v": 11}),
            ("delete", {"id": 2, "v": 20}, None),
        ]
        assert found[0].timestamp == found[1].timestamp < found[2].timestamp
        assert found[-1].kind == "resolved"
        again = await everything(node, found[2].timestamp)
        assert [e.kind for e in again if e.kind != "resolved"] == ["delete"]

    play(scenario, table="WITH (sharding = 'range')")


def test_the_rows_of_the_start_come_first() -> None:
    async def scenario(node: Node, session: Session) -> None:
        await run(session, "INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i")
        found, other = [], session_of(node)
        async with aclosing(follow(other, ", INITIAL_SCAN")) as events:  # type: ignore[type-var]
            async for event in events:
                found.append(event)
                if event.kind == "resolved" and found[-2].kind == "initial":
                    await run(session, "UPDATE t SET v = 0 WHERE id = 7")
                if event.kind == "update":
                    break
        assert sorted(e.after["id"] for e in found if e.kind == "initial") == [*range(1, 1001)]
        assert found[-1].after == {"id": 7, "v": 0}
        await other.close()

    play(scenario, shards=4)


@pytest.mark.parametrize("hints_max", [20, 50_000])
@pytest.mark.parametrize("layout", ["", "WITH (shard_key = 'id')"])
def test_totals_rebuilt_from_a_feed_are_the_tables(
    hints_max: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transfers by several writers; the feed begins with them, and at times does not read for a while."""
    monkeypatch.setattr(feeds, "HINTS_MAX", hints_max)

    async def scenario(node: Node, session: Session) -> None:
        chance = random.Random(4)
        await run(session, "INSERT INTO t SELECT i, 100 FROM generate_series(0, 19) i")
        rows, ended, seen = dict.fromkeys(range(20), 100), 0, 0
        reader = session_of(node)

        async def transfers() -> None:
            writer = session_of(node)
            for _ in range(60):
                one, two = chance.sample(range(20), 2)
                await run(writer, "BEGIN")
                for row, more in sorted([(one, -1), (two, 1)]):
                    await run(writer, f"UPDATE t SET v = v + {more} WHERE id = {row}")
                await run(writer, "COMMIT")
                await asyncio.sleep(0)

        async with aclosing(follow(reader)) as events:  # type: ignore[type-var]
            event = await anext(events)
            writers = asyncio.gather(*[transfers() for _ in range(4)])
            while not ended or event.timestamp < ended:
                if writers.done() and not ended:
                    ended = await now(node)
                event = await anext(events)
                if event.kind == "resolved":
                    assert event.timestamp > seen, "resolved goes up"
                    seen = event.timestamp
                    assert sum(rows.values()) == 2000, (
                        "whole transactions up to a resolved timestamp"
                    )
                    continue
                assert event.timestamp > seen, "nothing at or below what was resolved"
                assert event.before == {"id": event.after["id"], "v": rows[event.after["id"]]}
                rows[event.after["id"]] = event.after["v"]
                if chance.random() < 0.05:
                    await asyncio.sleep(0.01)
        await reader.close()
        assert await run(session, "SELECT id, v FROM t ORDER BY id") == sorted(rows.items())

    play(scenario, shards=3, table=layout)


def test_many_more_changes_than_it_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "HINTS_MAX", 20)

    async def scenario(node: Node, session: Session) -> None:
        since = await now(node)
        for first in range(0, 300, 30):
            await run(
                session, f"INSERT INTO t SELECT i, 0 FROM generate_series({first}, {first + 29}) i"
            )
        found = [e for e in await everything(node, since) if e.kind == "insert"]
        assert [e.after["id"] // 30 for e in found] == [i // 30 for i in range(300)]
        assert [e.timestamp for e in found] == sorted(e.timestamp for e in found)

    play(scenario, shards=4)


def test_a_large_transaction_is_one() -> None:
    async def scenario(node: Node, session: Session) -> None:
        since = await now(node)
        await run(session, "INSERT INTO t SELECT i, i FROM generate_series(1, 12000) i")
        assert await run(session, "SELECT count(*) FROM t") == [(12000,)]
        found = [e for e in await everything(node, since) if e.kind == "insert"]
        assert sorted(e.after["id"] for e in found) == [*range(1, 12001)]
        assert len({e.timestamp for e in found}) == 1

    play(scenario, shards=16)


def test_an_ended_feed_keeps_nothing() -> None:
    async def scenario(node: Node, session: Session) -> None:
        assert node.instance is not None, "running"
        store = node.instance.store
        reader = session_of(node)
        async with aclosing(follow(reader)) as events:  # type: ignore[type-var]
            await anext(events)
            assert store.metrics()["snapshots_active"] == 1
            assert len(store.coordinator.feeds) == 1
        for _ in range(20):
            await asyncio.sleep(0)
        await reader.close()
        assert store.metrics()["snapshots_active"] == 0
        assert not store.coordinator.feeds
        await run(session, "DROP TABLE t")

    play(scenario)


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("COPY t (id) TO STDOUT (CHANGEFEED)", "0A000"),
        ("COPY (SELECT 1) TO STDOUT (CHANGEFEED)", "0A000"),
        ("COPY t FROM STDIN (CHANGEFEED)", "42601"),
        ("COPY t TO STDOUT (CHANGEFEED, CURSOR '99999999999999999')", "22023"),
        ("COPY t TO STDOUT (CHANGEFEED, CURSOR '1')", "0A000"),
        ("COPY t TO STDOUT (CHANGEFEED, CURSOR 'x')", "22023"),
        ("COPY t TO STDOUT (CHANGEFEED, CURSOR '1', INITIAL_SCAN)", "22023"),
        ("COPY t TO STDOUT (CHANGEFEED, RESOLVED 0)", "22023"),
        ("COPY nothing TO STDOUT (CHANGEFEED)", "42P01"),
        ("COPY t TO STDOUT (CURSOR '1')", "42601"),
    ],
)
def test_refusals(sql: str, sqlstate: str) -> None:
    async def scenario(_: Node, session: Session) -> None:
        with pytest.raises(DatabaseError) as refused:
            await run(session, sql)
        assert refused.value.sqlstate == sqlstate

    play(scenario)


def test_a_cursor_from_before_a_new_definition_is_refused() -> None:
    async def scenario(node: Node, session: Session) -> None:
        since = await now(node)
        await run(session, "ALTER TABLE t ADD COLUMN w int")
        with pytest.raises(DatabaseError) as refused:
            await everything(node, since)
        assert refused.value.sqlstate == "0A000"

    play(scenario)
