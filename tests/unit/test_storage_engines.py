"""Both engines do the same; each loses only what its flush did not cover."""

import gc
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardforge.errors import StorageError
from shardforge.storage.engine import Engine, EngineClosedError
from shardforge.storage.memory import MemoryEngine
from shardforge.storage.rocksdb import RocksEngine, SharedMemory

Open = Callable[[Path], Engine]


def open_memory(path: Path) -> Engine:
    return MemoryEngine.from_checkpoint(path) if path.exists() else MemoryEngine()


@pytest.fixture(scope="module")
def shared() -> SharedMemory:
    return SharedMemory(8 << 20, 8 << 20)


@pytest.fixture(params=["memory", "rocksdb"])
def open_engine(request: pytest.FixtureRequest, shared: SharedMemory) -> Iterator[Open]:
    opened: list[Engine] = []

    def open_one(path: Path) -> Engine:
        engine = open_memory(path) if request.param == "memory" else RocksEngine(path, shared)
        opened.append(engine)
        return engine

    yield open_one
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(open_engine: Open, tmp_path: Path) -> Engine:
    return open_engine(tmp_path / "data")


def put(engine: Engine, *keys: bytes) -> None:
    engine.write([(key, b"value of " + key) for key in keys])


def keys_of(pairs: Any) -> list[bytes]:
    return [key for key, _ in pairs]


def test_gets(engine: Engine) -> None:
    put(engine, b"a", b"c")
    assert engine.get(b"a") == b"value of a"
    assert engine.get(b"b") is None
    assert engine.get_many([b"c", b"b", b"a", b"c"]) == [
        b"value of c", None, b"value of a", b"value of c",
    ]  # fmt: skip
    assert engine.get_many([]) == []


def test_a_batch_is_applied_in_order(engine: Engine) -> None:
    engine.write(
        [(b"a", b"1"), (b"a", None), (b"b", b"1"), (b"b", b"2"), (b"c", None), (b"d", b"")]
    )
    assert list(engine.scan(b"", b"z")) == [(b"b", b"2"), (b"d", b"")]
    engine.write([])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 9, 10, 11, 42, 1000])
