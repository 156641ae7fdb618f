"""ALTER TABLE writes a table's rows again while psycopg clients write to it, against a real process."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

ROWS = 20_000
WRITERS = 4
CHANGES = (
    "ALTER TABLE moved ALTER n TYPE bigint USING n + 0",
    "ALTER TABLE moved SET (shard_key = 'id')",
    "ALTER TABLE moved ADD COLUMN drawn float DEFAULT random()",
)


class Writer(threading.Thread):
    """Writes rows of its own, and knows what they have to be."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        super().__init__()
        self.rows: dict[int, tuple[int, int]] = {
            key: (key % 7, key) for key in range(number, ROWS, WRITERS)
        }
        self.committed = 0
        self.over = threading.Event()
        self._server, self._number = server, number
        self._choice = random.Random(number)

    def run(self) -> None:
        with self._server.connect() as connection:
            while not self.over.is_set():
                self._write(connection)
                self.committed += 1

    def _write(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        key = self._choice.randrange(ROWS + 2000) // WRITERS * WRITERS + self._number
        value, there = self._choice.randrange(7), self.rows.pop(key, None)
        if there is None:
            unique = ROWS + self.committed * WRITERS + self._number
            connection.execute("INSERT INTO moved VALUES (%s, %s, %s)", (key, value, unique))
            self.rows[key] = (value, unique)
        elif value == 0:
            connection.execute("DELETE FROM moved WHERE id = %s", (key,))
        elif value == 1:
            with connection.transaction():
                connection.execute("DELETE FROM moved WHERE id = %s", (key,))
                connection.execute("INSERT INTO moved VALUES (%s, 1, %s)", (key, there[1]))
            self.rows[key] = (1, there[1])
        elif value == 2:
            moved = key + 10**6
            connection.execute("UPDATE moved SET id = %s WHERE id = %s", (moved, key))
            self.rows[moved] = there
        else:
            connection.execute("UPDATE moved SET n = %s WHERE id = %s", (value, key))
            self.rows[key] = (value, there[1])


@pytest.fixture
def writers(server: ServerProcess) -> Iterator[list[Writer]]:
    """Writers that have begun."""
    with server.connect() as setup:
        setup.execute("CREATE TABLE moved (id int PRIMARY KEY, n int, u int UNIQUE)")
        setup.execute("CREATE INDEX moved_n ON moved (n)")
        setup.execute(f"INSERT INTO moved SELECT g, g % 7, g FROM generate_series(0, {ROWS - 1}) g")
    begun = [Writer(server, number) for number in range(WRITERS)]
    for writer in begun:
        writer.start()
    yield begun
    for writer in begun:
        writer.over.set()
        writer.join(60)
    with server.connect() as setup:
        setup.execute("DROP TABLE moved")


def test_writers_commit_while_rows_are_written_again(
    server: ServerProcess, writers: list[Writer]
) -> None:
    with server.connect() as connection:
        for sql in CHANGES:
            before = sum(writer.committed for writer in writers)
            connection.execute(sql)
            assert sum(writer.committed for writer in writers) > before + 10 * WRITERS, sql
        for writer in writers:
            writer.over.set()
        for writer in writers:
            writer.join(60)
        expected = {key: row for writer in writers for key, row in writer.rows.items()}
        found = connection.execute("SELECT id, n, u FROM moved").fetchall()
        assert {row[0]: row[1:] for row in found} == expected
        assert len(found) == len(expected)
        assert connection.execute(
            "SELECT count(*) FROM moved WHERE drawn BETWEEN 0 AND 1"
        ).fetchone() == (len(expected),)
        for n in range(7):
            by_index = connection.execute("SELECT id, u FROM moved WHERE n = %s", (n,)).fetchall()
            by_table = connection.execute(
                "SELECT id, u FROM moved WHERE n + 0 = %s", (n,)
            ).fetchall()
            assert sorted(by_index) == sorted(by_table)
        for key in random.Random(1).sample(sorted(expected), 200):
            by_unique = connection.execute("SELECT id FROM moved WHERE u = %s", (expected[key][1],))
            assert by_unique.fetchall() == [(key,)]
