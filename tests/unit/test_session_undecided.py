"""A session that goes on before anybody knows how its commit ends: the table locks wait for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import patch

import pytest

from shardforge.errors import TransactionError
from shardforge.shard.command import Outcome
from shardforge.sql.session.session import Session
from shardforge.txn.commit import CommitProcess
from tests.inprocess import run, running_node, session_of

WRITE_IT = CommitProcess._commit_one_shard


def refuse_it(commit: CommitProcess) -> None:
    commit._end(Outcome.REFUSED)


async def _cancelled_in_its_commit(session: Session, sql: str) -> CommitProcess:
    """Run a statement, and cancel it when all that its commit lacks is its record."""
    reached: asyncio.Future[CommitProcess] = asyncio.get_running_loop().create_future()
    with patch.object(
        CommitProcess, "_commit_one_shard", lambda commit: reached.set_result(commit)
    ):
        running = asyncio.ensure_future(run(session, sql))
        commit = await reached
        running.cancel()
        with pytest.raises(TransactionError, match="the outcome of the commit is unknown"):
            await running
    return commit


@pytest.mark.interpreted
@pytest.mark.parametrize(("decide", "indexes"), [(WRITE_IT, 1), (refuse_it, 0)])
def test_table_locks_stay_until_a_commit_is_decided(
    decide: Callable[[CommitProcess], None], indexes: int
) -> None:
    async def main() -> None:
        async with running_node() as node:
            session, writer, reader = (session_of(node) for _ in range(3))
            await run(session, "CREATE TABLE t (id int PRIMARY KEY, v int)")
            commit = await _cancelled_in_its_commit(session, "CREATE INDEX by_v ON t (v)")
            assert await run(reader, "SELECT 1") == [(1,)]
            await run(reader, "SET lock_timeout = '20ms'")
            with pytest.raises(Exception, match="lock timeout"):
                await run(reader, "INSERT INTO t VALUES (2, 2)")
            writing = asyncio.ensure_future(run(writer, "INSERT INTO t VALUES (1, 1)"))
            decide(commit)
            await writing
            assert await run(reader, "SELECT id FROM t WHERE v = 1") == [(1,)]
            found = await run(reader, "SELECT count(*) FROM pg_indexes WHERE indexname = 'by_v'")
            assert found == [(indexes,)]
            await run(session, "DROP TABLE t")

    asyncio.run(main())
