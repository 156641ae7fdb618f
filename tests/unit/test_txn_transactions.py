"""Transactions: locks that wait, time out and deadlock; savepoints; own writes; what the end releases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardforge.adapters.clock import SystemClock
from shardforge.config import Config
from shardforge.errors import TransactionError
from shardforge.txn.coordinator import Isolation, LockStrength, Transaction, WaitPolicy
from shardforge.txn.store import Store, open_store
from tests.inline import Inline

RC, RR, SER = Isolation
UPDATE = LockStrength.UPDATE
A, B, C = b"h\x00\x00a", b"h\x00\x3fb", b"h\x00\x3fc"


def on_store(test: Callable[[Store], Awaitable[None]]) -> None:
    """Run `test` on a fresh store; afterwards nothing may be left behind."""

    async def run() -> None:
        store = await open_store(None, Config(), SystemClock(), Inline())
        try:
            await asyncio.wait_for(test(store), 5)
            await store.host.drain()
            figures = store.metrics()
            for name in ("locks_held", "locks_waiting", "snapshots_active", "transactions_active"):
                assert figures[name] == 0, name
        finally:
            await store.close()

    asyncio.run(run())


async def lock(transaction: Transaction, *keys: bytes, policy=WaitPolicy.BLOCK, strength=UPDATE):
    return await transaction.lock(keys, strength, policy)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_lock_waits_for_the_commit_and_returns_what_it_wrote():
    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(one, A, B)
        waiting = asyncio.create_task(lock(two, A))
        await settle()
        assert not waiting.done()
        one.put(A, b"new")
        one.put(B, b"new")
        await one.commit()
        assert [(row.value, row.changed) for row in await waiting] == [(b"new", False)]
        await two.rollback()

    on_store(test)


def test_nowait_and_skip_locked():
    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(one, A)
        with pytest.raises(TransactionError) as caught:
            await lock(two, A, policy=WaitPolicy.ERROR)
        assert caught.value.sqlstate == "55P03"
        rows = await lock(two, A, B, policy=WaitPolicy.SKIP)
        assert [row.granted for row in rows] == [False, True]
        await one.rollback()
        await two.rollback()

    on_store(test)


def test_lock_timeout():
    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(one, A)
        two.lock_timeout_ms = 1
        with pytest.raises(TransactionError) as caught:
            await lock(two, A)
        assert caught.value.sqlstate == "55P03"
        assert caught.value.message == "canceling statement due to lock timeout"
        await one.rollback()
        await two.rollback()

    on_store(test)


def test_a_cancelled_wait_leaves_nothing_behind():
    async def test(store: Store) -> None:
        one, two, three = (store.coordinator.begin(RC) for _ in range(3))
        await lock(one, A)
        waiting = asyncio.create_task(lock(two, A))
        behind = asyncio.create_task(lock(three, A))
        await settle()
        waiting.cancel()
        await settle()
        await one.rollback()
        await behind
        await two.rollback()
        await three.rollback()

    on_store(test)


def test_a_wait_cancelled_in_the_turn_of_its_grant_is_released():
    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(one, A)
        waiting = asyncio.create_task(lock(two, A))
        await settle()
        await one.rollback()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await two.rollback()

    on_store(test)


def test_a_deadlock_over_two_shards_has_one_victim_at_once():
    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(one, A)
        await lock(two, B)
        first = asyncio.create_task(lock(one, B))
        await settle()
        with pytest.raises(TransactionError) as caught:
            await lock(two, A)
        assert caught.value.sqlstate == "40P01"
        assert not first.done()
        await two.rollback()
        await first
        await one.rollback()

    on_store(test)


def test_a_deadlock_may_end_another_than_the_one_that_closed_it():
    async def test(store: Store) -> None:
        old, young = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(old, A)
        await lock(young, B)
        victim = asyncio.create_task(lock(young, A))
        await settle()
        closing = asyncio.create_task(lock(old, B))
        await settle()
        with pytest.raises(TransactionError) as caught:
            await victim
        assert caught.value.sqlstate == "40P01"
        await young.rollback()
        await closing
        await old.rollback()

    on_store(test)


def test_own_writes_show_in_reads_and_scans():
    async def test(store: Store) -> None:
        setup = store.coordinator.begin(RC)
        await lock(setup, A, B)
        setup.put(A, b"1")
        setup.put(B, b"1")
        await setup.commit()
        transaction = store.coordinator.begin(RR)
        await lock(transaction, A, C)
        transaction.delete(A)
        transaction.put(C, b"2")
        assert await transaction.get(A) is None
        assert await transaction.get_many([B, C]) == [b"1", b"2"]
        forwards = [row async for chunk in transaction.scan(b"h", b"i") for row in chunk]
        backwards = [
            row async for chunk in transaction.scan(b"h", b"i", reverse=True) for row in chunk
        ]
        assert forwards == [(B, b"1"), (C, b"2")]
        assert backwards == forwards[::-1]
        await transaction.rollback()
        assert await store.coordinator.read_latest(A) == b"1"

    on_store(test)


def test_savepoints_take_back_writes_and_locks():
    async def test(store: Store) -> None:
        transaction, other = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(transaction, A)
        transaction.put(A, b"1")
        outer = transaction.savepoint()
        transaction.put(A, b"2")
        inner = transaction.savepoint()
        await lock(transaction, B)
        transaction.put(B, b"2")
        transaction.delete(A)
        transaction.release(inner)
        assert await transaction.get(A) is None
        transaction.rollback_to(outer)
        assert await transaction.get(A) == b"1"
        assert [row.granted for row in await lock(other, B, policy=WaitPolicy.ERROR)] == [True]
        await other.rollback()
        transaction.put(A, b"3")
        transaction.rollback_to(outer)
        await transaction.commit()
        assert await store.coordinator.read_latest(A) == b"1"
        assert await store.coordinator.read_latest(B) is None

    on_store(test)


def test_rollback_to_a_savepoint_gives_back_a_stronger_lock():
    async def test(store: Store) -> None:
        transaction, other = store.coordinator.begin(RC), store.coordinator.begin(RC)
        await lock(transaction, A, strength=LockStrength.SHARE)
        point = transaction.savepoint()
        await lock(transaction, A)
        transaction.rollback_to(point)
        rows = await lock(other, A, strength=LockStrength.SHARE, policy=WaitPolicy.ERROR)
        assert rows[0].granted
        await transaction.rollback()
        await other.rollback()

    on_store(test)


def test_reads_and_locks_that_need_not_wait_do_not_suspend():
    async def test(store: Store) -> None:
        await store.oracle.next()
        transaction = store.coordinator.begin(RC)
        with pytest.raises(StopIteration):
            transaction.get(A).send(None)
        with pytest.raises(StopIteration):
            lock(transaction, A).send(None)
        with pytest.raises(StopIteration):
            store.coordinator.read_latest(A).send(None)
        await transaction.rollback()

    on_store(test)


def test_a_row_must_be_locked_to_be_written():
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(RC)
        with pytest.raises(AssertionError):
            transaction.put(A, b"1")
        await lock(transaction, A, strength=LockStrength.SHARE)
        with pytest.raises(AssertionError):
            transaction.put(A, b"1")
        transaction.put(B, b"1", blind=True)
        await transaction.commit()
        assert await store.coordinator.read_latest(B) == b"1"

    on_store(test)


def test_a_read_only_transaction_cannot_write():
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(RC, read_only=True)
        with pytest.raises(TransactionError) as caught:
            transaction.put(A, b"1", blind=True)
        assert caught.value.sqlstate == "25006"
        await transaction.rollback()

    on_store(test)


def test_a_large_commit_goes_in_pieces(monkeypatch):
    monkeypatch.setattr("shardforge.shard.weights.COMMAND_BYTES_MAX", 2000)

    async def test(store: Store) -> None:
        for spread in ([b"\x00"], [b"\x00", b"\x3f"]):
            keys = [b"h\x00" + spread[n % len(spread)] + b"%03d" % n for n in range(200)]
            transaction = store.coordinator.begin(RC)
            await lock(transaction, *keys)
            for key in keys:
                transaction.put(key, key)
            await transaction.commit()
            reader = store.coordinator.begin(RC)
            assert await reader.get_many(keys) == keys
            await store.host.drain()
            reader.begin_statement()
            assert await reader.get_many(keys) == keys
            await reader.rollback()
            await store.host.drain()
        figures = store.metrics()
        assert figures["commit_marks"] == figures["intents"] == 0

    on_store(test)


def test_hot_rows_are_collected():
    async def test(store: Store) -> None:
        store.garbage._retention_us = 0
        for number in range(50):
            transaction = store.coordinator.begin(RC)
            await lock(transaction, A)
            transaction.put(A, b"%d" % number)
            await transaction.commit()
        reader = store.coordinator.begin(RR)
        assert await reader.get(A) == b"49"
        for value in (b"x", None):
            transaction = store.coordinator.begin(RC)
            await lock(transaction, A)
            transaction.delete(A) if value is None else transaction.put(A, value)
            await transaction.commit()
        assert store.garbage.collect() == 49, "all but the version that the reader needs, and newer"
        await store.host.drain()
        assert await reader.get(A) == b"49"
        await reader.rollback()
        store.garbage.collect()
        await store.host.drain()
        assert len(store.garbage) == 0
        engine = store.router.shard_of(A).replica.engine
        assert list(engine.scan(b"v", b"w")) == []

    on_store(test)
