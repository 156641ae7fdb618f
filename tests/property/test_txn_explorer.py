"""Seeded schedules of the real coordinator, shards and logs, with crashes, against what each level promises.

Two shards, up to six transactions at a time. Every fdatasync, every step of a transaction and every timer
is a choice of the seed; a crash loses what was not synced and abandons every transaction under way. At the
end the version order of each key is read from the engine, and the history is checked:

- nothing acknowledged is lost, nothing refused is there, and nothing is there by half;
- SERIALIZABLE: the graph of dependencies and real-time order has no cycle;
- REPEATABLE READ: all reads fit one moment; what is read and written directly follows what was read;
- READ COMMITTED: a row written after it was locked directly follows the version that the lock returned.

`MUTANTS` break one rule each; the explorer must catch every one. A failure prints the seed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from dataclasses import dataclass, field

import pytest

from shardforge.config import Config
from shardforge.errors import DatabaseError
from shardforge.ids import NodeId
from shardforge.shard.command import Record
from shardforge.shard.descriptor import initial_shards
from shardforge.shard.files import MemoryFiles
from shardforge.shard.log import MemoryLog
from shardforge.shard.pending import Mark
from shardforge.shard.replica import Replica
from shardforge.storage import mvcc
from shardforge.storage.memory import MemoryEngine
from shardforge.txn.commit import CommitProcess
from shardforge.txn.coordinator import Isolation, LockStrength, WaitPolicy
from shardforge.txn.locks import LockTable
from shardforge.txn.participant import Participant
from shardforge.txn.store import Store, start_store

KEYS = [b"h\x00\x00a", b"h\x00\x01b", b"h\x00\x3ec", b"h\x00\x3fd"]
CLIENTS = 6
STEPS = 220


class _NoWaiting(selectors.BaseSelector):
    """Lets virtual time pass instead of waiting."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("every task waits and nothing is left to happen")
        self._loop.now += timeout
        return []

    def register(self, fileobj, events, data=None):
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj):
        return self._real.unregister(fileobj)

    def get_map(self):
        return self._real.get_map()

    def close(self):
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when everybody waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_NoWaiting(self))

    def time(self) -> float:
        return self.now


