"""LISTEN and NOTIFY beyond what a script of sessions shows: at once, limits, slow readers, commits in doubt."""

from __future__ import annotations

import asyncio
import struct
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest

from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.server.pgwire import backend
from shardforge.shard.command import Outcome
from shardforge.sql.session import channels
from shardforge.sql.session.channels import Notification
from shardforge.sql.session.session import Session
from shardforge.txn.commit import CommitProcess
from tests.inprocess import failure, run, running_node, session_of
from tests.peers import run as run_on
from tests.peers import until

Told = tuple[int, str, str]
WRITE_IT = CommitProcess._commit_one_shard


class Heard:
    """A session's receiver that takes what comes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.error: DatabaseError | None = None
        session.channels.receiver = self

    def wake(self) -> None:
        pass

    def end(self, error: DatabaseError) -> None:
        self.error = error

    def take(self) -> list[str]:
        """The payloads since the last time."""
        return [one.payload for one in self._session.channels.take()]


async def connect(node: Node) -> asyncpg.Connection:
    host, port = node.address
    return await asyncpg.connect(host=host, port=port, user="shardforge", database="shardforge")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_idle_client_is_told_at_once_and_in_commit_order(loop: str) -> None:
    async def body() -> None:
        async with running_node() as node:
            listener, one, two = [await connect(node) for _ in range(3)]
            told: asyncio.Queue[Told] = asyncio.Queue()

            def hear(_: Any, pid: int, channel: str, payload: Any) -> None:
                told.put_nowait((pid, channel, payload))

            await listener.add_listener("news", hear)
            await one.execute("BEGIN; SELECT pg_notify('news', 'first to notify')")
            await two.execute("SELECT pg_notify('news', 'first to commit')")
            await one.execute("COMMIT")
            pids = [connection.get_server_pid() for connection in (one, two)]
            assert await told.get() == (pids[1], "news", "first to commit")
            assert await told.get() == (pids[0], "news", "first to notify")
            await listener.remove_listener("news", hear)
            await one.execute("NOTIFY news, 'not listened to'")
            assert told.empty()
            for connection in (listener, one, two):
                await connection.close()
            assert node.instance is not None
            await until(lambda: not node.instance.sessions)  # type: ignore[union-attr]
            assert not node.instance.channels._listeners

    run_on(loop, body)


def test_a_client_that_goes_is_forgotten() -> None:
    async def main() -> None:
        async with running_node() as node:
            listener, sender = await connect(node), session_of(node)
            await listener.execute("LISTEN one; LISTEN two")
            assert node.instance is not None
            assert len(node.instance.channels._listeners) == 2
            listener.terminate()
            await until(lambda: not node.instance.channels._listeners)  # type: ignore[union-attr]
            await run(sender, "NOTIFY one")
            await sender.close()

    run_on("asyncio", main)


def test_a_database_has_its_own_channels() -> None:
    async def main() -> None:
        async with running_node() as node:
            sender, near = session_of(node), session_of(node)
            await run(sender, "CREATE DATABASE other")
            assert node.instance is not None
            far = Session(node.instance, user="shardforge", database="other")
            heard = [Heard(near), Heard(far)]
            for session in (near, far):
                await run(session, "LISTEN a")
            await run(sender, "NOTIFY a, 'here'")
            assert [one.take() for one in heard] == [["here"], []]

    run_on("asyncio", main)


def test_who_does_not_receive_is_ended_and_nobody_waits_for_it() -> None:
    async def main() -> None:
        async with running_node() as node:
            listener, other, sender = [await connect(node) for _ in range(3)]
            for connection in (listener, other):
                await connection.execute("LISTEN a")
            await listener.execute("BEGIN")
            with patch.object(channels, "INBOX_BYTES_MAX", 100_000):
                for _ in range(12):
                    await sender.execute("SELECT pg_notify('a', repeat('x', 7999))")
                usage = await sender.fetchval("SELECT pg_notification_queue_usage()")
                assert 0.9 < usage < 1
                for _ in range(2):
                    await sender.execute("SELECT pg_notify('a', repeat('x', 7999))")
                await until(listener.is_closed)
            assert await other.fetchval("SELECT 1") == 1
            assert await sender.fetchval("SELECT pg_notification_queue_usage()") == 0
            await other.close()
            await sender.close()

    run_on("asyncio", main)


def startup() -> bytes:
    names = b"user\0shardforge\0database\0shardforge\0\0"
    return struct.pack("!II", 8 + len(names), 196608) + names


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_that_does_not_read_holds_a_bounded_amount(loop: str) -> None:
    async def body() -> None:
        async with running_node() as node:
            sender = await connect(node)
            reader, writer = await asyncio.open_connection(*node.address, limit=1024)
            writer.write(startup() + backend.message(b"Q", b"LISTEN a\0"))
            await reader.readuntil(b"LISTEN\0Z\0\0\0\5I")
            assert node.server is not None
            stuck = next(
                c for c in node.server.connections
                if c.conversation and c.conversation.session.channels.listening
            )  # fmt: skip
            sent = 0
            while stuck.terminated is None:
                await sender.execute(
                    "SELECT pg_notify('a', i || repeat('x', 7900)) FROM generate_series(1, 1000) i"
                )
                sent += 1
                assert sent < 20
            assert stuck.terminated.sqlstate == "54000"
            assert sent > 2  # as much as an inbox holds, at least
            await until(lambda: stuck not in node.server.connections)  # type: ignore[union-attr]
            await sender.close()
            # It is told, if it reads at last, and everything before that is whole.
            rest = await reader.read(-1)
            assert b"SFATAL\0VFATAL\0C54000\0Mterminating connection because" in rest
            writer.close()

    run_on(loop, body)


def test_a_slow_reader_gets_everything_in_order() -> None:
    async def main() -> None:
        async with running_node() as node:
            sender = await connect(node)
            reader, writer = await asyncio.open_connection(*node.address, limit=1024)
            writer.write(startup() + backend.message(b"Q", b"LISTEN a\0"))
            await reader.readuntil(b"LISTEN\0Z\0\0\0\5I")
            payloads = "SELECT pg_notify('a', i || repeat('x', 7000)) FROM generate_series($1::int, $1 + 999) i"
            for first in (0, 1000):
                await sender.fetch(payloads, first)
            for number in range(2000):
                kind, size = struct.unpack("!cI", await reader.readexactly(5))
                body = await reader.readexactly(size - 4)
                assert kind == b"A"
                assert body[4:].split(b"\0")[1].rstrip(b"x") == str(number).encode()
            writer.close()
            await sender.close()

    run_on("asyncio", main)


def test_a_transaction_sends_a_bounded_amount() -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            many = "SELECT pg_notify('a', i::text) FROM generate_series(1, 100) i"
            with patch.object(channels, "SENT_BYTES_MAX", 5000):
                error = await failure(session, many)
            assert (error.sqlstate, error.message) == (
                "54000",
                "too many notifications in the NOTIFY queue",
            )
            await run(session, many)

    run_on("asyncio", main)


def test_a_session_listens_to_a_bounded_number() -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            Heard(session)
            with patch.object(channels, "CHANNELS_MAX", 2):
                await run(session, "LISTEN a")
                await run(session, "LISTEN b")
                assert (await failure(session, "LISTEN c")).sqlstate == "53400"
            assert list(session.channels.listening) == ["a", "b"]

    run_on("asyncio", main)


def test_what_cannot_be_told_anything_does_not_listen() -> None:
    async def main() -> None:
        async with running_node() as node:
            assert (await failure(session_of(node), "LISTEN a")).sqlstate == "0A000"

    run_on("asyncio", main)


def refuse_it(commit: CommitProcess) -> None:
    commit._end(Outcome.REFUSED)


def lose_it(commit: CommitProcess) -> None:
    commit._end(Outcome.UNKNOWN)


@pytest.mark.interpreted
@pytest.mark.parametrize(("decide", "told"), [(WRITE_IT, ["news"]), (refuse_it, []), (lose_it, [])])
def test_a_commit_in_doubt_tells_nobody_before_it_is_known(decide: Any, told: list[str]) -> None:
    async def main() -> None:
        async with running_node() as node:
            session, listener = session_of(node), session_of(node)
            heard = Heard(listener)
            await run(listener, "LISTEN a")
            await run(session, "CREATE TABLE t (id int PRIMARY KEY)")
            reached: asyncio.Future[CommitProcess] = asyncio.get_running_loop().create_future()
            with patch.object(
                CommitProcess, "_commit_one_shard", lambda commit: reached.set_result(commit)
            ):
                sql = "WITH new AS (INSERT INTO t VALUES (1) RETURNING id) SELECT pg_notify('a', 'news') FROM new"
                running = asyncio.ensure_future(run(session, sql))
                commit = await reached
                running.cancel()
                with pytest.raises(DatabaseError) as caught:
                    await running
            assert caught.value.sqlstate == "40003"
            await run(session, "NOTIFY a, 'later'")
            assert heard.take() == ["later"]
            decide(commit)
            committing = commit._coordinator.committing
            await until(lambda: commit._transaction.id not in committing)
            assert heard.take() == told

    run_on("asyncio", main)


@pytest.mark.parametrize(
    ("data", "only"),
    [
        (b"", True),
        (backend.notification_response(7, "a", "b"), True),
        (backend.notification_response(7, "a", "b") * 3, True),
        (backend.notification_response(7, "a", "b")[:-1], False),
        (backend.notification_response(7, "a", "b") + b"Z", False),
        (backend.notification_response(7, "a", "b") + b"A\0\0\0", False),
        (backend.READY["I"], False),
        (b"A\0\0\0\0", False),
    ],
)
def test_an_idle_client_stays_idle_when_it_is_told_something(data: bytes, only: bool) -> None:
    assert backend.only_notifications(data) is only


def test_a_notification_s_bytes() -> None:
    message = backend.notification_response(*Notification(258, "ch", "é"))
    assert message == b"A\0\0\0\x0e\0\0\1\2ch\0\xc3\xa9\0"