def test_scans_of_any_length_both_ways(engine: Engine, count: int) -> None:
    every = [b"k%04d" % n for n in range(count)]
    put(engine, b"j", *every, b"l")
    assert keys_of(engine.scan(b"k", b"l")) == every
    assert keys_of(engine.scan(b"k", b"l", reverse=True)) == every[::-1]
    assert keys_of(engine.scan(b"", b"\xff", reverse=True)) == [b"l", *every[::-1], b"j"]
    middle = every[count // 3 : count // 2]
    if middle:
        start, end = middle[0], every[count // 2]
        assert keys_of(engine.scan(start, end)) == middle
        assert keys_of(engine.scan(start, end, reverse=True)) == middle[::-1]


def test_spans_are_half_open(engine: Engine) -> None:
    put(engine, b"a", b"b", b"c")
    assert keys_of(engine.scan(b"a", b"c")) == [b"a", b"b"]
    assert keys_of(engine.scan(b"a", b"c", reverse=True)) == [b"b", b"a"]
    assert keys_of(engine.scan(b"b", b"b")) == []
    assert keys_of(engine.scan(b"c", b"a")) == []
    assert engine.first(b"a\x00", b"c") == (b"b", b"value of b")
    assert engine.first(b"b\x00", b"c") is None
    assert engine.first(b"d", b"e") is None


def test_a_snapshot_does_not_change(engine: Engine) -> None:
    put(engine, *[b"k%03d" % n for n in range(600)])
    snapshot = engine.snapshot()
    started = engine.scan(b"k", b"l")
    engine.write([(b"k%03d" % n, None) for n in range(0, 600, 2)])
    put(engine, b"k0005", b"new", b"k999")
    engine.write([(b"k001", b"changed")])
    before = [b"k%03d" % n for n in range(600)]
    assert keys_of(snapshot.scan(b"", b"z")) == before
    assert keys_of(snapshot.scan(b"", b"z", reverse=True)) == before[::-1]
    assert snapshot.get(b"k000") == b"value of k000"
    assert snapshot.get(b"k001") == b"value of k001"
    assert snapshot.get(b"new") is None
    assert snapshot.first(b"k0000", b"l") == (b"k001", b"value of k001")
    assert keys_of(started) == before
    assert engine.get(b"k000") is None
    assert len(keys_of(engine.scan(b"k", b"l"))) == 302
    snapshot.close()


def test_who_reads_what_is_closed_is_told_to_try_again(engine: Engine) -> None:
    put(engine, *[b"k%03d" % n for n in range(900)])
    engine.flush()
    snapshot, begun = engine.snapshot(), engine.scan(b"k", b"l")
    assert next(begun)[0] == b"k000"
    engine.close()
    reads: list[Callable[[], Any]] = [
        lambda: engine.get(b"k000"),
        lambda: engine.get_many([b"k000"]),
        lambda: engine.first(b"k", b"l"),
        lambda: list(engine.scan(b"k", b"l")),
        lambda: list(engine.scan(b"k", b"l", reverse=True)),
        engine.snapshot,
    ]
    for read in reads:
        with pytest.raises(EngineClosedError) as caught:
            read()
        assert caught.value.sqlstate == "40001"
        assert caught.value.hint
    assert len(keys_of(snapshot.scan(b"k", b"l"))) == 900
    try:
        assert len(keys_of(begun)) == 899
    except EngineClosedError:
        assert isinstance(engine, RocksEngine), "it cannot tell whether there was more"


def test_writes_during_a_scan_do_not_show_in_it(engine: Engine) -> None:
    put(engine, *[b"k%03d" % n for n in range(900)])
    seen = []
    for key, _ in engine.scan(b"k", b"l"):
        seen.append(key)
        engine.write([(key, None), (key + b"x", b"")])
    assert seen == [b"k%03d" % n for n in range(900)]


def test_first_shows_every_change_at_once(engine: Engine) -> None:
    """Iterators are kept between looks: none may show what a write, however made, has changed since."""
    draw = random.Random(7)
    present: dict[bytes, bytes] = {}
    for step in range(3000):
        key = b"k%03d" % draw.randrange(400)
        match draw.randrange(100):
            case 0:
                engine.flush()
            case 1:
                engine.compact(b"", b"\xff")
            case 2:
                low, high = sorted((key, b"k%03d" % draw.randrange(400)))
                engine.delete_span(low, high)
                present = {at: v for at, v in present.items() if not low <= at < high}
            case number if number < 20:
                engine.write([(key, b"%d" % step), (b"j", None), (b"l", b"%d" % step)])
                present[key] = present[b"l"] = b"%d" % step
            case number if number < 40:  # many at a time: a look for what is behind them walks far
                gone = [b"k%03d" % n for n in range(draw.randrange(300), 400)]
                engine.write([(at, None) for at in gone])
                present = {at: v for at, v in present.items() if at not in set(gone)}
            case _:
                end = b"k%03d" % draw.randrange(400) if draw.random() < 0.5 else b"z"
                expected = min(
                    [pair for pair in present.items() if key <= pair[0] < end], default=None
                )
                assert engine.first(key, end) == expected


def test_first_shows_other_threads_writes(engine: Engine) -> None:
    """A look that begins after a write has returned shows it, while that thread writes on."""
    written = [0]

    def write() -> None:
        for number in range(1, 2001):
            engine.write([(b"key", b"%d" % number)])
            written[0] = number

    engine.write([(b"key", b"0")])
    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        before = written[0]
        found = engine.first(b"k", b"l")
        assert found is not None
        assert int(found[1]) >= before
    thread.join()
    assert engine.first(b"k", b"l") == (b"key", b"2000")


def test_delete_span(engine: Engine) -> None:
    put(engine, b"a", b"b", b"bb", b"c")
    engine.delete_span(b"b", b"c")
    assert keys_of(engine.scan(b"", b"z")) == [b"a", b"c"]
    put(engine, b"b")
    assert keys_of(engine.scan(b"", b"z")) == [b"a", b"b", b"c"]
    engine.compact(b"", b"z")
    assert engine.get(b"bb") is None


def test_a_checkpoint_is_an_independent_copy(
    engine: Engine, open_engine: Open, tmp_path: Path
) -> None:
    put(engine, b"a", b"b")
    engine.checkpoint(tmp_path / "copy")
    engine.write([(b"a", None), (b"c", b"")])
    copy = open_engine(tmp_path / "copy")
    assert keys_of(copy.scan(b"", b"z")) == [b"a", b"b"]
    put(copy, b"d")
    assert keys_of(engine.scan(b"", b"z")) == [b"b", b"c"]


def test_figures(engine: Engine) -> None:
    put(engine, *[b"k%05d" % n for n in range(5000)])
    engine.flush()
    assert engine.approximate_size() > 20_000
    assert all(isinstance(value, int) for value in engine.statistics().values())


def test_the_memory_engine_loses_what_was_not_flushed() -> None:
    engine = MemoryEngine()
    put(engine, b"a")
    engine.flush()
    put(engine, b"b", b"c")
    engine.write([(b"a", None)])
    assert engine.unflushed_count == 2
    assert keys_of(engine.crash().scan(b"", b"z")) == [b"a"]
    assert keys_of(engine.crash(kept=1).scan(b"", b"z")) == [b"a", b"b", b"c"]
    assert keys_of(engine.crash(kept=2).scan(b"", b"z")) == [b"b", b"c"]
    engine.flush()
    assert keys_of(engine.crash().scan(b"", b"z")) == [b"b", b"c"]


def test_a_dropped_snapshot_is_forgotten() -> None:
    engine = MemoryEngine()
    put(engine, b"a")
    snapshot = engine.snapshot()
    assert engine.statistics()["snapshots"] == 1
    del snapshot
    gc.collect()
    assert engine.statistics()["snapshots"] == 0


def test_rocksdb_keeps_what_was_flushed_through_a_kill(
    tmp_path: Path, shared: SharedMemory
) -> None:
    """A killed process loses whole batches from the end, and nothing that a flush covered."""
    program = (
        "import sys, os; from pathlib import Path\n"
        "from shardforge.storage.rocksdb import RocksEngine, SharedMemory\n"
        "engine = RocksEngine(Path(sys.argv[1]), SharedMemory(1 << 20, 1 << 20))\n"
        "for n in range(100):\n"
        "    engine.write([(b'x%03d' % n, b''), (b'y%03d' % n, b'')])\n"
        "    if n == 59: engine.flush()\n"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "data"
    source = str(Path(__file__).parents[2] / "src")
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)], env={"PYTHONPATH": source}, check=False
    )
    assert result.returncode == -9
    engine = RocksEngine(path, shared)
    xs = [key[1:] for key in keys_of(engine.scan(b"x", b"y"))]
    ys = [key[1:] for key in keys_of(engine.scan(b"y", b"z"))]
    assert xs == ys == [b"%03d" % n for n in range(60)]
    engine.close()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd", "snappy"])
