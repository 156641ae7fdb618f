"""ALTER TABLE that writes all rows again while clients write: nothing is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from shardforge.node import Node
from shardforge.sql.ddl import catchup
from shardforge.sql.session.session import Session
from shardforge.txn import feed as feeds
from tests.beside_writers import (
    BARE,
    ROWS,
    TABLE,
    WIDEN,
    Gate,
    after_the_copy,
    at_the_first_batch,
    indexes_agree,
    nothing_is_held,
    play,
)
from tests.inprocess import run, session_of

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
