"""Shards: the initial map, routing, commands applied, restart, log cutting, and a log that fails."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest

from shardforge.adapters.blocking import ThreadBlocking
from shardforge.adapters.clock import SystemClock
from shardforge.config import Config
from shardforge.errors import ConsensusError, StorageError, TransactionError
from shardforge.ids import META_SHARD, NodeId
from shardforge.keys import bucket_boundary, meta_key, range_prefix
from shardforge.shard.application import Application
from shardforge.shard.bootstrap import open_shards
from shardforge.shard.command import (
    AbortRecord,
    Commit,
    CommitRecord,
    Forget,
    Outcome,
    Prepare,
    Resolve,
    Window,
    applied_of,
    decode,
    encode,
    intent_at,
    record_of,
)
from shardforge.shard.descriptor import ShardDescriptor, Span, check_tiling, initial_shards
from shardforge.shard.files import MemoryFiles
from shardforge.shard.log import MemoryLog
from shardforge.shard.pending import Mark, Pending
from shardforge.shard.router import Router
from shardforge.storage import mvcc
from shardforge.storage.layout import DataDirectory
from shardforge.storage.memory import MemoryEngine
from shardforge.txn.coordinator import Isolation, LockStrength, WaitPolicy
from shardforge.txn.store import open_store, start_store
from shardforge.txn.timestamps import TimestampOracle
from tests.inline import Inline

A, B = b"h\x00\x00a", b"h\x00\x3fb"
ONE = [NodeId(1)]


class Routed:
    def __init__(self, descriptor: ShardDescriptor) -> None:
        self.descriptor = descriptor


# ---- descriptors and routing -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 16, 64])
def test_initial_shards_tile_the_key_space_at_bucket_boundaries(count):
    shards = initial_shards(count, ONE)
    check_tiling(shards)
    assert shards[0].id == META_SHARD
    assert len(shards) == count + 1
    router = Router([Routed(shard) for shard in shards])
    held = [router.shard_of(bucket_boundary(bucket)).descriptor.id for bucket in range(64)]
    runs = [held.count(shard) for shard in sorted(set(held))]
    assert sorted(set(held)) == list(range(1, count + 1))
    assert max(runs) - min(runs) <= 1
    assert router.shard_of(meta_key("catalog", 1)).descriptor.id == META_SHARD
    assert router.shard_of(range_prefix(1, 1)).descriptor.id == count
    assert router.shard_of(b"g\x00\x00").descriptor.id == 1


def test_a_gap_between_shards_is_refused():
    with pytest.raises(AssertionError):
        check_tiling([ShardDescriptor(1, Span(b"", b"h")), ShardDescriptor(2, Span(b"i", b"t"))])


def test_a_span_is_cut_at_shard_boundaries():
    router = Router([Routed(shard) for shard in initial_shards(4, ONE)])
    parts = router.shards_of(A, B)
    assert [part[0].descriptor.id for part in parts] == [1, 2, 3, 4]
    assert parts[0][1] == A
    assert parts[-1][2] == B
    assert all(one[2] == other[1] for one, other in itertools.pairwise(parts))
    assert router.shards_of(B, A) == []


# ---- commands ----------------------------------------------------------------------------------------


def applied(engine: MemoryEngine, index: int, term: int, *commands) -> list[Outcome]:
    application = Application(engine, term)
    outcomes = [application.apply(command) for command in decode(encode(commands))]
    engine.write(application.finish(index))
    return outcomes


def test_an_entry_of_another_term_is_refused():
    engine = MemoryEngine()
    commands = (
        Commit(7, 10, 1, [(A, b"x")]),
        Prepare(8, 10, 5, 1, A, [(B, b"x")]),
        CommitRecord(9, 10, 1, A, (), [(B, b"x")]),
    )
    assert applied(engine, 1, 2, *commands) == [Outcome.REFUSED] * 3
    assert mvcc.newest(engine, A) is None
    assert intent_at(engine, B) is None
    assert applied_of(engine).index == 1


def test_the_first_record_stands():
    engine = MemoryEngine()
    assert applied(engine, 1, 1, AbortRecord(7, A), CommitRecord(7, 10, 1, A, (), [(B, b"x")])) == [
        Outcome.APPLIED,
        Outcome.REFUSED,
    ]
    assert not record_of(engine, A, 7).committed
    assert mvcc.newest(engine, B) is None
    applied(engine, 2, 1, Forget(7, A))
    assert applied(engine, 3, 1, CommitRecord(7, 10, 1, A, (), []), AbortRecord(7, A)) == [
        Outcome.APPLIED,
        Outcome.REFUSED,
    ]
    assert record_of(engine, A, 7).timestamp == 10


@pytest.mark.parametrize(("timestamp", "value"), [(10, b"x"), (0, None)])
def test_intents_become_versions_or_go(timestamp, value):
    engine = MemoryEngine()
    applied(engine, 1, 1, Prepare(7, 10, 5, 1, A, [(B, b"x")]))
    applied(engine, 2, 1, Resolve(8, 10, [B]))
    assert intent_at(engine, B).txn == 7, "another's resolution does not touch it"
    applied(engine, 3, 1, Resolve(7, timestamp, [B]))
    assert intent_at(engine, B) is None
    assert mvcc.read(engine, B, 10) == value
    assert mvcc.read(engine, B, 9) is None


def test_a_window_never_shrinks():
    engine = MemoryEngine()
    applied(engine, 1, 1, Window(A, 20), Window(A, 10))
    assert record_of(engine, A, 0).timestamp == 20


# ---- marks and timestamps ----------------------------------------------------------------------------


def test_a_committed_mark_stays_visible_below_a_newer_one():
    pending = Pending()
    old, new = Mark(1, 5, [A]), Mark(2, 20, [A, B])
    assert pending.add(old)
    assert not pending.add(new), "the outcome of the first is open"
    old.timestamp, old.committed, old.values = 10, True, {A: b"x"}
    assert pending.add(new)
    new.timestamp = 30
    assert pending.visible(A, 15) is old
    assert pending.visible(A, 30) is new
    assert pending.visible(B, 15) is None
    assert pending.visible_in(A, B, 40) == [old, new]
    pending.remove(old)
    assert pending.visible(A, 15) is None
    pending.remove(new)
    assert not pending.by_key
    assert not pending.marks


def test_a_mark_set_and_taken_off_part_by_part():
    pending = Pending()
    old, new = Mark(1, 5, [A, B]), Mark(2, 20, [A, B])
    pending.open(old)
    assert pending.visible_in(A, B, 10) == [old], "scans heed what is not set yet"
    assert pending.extend(old, [A])
    assert pending.extend(old, [B])
    pending.open(new)
    assert not pending.extend(new, [B]), "the outcome of the first is open"
    old.timestamp, old.committed, old.values = 10, True, {A: b"x", B: b"y"}
    assert pending.extend(new, [A])
    pending.release(old, [A])
    assert (pending.visible(A, 10), pending.visible(B, 10)) == (None, old)
    assert pending.extend(new, [B])
    pending.release(old, [B])
    assert (pending.visible(B, 10), pending.visible(B, 30)) == (None, new)
    pending.close(old)
    assert pending.visible_in(A, B, 10) == []
    pending.clear()
    assert not pending.extend(new, [A]), "the leadership that it was set in is over"
    assert not pending.by_key


def test_timestamps_grow_inside_the_window_and_follow_the_clock():
    oracle = TimestampOracle(100)
    assert oracle.try_next(5) is None, "nothing above the durable window"
    oracle.extend(110)
    drawn = [oracle.try_next(wall) for wall in (0, 104, 0, 500, 500)]
    assert drawn == [101, 104, 105, 110, None]
    assert TimestampOracle(oracle.window).last == 110


# ---- a store on real files ---------------------------------------------------------------------------


def directory(path) -> DataDirectory:
    return DataDirectory.open(path, node_id=1, cluster_name="shardforge")


async def write(store, values) -> None:
    transaction = store.coordinator.begin(Isolation.READ_COMMITTED)
    await transaction.lock(list(values), LockStrength.UPDATE, WaitPolicy.BLOCK)
    for key, value in values.items():
        transaction.put(key, value)
    await transaction.commit()


def test_a_restart_finds_everything_and_cuts_its_log(tmp_path):
    config = replace(
        Config(), raft=replace(Config().raft, snapshot_interval_entries=5, max_log_entries=8)
    )

    async def session(first: int) -> int:
        data, blocking = directory(tmp_path / "data"), ThreadBlocking(4)
        store = await open_store(data, config, SystemClock(), blocking)
        try:
            if first:
                assert await store.coordinator.read_latest(A) == b"%d" % (first - 1)
                assert await store.coordinator.read_latest(B) == b"%d" % (first - 1)
            for number in range(first, first + 40):
                await write(store, {A: b"%d" % number, B: b"%d" % number})
            replica = store.router.shard_of(A).replica
            await replica.flush()
            await replica.drain()
            await asyncio.sleep(0)
            assert replica._log.base_index > first, "the log is cut behind the flush"
            return store.oracle.last
        finally:
            await store.close()
            blocking.close()
            data.close()

    last = asyncio.run(session(0))
    assert asyncio.run(session(40)) > last


@pytest.mark.parametrize("much", [True, False])
def test_a_span_that_is_emptied_after_much_work_is_followed_by_a_flush(tmp_path, much):
    async def run() -> bool:
        data, blocking = directory(tmp_path / "data"), ThreadBlocking(4)
        store = await open_store(data, Config(), SystemClock(), blocking)
        try:
            await write(store, {A: bytes((2 << 20) if much else 100)})
            await store.coordinator.clear([(A, A + b"\0")], 0)
            replica = store.router.shard_of(A).replica
            await replica.drain()
            await replica._flushing.settled()
            engine = replica.engine
            return engine._flushed == engine._cleared == 1
        finally:
            await store.close()
            blocking.close()
            data.close()

    assert asyncio.run(run()) is much


def test_a_replica_is_closed_once_whoever_asks_and_whoever_is_cancelled(tmp_path):
    # A host that stops and a group that removes this replica both close it; the caller of one may be cancelled.
    async def run() -> None:
        data, blocking = directory(tmp_path / "data"), ThreadBlocking(4)
        store = await open_store(data, Config(), SystemClock(), blocking)
        replica = store.router.shard_of(A).replica
        first = asyncio.create_task(replica.close())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(replica.close(), replica.close())
        assert first.cancelled()
        assert replica.cache not in replica._with.cache_memory._caches
        await store.close()
        blocking.close()
        data.close()

    asyncio.run(run())


def test_the_folders_are_the_shard_map_from_the_first_start_on(tmp_path):
    data = directory(tmp_path / "data")
    made = open_shards(data, 3, ONE)
    assert open_shards(data, 7, ONE) == sorted(made, key=lambda shard: shard.id)
    data.remove_shard(2)
    with pytest.raises(StorageError, match="incomplete"):
        open_shards(data, 3, ONE)
    data.close()


def test_a_first_start_cut_short_is_made_anew(tmp_path):
    data = directory(tmp_path / "data")
    open_shards(data, 3, ONE)
    data.remove_shard(0)
    data.remove_shard(1)
    assert len(open_shards(data, 4, ONE)) == 5
    (data.shard(3).wal / "0000000000000001.log").write_bytes(b"x")
    data.remove_shard(0)
    with pytest.raises(StorageError, match="the meta shard is missing"):
        open_shards(data, 4, ONE)
    data.close()


# ---- groups of commits -------------------------------------------------------------------------------


async def entries_of(store, turns_between: int, writes: int) -> int:
    """How many entries `writes` commits took that came so many turns of the loop after one another."""
    before = store.host.counters.entries
    begun = []
    for number in range(writes):
        begun.append(asyncio.create_task(write(store, {A + b"%d" % number: b"1"})))
        for _ in range(turns_between):
            await asyncio.sleep(0)
    await asyncio.gather(*begun)
    return store.host.counters.entries - before


def test_commits_of_neighbouring_turns_share_an_entry():
    async def test(store, logs, stopped) -> None:
        assert await entries_of(store, 0, 8) <= 2
        assert await entries_of(store, 1, 4) <= 2
        assert await entries_of(store, 60, 4) >= 4  # alone, none waits until there is company

    on_failing_logs(test)


# ---- failures ----------------------------------------------------------------------------------------


class FailingLog:
    """A log in memory on a disk that may go. (It derives from nothing: the log's class may be a compiled one.)"""

    def __init__(self) -> None:
        self._log = MemoryLog()
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def make_durable(self, blocking: Inline) -> None:
        await blocking.run(self.sync)

    def sync(self) -> int:
        if self.fails:
            raise StorageError("the disk is gone")
        return self._log.sync()


def on_failing_logs(test) -> None:
    logs: dict[int, FailingLog] = {}
    stopped: list[int] = []

    def files_of(descriptor):
        logs[descriptor.id] = FailingLog()
        return MemoryFiles(log=logs[descriptor.id])

    async def run() -> None:
        store = await start_store(
            initial_shards(2, ONE),
            files_of,
            Config(),
            SystemClock(),
            Inline(),
            lambda replica, _: stopped.append(replica.id),
        )
        await write(store, {A: b"1", B: b"1"})
        await store.host.drain()
        await asyncio.wait_for(test(store, logs, stopped), 5)
        await store.close()

    asyncio.run(run())


def test_after_a_failed_sync_the_shard_stops_and_the_outcome_is_unknown():
    async def test(store, logs, stopped) -> None:
        logs[1].fails = True
        with pytest.raises(TransactionError) as caught:
            await write(store, {A: b"2"})
        assert caught.value.sqlstate == "40003"
        assert stopped == [1]
        with pytest.raises(ConsensusError):
            await store.coordinator.read_latest(A)
        with pytest.raises(ConsensusError):
            await write(store, {A: b"3"})
        assert await store.coordinator.read_latest(B) == b"1", "the other shard goes on"
        await write(store, {B: b"2"})
        logs[1].fails = False
        assert stopped == [1], "nothing is retried"

    on_failing_logs(test)


def test_a_participant_that_cannot_prepare_aborts_the_transaction():
    async def test(store, logs, stopped) -> None:
        logs[2].fails = True
        with pytest.raises(TransactionError) as caught:
            await write(store, {A: b"2", b"h\x00\x00aa": b"2", B: b"2"})
        assert caught.value.sqlstate == "40001"
        assert await store.coordinator.read_latest(A) == b"1"
        await write(store, {A: b"3"})
        assert stopped == [2]

    on_failing_logs(test)


def test_an_unknown_decision_refuses_the_readers_that_need_it():
    async def test(store, logs, stopped) -> None:
        logs[1].fails = True
        with pytest.raises(TransactionError) as caught:
            await write(store, {A: b"2", b"h\x00\x00aa": b"2", B: b"2"})
        assert caught.value.sqlstate == "40003"
        with pytest.raises(ConsensusError):
            await store.coordinator.read_latest(B)

    on_failing_logs(test)
