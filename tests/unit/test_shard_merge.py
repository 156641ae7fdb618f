"""Neighbours that become one: what Seal, Absorb and Merge do to state and transactions, and what a crash leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from shardforge.adapters.clock import SystemClock
from shardforge.config import Config
from shardforge.errors import ConsensusError, QueryError
from shardforge.ids import NodeId, ShardId, Timestamp, TxnId
from shardforge.shard.application import Application
from shardforge.shard.command import (
    Absorb,
    Applied,
    Begin,
    Command,
    Commit,
    Merge,
    Outcome,
    Run,
    Seal,
)
from shardforge.shard.description import described, is_sealed
from shardforge.shard.descriptor import ShardDescriptor, Span, initial_shards
from shardforge.shard.files import MemoryFiles
from shardforge.storage import mvcc
from shardforge.storage.engine import EngineClosedError
from shardforge.storage.layout import DataDirectory
from shardforge.storage.memory import MemoryEngine
from shardforge.txn import merging, spans
from shardforge.txn.coordinator import Isolation, LockStrength, WaitPolicy
from shardforge.txn.merging import merge
from shardforge.txn.shardmap import NOBODY, ShardRow, load_rows, row_of
from shardforge.txn.store import Store, open_store, start_store
from tests.inline import Inline

APPLIED, REFUSED, UNKNOWN = Outcome
RC, RR, SER = Isolation
LOW, MID, HIGH = b"h\x00\x01low", b"h\x00\x20", b"h\x00\x30high"
NODE = NodeId(1)
LEFT = ShardDescriptor(ShardId(1), Span(b"", MID), 3)
RIGHT = ShardDescriptor(ShardId(2), Span(MID, b"s"), 5)
TENURE = 7


# ---- what the commands do ------------------------------------------------------------------------------


class Machine:
    """One replica's state machine."""

    def __init__(self, shard: ShardDescriptor) -> None:
        self.engine = MemoryEngine()
        self.shard = shard
        self.state = Applied(0, 0, TENURE)
        self.sealed = False

    def apply(self, *commands: Command) -> list[Outcome]:
        """One entry."""
        application = Application(
            self.engine, 1, shard=self.shard, before=self.state, sealed=self.sealed
        )
        outcomes = [application.apply(command) for command in commands]
        for start, end in application.cleared:
            self.engine.delete_span(start, end)
        self.engine.write(application.finish(self.state.index + 1))
        self.state = application.state(self.state.index + 1)
        assert application.shard is not None
        self.shard, self.sealed = application.shard, application.sealed
        assert (self.shard, self.sealed) == (
            described(self.engine, self.shard),
            is_sealed(self.engine),
        )
        return outcomes


def _commit(key: bytes, timestamp: int, value: bytes | None = b"x") -> Commit:
    return Commit(TxnId(timestamp), Timestamp(timestamp), 1, ((key, value),))


def _version(key: bytes, timestamp: int) -> tuple[bytes, bytes]:
    return mvcc.put_version(key, timestamp, b"x")[0], b"x"


def _absorb(*pairs: tuple[bytes, bytes], first: bool = True, tenure: int = TENURE) -> Absorb:
    return Absorb(tenure, RIGHT.span, first, pairs)


def _merge(epoch: int = 4, span: Span = RIGHT.span, tenure: int = TENURE) -> Merge:
    return Merge(tenure, RIGHT.id, span, epoch, Timestamp(9), (ShardId(6),))