def test_compressions(tmp_path: Path, shared: SharedMemory, compression: Any) -> None:
    engine = RocksEngine(tmp_path / "data", shared, compression)
    engine.write([(b"k%04d" % n, bytes(1000)) for n in range(1000)])
    engine.flush()
    size = sum(path.stat().st_size for path in (tmp_path / "data").glob("*.sst"))
    assert (size > 900_000) == (compression == "none")
    assert engine.get(b"k0500") == bytes(1000)
    engine.close()


def test_damaged_blocks_are_reported_and_never_read_as_absence(
    tmp_path: Path, shared: SharedMemory
) -> None:
    """rocksdict's own iterators end silently at such a block: rows would be missing."""
    path = tmp_path / "data"
    engine = RocksEngine(path, SharedMemory(1 << 20, 1 << 20), "none")
    engine.write([(b"k%04d" % n, bytes([n % 256]) * 100) for n in range(5000)])
    engine.flush()
    engine.close()
    table = max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    engine = RocksEngine(path, SharedMemory(1 << 20, 1 << 20), "none")
    calls: list[Callable[[], Any]] = [
        lambda: list(engine.scan(b"k", b"l")),
        lambda: list(engine.scan(b"k", b"l", reverse=True)),
        lambda: list(engine.snapshot().scan(b"k", b"l")),
        lambda: [engine.get(b"k%04d" % n) for n in range(5000)],
        lambda: engine.get_many([b"k%04d" % n for n in range(5000)]),
        lambda: [engine.first(b"k%04d" % n, b"l") for n in range(5000)],
    ]
    for call in calls:
        with pytest.raises(StorageError, match="data is damaged") as raised:
            call()
        assert raised.value.sqlstate == "XX001"
        del raised
    gc.collect()
    engine.close()


def test_a_folder_that_cannot_be_opened_is_an_error_in_words(
    tmp_path: Path, shared: SharedMemory
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not open"):
        RocksEngine(tmp_path / "file", shared)
