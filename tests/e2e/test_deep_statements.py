"""A server bears deep statements: its stack and recursion limit are raised together."""

from __future__ import annotations

import psycopg
import pytest

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

TOO_DEEP = (psycopg.errors.StatementTooComplex, psycopg.errors.SyntaxError)
"""Ours, or that of PostgreSQL's grammar, whose stack ends at 10,000 symbols."""


@pytest.mark.parametrize(
    ("before", "inside", "after"),
    [
        ("(1+", "1", ")"),
        ("abs(", "1", ")"),
        ("case when true then ", "1", " end"),
        ("(select ", "1", ")"),
        ("1 * -(", "1", ")"),
    ],
)
def test_nesting_on_a_server(server: ServerProcess, before: str, inside: str, after: str) -> None:
    with server.connect() as connection:
        connection.autocommit = True
        for depth in (200, 4_000):
            statement = f"SELECT {before * depth}{inside}{after * depth}"
            if depth == 200:
                assert connection.execute(statement.encode()).fetchone() is not None
            else:
                with pytest.raises(TOO_DEEP):
                    connection.execute(statement.encode())
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_long_chains_are_no_nesting(server: ServerProcess) -> None:
    with server.connect() as connection:
        for statement in (
            "SELECT 1" + " + 1" * 1000,
            "SELECT 1 WHERE true" + " AND true" * 5000,
            "SELECT 1" + " UNION ALL SELECT 1" * 500,
        ):
            assert connection.execute(statement.encode()).fetchone() is not None
