"""What a connection is told of its commits is true: not before they have ended, also when its node ceases to serve."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shardforge.errors import TransactionError
from shardforge.node import Node
from shardforge.txn.transaction import Transaction
from tests.inprocess import run as run_sql
from tests.inprocess import running_node, session_of
from tests.peers import run, until


async def connect(node: Node) -> asyncpg.Connection:
    host, port = node.address
    return await asyncpg.connect(host=host, port=port, user="shardforge", database="shardforge")


@pytest.mark.interpreted
def test_nothing_is_acknowledged_before_its_commit_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Execute and Sync come together: the Sync meets a session whose commit has begun, and is not settled."""

    async def whole() -> None:
        async with running_node() as node:
            client = await connect(node)
            await client.execute("CREATE TABLE t (id int PRIMARY KEY)")
            insert = await client.prepare("INSERT INTO t VALUES ($1)")
            gate, reached = asyncio.Event(), asyncio.Event()
            commit = Transaction.commit

            async def held(transaction: Transaction) -> None:
                reached.set()
                await gate.wait()
                await commit(transaction)

            monkeypatch.setattr(Transaction, "commit", held)
            told = asyncio.create_task(insert.fetch(1))
            await reached.wait()
            monkeypatch.undo()
            other = await connect(node)
            assert await other.fetchval("SELECT count(*) FROM t") == 0
            assert not told.done()
            gate.set()
            await told
            assert await other.fetchval("SELECT count(*) FROM t") == 1
            await other.close()
            await client.close()

    run("uvloop", whole)


def test_no_commit_is_told_wrongly() -> None:
    async def whole() -> None:
        async with running_node() as node:
            server, instance = node.server, node.instance
            assert server is not None
            assert instance is not None
            first = await connect(node)
            await first.execute("CREATE TABLE t (id serial PRIMARY KEY, n int)")
            await first.close()
            committed = 0
            for moment in range(60):
                clients = [await connect(node) for _ in range(3)]
                sql = "INSERT INTO t (n) VALUES (0)"
                tasks = [asyncio.create_task(client.execute(sql)) for client in clients]
                for _ in range(moment % 20):
                    await asyncio.sleep(0)
                await server.end_tenure(TransactionError("another node leads", "57P01"))
                told = await asyncio.gather(*tasks, return_exceptions=True)
                server.serve(instance)
                for client in clients:
                    client.terminate()
                unknown = [o for o in told if getattr(o, "sqlstate", "") == "40003"]
                done = committed + sum(not isinstance(one, BaseException) for one in told)
                session = session_of(node)
                ((committed,),) = await run_sql(session, "SELECT count(*) FROM t")
                await session.close()
                assert done <= committed <= done + len(unknown)

    run("uvloop", whole)


def test_a_connection_that_waits_for_a_lock_ends_too() -> None:
    async def whole() -> None:
        async with running_node() as node:
            assert node.server is not None
            session = session_of(node)
            await run_sql(session, "CREATE TABLE t (id int PRIMARY KEY)")
            await run_sql(session, "INSERT INTO t VALUES (1)")
            session.begin_block()
            await run_sql(session, "DELETE FROM t")
            client = await connect(node)
            waiting = asyncio.create_task(client.execute("DELETE FROM t"))
            connections = node.server.connections
            await until(lambda: any(c.conversation and c.conversation.running for c in connections))
            await node.server.end_tenure(TransactionError("another node leads", "57P01"))
            (error,) = await asyncio.gather(waiting, return_exceptions=True)
            assert "another node leads" in str(error)
            await session.close()

    run("uvloop", whole)