class Gates:
    """Everything that waits for the schedule's choice; also the Blocking port."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def step(self) -> None:
        gate = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        await gate

    async def run(self, call):
        await self.step()
        return call()

    def open(self, choice: random.Random) -> bool:
        self.waiting = [gate for gate in self.waiting if not gate.done()]
        if not self.waiting:
            return False
        self.waiting.pop(choice.randrange(len(self.waiting))).set_result(None)
        return True


class LoopClock:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic_ns(self) -> int:
        return int(self._loop.now * 1e9)

    def wall_us(self) -> int:
        return int(self._loop.now * 1e6)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Story:
    """What one transaction did, as its client saw it."""

    name: bytes
    began: int
    ended: int = 1 << 60
    outcome: str = "unknown"
    reads: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    bases: dict[bytes, bytes | None] = field(default_factory=dict)
    writes: set[bytes] = field(default_factory=set)


class Exploration:
    """One seed's run."""

    def __init__(self, seed: int, level: Isolation, *, crashes: bool) -> None:
        self.random = random.Random(seed)
        self.level = level
        self.crashes = crashes
        self.stories: list[Story] = []
        self.moment = 0
        self.gates = Gates()
        self.engines: dict[int, MemoryEngine] = {}
        self.logs: dict[int, MemoryLog] = {}
        self.store: Store
        self.clients: list[asyncio.Task[None]] = []

    # ---- the run ---------------------------------------------------------------------------------

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.start()
        for _ in range(STEPS):
            if self.crashes and self.random.random() < 0.012:
                await self.crash()
            else:
                self.reap()
                if len(self.clients) < CLIENTS and self.random.random() < 0.3:
                    self.clients.append(asyncio.create_task(self.client()))
                await self.one_step()
        await self.crash()
        for _ in range(400):  # recovery settles what the crash left
            await self.one_step(time_share=0.5)
        assert self.store.metrics()["commit_marks"] == 0, "an orphan was never settled"
        await self.store.kill()

    async def start(self) -> None:
        shards = initial_shards(2, [NodeId(1)])

        def files_of(descriptor):
            engine = self.engines.setdefault(descriptor.id, MemoryEngine())
            return MemoryFiles(engine, self.logs.setdefault(descriptor.id, MemoryLog()))

        opening = asyncio.create_task(
            start_store(shards, files_of, Config(), LoopClock(self.loop), self.gates, self.failed)
        )
        while not opening.done():
            await self.one_step()
        self.store = opening.result()

    def failed(self, replica: Replica, error: Exception) -> None:
        raise AssertionError(f"shard {replica.id} stopped") from error

    async def one_step(self, *, time_share: float = 0.05) -> None:
        if not self.gates.open(self.random) or self.random.random() < time_share:
            await asyncio.sleep(self.random.choice([0.001, 0.02]))
        for _ in range(12):
            await asyncio.sleep(0)

    async def crash(self) -> None:
        await self.store.kill()
        for client in self.clients:
            client.cancel()
        await asyncio.gather(*self.clients, return_exceptions=True)
        self.reap()
        self.gates.waiting = []
        for shard, engine in self.engines.items():
            kept = self.random.randint(0, engine.unflushed_count)
            self.engines[shard] = engine.crash(kept)
            self.logs[shard] = self.logs[shard].crash()
        await self.start()

    def reap(self) -> None:
        for client in self.clients:
            if client.done() and not client.cancelled():
                client.result()
        self.clients = [client for client in self.clients if not client.done()]

    # ---- transactions ----------------------------------------------------------------------------

    async def client(self) -> None:
        name = b"t%d" % len(self.stories)
        self.moment += 1
        story = Story(name, self.moment)
        self.stories.append(story)
        transaction = self.store.coordinator.begin(self.level)
        try:
            for _ in range(self.random.randint(1, 4)):
                await self.gates.step()
                transaction.begin_statement()
                await self.statement(transaction, story)
            await self.gates.step()
            await transaction.commit()
            story.outcome = "committed"
        except DatabaseError as error:
            await transaction.rollback()
            story.outcome = "unknown" if error.sqlstate in ("40003", "57P03") else "refused"
        self.moment += 1
        story.ended = self.moment

    async def statement(self, transaction, story: Story) -> None:
        key = self.random.choice(KEYS)
        kind = self.random.random()
        if kind < 0.3:
            if key not in story.writes:
                value = await transaction.get(key)
                story.reads.append((key, value))
        elif kind < 0.4:
            found = {k: v async for chunk in transaction.scan(b"h", b"i") for k, v in chunk}
            story.reads += [(k, found.get(k)) for k in KEYS if k not in story.writes]
        else:
            (row,) = await transaction.lock([key], LockStrength.NO_KEY_UPDATE, WaitPolicy.BLOCK)
            if key not in story.writes:
                story.bases[key] = row.value
            if self.random.random() < 0.9:
                story.writes.add(key)
                transaction.put(key, story.name)

    # ---- checking --------------------------------------------------------------------------------

    def check(self) -> None:
        versions = self.versions()
        by_name = {story.name: story for story in self.stories}
        for key, order in versions.items():
            assert len({value for _, value in order}) == len(order), f"{key!r} written twice"
        committed = self.check_atomic(versions)
        for name in committed:
            story = by_name[name]
            self.check_bases(story, versions)
            if self.level is not Isolation.READ_COMMITTED:
                self.check_one_moment(story, versions)
        if self.level is Isolation.SERIALIZABLE:
            self.check_acyclic([by_name[name] for name in committed], versions)

    def versions(self) -> dict[bytes, list[tuple[int, bytes | None]]]:
        found: dict[bytes, list[tuple[int, bytes | None]]] = {key: [(0, None)] for key in KEYS}
        for engine in self.engines.values():
            for version in mvcc.versions_in(engine, b"h", b"i", 0, (1 << 62)):
                found[version.key].append((version.timestamp, version.value))
        return {key: sorted(order, key=lambda version: version[0]) for key, order in found.items()}

    def check_atomic(self, versions) -> list[bytes]:
        committed = []
        for story in self.stories:
            present = {
                key for key, order in versions.items() if any(v == story.name for _, v in order)
            }
            if story.outcome == "refused":
                assert not present, f"{story.name} was refused, but {present} are there"
            elif story.outcome == "committed":
                assert present == story.writes, f"{story.name}: {story.writes - present} lost"
            else:
                assert present in (set(), story.writes), f"{story.name} is there by half"
            if story.outcome == "committed" or (present and story.outcome == "unknown"):
                committed.append(story.name)
        return committed

    def check_bases(self, story: Story, versions) -> None:
        for key in story.writes:
            values = [value for _, value in versions[key]]
            before = values[values.index(story.name) - 1]
            assert before == story.bases[key], (
                f"lost update: {story.name} wrote {key!r} over {before}, having locked {story.bases[key]}"
            )
            for read_key, read in story.reads:
                if read_key == key and self.level is not Isolation.READ_COMMITTED:
                    assert before == read, f"lost update: {story.name} read {read} of {key!r}"

    def check_one_moment(self, story: Story, versions) -> None:
        low, high = 0, 1 << 62
        for key, value in story.reads:
            order = versions[key]
            values = [v for _, v in order]
            assert value in values, f"{story.name} read {value} of {key!r}, which never was"
            at = values.index(value)
            low = max(low, order[at][0])
            high = min(high, order[at + 1][0] if at + 1 < len(order) else high)
        assert low < high, f"read skew: {story.name} saw no one moment: {story.reads}"

    def check_acyclic(self, committed: list[Story], versions) -> None:
        after: dict[bytes, set[bytes]] = {story.name: set() for story in committed}

        def edge(one: bytes | None, other: bytes | None) -> None:
            if one is not None and other is not None and one != other and one in after:
                after[one].add(other)

        for story in committed:
            for key, value in story.reads:
                values = [v for _, v in versions[key]]
                edge(value, story.name)
                at = values.index(value) + 1
                if at < len(values):
                    edge(story.name, values[at])
            for other in committed:
                if story.ended < other.began:
                    edge(story.name, other.name)
        for order in versions.values():
            for (_, one), (_, other) in itertools.pairwise(order):
                edge(one, other)
        settled: set[bytes] = set()

        def visit(name: bytes, path: list[bytes]) -> None:
            assert name not in path, f"not serializable: {path[path.index(name) :]}"
            if name in settled:
                return
            for later in sorted(after[name]):
                if later in after:
                    visit(later, [*path, name])
            settled.add(name)

        for name in after:
            visit(name, [])


