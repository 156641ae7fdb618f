"""Uncommitted writes have a limit in memory, all of a node together; what has ended holds nothing of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from shardforge.errors import DatabaseError, QueryError
from shardforge.machine import memory_bytes
from shardforge.txn.writes import FREE_BYTES, GRANT_BYTES, WRITE_BYTES, WriteBuffer, WriteMemory
from tests.inprocess import MEMORY, run, running_node, session_of

MIB = 1 << 20


def test_a_container_may_have_less_than_the_machine(tmp_path: Path) -> None:
    whole = memory_bytes([tmp_path / "none"])
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "small").write_text(f"{whole // 3}\n")
    assert memory_bytes([tmp_path / "max"]) == whole
    assert memory_bytes([tmp_path / "max", tmp_path / "small"]) == whole // 3
    assert MEMORY.sql.transaction_bytes == memory_bytes() // 2


def test_a_small_transaction_asks_nobody() -> None:
    memory = WriteMemory(0)
    buffer = WriteBuffer(memory)
    for number in range(FREE_BYTES // (WRITE_BYTES + 100)):
        buffer.set(b"%08d" % number, bytes(80))
    assert memory.used == 0


def test_what_is_too_much_is_refused_and_given_back() -> None:
    memory = WriteMemory(4 * GRANT_BYTES)
    one, other = WriteBuffer(memory), WriteBuffer(memory)
    one.set(b"a", bytes(GRANT_BYTES))
    other.set(b"b", bytes(GRANT_BYTES))
    with pytest.raises(QueryError) as caught:
        one.set(b"c", bytes(2 * GRANT_BYTES))
    assert caught.value.sqlstate == "53200"
    assert "sql.transaction_memory" in caught.value.hint
    other.forget()
    one.set(b"c", bytes(GRANT_BYTES // 2))
    one.forget()
    assert memory.used == 0


def test_large_values_count_whole_and_what_is_written_again_counts_once() -> None:
    memory = WriteMemory(64 * GRANT_BYTES)
    buffer = WriteBuffer(memory)
    buffer.set(b"large", bytes(32 * GRANT_BYTES))
    assert memory.used >= 32 * GRANT_BYTES - FREE_BYTES
    before = memory.used
    for _ in range(100):
        buffer.set(b"large", bytes(32 * GRANT_BYTES))
    assert memory.used == before
    buffer.set(b"large", None)
    buffer.set(b"other", bytes(16 * GRANT_BYTES))
    assert memory.used == before
    buffer.position()  # what a savepoint may bring back is kept
    buffer.set(b"other", bytes(30 * GRANT_BYTES))
    assert memory.used > before


async def given_back(memory: WriteMemory) -> None:
    """A large transaction ends behind its answer."""
    async with asyncio.timeout(20):
        while memory.used:  # noqa: ASYNC110 - another task's
            await asyncio.sleep(0)


def test_a_statement_that_writes_too_much_fails_and_others_go_on() -> None:
    async def test() -> None:
        small = replace(MEMORY, sql=replace(MEMORY.sql, transaction_memory=16 * MIB))
        async with running_node(small) as node:
            session = session_of(node)
            memory = session.instance.store.coordinator.memory
            await run(session, "CREATE TABLE t (a int PRIMARY KEY, b text)")
            await run(session, "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 5000) g")
            await given_back(memory)
            with pytest.raises(DatabaseError) as caught:
                await run(
                    session, "INSERT INTO t SELECT g, 'x' FROM generate_series(5001, 90000) g"
                )
            assert caught.value.sqlstate == "53200"
            await given_back(memory)
            await run(session, "BEGIN")
            await run(session, "UPDATE t SET b = repeat('y', 1000)")
            assert memory.used > MIB
            await run(session, "ROLLBACK")
            await given_back(memory)
            assert await run(session, "SELECT count(*), max(b) FROM t") == [(5000, "x")]

    asyncio.run(test())
