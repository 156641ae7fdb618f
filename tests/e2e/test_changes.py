"""Change feeds and commit keys as drivers use them, against real processes that are killed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psycopg
import pytest

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e


def test_a_feed_streams_to_a_client_that_may_go_at_any_time(server: ServerProcess) -> None:
    with server.connect() as setup:
        setup.execute("CREATE TABLE fed (id int PRIMARY KEY, v text)")
        setup.execute("INSERT INTO fed VALUES (1, 'a')")
    rows: list[tuple[str, str | None]] = []
    with server.connect() as reader, server.connect() as writer:

        def read() -> None:
            feed = "COPY fed TO STDOUT (CHANGEFEED, INITIAL_SCAN, RESOLVED 0.1)"
            with reader.cursor() as cursor, cursor.copy(feed) as copy:
                for _, event, _before, after in copy.rows():
                    rows.append((event, after))
                    if event == "initial":
                        writer.execute("UPDATE fed SET v = E'b\\tc' WHERE id = 1")
                    if event == "update":
                        reader.cancel()

        with pytest.raises(psycopg.errors.QueryCanceled):
            read()
        assert reader.execute("SELECT count(*) FROM fed").fetchone() == (1,)
    changed = [json.loads(after) for event, after in rows if event == "update" and after]
    assert changed == [{"id": 1, "v": "b\tc"}]
    leaving = server.connect()
    copy = leaving.cursor().copy("COPY fed TO STDOUT (CHANGEFEED)")
    copy.__enter__()
    leaving.pgconn.finish()
    with server.connect() as other:
        other.execute("SET lock_timeout = '20s'")
        other.execute("DROP TABLE fed")


def test_commit_keys_count_once_under_kill_nine(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    try:
        with server.connect() as setup:
            setup.execute("CREATE TABLE counter (id int PRIMARY KEY, n int)")
            setup.execute("INSERT INTO counter SELECT i, 0 FROM generate_series(0, 3) i")
            over = threading.Event()
        done: list[int] = []

        def use(worker: int) -> None:
            number = 0
            while not over.is_set():
                _insist(server, f"{worker}-{number}", number % 4)
                number += 1
            done.append(number)

        workers = [threading.Thread(target=use, args=(worker,)) for worker in range(4)]
        for worker in workers:
            worker.start()
        for _ in range(4):
            over.wait(0.7)
            server.kill()
            server.start()
        over.set()
        for worker in workers:
            worker.join(60)
        with server.connect() as judge:
            assert judge.execute("SELECT sum(n) FROM counter").fetchone() == (sum(done),)
        assert len(done) == 4
    finally:
        server.kill()


def _insist(server: ServerProcess, key: str, counter: int) -> None:
    """Repeat the transaction until it is acknowledged."""
    pause = threading.Event()
    while True:
        try:
            with server.connect(autocommit=False) as connection:
                connection.execute("SELECT set_config('shardforge.commit_key', %s, true)", (key,))
                connection.execute("UPDATE counter SET n = n + 1 WHERE id = %s", (counter,))
                connection.commit()
        except psycopg.OperationalError:
            pause.wait(0.02)
            continue
        return