def test_nothing_changes_a_sealed_shard_but_a_seal() -> None:
    machine = Machine(RIGHT)
    assert machine.apply(_commit(HIGH, 5), Seal(TENURE - 1, sealed=True)) == [APPLIED, REFUSED]
    assert machine.apply(Seal(TENURE, sealed=True), _commit(HIGH, 6)) == [APPLIED, REFUSED]
    late = Run(TENURE, 1, [Commit(TxnId(6), Timestamp(6), TENURE, ((HIGH, b"late"),))])
    assert machine.apply(late) == [APPLIED]
    assert machine.state.refused == (1,), "the serving node learns what became of it"
    assert machine.apply(Begin(TENURE + 1), _commit(HIGH, 7)) == [APPLIED, REFUSED]
    assert machine.apply(Seal(TENURE, sealed=False)) == [REFUSED], "an older tenure's"
    assert machine.sealed
    assert machine.apply(Seal(TENURE + 1, sealed=False), _commit(HIGH, 8)) == [APPLIED, APPLIED]
    assert mvcc.version_at(machine.engine, HIGH, 7) == mvcc.Version(HIGH, 5, b"x")
    assert mvcc.newest(machine.engine, HIGH) == mvcc.Version(HIGH, 8, b"x")


def test_what_is_absorbed_is_the_shards_with_the_merge() -> None:
    machine = Machine(LEFT)
    assert machine.apply(_absorb(_version(HIGH, 5)), _commit(HIGH, 6)) == [APPLIED, REFUSED]
    assert machine.apply(_merge(), _commit(HIGH, 7)) == [APPLIED, APPLIED]
    assert machine.shard == ShardDescriptor(
        ShardId(1), Span(b"", b"s"), 4, absorbed=(ShardId(6), RIGHT.id)
    )
    assert mvcc.read(machine.engine, HIGH, 5) == b"x"
    assert mvcc.kept_from(machine.engine) == 9
    assert machine.apply(_absorb(), _merge(5)) == [REFUSED, REFUSED], "its keys are its own now"
    assert mvcc.read(machine.engine, HIGH, 5) == b"x"


def test_what_an_earlier_attempt_left_goes_first() -> None:
    """Also where it is in the same entry: otherwise rows that were removed since would be there again."""
    machine = Machine(LEFT)
    stale = b"h\x00\x29gone"
    machine.apply(_absorb(_version(stale, 4)))
    machine.apply(_absorb(_version(stale, 3), first=False), _absorb(_version(HIGH, 5)))
    machine.apply(_merge())
    assert mvcc.newest(machine.engine, stale) is None
    assert mvcc.newest(machine.engine, HIGH) is not None


@pytest.mark.parametrize(
    "command",
    [
        _merge(epoch=3),
        _merge(epoch=5),
        _merge(span=Span(HIGH, b"s")),
        _merge(tenure=TENURE - 1),
        _merge(tenure=TENURE + 1),
        _absorb(tenure=TENURE - 1),
        Absorb(TENURE, Span(LOW, b"s"), first=True, pairs=()),
    ],
)
def test_a_merge_of_another_state_or_tenure_is_refused(command: Command) -> None:
    machine = Machine(LEFT)
    assert machine.apply(_commit(LOW, 5), command) == [APPLIED, REFUSED]
    assert machine.shard == LEFT
    assert mvcc.newest(machine.engine, LOW) is not None


# ---- a store that goes on ------------------------------------------------------------------------------