def explore(seed: int, level: Isolation, *, crashes: bool = True) -> Exploration:
    loop = VirtualLoop()
    try:
        exploration = Exploration(seed, level, crashes=crashes)
        loop.run_until_complete(exploration.run())
        exploration.check()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()
    return exploration


@pytest.mark.parametrize("level", list(Isolation))
@pytest.mark.parametrize("seed", range(12))
def test_what_each_level_promises_holds(seed, level):
    exploration = explore(seed, level)
    outcomes = [story.outcome for story in exploration.stories]
    assert outcomes.count("committed") > 5, "the schedule explores something"


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", range(100, 110))
def test_commits_in_many_commands_keep_the_promises(seed, monkeypatch):
    monkeypatch.setattr("shardforge.shard.weights.COMMAND_BYTES_MAX", 100)
    monkeypatch.setattr("shardforge.shard.proposals.ENTRY_BYTES_MAX", 250)
    monkeypatch.setattr("shardforge.txn.commit.LARGE", 1)
    explore(seed, Isolation.SERIALIZABLE)


# ---- mutants: each breaks a rule, and must be caught -------------------------------------------------


def readers_ignore_marks(monkeypatch):
    monkeypatch.setattr(Mark, "hides_from", lambda self, timestamp: False)


async def _without_validation(_commit: CommitProcess) -> None:
    """Believe everything that was read."""


def no_validation_of_reads(monkeypatch):
    monkeypatch.setattr(CommitProcess, "_validate", _without_validation)


def locks_exclude_nobody(monkeypatch):
    monkeypatch.setattr(LockTable, "acquire", lambda self, key, txn, strength: True)
    monkeypatch.setattr("shardforge.shard.pending.Pending.add", _add_without_exclusion)


def _add_without_exclusion(self, mark):
    self.marks[mark.txn] = mark
    self.by_key.update(dict.fromkeys(mark.keys, mark))
    return True


def orphans_are_aborted_without_asking(monkeypatch):
    monkeypatch.setattr(Participant, "record", _aborted)


async def _aborted(self, anchor, txn):
    return Record(0)


def acknowledged_before_it_is_durable(monkeypatch):
    async def no_sync(self, ready, append):
        self._reader.append(append.entries)

    monkeypatch.setattr(Replica, "_store", no_sync)


def commit_record_before_the_prepares(monkeypatch):
    original = CommitProcess._prepare

    def hasty(self):
        original(self)
        self._waiting = 1 << 30
        self._decide()

    monkeypatch.setattr(CommitProcess, "_prepare", hasty)


MUTANTS = [
    (readers_ignore_marks, Isolation.SERIALIZABLE),
    (no_validation_of_reads, Isolation.SERIALIZABLE),
    (locks_exclude_nobody, Isolation.READ_COMMITTED),
    (orphans_are_aborted_without_asking, Isolation.REPEATABLE_READ),
    (acknowledged_before_it_is_durable, Isolation.READ_COMMITTED),
    (commit_record_before_the_prepares, Isolation.REPEATABLE_READ),
]


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("mutant", "level"), MUTANTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_the_explorer_catches(mutant, level, monkeypatch):
    mutant(monkeypatch)
    for seed in range(60):
        try:
            explore(seed, level)
        except (AssertionError, RuntimeError, DatabaseError):
            return
    pytest.fail("60 seeds found nothing wrong")
