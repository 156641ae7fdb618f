"""Indexes and rewritten tables of more rows than one batch: duplicates are found wherever they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.errors import DatabaseError
from shardforge.sql.ddl.bulk import BATCH
from shardforge.sql.session.session import Session
from tests.inprocess import run, running_node, session_of

ROWS = BATCH * 2 + 500


def play(scenario: Callable[[Session], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE t (a int, b int, c int)")
            await run(
                session, f"INSERT INTO t SELECT i, i % 10, NULL FROM generate_series(1, {ROWS}) i"
            )
            await scenario(session)

    asyncio.run(main())


async def refusal(session: Session, sql: str) -> tuple[str, str, str | None]:
    with pytest.raises(DatabaseError) as failed:
        await run(session, sql)
    return failed.value.sqlstate, failed.value.message, failed.value.detail


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("CREATE UNIQUE INDEX u ON t (a)", "u"),
        ("ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY (a)", "k"),
        ("ALTER TABLE t ADD CONSTRAINT q UNIQUE (a)", "q"),
    ],
)
def test_two_rows_with_one_key_in_different_batches(statement: str, name: str) -> None:
    async def scenario(session: Session) -> None:
        await run(session, f"UPDATE t SET a = 7 WHERE a = {ROWS}")
        expected = (
            "23505",
            f'could not create unique index "{name}"',
            "Key (a)=(7) is duplicated.",
        )
        assert await refusal(session, statement) == expected
        await run(session, f"UPDATE t SET a = {ROWS} WHERE a = 7 AND b = {ROWS % 10}")
        assert await run(session, "SELECT count(*), count(DISTINCT a) FROM t") == [(ROWS, ROWS)]
        await run(session, statement)
        assert await run(session, f"SELECT b FROM t WHERE a = {ROWS}") == [(ROWS % 10,)]

    play(scenario)


def test_nulls_are_not_duplicates() -> None:
    async def scenario(session: Session) -> None:
        await run(session, "CREATE UNIQUE INDEX ON t (c)")
        await run(session, "ALTER TABLE t ADD PRIMARY KEY (a)")
        assert await run(session, "SELECT count(*) FROM t WHERE c IS NULL") == [(ROWS,)]

    play(scenario)


def test_a_rewritten_table_has_all_its_rows_and_entries() -> None:
    async def scenario(session: Session) -> None:
        await run(session, "CREATE INDEX ON t (b)")
        await run(session, "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD PRIMARY KEY (a)")
        assert await run(session, "SELECT count(*), sum(a) FROM t") == [
            (ROWS, ROWS * (ROWS + 1) // 2)
        ]
        assert await run(session, "SELECT count(*) FROM t WHERE b = 3") == [(ROWS // 10,)]
        assert (await refusal(session, "INSERT INTO t VALUES (5, 1, 1)"))[0] == "23505"

    play(scenario)


def test_rows_that_numbers_name_can_be_changed_in_the_transaction_that_made_them() -> None:
    async def scenario(session: Session) -> None:
        await run(session, "BEGIN")
        await run(session, "INSERT INTO t VALUES (-1, 1, 1), (-2, 2, 2)")
        await run(session, "SAVEPOINT s")
        await run(session, "UPDATE t SET b = 99 WHERE a < 0")
        await run(session, "INSERT INTO t VALUES (-3, 3, 3)")
        await run(session, "ROLLBACK TO s")
        await run(session, "DELETE FROM t WHERE a = -2")
        await run(session, "COMMIT")
        assert await run(session, "SELECT * FROM t WHERE a < 0") == [(-1, 1, 1)]

    play(scenario)
