"""Statements about one row by its key: what they do at once is what the operators do."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from shardforge.errors import DatabaseError
from shardforge.sql.session.session import Session
from tests.inprocess import run, running_node, session_of

TABLES = """
CREATE TABLE {t} (
    id int PRIMARY KEY, v int CHECK (v < 900), w int NOT NULL DEFAULT 7, twice int GENERATED ALWAYS AS (v * 2) STORED
);
CREATE TABLE {t}_log (v int, at timestamptz DEFAULT now());
"""
STATEMENTS = (
    "INSERT INTO {t} (id, v) VALUES ($1, $2)",
    "INSERT INTO {t} VALUES ($1, $2, NULL)",
    "INSERT INTO {t}_log VALUES ($1 + $2)",
    "UPDATE {t} SET v = v + $2 WHERE id = $1",
    "UPDATE {t} SET v = $2, w = w + 1 WHERE id = $1 AND w < 9",
    "UPDATE {t} SET v = 1 / (v - $2) WHERE id = $1",
    "DELETE FROM {t} WHERE id = $1",
    "DELETE FROM {t} WHERE id = $1 AND v > $2",
    "SELECT v, w, twice FROM {t} WHERE id = $1 AND v <> $2",
)
CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s")


async def outcome(session: Session, text: str, params: list[int], *, at_once: bool) -> Any:
    """Rows and tag, or the error, of one statement as a connection runs it."""
    session.begin_statement(text)
    try:
        prepared = session.prepare(text, [23] * len(params))
        assert prepared is not None
        if not at_once and prepared.executable is not None:
            prepared.executable.point = prepared.executable.one_row = None
        result = await session.fetch_all(await session.run(prepared, params))
        await session.finish_implicit()
    except DatabaseError as error:
        await session.fail()
        return error.sqlstate, error.message.replace("slow", "fast"), error.detail
    return result


@pytest.mark.parametrize("seed", range(6))
def test_at_once_is_as_by_the_operators(seed: int) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        async with running_node() as node:
            session = session_of(node)
            for table in ("fast", "slow"):
                for text in filter(str.strip, TABLES.format(t=table).split(";")):
                    await run(session, text)
            fast, slow = session_of(node), session_of(node)
            tags = set()
            for _ in range(120):
                params = []
                if fast.status == "E" and rng.random() < 0.7:
                    text = "ROLLBACK"
                elif rng.random() < 0.25:
                    text = rng.choice(CONTROL)
                else:
                    text = rng.choice(STATEMENTS)
                    params = [rng.randrange(6), rng.choice((0, 1, 2, 400, 2**31 - 1))]
                one = await outcome(fast, text.format(t="fast"), params, at_once=True)
                other = await outcome(slow, text.format(t="slow"), params, at_once=False)
                assert one == other, text
                tags.add(one[1])
                assert fast.status == slow.status
            await fast.close()
            await slow.close()
            for of in ("", "_log"):
                rows = [await run(session, f"SELECT * FROM {t}{of}") for t in ("fast", "slow")]
                kept = [sorted(row[:1] if of else row for row in found) for found in rows]
                assert kept[0] == kept[1]
            assert tags >= {"INSERT 0 1", "UPDATE 1", "DELETE 1"}

    asyncio.run(scenario())


def test_which_statements_run_at_once() -> None:
    async def scenario() -> None:
        async with running_node() as node:
            session = session_of(node)
            for text in (
                "CREATE TABLE p (id int PRIMARY KEY, name text, n int)",
                "CREATE INDEX ON p (name)",
                "CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p, n int)",
                "CREATE TABLE plain (id int PRIMARY KEY, n int)",
                "CREATE SEQUENCE s",
            ):
                await run(session, text)
            for text, expected in {
                "UPDATE p SET n = 1 WHERE id = 1": True,
                "UPDATE p SET name = 'x' WHERE id = 1": False,  # an index entry moves
                "UPDATE p SET id = 2 WHERE id = 1": False,
                "UPDATE p SET n = 1": False,
                "UPDATE p SET n = 1 WHERE id = ANY (ARRAY[1, 2])": False,
                "UPDATE p SET n = nextval('s') WHERE id = 1": False,
                "UPDATE p SET n = 1 WHERE id = 1 RETURNING n": False,
                "UPDATE c SET n = 1 WHERE id = 1": True,
                "UPDATE c SET p = 1 WHERE id = 1": False,  # a foreign key to check
                "DELETE FROM p WHERE id = 1": False,
                "DELETE FROM c WHERE id = 1": False,
                "DELETE FROM plain WHERE id = 1": True,
                "INSERT INTO plain VALUES (1, 2)": True,
                "INSERT INTO plain VALUES (1, 2), (3, 4)": False,
                "INSERT INTO plain VALUES (1, nextval('s'))": False,
                "INSERT INTO plain VALUES (1, 2) ON CONFLICT DO NOTHING": False,
                "INSERT INTO plain VALUES (1, 2) RETURNING id": False,
                "INSERT INTO plain SELECT 1, 2": False,
                "INSERT INTO p VALUES (1, 'x', 2)": False,
                "INSERT INTO c VALUES (1, 1, 2)": False,
            }.items():
                prepared = session.prepare(text)
                assert prepared is not None
                assert prepared.executable is not None
                assert (prepared.executable.one_row is not None) == expected, text

    asyncio.run(scenario())


def test_a_locked_row_is_waited_for() -> None:
    async def scenario() -> None:
        async with running_node() as node:
            one, other = session_of(node), session_of(node)
            await run(one, "CREATE TABLE t (id int PRIMARY KEY, v int)")
            await run(one, "INSERT INTO t VALUES (1, 10)")
            await run(one, "BEGIN")
            await run(one, "UPDATE t SET v = v + 1 WHERE id = 1")
            prepared = other.prepare("UPDATE t SET v = v * 2 WHERE id = 1")
            assert prepared is not None
            other.begin_statement(prepared.text)
            assert other.run_now(prepared, ()) is None
            waiting = asyncio.ensure_future(run(other, prepared.text))
            assert node.instance is not None
            shards = node.instance.store.coordinator.router.shards
            while not any(s.locks.waiting for s in shards):  # noqa: ASYNC110 - another task's
                await asyncio.sleep(0)
            await run(one, "COMMIT")
            await waiting
            assert await run(one, "SELECT v FROM t WHERE id = 1") == [(22,)]

    asyncio.run(scenario())


def test_a_read_at_once_sees_what_its_transaction_and_others_have_done() -> None:
    async def scenario() -> None:
        async with running_node() as node:
            one, other = session_of(node), session_of(node)
            await run(one, "CREATE TABLE t (id int PRIMARY KEY, v int)")
            await run(one, "INSERT INTO t VALUES (1, 10), (2, 20)")
            read = "SELECT v FROM t WHERE id = 1"
            for level, second in (("READ COMMITTED", 11), ("REPEATABLE READ", 10)):
                await run(one, "UPDATE t SET v = 10 WHERE id = 1")
                await run(one, f"BEGIN ISOLATION LEVEL {level}")
                assert await run(one, read) == [(10,)]
                await run(other, "UPDATE t SET v = 11 WHERE id = 1")
                assert await run(one, read) == [(second,)]
                await run(one, "DELETE FROM t WHERE id = 2")
                assert await run(one, "SELECT v FROM t WHERE id = 2") == []
                await run(one, "ROLLBACK")
            assert await run(one, "SELECT v FROM t WHERE id = 2") == [(20,)]

    asyncio.run(scenario())


def test_a_read_only_transaction_refuses() -> None:
    async def scenario() -> None:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE t (id int PRIMARY KEY, v int)")
            await run(session, "BEGIN READ ONLY")
            with pytest.raises(DatabaseError) as refused:
                await run(session, "UPDATE t SET v = 1 WHERE id = 1")
            assert refused.value.sqlstate == "25006"
            with pytest.raises(DatabaseError) as failed:
                await run(session, "SELECT v FROM t WHERE id = 1")
            assert failed.value.sqlstate == "25P02"

    asyncio.run(scenario())
