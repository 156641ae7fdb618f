"""fdatasync beside the loop: on libuv's threads under uvloop, on one of ours under asyncio, with the same results."""

import asyncio
import ctypes
import errno
import gc
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardforge.adapters import datasync
from shardforge.adapters.blocking import ThreadBlocking
from shardforge.adapters.datasync import LoopDatasync
from shardforge.errors import StorageError
from shardforge.storage.wal import RaftLog
from tests.peers import LOOPS

NOT_OPEN = 1 << 20
Body = Callable[[ThreadBlocking], Coroutine[Any, Any, None]]


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    found = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield found
    os.close(found)


def run(loop: str, body: Body) -> None:
    async def bounded() -> None:
        blocking = ThreadBlocking(2)
        try:
            await asyncio.wait_for(body(blocking), 20)
        finally:
            blocking.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


@pytest.mark.parametrize("loop", LOOPS)
def test_files_are_synced_many_at_a_time(loop: str, descriptor: int) -> None:
    async def body(blocking: ThreadBlocking) -> None:
        for _ in range(3):
            os.pwrite(descriptor, b"x" * 5000, 0)
            await asyncio.gather(*[blocking.datasync(descriptor) for _ in range(20)])

    run(loop, body)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_failure_is_raised_with_its_number(loop: str) -> None:
    async def body(blocking: ThreadBlocking) -> None:
        for bad, number in (
            (NOT_OPEN, errno.EBADF),
            (os.open("/dev/null", os.O_RDWR), errno.EINVAL),
        ):
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                await blocking.datasync(bad)
            assert caught.value.errno == number
        os.close(bad)

    run(loop, body)


@pytest.mark.parametrize("loop", LOOPS)
def test_one_that_nobody_waits_for_any_more_harms_no_other(loop: str, descriptor: int) -> None:
    async def body(blocking: ThreadBlocking) -> None:
        given_up = asyncio.create_task(blocking.datasync(descriptor))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await blocking.datasync(descriptor)

    run(loop, body)


def test_a_loop_that_is_closed_meanwhile_ends_what_nobody_knows_of_any_more(
    descriptor: int,
) -> None:
    async def give_up() -> None:
        blocking = ThreadBlocking(1)
        given_up = [asyncio.create_task(blocking.datasync(descriptor)) for _ in range(8)]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        blocking.close()

    for _ in range(5):
        os.pwrite(descriptor, b"x" * 50_000, 0)
        loop = LOOPS["uvloop"]()
        loop.run_until_complete(give_up())
        gc.collect()
        loop.close()
        assert not datasync._under_way


def test_only_uvloop_has_threads_of_its_own() -> None:
    for name, made in LOOPS.items():
        loop = made()
        try:
            assert (LoopDatasync.of(loop) is not None) is (name == "uvloop")
        finally:
            loop.close()


class OtherRequest(ctypes.Structure):
    """Not how libuv lays a request out."""

    _fields_ = (("loop", ctypes.c_void_p), ("type", ctypes.c_int), ("result", ctypes.c_ssize_t))


def test_a_library_that_answers_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardforge.adapters.datasync._Request", OtherRequest)
    loop = LOOPS["uvloop"]()
    try:
        assert LoopDatasync.of(loop) is None
    finally:
        loop.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_log_is_made_durable_on_either(loop: str, tmp_path: Path) -> None:
    entries = [(index, 1, b"entry %d" % index) for index in range(1, 40)]
    entries[20] = (21, 1, bytes(100_000))

    async def body(blocking: ThreadBlocking) -> None:
        log = RaftLog.open(tmp_path, segment_size=2000)
        for entry in entries:
            log.append([entry])
            await log.make_durable(blocking)
            assert log.durable_index == entry[0]
        assert log.sync_count == len(entries)
        assert log.segment_count > 1
        log.close()
        log = RaftLog.open(tmp_path)
        assert log.read(1, log.last_index + 1) == entries
        log.close()

    run(loop, body)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_log_that_is_closed_meanwhile_says_so(loop: str, tmp_path: Path) -> None:
    async def body(blocking: ThreadBlocking) -> None:
        log = RaftLog.open(tmp_path)
        for index in (1, 2):
            log.append([(index, 1, b"entry")])
            under_way = asyncio.create_task(log.make_durable(blocking))
            if index == 1:  # makes room in the file
                await under_way
        await asyncio.sleep(0)
        log.close()
        with pytest.raises(StorageError) as caught:
            await under_way
        assert caught.value.sqlstate == "58030"
        log = RaftLog.open(tmp_path)
        assert log.last_index >= 1
        log.close()

    run(loop, body)
