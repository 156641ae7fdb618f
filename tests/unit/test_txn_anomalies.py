"""The anomalies that each isolation level allows or prevents, as in PostgreSQL, on two shards.

`a` and `b` live in different shards, so that every test also goes through two-phase commit.
"""

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
A, B, B2 = b"h\x00\x00a", b"h\x00\x3fb", b"h\x00\x3fbb"


def on_store(test: Callable[[Store], Awaitable[None]]) -> None:
    """Run `test` on a fresh store in which a and b are 1."""

    async def run() -> None:
        store = await open_store(None, Config(), SystemClock(), Inline())
        try:
            await write(store, {A: b"1", B: b"1"})
            await asyncio.wait_for(test(store), 5)
        finally:
            await store.close()

    asyncio.run(run())


async def write(store: Store, values: dict[bytes, bytes | None], level: Isolation = RC) -> None:
    transaction = store.coordinator.begin(level)
    for key, value in values.items():
        await set_row(transaction, key, value)
    await transaction.commit()


async def set_row(transaction: Transaction, key: bytes, value: bytes | None) -> None:
    (row,) = await transaction.lock([key], LockStrength.NO_KEY_UPDATE, WaitPolicy.BLOCK)
    assert row.granted
    if value is None:
        transaction.delete(key)
    else:
        transaction.put(key, value)


async def span(transaction: Transaction, **options) -> list[bytes]:
    return [key async for chunk in transaction.scan(b"h", b"i", **options) for key, _ in chunk]


async def fails_with(sqlstate: str, work: Awaitable[object]) -> None:
    with pytest.raises(TransactionError) as caught:
        await work
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize("level", list(Isolation))
def test_no_dirty_read(level):
    async def test(store: Store) -> None:
        writer = store.coordinator.begin(RC)
        await set_row(writer, A, b"2")
        reader = store.coordinator.begin(level)
        assert await reader.get(A) == b"1"
        await writer.rollback()
        assert await reader.get(A) == b"1"

    on_store(test)


def test_read_committed_sees_each_statement_anew():
    async def test(store: Store) -> None:
        reader = store.coordinator.begin(RC)
        assert await reader.get(A) == b"1"
        await write(store, {A: b"2"})
        assert await reader.get(A) == b"1", "within a statement the snapshot stands"
        reader.begin_statement()
        assert await reader.get(A) == b"2"

    on_store(test)


@pytest.mark.parametrize("level", [RR, SER])
def test_no_read_skew(level):
    async def test(store: Store) -> None:
        reader = store.coordinator.begin(level)
        assert await reader.get(A) == b"1"
        await write(store, {A: b"2", B: b"2"})
        reader.begin_statement()
        assert await reader.get(B) == b"1"
        assert await span(reader) == [A, B]
        await reader.commit()

    on_store(test)


@pytest.mark.parametrize("level", [RR, SER])
def test_lost_update_is_refused(level):
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(level)
        assert await transaction.get(A) == b"1"
        await write(store, {A: b"2"})
        await fails_with("40001", set_row(transaction, A, b"1+"))
        await transaction.rollback()
        assert await store.coordinator.read_latest(A) == b"2"

    on_store(test)


def test_read_committed_is_told_that_the_row_changed():
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(RC)
        assert await transaction.get(A) == b"1"
        await write(store, {A: b"2"})
        (row,) = await transaction.lock([A], LockStrength.UPDATE, WaitPolicy.BLOCK)
        assert (row.value, row.changed) == (b"2", True)
        transaction.begin_statement()
        (row,) = await transaction.lock([A], LockStrength.UPDATE, WaitPolicy.BLOCK)
        assert (row.value, row.changed) == (b"2", False)
        await transaction.rollback()

    on_store(test)


def write_skew(level: Isolation) -> list[str]:
    """Each reads both rows and writes the other one; which commits fail."""
    failures: list[str] = []

    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(level), store.coordinator.begin(level)
        for transaction in (one, two):
            assert await transaction.get(A) == b"1"
            assert await transaction.get(B) == b"1"
        await set_row(one, A, b"0")
        await set_row(two, B, b"0")
        for name, transaction in (("one", one), ("two", two)):
            try:
                await transaction.commit()
            except TransactionError as error:
                failures.append(f"{name} {error.sqlstate}")

    on_store(test)
    return failures


def test_write_skew_is_refused_when_serializable():
    assert write_skew(SER) == ["two 40001"]


def test_write_skew_passes_at_repeatable_read():
    assert write_skew(RR) == []


def test_write_skew_of_simultaneous_commits_is_refused():
    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(SER), store.coordinator.begin(SER)
        for transaction, key in ((one, A), (two, B)):
            assert await transaction.get(A) == await transaction.get(B) == b"1"
            await set_row(transaction, key, b"0")
        results = await asyncio.gather(one.commit(), two.commit(), return_exceptions=True)
        assert [isinstance(result, TransactionError) for result in results].count(True) >= 1

    on_store(test)


def phantom(level: Isolation) -> list[str]:
    """Each counts the rows of a span and inserts one into it; which commits fail."""
    failures: list[str] = []

    async def test(store: Store) -> None:
        one, two = store.coordinator.begin(level), store.coordinator.begin(level)
        for transaction in (one, two):
            assert await span(transaction) == [A, B]
        await set_row(one, B2, b"1")
        await set_row(two, b"h\x00\x01c", b"1")
        await one.commit()
        try:
            await two.commit()
        except TransactionError as error:
            failures.append(error.sqlstate)

    on_store(test)
    return failures


def test_phantoms_are_refused_when_serializable():
    assert phantom(SER) == ["40001"]
    assert phantom(RR) == []


def test_a_row_deleted_from_a_scanned_span_is_a_conflict():
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(SER)
        assert await span(transaction) == [A, B]
        await write(store, {B: None})
        await set_row(transaction, b"h\x00\x01c", b"1")
        await fails_with("40001", transaction.commit())

    on_store(test)


def test_a_limited_scan_conflicts_only_with_what_it_saw():
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(SER)
        assert await span(transaction, limit=1) == [A]
        await write(store, {B: b"2"})
        await set_row(transaction, b"h\x00\x01c", b"1")
        await transaction.commit()
        transaction = store.coordinator.begin(SER)
        assert await span(transaction, limit=1, reverse=True) == [B]
        await write(store, {A: b"2"})
        await set_row(transaction, b"h\x00\x01c", b"2")
        await transaction.commit()

    on_store(test)


def test_an_absent_key_that_was_read_is_a_conflict():
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(SER)
        assert await transaction.get(B2) is None
        await write(store, {B2: b"1"})
        await set_row(transaction, A, b"2")
        await fails_with("40001", transaction.commit())

    on_store(test)


def test_a_read_only_transaction_never_fails():
    async def test(store: Store) -> None:
        transaction = store.coordinator.begin(SER)
        assert await transaction.get(A) == b"1"
        await write(store, {A: b"2", B: b"2"})
        assert await transaction.get(B) == b"1"
        await transaction.commit()

    on_store(test)


def test_a_commit_is_visible_to_whoever_begins_after_it():
    async def test(store: Store) -> None:
        for number in range(20):
            value = b"%d" % number
            await write(store, {A: value, B: value})
            reader = store.coordinator.begin(SER)
            assert await reader.get(A) == await reader.get(B) == value
            assert await store.coordinator.read_latest(B) == value
            await reader.commit()

    on_store(test)
