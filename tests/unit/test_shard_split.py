"""Shards cut in two: what a Split does to state, files and transactions, and what a crash leaves of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from shardforge.adapters.clock import SystemClock
from shardforge.config import Config
from shardforge.errors import ConsensusError, QueryError
from shardforge.ids import NodeId, ShardId, Timestamp, TxnId
from shardforge.raft.messages import ConfState
from shardforge.shard.bootstrap import add_shards, open_shards
from shardforge.shard.command import Commit, Outcome, Split, applied_of, encode
from shardforge.shard.consensus import FIRST, membership_of
from shardforge.shard.description import described
from shardforge.shard.descriptor import ShardDescriptor, Span, initial_shards
from shardforge.shard.files import DiskFiles, MemoryFiles, Shelf
from shardforge.shard.split import Division, division
from shardforge.storage import mvcc
from shardforge.storage.layout import DataDirectory
from shardforge.storage.memory import MemoryEngine
from shardforge.storage.rocksdb import SharedMemory
from shardforge.txn.coordinator import Isolation, LockStrength, WaitPolicy
from shardforge.txn.participant import DRAIN_SECONDS
from shardforge.txn.splitting import participant_of, split
from shardforge.txn.store import Store, open_store, start_store
from tests.inline import Inline

RC, _, SER = Isolation
LOW, CUT, HIGH = b"h\x00\x01low", b"h\x00\x20", b"h\x00\x30high"
NODE = NodeId(1)
CHILD = ShardId(7)
MEMBERS = ConfState(voters=(1, 2, 3))
PARENT = ShardDescriptor(ShardId(1), Span(b"", b"s"))


def _on_store(test: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = await open_store(None, Config(), SystemClock(), Inline())
        try:
            await asyncio.wait_for(test(store), 10)
        finally:
            await store.close()

    asyncio.run(run())


async def _put(store: Store, *pairs: tuple[bytes, bytes]) -> None:
    transaction = store.coordinator.begin(RC)
    await transaction.lock([key for key, _ in pairs], LockStrength.UPDATE, WaitPolicy.BLOCK)
    for key, value in pairs:
        transaction.put(key, value)
    await transaction.commit()


async def _get(store: Store, *keys: bytes) -> list[bytes | None]:
    transaction = store.coordinator.begin(RC, read_only=True)
    found = await transaction.get_many(keys)
    await transaction.rollback()
    return found


async def _split(store: Store, shard: int = 1, at: bytes = CUT, child: int = CHILD) -> None:
    async def cut(epoch: int) -> ShardDescriptor:
        replica = store.host.find(ShardId(shard))
        assert replica is not None
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        term = replica.serving_term
        replica.propose(Split(ShardId(child), at, epoch, NODE, term, store.tenure), done.set_result)
        await done
        return replica.descriptor

    await split(store, SystemClock(), ShardId(shard), at, ShardId(child), cut)


# ---- what a Split makes of a shard -------------------------------------------------------------------


def _data(at: bytes = CUT, epoch: int = 2, term: int = 4, tenure: int = 3) -> bytes:
    return encode([Split(CHILD, at, epoch, NODE, term, tenure)])


def test_a_split_cuts_the_span_and_raises_the_epoch() -> None:
    found = division(PARENT, MEMBERS, _data(), 4, 3)
    assert found is not None
    assert (found.parent.span, found.parent.epoch) == (Span(b"", CUT), 2)
    assert found.child == ShardDescriptor(CHILD, Span(CUT, b"s"), 2, (1, 2, 3))


@pytest.mark.parametrize(
    ("data", "term", "members"),
    [
        (_data(epoch=1), 4, MEMBERS),
        (_data(epoch=3), 4, MEMBERS),
        (_data(), 5, MEMBERS),
        (_data(tenure=2), 4, MEMBERS),
        (_data(at=b""), 4, MEMBERS),
        (_data(at=b"s"), 4, MEMBERS),
        (_data(), 4, ConfState(voters=(1, 2, 3), voters_outgoing=(1,))),
    ],
)
def test_a_split_of_another_state_is_refused(data: bytes, term: int, members: ConfState) -> None:
    assert division(PARENT, members, data, term, 3) is None
    meta = msgspec.structs.replace(PARENT, id=ShardId(0))
    assert division(meta, MEMBERS, _data(), 4, 3) is None


# ---- files -------------------------------------------------------------------------------------------


def _division() -> Division:
    found = division(PARENT, MEMBERS, _data(), 4, 3)
    assert found is not None
    return found


def _disk(path: Path) -> tuple[DataDirectory, DiskFiles]:
    directory = DataDirectory.open(path, node_id=1, cluster_name="shardforge")
    if not directory.shard_ids():
        add_shards(directory, [PARENT])
    return directory, DiskFiles(directory, 1, SharedMemory(1 << 20, 1 << 20), "none")


def test_a_child_on_disk_holds_its_keys_and_begins_its_own_log(tmp_path: Path) -> None:
    directory, files = _disk(tmp_path)
    engine, log = files.open()
    engine.write([
        mvcc.put_version(LOW, 5, b"low"), mvcc.put_version(HIGH, 6, b"high"),
        mvcc.put_record(LOW, 1, b"low"), mvcc.put_record(HIGH, 2, b"high"), mvcc.put_intent(LOW, b"i"),
    ])  # fmt: skip
    made = files.fork(_division(), engine)
    assert made is not None
    assert files.fork(_division(), engine) is None, "a replay leaves it alone"
    child, child_log = made.open()
    assert list(child.scan(b"v", b"w")) == [(mvcc.put_version(HIGH, 6, b"")[0], b"high")]
    assert not list(child.scan(b"i", b"j"))
    assert mvcc.record(child, HIGH, 2) == b"high"
    assert mvcc.record(child, LOW, 1) is None
    assert applied_of(child).index == FIRST
    assert membership_of(child) == MEMBERS
    assert described(child, PARENT).span == Span(CUT, b"s")
    assert (child_log.base_index, child_log.term(FIRST)) == (FIRST, FIRST)
    assert child_log.hard_state[:2] == (FIRST, NODE)
    assert mvcc.read(engine, HIGH, 9) == b"high", "the parent is as it was"
    assert directory.read_metadata(CHILD).start == CUT
    for one in (engine, log, child, child_log):
        one.close()
    directory.close()


def test_a_crash_while_the_child_is_made_leaves_nothing_of_it(tmp_path: Path) -> None:
    directory, files = _disk(tmp_path)
    engine, log = files.open()
    draft = directory.draft_shard(directory.read_metadata(1))
    assert draft.path.exists()
    log.close()
    engine.close()
    directory.close()
    directory, files = _disk(tmp_path)
    assert directory.shard_ids() == [1]
    assert not draft.path.exists()
    directory.close()


def test_a_parent_that_has_not_noted_the_split_does_not_make_a_directory_incomplete(
    tmp_path: Path,
) -> None:
    directory = DataDirectory.open(tmp_path, node_id=1, cluster_name="shardforge")
    open_shards(directory, 1, [NODE])
    child = ShardDescriptor(CHILD, Span(CUT, b"s"), 2)
    add_shards(directory, [child])
    assert {shard.id for shard in open_shards(directory, 1, [NODE])} == {0, 1, CHILD}
    directory.close()


# ---- a store that goes on ----------------------------------------------------------------------------


def test_rows_are_there_before_and_after_and_the_child_serves_at_once() -> None:
    async def test(store: Store) -> None:
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        past = store.coordinator.oracle.last
        await _put(store, (LOW, b"3"), (HIGH, b"4"))
        await _split(store)
        assert [s.replica.id for s in store.router.shards] == [1, CHILD, 0]
        assert await _get(store, LOW, HIGH) == [b"3", b"4"]
        parent, child, _ = (store.host.find(ShardId(n)) for n in (1, CHILD, 0))
        assert parent is not None
        assert child is not None
        assert mvcc.read(child.engine, HIGH, past) == b"2"
        assert not list(parent.engine.scan(b"v" + CUT, b"w"))
        assert child.serving_term == FIRST
        await _put(store, (LOW, b"5"), (HIGH, b"6"))
        await _split(store, CHILD, b"h\x00\x31", 8)
        assert await _get(store, LOW, HIGH) == [b"5", b"6"]
        with pytest.raises(QueryError, match="not inside"):
            await _split(store, 1, HIGH, 9)
        with pytest.raises(QueryError, match="never split"):
            await _split(store, 0, b"s1", 9)

    _on_store(test)


def test_a_transaction_keeps_its_locks_and_its_view_over_a_split() -> None:
    async def test(store: Store) -> None:
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        holder = store.coordinator.begin(SER)
        assert await holder.get(HIGH) == b"2"
        await holder.lock([HIGH], LockStrength.UPDATE, WaitPolicy.BLOCK)
        waiting = asyncio.create_task(_put(store, (HIGH, b"late")))
        chunks = holder.scan(b"h", b"i")
        await _split(store)
        assert [pair async for chunk in chunks for pair in chunk] == [(LOW, b"1"), (HIGH, b"2")]
        assert not waiting.done()
        holder.put(HIGH, b"3")
        await holder.commit()
        await waiting
        assert await _get(store, HIGH) == [b"late"]
        assert store.metrics()["locks_held"] == 0

    _on_store(test)


def test_commits_wait_at_the_fence_and_a_split_for_the_commits_before_it() -> None:
    async def test(store: Store) -> None:
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        with store.coordinator.fences.around(Span(b"h", b"i")):
            late = asyncio.create_task(_put(store, (HIGH, b"3")))
            await asyncio.sleep(0.01)
            assert not late.done()
            other = asyncio.create_task(_put(store, (b"r" + HIGH, b"free")))
            await other
        await late
        store.coordinator.committing.add(TxnId(99))
        with pytest.raises(ConsensusError, match="takes long"):
            await _split(store)
        store.coordinator.committing.discard(TxnId(99))
        await _split(store)

    _on_store(test)


def test_a_split_waits_longer_after_each_time_in_vain() -> None:
    async def test(store: Store) -> None:
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        participant = participant_of(store.coordinator, ShardId(1))
        store.coordinator.committing.add(TxnId(99))
        for waited in (DRAIN_SECONDS, 2 * DRAIN_SECONDS):
            assert participant.drain_seconds == waited
            with pytest.raises(ConsensusError, match="takes long"):
                await _split(store)
        loop = asyncio.get_running_loop()
        loop.call_later(2.5 * DRAIN_SECONDS, store.coordinator.committing.discard, TxnId(99))
        await _split(store)  # in vain, had it waited no longer than before
        assert participant.drain_seconds == DRAIN_SECONDS

    _on_store(test)


def test_what_was_meant_for_the_shard_before_it_was_split_is_refused() -> None:
    async def test(store: Store) -> None:
        await _split(store)
        parent = store.host.find(ShardId(1))
        assert parent is not None
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        stale = Commit(TxnId(5), Timestamp(5), parent.serving_term, ((HIGH, b"lost"),))
        parent.propose(stale, outcome.set_result)
        assert await outcome is Outcome.REFUSED

    _on_store(test)


# ---- crashes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flushed", [False, True])
def test_a_replay_comes_to_the_same_state(flushed: bool) -> None:
    shelf: Shelf = {}
    files = {shard.id: MemoryFiles(shelf=shelf) for shard in initial_shards(1, [NODE])}
    made = {shard.id: shard for shard in initial_shards(1, [NODE])}

    async def start() -> Store:
        return await start_store(
            list(made.values()), lambda shard: files[shard.id], Config(), SystemClock(), Inline(),
            lambda _, error: pytest.fail(str(error)),
        )  # fmt: skip

    async def first() -> None:
        store = await start()
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        await _split(store)
        await _put(store, (LOW, b"3"), (HIGH, b"4"))
        parent = store.host.find(ShardId(1))
        assert parent is not None
        if flushed:
            await parent.flush()
        await store.host.drain()
        await store.kill()

    async def second() -> None:
        store = await start()
        assert await _get(store, LOW, HIGH) == [b"3", b"4"]
        assert [s.descriptor.span for s in store.router.shards[:2]] == [
            Span(b"", CUT),
            Span(CUT, b"s"),
        ]
        parent = store.host.find(ShardId(1))
        assert parent is not None
        assert not list(parent.engine.scan(b"v" + CUT, b"w"))
        await store.kill()

    asyncio.run(first())
    for shard, (described_as, forked) in shelf.items():
        made[shard], files[shard] = described_as, forked
    for shard, kept in files.items():
        engine = kept.engine.crash() if kept.engine.pairs else MemoryEngine()
        files[shard] = MemoryFiles(engine, kept.log.crash(), shelf)
    asyncio.run(second())
