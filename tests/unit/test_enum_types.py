"""Enum types in sessions: who sees a label when, what a rollback leaves, and what waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.keys import ENUM_OIDS
from shardforge.node import Node
from shardforge.sql.session.session import Session
from tests.inprocess import failure, run, run_text, running_node, session_of

Scenario = Callable[[Session, Session], Awaitable[None]]
LABELS = "SELECT unnest(enum_range(NULL::mood))::text"


def play(scenario: Scenario) -> None:
    async def main() -> None:
        async with running_node() as node:
            one, two = session_of(node), session_of(node)
            await run(one, "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
            await run(one, "CREATE TABLE t (id int PRIMARY KEY, m mood)")
            await asyncio.wait_for(scenario(one, two), 10)

    asyncio.run(main())


async def waiting(session: Session, sql: str) -> asyncio.Task[list[tuple[object, ...]]]:
    task = asyncio.create_task(run(session, sql))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def labels(session: Session) -> list[str]:
    rows, _ = await run_text(session, LABELS)
    return [row[0] or "" for row in rows]


def test_a_rollback_leaves_nothing() -> None:
    async def scenario(one: Session, two: Session) -> None:
        await run(one, "BEGIN")
        await run(one, "CREATE TYPE other AS ENUM ('a')")
        await run(one, "CREATE TABLE u (a other DEFAULT 'a')")
        await run(one, "INSERT INTO u DEFAULT VALUES")
        assert (await run_text(one, "SELECT a FROM u"))[0] == [["a"]]
        assert (await failure(two, "SELECT 'a'::other")).sqlstate == "42704"
        await run(one, "ROLLBACK")
        assert (await failure(one, "SELECT 'a'::other")).sqlstate == "42704"
        await run(two, "CREATE TYPE other AS ENUM ('b')")
        await run(one, "BEGIN")
        await run(one, "SAVEPOINT s")
        await run(one, "ALTER TYPE mood ADD VALUE 'new' BEFORE 'ok'")
        await run(one, "ROLLBACK TO s")
        await run(one, "COMMIT")
        assert await labels(one) == ["sad", "ok", "happy"]
        await run(one, "ALTER TYPE mood ADD VALUE 'newer' BEFORE 'ok'")
        assert await labels(two) == ["sad", "newer", "ok", "happy"]

    play(scenario)


def test_a_label_is_used_once_it_is_committed() -> None:
    async def scenario(one: Session, two: Session) -> None:
        await run(one, "BEGIN")
        await run(one, "COMMENT ON TYPE mood IS 'changed before'")
        await run(one, "ALTER TYPE mood ADD VALUE 'new'")
        error = await failure(two, "INSERT INTO t VALUES (1, 'new')")
        assert (error.sqlstate, error.message) == (
            "22P02", 'invalid input value for enum mood: "new"',
        )  # fmt: skip
        await run(one, "COMMIT")
        await run(one, "BEGIN")
        await run(one, "ALTER TYPE mood ADD VALUE 'newer'")
        error = await failure(one, "INSERT INTO t VALUES (1, 'newer')")
        assert (error.sqlstate, error.message) == (
            "55P04", 'unsafe use of new value "newer" of enum type mood',
        )  # fmt: skip
        assert error.hint == "New enum values must be committed before they can be used."
        await run(one, "ROLLBACK")
        await run(two, "INSERT INTO t VALUES (1, 'new')")
        assert (await run_text(one, "SELECT m FROM t"))[0] == [["new"]]

    play(scenario)


def test_changes_of_a_type_wait_for_each_other() -> None:
    async def scenario(one: Session, two: Session) -> None:
        await run(one, "BEGIN")
        await run(one, "ALTER TYPE mood ADD VALUE 'one'")
        added = await waiting(two, "ALTER TYPE mood ADD VALUE 'two'")
        await run(one, "COMMIT")
        await added
        assert await labels(one) == ["sad", "ok", "happy", "one", "two"]
        await run(one, "BEGIN")
        await run(one, "CREATE TABLE u (m mood)")
        dropped = await waiting(two, "DROP TYPE mood CASCADE")
        await run(one, "INSERT INTO u VALUES ('two')")
        await run(one, "COMMIT")
        await dropped
        assert await run(one, "SELECT * FROM u") == [()]
        await run(one, "CREATE TYPE mood AS ENUM ('a')")
        await run(one, "BEGIN")
        await run(one, "DROP TYPE mood")
        created = await waiting(two, "CREATE TABLE v (m mood)")
        await run(one, "COMMIT")
        with pytest.raises(Exception, match="does not exist"):
            await created

    play(scenario)


def test_a_dependent_is_named_with_the_hint_of_postgresql() -> None:
    async def scenario(one: Session, two: Session) -> None:
        error = await failure(one, "DROP TYPE mood")
        assert (error.sqlstate, error.detail, error.hint) == (
            "2BP01", "column m of table t depends on type mood",
            "Use DROP ... CASCADE to drop the dependent objects too.",
        )  # fmt: skip
        error = await failure(one, "CREATE TYPE dup AS ENUM ('a', 'b', 'a')")
        assert (error.sqlstate, error.constraint) == ("23505", "pg_enum_typid_label_index")
        assert (await failure(one, "CREATE TYPE mood AS ENUM ('a')")).sqlstate == "42710"
        assert (await failure(one, "CREATE TYPE t AS ENUM ('a')")).sqlstate == "42710"
        one.notices.clear()
        await run(one, "DROP TYPE mood CASCADE")
        assert [error.message for _, error in one.notices] == [
            "drop cascades to column m of table t"
        ]
        # Rows written before are read by the layout that they were written in.
        await run(two, "INSERT INTO t VALUES (1)")
        assert await run(one, "SELECT * FROM t") == [(1,)]

    play(scenario)


def test_a_read_only_transaction_changes_no_type() -> None:
    async def scenario(one: Session, two: Session) -> None:
        for sql, tag in (
            ("CREATE TYPE other AS ENUM ('a')", "CREATE TYPE"),
            ("ALTER TYPE mood ADD VALUE 'new'", "ALTER TYPE"),
            ("ALTER TYPE mood RENAME TO feeling", "ALTER TYPE"),
            ("DROP TYPE mood", "DROP TYPE"),
        ):
            await run(one, "BEGIN READ ONLY")
            error = await failure(one, sql)
            assert (error.sqlstate, error.message) == (
                "25006", f"cannot execute {tag} in a read-only transaction",
            )  # fmt: skip
            await run(one, "ROLLBACK")
        assert await labels(two) == ["sad", "ok", "happy"]

    play(scenario)


def test_a_view_refuses_what_would_change_its_text() -> None:
    async def scenario(one: Session, two: Session) -> None:
        await run(one, "CREATE VIEW v AS SELECT m, 'sad'::mood AS s FROM t WHERE m <> 'ok'")
        for sql in (
            "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'",
            "ALTER TYPE mood RENAME TO feeling",
            "ALTER TYPE mood SET SCHEMA pg_temp",
            "ALTER SCHEMA public RENAME TO other",
        ):
            assert (await failure(one, sql)).sqlstate in ("0A000", "3F000"), sql
        await run(one, "ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'")
        await run(one, "INSERT INTO t VALUES (1, 'glad'), (2, 'ok')")
        await run(two, "SET search_path = pg_catalog")
        assert (await run_text(two, "SELECT * FROM public.v"))[0] == [["glad", "sad"]]

    play(scenario)


def test_explain_and_errors_name_types_and_labels() -> None:
    async def scenario(one: Session, two: Session) -> None:
        rows = await run(one, "EXPLAIN SELECT * FROM t WHERE m = 'ok' AND m = ANY ('{sad,ok}')")
        shown = "\n".join(str(row[0]) for row in rows)
        assert "'ok'::mood" in shown
        assert "enum_" not in shown
        for sql in (
            "SELECT m + 1 FROM t", "SELECT m = 1 FROM t", "SELECT sum(m) FROM t", "SELECT 1::mood",
            "SELECT CASE WHEN true THEN m ELSE 1 END FROM t", "UPDATE t SET m = 1", "UPDATE t SET id = m",
            "CREATE TABLE u (m int DEFAULT 'sad'::mood)", "ALTER TABLE t ALTER id TYPE mood",
            "SELECT m::int FROM t", "SELECT array_append('{1}'::int[], m) FROM t", "SELECT enum_range(1, m) FROM t",
            "CREATE TABLE u (a int REFERENCES t, b mood REFERENCES t)", "SELECT m FROM t UNION SELECT 1",
            "CREATE TABLE u (a int CHECK ('sad'::mood))", "SELECT * FROM t LIMIT 'sad'::mood",
        ):  # fmt: skip
            error = await failure(one, sql)
            assert "mood" in error.message + error.detail, sql
            assert "enum_" not in error.message.replace("enum_range", "") + error.detail, sql

    play(scenario)


def test_two_clusters_in_a_process_have_types_of_their_own() -> None:
    async def main() -> None:
        async with running_node() as here, running_node() as there:
            oids = []
            for node, values in ((here, "'a', 'b'"), (there, "'x', 'y', 'z'")):
                session = session_of(node)
                await run(session, f"CREATE TYPE mood AS ENUM ({values})")
                await run(session, "CREATE TABLE t (m mood)")
                oids += await run(session, "SELECT 'mood'::regtype::oid::int8")
            assert oids[0] == oids[1]
            assert oids[0][0] in ENUM_OIDS
            for node, label, last in ((here, "b", "b"), (there, "y", "z")):
                session = session_of(node)
                await run(session, f"INSERT INTO t VALUES ('{label}')")
                shown, _ = await run_text(session, "SELECT m, enum_last(m) FROM t")
                assert shown == [[label, last]]

    asyncio.run(main())


def test_a_dropped_database_takes_its_types_along() -> None:
    async def main(node: Node) -> None:
        session = session_of(node)
        await run(session, "CREATE DATABASE other")
        assert node.instance is not None, "running"
        inside = Session(node.instance, user="shardforge", database="other")
        await run(inside, "CREATE TYPE mood AS ENUM ('a')")
        assert (await failure(session, "SELECT 'a'::mood")).sqlstate == "42704"
        await inside.close()
        await run(session, "DROP DATABASE other")
        await run(session, "CREATE DATABASE other")
        inside = Session(node.instance, user="shardforge", database="other")
        assert (await failure(inside, "SELECT 'a'::mood")).sqlstate == "42704"

    async def started() -> None:
        async with running_node() as node:
            await main(node)

    asyncio.run(started())
