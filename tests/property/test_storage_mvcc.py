"""Versions over either engine against a dictionary; the cache against the engine."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardforge.ids import INFINITY
from shardforge.keys import key_encoder
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine
from shardforge.storage.memory import MemoryEngine
from shardforge.storage.newest_cache import ABSENT, CacheMemory, NewestCache
from shardforge.storage.rocksdb import RocksEngine, SharedMemory

ENCODE = key_encoder([(25, False, False)])
NAMES = ["", "\x01", "a", "a\x01", "ab", "b", "\U0010ffff"]
KEYS = sorted(ENCODE((name,)) for name in NAMES)
"""Prefix-free, with neighbours that differ only in length."""
BOUNDS = sorted(
    {b"", b"\x02", b"\x02a", b"\x03", b"\xff", *KEYS, *[key + b"\x00" for key in KEYS],
     *[key[:-1] for key in KEYS]}
)  # fmt: skip
TIMES = st.integers(1, 12)
WRITES = st.dictionaries(
    st.tuples(st.sampled_from(KEYS), TIMES),
    st.none() | st.binary(max_size=3),
    max_size=25,
)
Model = dict[tuple[bytes, int], bytes | None]

SHARED = SharedMemory(1 << 20, 4 << 20)


@pytest.fixture(scope="module")
def rocks() -> RocksEngine:
    with tempfile.TemporaryDirectory() as folder:
        engine = RocksEngine(Path(folder) / "data", SHARED)
        yield engine
        engine.close()


def engines(rocks: RocksEngine, writes: Model) -> list[Engine]:
    """Both engines, holding exactly these versions."""
    made: list[Engine] = [MemoryEngine(), rocks]
    rocks.write([(key, None) for key, _ in list(rocks.scan(b"", b"\xff"))])
    for engine in made:
        engine.write([mvcc.put_version(key, at, value) for (key, at), value in writes.items()])
        engine.write([(b"u" + KEYS[0], b"below"), (b"w", b"above"), mvcc.put_applied(b"7")])
    return made


def visible(model: Model, key: bytes, timestamp: int) -> tuple[int, bytes | None] | None:
    found = [(at, value) for (k, at), value in model.items() if k == key and at <= timestamp]
    return max(found, key=lambda pair: pair[0], default=None)


@settings(max_examples=80, deadline=None)
@given(
    model=WRITES,
    timestamp=TIMES | st.just(INFINITY),
    bounds=st.tuples(*[st.sampled_from(BOUNDS)] * 2),
)
def test_reads_and_scans(
    rocks: RocksEngine, model: Model, timestamp: int, bounds: tuple[bytes, bytes]
) -> None:
    start, end = bounds
    for engine in engines(rocks, model):
        reader = engine.snapshot()
        expected = []
        for key in KEYS:
            found = visible(model, key, timestamp)
            version = mvcc.version_at(reader, key, timestamp)
            assert version == (None if found is None else (key, *found))
            assert mvcc.read(reader, key, timestamp) == (None if found is None else found[1])
            newest = visible(model, key, INFINITY)
            assert mvcc.newest(reader, key) == (None if newest is None else (key, *newest))
            if found is not None and found[1] is not None and start <= key < end:
                expected.append((key, *found))
        assert list(mvcc.scan(reader, start, end, timestamp)) == expected
        assert list(mvcc.scan(reader, start, end, timestamp, reverse=True)) == expected[::-1]
        assert mvcc.applied(reader) == b"7"
        reader.close()


@settings(max_examples=80, deadline=None)
@given(model=WRITES, run=st.lists(st.sampled_from(KEYS), min_size=1, unique=True).map(sorted))
def test_newest_versions_of_a_run_of_keys(
    rocks: RocksEngine, model: Model, run: list[bytes]
) -> None:
    for engine in engines(rocks, model):
        found = mvcc.newest_of_run(engine, run)
        assert list(found) == run[: len(found)], "what is left out is at the end"
        assert found == {key: mvcc.newest(engine, key) for key in found}
        between = sum(1 for key, _ in model if run[0] <= key <= run[-1])
        assert len(found) == len(run) or between >= 4 * len(run)


@settings(max_examples=60, deadline=None)
@given(
    model=WRITES, after=st.integers(0, 12), until=TIMES,
    bounds=st.tuples(*[st.sampled_from(BOUNDS)] * 2),
)  # fmt: skip
def test_versions_of_a_span_and_time(
    rocks: RocksEngine, model: Model, after: int, until: int, bounds: tuple[bytes, bytes]
) -> None:
    start, end = bounds
    for engine in engines(rocks, model):
        found = list(mvcc.versions_in(engine, start, end, after, until))
        assert set(found) == {
            (key, at, value)
            for (key, at), value in model.items()
            if after < at <= until and start <= key < end
        }
        assert found == sorted(found, key=lambda version: (version[0], -version[1]))


@settings(max_examples=60, deadline=None)
@given(
    model=WRITES, horizon=TIMES, pairs_max=st.integers(1, 6),
    bounds=st.tuples(*[st.sampled_from(BOUNDS)] * 2),
)  # fmt: skip
def test_garbage_is_what_no_reader_from_the_horizon_on_sees(
    rocks: RocksEngine, model: Model, horizon: int, pairs_max: int, bounds: tuple[bytes, bytes]
) -> None:
    start, end = bounds
    for engine in engines(rocks, model):
        at: bytes | None = start
        touched = set()
        while at is not None:
            garbage = mvcc.garbage(engine, at, end, horizon, pairs_max)
            engine.write(garbage.batch)
            touched.update(garbage.keys)
            assert garbage.resume is None or garbage.resume > at or at == b""
            at = garbage.resume
        left = set(mvcc.versions_in(engine, b"", b"\xff", 0, INFINITY))
        expected = set()
        for (key, time), value in model.items():
            newest = visible(model, key, horizon)
            kept = time > horizon or (
                newest is not None and newest[0] == time and value is not None
            )
            if kept or not start <= key < end:
                expected.add((key, time, value))
        assert left == expected
        assert touched == {
            key for key, time in model if (key, time, model[key, time]) not in expected
        }


def test_intents_and_records_are_found_by_span() -> None:
    engine = MemoryEngine()
    engine.write(
        [
            mvcc.put_intent(KEYS[2], b"one"), mvcc.put_intent(KEYS[4], b"two"),
            mvcc.put_record(KEYS[2], 9, b"committed"), mvcc.put_record(KEYS[2], 2**64 - 1, b"aborted"),
            mvcc.put_record(KEYS[3], 1, b""), mvcc.put_version(KEYS[2], 5, b"row"),
        ]
    )  # fmt: skip
    assert list(mvcc.intents(engine, b"", b"\xff")) == [(KEYS[2], b"one"), (KEYS[4], b"two")]
    assert list(mvcc.intents(engine, KEYS[2] + b"\x00", b"\xff")) == [(KEYS[4], b"two")]
    assert mvcc.intent(engine, KEYS[4]) == b"two"
    assert mvcc.intent(engine, KEYS[3]) is None
    assert mvcc.record(engine, KEYS[2], 9) == b"committed"
    assert mvcc.record(engine, KEYS[2], 8) is None
    assert list(mvcc.records(engine, KEYS[2], KEYS[2] + b"\x00")) == [
        (KEYS[2], 9, b"committed"), (KEYS[2], 2**64 - 1, b"aborted"),
    ]  # fmt: skip
    assert list(mvcc.records(engine, KEYS[2] + b"\x00", b"\xff")) == [(KEYS[3], 1, b"")]
    engine.write([mvcc.put_intent(KEYS[2], None), mvcc.put_record(KEYS[3], 1, None)])
    assert [intent.key for intent in mvcc.intents(engine, b"", b"\xff")] == [KEYS[4]]
    assert mvcc.record(engine, KEYS[3], 1) is None


@pytest.mark.parametrize("timestamp", [0, INFINITY, -1])
def test_a_version_needs_a_drawn_timestamp(timestamp: int) -> None:
    with pytest.raises(AssertionError):
        mvcc.put_version(b"k", timestamp, b"")


CACHE_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "read", "stale read", "clear"]),
        st.sampled_from(KEYS), st.integers(1, 20), st.none() | st.binary(max_size=40),
    ), max_size=40,
)  # fmt: skip


@settings(max_examples=150)
@given(steps=CACHE_STEPS, capacity=st.sampled_from([0, 500, 1500, 100_000]))
def test_a_cached_version_is_the_newest_one(
    steps: list[tuple[str, bytes, int, bytes | None]], capacity: int
) -> None:
    engine, cache = MemoryEngine(), NewestCache(CacheMemory(capacity))

    def from_engine(key: bytes) -> tuple[int, bytes | None]:
        version = mvcc.newest(engine, key)
        return ABSENT if version is None else (version.timestamp, version.value)

    taken: dict[bytes, tuple[tuple[int, bytes | None], int]] = {}
    used: set[tuple[bytes, int]] = set()
    for kind, key, timestamp, value in steps:
        if kind == "write" and (key, timestamp) not in used:
            used.add((key, timestamp))
            known = cache.get(key) if timestamp % 2 else None  # sometimes not in the young half
            assert known is None or known == from_engine(key)
            if timestamp < from_engine(key)[0] and known is None:
                continue  # the replica applies in commit order unless the key is known
            engine.write([mvcc.put_version(key, timestamp, value)])
            cache.wrote(key, timestamp, value)
        elif kind == "read":
            cache.fill(key, from_engine(key), cache.writes)
            taken[key] = from_engine(key), cache.writes
        elif kind == "stale read" and key in taken:
            cache.fill(key, *taken[key])
        elif kind == "clear":
            cache.clear()
        for other in KEYS:
            entry = cache.get(other)
            assert entry is None or entry == from_engine(other)


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = NewestCache(CacheMemory(100_000))
    cache.wrote(b"hot", 1, b"row")
    for n in range(1, 5000):
        cache.wrote(b"cold%d" % n, n, bytes(50))
        cache.wrote(b"often", n, bytes(50))
        assert cache.get(b"hot") == (1, b"row")
    assert len(cache) < 500
    assert cache.get(b"cold1") is None
    assert cache.get(b"often") == (4999, bytes(50))


def test_a_busy_cache_takes_what_others_leave() -> None:
    memory = CacheMemory(100_000)
    idle, busy = NewestCache(memory), NewestCache(memory)
    idle.wrote(b"idle", 1, b"row")
    for n in range(200):
        busy.wrote(b"%d" % n, n + 1, bytes(50))
    assert (
        len(busy) == 200
    )  # of about 250 bytes each, as much as one that is alone may keep for sure
    assert idle.get(b"idle") == (1, b"row")
    for n in range(5000):
        busy.wrote(b"more%d" % n, n + 1, bytes(50))
        assert len(busy) + len(idle) < 500
    assert idle.get(b"idle") is None  # and an idle one gives way
    memory.leave(busy)
    assert len(busy) == 0


def test_a_split_cache_keeps_its_entries() -> None:
    memory = CacheMemory(100_000)
    parent, child = NewestCache(memory), NewestCache(memory)
    for n in range(300):
        parent.wrote(b"%03d" % n, n + 1, bytes(50))
    before = {key: parent.get(key) for key in (b"%03d" % n for n in range(300))}
    parent.move(b"200", child)
    for key, entry in before.items():
        owner, other = (child, parent) if key >= b"200" else (parent, child)
        assert owner.get(key) == entry
        assert other.get(key) is None
