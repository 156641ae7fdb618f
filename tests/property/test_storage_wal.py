"""The Raft log against a list, through crashes at any point of a sync."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardforge.errors import StorageError
from shardforge.storage.files import OsFiles
from shardforge.storage.wal import RaftLog
from shardforge.storage.wal_format import HardState

SEGMENT_SIZE = 500

T = TypeVar("T")


class State(NamedTuple):
    """What a log should hold."""

    base: tuple[int, int]
    entries: tuple[tuple[int, int, bytes], ...]
    hard: HardState

    @property
    def last(self) -> int:
        return self.base[0] + len(self.entries)

    def before(self, index: int) -> tuple[tuple[int, int, bytes], ...]:
        return tuple(entry for entry in self.entries if entry[0] < index)


class CrashingFiles(OsFiles):
    """Stops at a chosen operation, having written a part of its bytes; then nothing works."""

    def __init__(self) -> None:
        self.operations_left = -1
        self.part = 0.0

    def _step(self) -> bool:
        if self.operations_left == 0:
            return True
        self.operations_left -= 1
        return False

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        if self._step():
            super().write(descriptor, data[: int(len(data) * self.part)], offset)
            raise OSError(errno.EIO, "crash")
        super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        if self._step():
            raise OSError(errno.EIO, "crash")
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        if self._step():
            raise OSError(errno.EIO, "crash")
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        if self._step():
            raise OSError(errno.EIO, "crash")
        super().remove(path)


class Inline:
    """`Blocking` without a thread, over files that may crash."""

    def __init__(self, files: CrashingFiles) -> None:
        self.files = files

    async def run(self, call: Callable[[], T]) -> T:
        return call()

    async def datasync(self, descriptor: int) -> None:
        self.files.sync(descriptor)


def sync(log: RaftLog, files: CrashingFiles, aside: bool) -> None:
    """Make everything durable, the one way or the other."""
    if aside:
        with pytest.raises(StopIteration):
            log.make_durable(Inline(files)).send(None)
    else:
        log.sync()


Change = Callable[[State], State]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "replace", "cut", "hard", "sync", "sync", "prefix",
                         "reset", "reopen", "crash", "crash"]),
        st.integers(0, 30), st.integers(0, 12), st.floats(0, 1),
    ), max_size=25,
)  # fmt: skip


def state_of(log: RaftLog) -> State:
    base = log.base_index
    term = log.term(base)
    assert term is not None
    return State((base, term), tuple(log.read(base + 1, log.last_index + 1)), log.hard_state)


def changed(
    kind: str, number: int, size: int, state: State, log: RaftLog, term: int
) -> list[State]:
    """Make a change in the log; the states that its records lead through."""
    base, last = state.base[0], state.last
    if kind in ("append", "replace"):
        first = last + 1 if kind == "append" else base + 1 + number % (len(state.entries) + 1)
        batch = [(first + i, term, b"%d" % number * (i + size)) for i in range(size % 4 + 1)]
        log.append(batch)
        states = []
        for entry in batch:
            state = state._replace(entries=(*state.before(entry[0]), entry))
            states.append(state)
        return states
    if kind == "cut":
        index = base + 1 + number % (len(state.entries) + 1)
        log.truncate_suffix(index)
        return [state._replace(entries=state.before(index))]
    if kind == "hard":
        log.set_hard_state(term, number, size)
        return [state._replace(hard=HardState(term, number, size))]
    assert kind == "reset"
    index = base + number
    known = log.term(index)
    log.reset(index, term if known is None else known)
    kept = tuple(entry for entry in state.entries if entry[0] > index) if known is not None else ()
    return [State((index, term if known is None else known), kept, state.hard)]


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_what_was_synced_survives_and_the_rest_is_a_prefix(
    steps: list[tuple[str, int, int, float]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = CrashingFiles()
        log = RaftLog.open(folder, files, segment_size=SEGMENT_SIZE)
        synced = state = State((0, 0), (), HardState(0, 0, 0))
        reachable = [state]  # from what was synced, through each change since
        for term, (kind, number, size, part) in enumerate(steps, 1):
            if kind in ("append", "replace", "cut", "hard", "reset"):
                states = changed(kind, number, size, state, log, term)
                reachable += states
                state = states[-1]
            elif kind == "prefix":
                index = min(log.durable_index, state.base[0] + number)
                if index > state.base[0]:
                    known = log.term(index)
                    assert known is not None
                    log.truncate_prefix(index)
                    kept = tuple(entry for entry in state.entries if entry[0] > index)
                    synced = state = State((index, known), kept, state.hard)
                    reachable = [state]
            elif kind == "sync":
                sync(log, files, part < 0.5)
                synced, reachable = state, [state]
                assert log.durable_index == state.last or state.last == state.base[0]
            elif kind == "reopen":
                log.sync()
                log.close()
                log = RaftLog.open(folder, files, segment_size=SEGMENT_SIZE)
                synced, reachable = state, [state]
            else:
                log, state = crash(folder, log, files, number % 8, part, reachable)
                synced, reachable = state, [state]
            assert state_of(log) == state
        log.close()
        log = RaftLog.open(folder, segment_size=SEGMENT_SIZE)
        assert state_of(log) == synced
        log.close()


def crash(
    folder: Path, log: RaftLog, files: CrashingFiles, operation: int, part: float,
    reachable: list[State],
) -> tuple[RaftLog, State]:  # fmt: skip
    """Crash in the middle of a sync, then once more while opening; the log is one of `reachable`."""
    files.operations_left, files.part = operation, part
    try:
        sync(log, files, part < 0.5)
        reachable = reachable[-1:]
    except StorageError:
        log.close()
    else:
        log.close()
    files.operations_left = operation // 2
    try:
        RaftLog.open(folder, files, segment_size=SEGMENT_SIZE).close()
    except StorageError as error:
        if error.sqlstate == "XX001":
            raise
    files.operations_left = -1
    log = RaftLog.open(folder, files, segment_size=SEGMENT_SIZE)
    found = state_of(log)
    assert found in reachable
    return log, found