def _on_store(test: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = await _start({shard.id: MemoryFiles() for shard in initial_shards(2, [NODE])})
        try:
            await asyncio.wait_for(test(store), 10)
        finally:
            await store.close()

    asyncio.run(run())


def _on_disk(path: Path, test: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        directory = DataDirectory.open(path, node_id=1, cluster_name="shardforge")
        config = Config()
        config = replace(config, sharding=replace(config.sharding, initial_shard_count=2))
        store = await open_store(directory, config, SystemClock(), Inline())
        try:
            await asyncio.wait_for(test(store), 10)
        finally:
            await store.close()
            directory.close()

    asyncio.run(run())


async def _start(files: dict[ShardId, MemoryFiles]) -> Store:
    return await start_store(
        initial_shards(2, [NODE]), lambda shard: files[shard.id], Config(), SystemClock(), Inline(),
        lambda _, error: pytest.fail(str(error)),
    )  # fmt: skip


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


async def _merge_them(store: Store) -> ShardId:
    return await merge(store, SystemClock(), Inline(), ShardId(1))


def test_rows_and_locks_outlive_a_merge() -> None:
    async def test(store: Store) -> None:
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        past = store.coordinator.oracle.last
        await _put(store, (LOW, b"3"), (HIGH, b"4"))
        holder = store.coordinator.begin(SER)
        assert await holder.get(HIGH) == b"4"
        await holder.lock([HIGH], LockStrength.UPDATE, WaitPolicy.BLOCK)
        waiting = asyncio.create_task(_put(store, (HIGH, b"late")))
        assert await _merge_them(store) == 2
        assert [s.replica.id for s in store.router.shards] == [1, 0]
        assert not waiting.done()
        holder.put(HIGH, b"5")
        await holder.commit()
        await waiting
        assert await _get(store, LOW, HIGH) == [b"3", b"late"]
        left = store.host.find(ShardId(1))
        assert left is not None
        assert mvcc.read(left.engine, HIGH, past) == b"2"
        assert store.host.whole, "the right one's replica counts no more"
        assert load_rows(store.host.meta.engine)[ShardId(2)].ended
        assert store.metrics()["merges_total"] == 1

    _on_store(test)


def test_a_scan_that_began_before_a_merge_finds_what_came_with_it() -> None:
    """Its view of the left one is of a moment when that did not have the right one's rows."""

    async def test(store: Store) -> None:
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        await store.host.drain()
        reader = store.coordinator.begin(RR, read_only=True)
        with patch.object(spans, "CHUNK_MAX", 1):
            chunks = reader.scan_spans([(b"h", MID), (MID, b"i")])
            found = await anext(chunks)
            await _merge_them(store)
            await _put(store, (HIGH, b"3"))
            found += [pair async for chunk in chunks for pair in chunk]
        assert found == [(LOW, b"1"), (HIGH, b"2")]
        await reader.rollback()

    _on_store(test)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_slow_reader_goes_on_elsewhere_when_the_replica_it_reads_is_removed(
    tmp_path: Path, reverse: bool
) -> None:
    async def test(store: Store) -> None:
        pairs = [(b"h\x00\x30%04d" % number, b"%d" % number) for number in range(500)]
        await _put(store, *pairs)
        expected = pairs[::-1] if reverse else pairs
        reader = store.coordinator.begin(RR, read_only=True)
        chunks = reader.scan(MID, b"i", reverse=reverse)
        found = await anext(chunks)
        assert 0 < len(found) < len(pairs)
        await _merge_them(store)
        await store.host.drop(ShardId(2))
        await _put(store, (pairs[250][0], b"later"), (pairs[499][0], b"later"))
        found += [pair async for chunk in chunks for pair in chunk]
        assert found == expected
        await reader.rollback()

    _on_disk(tmp_path, test)


def test_a_slow_reader_of_a_replica_that_is_nowhere_else_is_told_to_retry(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        await _put(store, *((b"h\x00\x30%04d" % number, b"x") for number in range(500)))
        reader = store.coordinator.begin(RR, read_only=True)
        chunks = reader.scan(MID, b"i")
        await anext(chunks)
        await store.host.drop(ShardId(2))
        with pytest.raises(EngineClosedError) as caught:
            [chunk async for chunk in chunks]
        assert caught.value.sqlstate == "40001"
        await reader.rollback()

    _on_disk(tmp_path, test)


def test_what_was_meant_for_the_right_one_is_refused_afterwards() -> None:
    async def test(store: Store) -> None:
        right = store.router.shards[1].replica
        term = right.serving_term
        await _merge_them(store)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        stale = Commit(TxnId(5), Timestamp(5), term, ((HIGH, b"lost"),))
        right.propose(stale, outcome.set_result)
        assert await outcome is REFUSED

    _on_store(test)


def test_a_merge_that_cannot_be_leaves_both_as_they_were() -> None:
    async def test(store: Store) -> None:
        await _put(store, (HIGH, b"2" * 1000))
        before = load_rows(store.host.meta.engine)
        with patch.object(merging, "MERGED_BYTES_MAX", 100), pytest.raises(QueryError, match="too large"):  # fmt: skip
            await _merge_them(store)
        store.coordinator.committing.add(TxnId(99))
        with pytest.raises(ConsensusError, match="takes long"):
            await _merge_them(store)
        store.coordinator.committing.discard(TxnId(99))
        assert load_rows(store.host.meta.engine) == before or not before
        await _put(store, (HIGH, b"3"))
        assert len(store.router.shards) == 3
        for shard in (0, 2):
            with pytest.raises(QueryError, match="meta shard"):
                await merge(store, SystemClock(), Inline(), ShardId(shard))
        with pytest.raises(QueryError, match="no shard"):
            await merge(store, SystemClock(), Inline(), ShardId(9))
        await _merge_them(store)
        assert await _get(store, HIGH) == [b"3"]

    _on_store(test)


# ---- crashes -------------------------------------------------------------------------------------------


STEPS = ("row", "sealed", "absorbed", "merged", "whole")


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_younger_tenure_finishes_or_undoes_it(step: str, flushed: bool) -> None:
    files = {shard.id: MemoryFiles() for shard in initial_shards(2, [NODE])}

    async def first() -> None:
        store = await _start(files)
        await _put(store, (LOW, b"1"), (HIGH, b"2"))
        await store.host.drain()
        left, right, _ = store.router.shards
        before = right.descriptor
        if step == "whole":
            await _merge_them(store)
            await _put(store, (HIGH, b"3"))
        else:
            row = ShardRow(before.id, before.span, before.epoch, NOBODY, left.replica.id)
            await store.write_rows([row_of(left.descriptor), row])
            pairs = list(
                right.replica.engine.scan(b"v" + before.span.start, b"v" + before.span.end)
            )
            commands = [
                (right, Seal(store.tenure, sealed=True)),
                (left, Absorb(store.tenure, before.span, first=True, pairs=pairs)),
                (left, Merge(store.tenure, before.id, before.span, 2, Timestamp(0), ())),
            ]  # fmt: skip
            for participant, command in commands[: STEPS.index(step)]:
                assert await participant.ordered(command) is APPLIED
        if flushed:
            for replica in store.host.replicas:
                await replica.flush()
        await store.kill()

    async def second() -> None:
        store = await _start(files)
        ended = step in ("merged", "whole")
        assert len(store.router.shards) == (2 if ended else 3)
        assert await _get(store, LOW, HIGH) == [b"1", b"3" if step == "whole" else b"2"]
        await _put(store, (HIGH, b"4"))
        assert await _get(store, HIGH) == [b"4"]
        async with asyncio.timeout(5):
            while not all(row.settled for row in load_rows(store.host.meta.engine).values()):
                await store.host.heard()
        assert load_rows(store.host.meta.engine)[ShardId(2)].ended == ended
        if not ended:
            await _merge_them(store)
            assert await _get(store, LOW, HIGH) == [b"1", b"4"]
        await store.kill()

    asyncio.run(first())
    for shard, kept in files.items():
        engine = kept.engine.crash() if kept.engine.pairs else MemoryEngine()
        files[shard] = MemoryFiles(engine, kept.log.crash())
    asyncio.run(second())


def test_a_merged_shard_is_whole_on_disk_without_the_right_one(tmp_path: Path) -> None:
    async def run(*, merges: bool) -> None:
        directory = DataDirectory.open(tmp_path, node_id=1, cluster_name="shardforge")
        config = Config()
        config = replace(config, sharding=replace(config.sharding, initial_shard_count=2))
        store = await open_store(directory, config, SystemClock(), Inline())
        if merges:
            await _put(store, (LOW, b"1"), (HIGH, b"2"))
            await _merge_them(store)
            left = store.host.find(ShardId(1))
            assert left is not None
            await left.drain()
            assert left.recorded
            await store.host.drop(ShardId(2))
            directory.remove_shard(2)
        else:
            assert await _get(store, LOW, HIGH) == [b"1", b"2"]
        await store.close()
        directory.close()

    asyncio.run(run(merges=True))
    asyncio.run(run(merges=False))
