"""LISTEN and NOTIFY with real drivers and psql, and in a cluster whose listeners connect to other nodes."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from typing import Any

import asyncpg
import psycopg
import pytest

from shardforge.testing import cluster
from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 20.0


def told(connection: psycopg.Connection[Any], count: int) -> list[tuple[int, str, str]]:
    """The next notifications, as they come."""
    found = connection.notifies(timeout=PATIENCE_SECONDS, stop_after=count)
    return [(one.pid, one.channel, one.payload) for one in found]


def test_psycopg_waits_for_notifications(server: ServerProcess) -> None:
    with server.connect() as listener, server.connect(autocommit=False) as sender:
        listener.execute("LISTEN news", prepare=True)
        pid = sender.info.backend_pid
        timer = threading.Timer(0.05, sender.commit)
        sender.execute("SELECT pg_notify(%s, %s)", ("news", "one"), prepare=True)
        sender.execute("NOTIFY news, 'two'", prepare=True)
        timer.start()
        assert told(listener, 2) == [(pid, "news", "one"), (pid, "news", "two")]
        timer.join()
        sender.execute("NOTIFY news, 'never'")
        sender.rollback()
        sender.execute("NOTIFY news, 'three'")
        sender.commit()
        assert told(listener, 1) == [(pid, "news", "three")]


def test_psycopg_in_a_transaction_is_told_behind_it(server: ServerProcess) -> None:
    with server.connect(autocommit=False) as listener, server.connect() as sender:
        got: list[str] = []
        listener.add_notify_handler(lambda notify: got.append(notify.payload))
        listener.execute("LISTEN news")
        listener.commit()
        listener.execute("SELECT 1")
        sender.execute("NOTIFY news, 'meanwhile'")
        listener.execute("SELECT 2")
        assert not got
        listener.commit()
        assert got == ["meanwhile"]
        listener.execute("NOTIFY news, 'its own'")
        listener.commit()
        assert got == ["meanwhile", "its own"]


def test_pipelines_tell_between_their_transactions(server: ServerProcess) -> None:
    with server.connect() as connection:
        got: list[str] = []
        connection.add_notify_handler(lambda notify: got.append(notify.payload))
        with connection.pipeline() as pipeline:
            connection.execute("LISTEN news")
            pipeline.sync()
            for number in range(20):
                connection.execute("SELECT pg_notify('news', %s)", (str(number),))
                if number % 5 == 4:
                    pipeline.sync()
        assert got == [str(number) for number in range(20)]


def test_asyncpg_listeners(server: ServerProcess) -> None:
    async def go() -> None:
        where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port}
        where |= {"user": "shardforge", "database": "shardforge"}
        listener, sender = await asyncpg.connect(**where), await asyncpg.connect(**where)
        queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        await listener.add_listener("news", lambda _, pid, __, text: queue.put_nowait((pid, text)))
        pid = sender.get_server_pid()
        await sender.execute("SELECT pg_notify('news', $1)", "autocommit")
        assert await asyncio.wait_for(queue.get(), PATIENCE_SECONDS) == (pid, "autocommit")
        async with sender.transaction():
            await sender.execute("NOTIFY news, 'in a transaction'")
            assert await listener.fetchval("SELECT 1") == 1
            assert queue.empty()
        assert await asyncio.wait_for(queue.get(), PATIENCE_SECONDS) == (pid, "in a transaction")
        await listener.reset()
        assert await listener.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0
        await listener.close()
        await sender.close()

    asyncio.run(go())


def test_psql_prints_what_it_is_told(server: ServerProcess) -> None:
    script = "LISTEN x;\nNOTIFY x;\nNOTIFY x, 'text';\nSELECT 'pid', pg_backend_pid();\n"
    ran = subprocess.run(
        ["psql", "-X", "-A", "-t", server.dsn],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ran.stdout.splitlines()
    pid = next(line.split("|")[1] for line in lines if line.startswith("pid|"))
    told = f'Asynchronous notification "x" %sreceived from server process with PID {pid}.'
    assert told % "" in lines
    assert told % 'with payload "text" ' in lines


def test_listeners_of_a_cluster_are_told_at_every_node() -> None:
    with cluster(nodes=3) as made:
        serving = made.serving
        others = [node for node in made.nodes if node != serving]
        listeners = [psycopg.connect(made.node_dsn(node), autocommit=True) for node in made.nodes]
        for listener in listeners:
            listener.execute("LISTEN news")
        with psycopg.connect(made.node_dsn(others[0]), autocommit=True) as sender:
            sender.execute("CREATE TABLE t (a int PRIMARY KEY)")
            with sender.transaction():
                sender.execute("INSERT INTO t VALUES (1)")
                sender.execute("NOTIFY news, 'a row'")
            pid = sender.info.backend_pid
            for listener in listeners:
                assert told(listener, 1) == [(pid, "news", "a row")]
                assert listener.execute("SELECT count(*) FROM t").fetchone() == (1,)
        made.kill(serving)
        # Its sessions are gone with it: a listener connects again, and listens again.
        for listener in listeners:
            with pytest.raises(psycopg.OperationalError):
                list(listener.notifies(timeout=PATIENCE_SECONDS))
        with (
            psycopg.connect(made.dsn, autocommit=True) as listener,
            psycopg.connect(made.dsn, autocommit=True) as sender,
        ):
            listener.execute("LISTEN news")
            sender.execute("NOTIFY news, 'again'")
            assert [payload for _, _, payload in told(listener, 1)] == ["again"]
