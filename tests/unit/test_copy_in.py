"""COPY FROM STDIN as the session takes it: rows read by columns, and what is wrong told by lines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shardforge.errors import QueryError
from shardforge.sql.execute.context import PORTION_ROWS
from tests.inprocess import run, running_node, session_of


def copied(*pieces: str) -> list[Any]:
    """The rows of a table after a COPY of these pieces."""

    async def main() -> list[Any]:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE t (id int PRIMARY KEY, name text, amount numeric)")
            command = "COPY t FROM STDIN"
            session.begin_statement(command)
            prepared = session.prepare(command)
            assert prepared is not None
            copy = (await session.run(prepared, ())).copy_in
            assert copy is not None
            for piece in pieces:
                await copy.feed(piece.encode())
            await copy.finish()
            await session.finish_implicit()
            return await run(session, "SELECT id, name, amount::text FROM t ORDER BY id")

    return asyncio.run(main())


def test_rows_with_and_without_nulls_in_pieces_of_any_size() -> None:
    assert copied("1\ta\t1.50\n2\tb", "\t-0.0\n", "3\t\\N\t\\N\n4\t\\\\N\t7\n", "5\t\t1e3") == [
        (1, "a", "1.50"), (2, "b", "0.0"), (3, None, None), (4, "\\N", "7"), (5, "", "1000"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message", "line"),
    [
        ("1\ta\t1\n2\tb\tx\n3\tc\t1\n", 'invalid input syntax for type numeric: "x"', 2),
        ("1\ta\t1\nx\tb\ty\n", 'invalid input syntax for type integer: "x"', 2),
        ("1\ta\t1\n2\tb\n3\tc\tx\n", 'missing data for column "amount"', 2),
        ("1\ta\tx\n2\tb\n", 'invalid input syntax for type numeric: "x"', 1),
        ("1\ta\t1\n2\tb\t1\n3\tc\t1\t\n", "extra data after last expected column", 3),
        ("1\ta\t1\n1\tb\t1\n", "duplicate key value violates unique constraint", 0),
    ],
)
def test_the_first_line_that_is_wrong_is_named(lines: str, message: str, line: int) -> None:
    with pytest.raises(QueryError, match=message) as failed:
        copied("0\tz\t0\n", lines)
    if line:
        assert failed.value.detail == f"COPY t, line {line + 1}"


def test_one_piece_of_many_rows_lets_others_run_after_each_portion() -> None:
    rows = 20 * PORTION_ROWS
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> list[Any]:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE t (id int PRIMARY KEY)")
            command = "COPY t FROM STDIN"
            session.begin_statement(command)
            prepared = session.prepare(command)
            assert prepared is not None
            copy = (await session.run(prepared, ())).copy_in
            assert copy is not None
            beside = asyncio.create_task(others())
            await copy.feed("".join(f"{n}\n" for n in range(rows)).encode())
            beside.cancel()
            await copy.finish()
            await session.finish_implicit()
            return await run(session, "SELECT count(*) FROM t")

    assert asyncio.run(main()) == [(rows,)]
    assert turns >= 20, "a node that is busy for long sends no heartbeats"
