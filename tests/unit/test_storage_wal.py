"""The Raft log: what was synced is found again; torn tails are cut; damage is refused, by place."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from shardforge.errors import StorageError
from shardforge.storage.files import OsFiles
from shardforge.storage.wal import RaftLog
from shardforge.storage.wal_format import HEADER_SIZE, MARK_SIZE, HardState, records, unpack_mark


def entries(low: int, high: int, term: int = 1) -> list[tuple[int, int, bytes]]:
    return [(index, term, b"entry %d of %d" % (index, term)) for index in range(low, high)]


def contents(log: RaftLog) -> list[tuple[int, int, bytes]]:
    return log.read(log.base_index + 1, log.last_index + 1)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def reopened(log: RaftLog, folder: Path, **options: int) -> RaftLog:
    log.close()
    return RaftLog.open(folder, **options)


class PlainFiles(OsFiles):
    """Without reserved room, so that a file is as long as its content."""

    def reserve(self, descriptor: int, offset: int, size: int) -> None:
        pass


def write_log(folder: Path, *batches: list[tuple[int, int, bytes]]) -> None:
    """A log with each batch synced on its own, closed."""
    log = RaftLog.open(folder, PlainFiles())
    for batch in batches:
        log.append(batch)
        log.sync()
    log.close()


class FaultyFiles(OsFiles):
    """Fails when told to; otherwise the real thing."""

    def __init__(self) -> None:
        self.write_error: int | None = None
        self.write_limit: int | None = None
        self.sync_error: int | None = None
        self.before_sync: Callable[[], None] = lambda: None

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        if self.write_error is not None:
            super().write(descriptor, data[: self.write_limit], offset)
            raise OSError(self.write_error, "No space left on device")
        super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        self.before_sync()
        if self.sync_error is not None:
            raise OSError(self.sync_error, "Input/output error")
        super().sync(descriptor)


# ---- the ordinary course -------------------------------------------------------------------------


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path)
    assert (log.base_index, log.last_index, log.durable_index) == (0, 0, 0)
    assert log.hard_state == HardState(0, 0, 0)
    assert log.term(0) == 0
    assert log.term(1) is None
    log = reopened(log, tmp_path)
    assert log.last_index == 0
    log.close()


def test_entries_and_hard_state_are_found_again(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path)
    log.append(entries(1, 4))
    log.set_hard_state(3, 2, 1)
    assert log.durable_index == 0
    assert log.read(2, 4) == entries(2, 4)  # from memory
    assert log.sync() == 3
    assert log.read(2, 4) == entries(2, 4)  # from the file
    log.append(entries(4, 6, term=3))
    assert log.read(3, 6) == entries(3, 4) + entries(4, 6, term=3)  # from both
    log.sync()
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 4) + entries(4, 6, term=3)
    assert log.hard_state == HardState(3, 2, 1)
    assert [log.term(index) for index in range(7)] == [0, 1, 1, 1, 3, 3, None]
    assert log.durable_index == 5
    log.close()


def test_reads_stop_at_the_size_limit_but_give_one_entry(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path)
    log.append([(index, 1, bytes(100)) for index in range(1, 10)])
    log.sync()
    assert len(log.read(1, 10, bytes_max=350)) == 3
    assert len(log.read(1, 10, bytes_max=1)) == 1
    log.close()


def test_a_later_entry_replaces_all_from_its_index(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path)
    log.append(entries(1, 6))
    log.sync()
    log.append(entries(3, 5, term=2))
    assert log.last_index == 4
    assert log.durable_index == 2
    log.sync()
    assert contents(log) == entries(1, 3) + entries(3, 5, term=2)
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 3) + entries(3, 5, term=2)
    log.close()


def test_a_cut_suffix_stays_cut(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path)
    log.append(entries(1, 6))
    log.sync()
    log.truncate_suffix(4)
    assert (log.last_index, log.durable_index) == (3, 3)
    log.sync()
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 4)
    log.close()


def test_entries_replaced_while_they_are_written_are_not_durable(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = RaftLog.open(tmp_path, files)
    log.append(entries(1, 4))

    def replace() -> None:
        files.before_sync = lambda: None
        log.append(entries(2, 3, term=2))

    files.before_sync = replace
    assert log.sync() == 1
    assert contents(log) == entries(1, 2) + entries(2, 3, term=2)
    assert log.sync() == 2
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 2) + entries(2, 3, term=2)
    log.close()


def test_segments_follow_one_another_and_old_ones_go(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path, segment_size=400)
    for index in range(1, 41):
        log.append(entries(index, index + 1))
        log.set_hard_state(7, 1, index - 1)
        log.sync()
    assert log.segment_count == len(segments(tmp_path)) > 4
    log = reopened(log, tmp_path, segment_size=400)
    assert contents(log) == entries(1, 41)
    before = log.segment_count
    log.truncate_prefix(20)
    assert (log.base_index, log.last_index) == (20, 40)
    assert log.term(20) == 1
    assert log.segment_count == len(segments(tmp_path)) < before
    log = reopened(log, tmp_path, segment_size=400)
    assert contents(log) == entries(21, 41)
    assert log.term(20) == 1
    assert log.hard_state == HardState(7, 1, 39)
    log.truncate_prefix(40)
    assert log.segment_count <= 2
    log.append(entries(41, 43))
    log.sync()
    log = reopened(log, tmp_path)
    assert contents(log) == entries(41, 43)
    log.close()


def test_the_base_is_right_when_a_removed_segment_was_overwritten_later(tmp_path: Path) -> None:
    """The first remaining segment begins at entry 10, but replaces entries from 8 on."""
    log = RaftLog.open(tmp_path, segment_size=300)
    log.append(entries(1, 11))
    log.sync()  # this fills the segment
    log.append(entries(8, 10, term=2))
    log.sync()
    assert log.segment_count == 2 or log.segment_count == 3
    log.truncate_prefix(7)
    assert len(segments(tmp_path)) < 3
    log = reopened(log, tmp_path)
    assert (log.base_index, log.term(7)) == (7, 1)
    assert contents(log) == entries(8, 10, term=2)
    log.close()


def test_a_suffix_cut_below_the_first_remaining_segment(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path, segment_size=300)
    log.append(entries(1, 11))
    log.sync()
    log.truncate_suffix(8)
    log.sync()
    log.truncate_prefix(7)
    log = reopened(log, tmp_path)
    assert (log.base_index, log.last_index, log.term(7)) == (7, 7, 1)
    log.close()


def test_a_snapshot_replaces_the_log(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path)
    log.append(entries(1, 6))
    log.sync()
    log.reset(100, 9)
    log.append(entries(101, 103, term=9))
    assert log.sync() == 102
    log = reopened(log, tmp_path)
    assert (log.base_index, log.last_index, log.term(100)) == (100, 102, 9)
    log.reset(101, 9)  # an entry that is here: what follows stays
    log.sync()
    log = reopened(log, tmp_path)
    assert contents(log) == entries(102, 103, term=9)
    log.close()


def test_reserved_room_is_no_tail_and_goes_when_the_segment_is_full(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path, segment_size=1000)
    log.append(entries(1, 4))
    log.sync()
    (segment,) = segments(tmp_path)
    assert segment.stat().st_size > 1 << 20
    log = reopened(log, tmp_path, segment_size=1000)
    assert (log.torn_bytes, log.segment_count) == (0, 1)
    assert contents(log) == entries(1, 4)
    log.append(entries(4, 40))
    log.sync()
    assert log.segment_count == 2
    assert segment.stat().st_size < 5000
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 40)
    log.close()


# ---- after a crash: torn tails -------------------------------------------------------------------


def test_unsynced_entries_may_be_kept_and_are_synced_anew(tmp_path: Path) -> None:
    """The page cache had them, no sync did: what lies after the mark goes to a new synced segment."""
    write_log(tmp_path, entries(1, 4))
    mark = (tmp_path / "mark").read_bytes()
    log = RaftLog.open(tmp_path)
    log.append(entries(4, 6))
    log.sync()
    log.close()
    (tmp_path / "mark").write_bytes(mark)  # as if the last sync had never returned
    files = FaultyFiles()
    synced: list[int] = []
    files.before_sync = lambda: synced.append(1)
    log = RaftLog.open(tmp_path, files)
    assert contents(log) == entries(1, 6)
    assert log.durable_index == 5
    assert synced
    assert len(segments(tmp_path)) == 2
    old = segments(tmp_path)[0]
    where = unpack_mark(mark)
    assert where is not None
    log.close()
    old.write_bytes(old.read_bytes()[: where.offset])  # the disk never had the old tail
    log = RaftLog.open(tmp_path)
    assert contents(log) == entries(1, 6)
    log.append(entries(6, 7))
    log.sync()
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 7)
    log.close()


def unsynced(folder: Path, batch: list[tuple[int, int, bytes]]) -> tuple[Path, int]:
    """Write a batch whose sync never returns; the segment and its durable end."""
    mark = (folder / "mark").read_bytes()
    log = RaftLog.open(folder, PlainFiles())
    log.append(batch)
    log.sync()
    log.close()
    (folder / "mark").write_bytes(mark)
    where = unpack_mark(mark)
    assert where is not None
    return segments(folder)[-1], where.offset


def test_truncation_at_every_byte_of_the_last_record_is_a_torn_tail(tmp_path: Path) -> None:
    write_log(tmp_path, entries(1, 4))
    segment, durable = unsynced(tmp_path, entries(4, 5))
    mark, data = (tmp_path / "mark").read_bytes(), segment.read_bytes()
    for size in range(durable, len(data)):
        for path in segments(tmp_path):
            path.unlink()
        segment.write_bytes(data[:size])
        (tmp_path / "mark").write_bytes(mark)
        log = RaftLog.open(tmp_path)
        assert contents(log) == entries(1, 4)
        assert log.torn_bytes == len(data[durable:size].rstrip(b"\x00"))
        log.append(entries(4, 6, term=2))
        log.sync()
        log = reopened(log, tmp_path)
        assert contents(log) == entries(1, 4) + entries(4, 6, term=2)
        assert log.torn_bytes == 0
        log.close()


@pytest.mark.parametrize("tail", [bytes(5000), bytes(50) + b"\xff" * 100, b"\xf5SFE" * 50])
def test_rubbish_after_the_durable_end_is_a_torn_tail(tmp_path: Path, tail: bytes) -> None:
    write_log(tmp_path, entries(1, 4))
    segment = segments(tmp_path)[-1]
    segment.write_bytes(segment.read_bytes() + tail)
    log = RaftLog.open(tmp_path)
    assert contents(log) == entries(1, 4)
    assert log.torn_bytes == len(tail.rstrip(b"\x00"))
    log.close()


def test_bit_flips_in_the_last_unsynced_record_are_a_torn_tail(tmp_path: Path) -> None:
    write_log(tmp_path, entries(1, 4))
    segment, durable = unsynced(tmp_path, entries(4, 5))
    mark, data = (tmp_path / "mark").read_bytes(), segment.read_bytes()
    for at in range(durable, len(data)):
        for path in segments(tmp_path):
            path.unlink()
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        segment.write_bytes(flipped)
        (tmp_path / "mark").write_bytes(mark)
        log = RaftLog.open(tmp_path)
        assert contents(log) == entries(1, 4)
        log.close()


@pytest.mark.parametrize("size", [0, 1, HEADER_SIZE - 1])
def test_a_segment_that_was_created_and_never_synced_is_removed(tmp_path: Path, size: int) -> None:
    write_log(tmp_path, entries(1, 4))
    header = segments(tmp_path)[0].read_bytes()[:size]
    (tmp_path / "0000000000000002.log").write_bytes(header)
    (tmp_path / "0000000000000003.draft").write_bytes(b"half a segment")
    log = RaftLog.open(tmp_path)
    assert contents(log) == entries(1, 4)
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 4)
    assert not list(tmp_path.glob("*.draft"))
    log.close()


def test_a_crash_before_the_first_record_of_a_new_segment(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path, segment_size=1)  # each sync begins a segment
    log.append(entries(1, 3))
    log.sync()
    assert log.segment_count == 2
    log = reopened(log, tmp_path, segment_size=1)
    assert contents(log) == entries(1, 3)
    log.append(entries(3, 5))
    log.sync()
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 5)
    log.close()


@pytest.mark.parametrize("mark", [None, b"", b"\x00" * MARK_SIZE, b"rubbish that is no mark"])
def test_a_lost_mark_costs_a_rewrite_and_nothing_else(tmp_path: Path, mark: bytes | None) -> None:
    log = RaftLog.open(tmp_path, segment_size=200)
    for index in range(1, 10):
        log.append(entries(index, index + 1))
        log.sync()
    log.close()
    if mark is None:
        (tmp_path / "mark").unlink()
    else:
        (tmp_path / "mark").write_bytes(mark)
    log = RaftLog.open(tmp_path)
    assert contents(log) == entries(1, 10)
    assert log.segment_count == 1
    log = reopened(log, tmp_path)
    assert contents(log) == entries(1, 10)
    log.close()


def test_a_restart_that_crashes_while_it_rewrites_the_tail_loses_nothing(tmp_path: Path) -> None:
    write_log(tmp_path, entries(1, 4))
    unsynced(tmp_path, entries(4, 6))
    files = FaultyFiles()
    files.sync_error = errno.EIO
    with pytest.raises(StorageError):
        RaftLog.open(tmp_path, files)
    log = RaftLog.open(tmp_path)
    assert contents(log) == entries(1, 6)
    log.close()


# ---- damage --------------------------------------------------------------------------------------


def refused(folder: Path) -> StorageError:
    with pytest.raises(StorageError) as raised:
        RaftLog.open(folder)
    assert raised.value.sqlstate == "XX001"
    return raised.value


def test_a_bit_flip_anywhere_below_the_mark_is_damage(tmp_path: Path) -> None:
    write_log(tmp_path, entries(1, 3), entries(3, 5))
    segment = segments(tmp_path)[0]
    data = segment.read_bytes()
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x04
        segment.write_bytes(flipped)
        error = refused(tmp_path)
        assert str(segment) in error.message
    segment.write_bytes(data)
    RaftLog.open(tmp_path).close()


def test_the_refusal_names_the_place_and_what_is_lost(tmp_path: Path) -> None:
    write_log(tmp_path, entries(1, 8))
    segment = segments(tmp_path)[0]
    data = bytearray(segment.read_bytes())
    third = data.index(b"entry 3 of 1")
    place = next(
        record.offset for record in records(bytes(data), 1) if record.offset < third < record.end
    )
    data[third] ^= 1
    segment.write_bytes(data)
    error = refused(tmp_path)
    assert f"{segment} at offset {place}" in error.message
    assert error.detail == "Entries from index 3 are lost; intact ones up to 7 follow."
    assert segment.read_bytes() == bytes(data)  # nothing was changed


def test_an_intact_record_after_a_damaged_one_is_damage_even_past_the_mark(tmp_path: Path) -> None:
    write_log(tmp_path, entries(1, 3))
    segment, durable = unsynced(tmp_path, entries(3, 6))
    data = bytearray(segment.read_bytes())
    data[durable + 20] ^= 1
    segment.write_bytes(data)
    assert "but one at offset" in refused(tmp_path).message


def test_a_record_inside_user_data_does_not_count_as_intact(tmp_path: Path) -> None:
    """A log copied into a bytea column must not turn a torn tail into damage."""
    write_log(tmp_path, entries(1, 3))
    log_bytes = segments(tmp_path)[0].read_bytes()
    segment, durable = unsynced(tmp_path, [(3, 1, log_bytes)])
    data = bytearray(segment.read_bytes())
    data[durable] ^= 1
    segment.write_bytes(data)
    log = RaftLog.open(tmp_path)
    assert contents(log) == entries(1, 3)
    log.close()


def test_a_file_shorter_than_the_mark_is_damage(tmp_path: Path) -> None:
    write_log(tmp_path, entries(1, 5))
    segment = segments(tmp_path)[0]
    data = segment.read_bytes()
    for size in (len(data) - 1, len(data) // 2, HEADER_SIZE, 10, 0):
        segment.write_bytes(data[:size])
        refused(tmp_path)


def test_truncation_or_damage_of_an_older_segment_is_damage(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path, segment_size=200)
    for index in range(1, 10):
        log.append(entries(index, index + 1))
        log.sync()
    log.close()
    first, second, *_ = segments(tmp_path)
    (tmp_path / "mark").unlink()  # found even without the mark
    for path in (first, second):
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        assert str(path) in refused(tmp_path).message
        flipped = bytearray(data)
        flipped[-1] ^= 1
        path.write_bytes(flipped)
        assert str(path) in refused(tmp_path).message
        path.write_bytes(data)
    second.unlink()
    assert "is missing" in refused(tmp_path).message


def test_missing_segments_are_damage(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path, segment_size=200)
    for index in range(1, 10):
        log.append(entries(index, index + 1))
        log.sync()
    log.close()
    *_, last = segments(tmp_path)
    data = last.read_bytes()
    last.unlink()
    assert "is missing" in refused(tmp_path).message
    last.write_bytes(data)
    for path in segments(tmp_path):
        path.unlink()
    assert "every segment" in refused(tmp_path).message


def test_damage_that_appears_while_running_is_found_by_the_read(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path)
    log.append(entries(1, 4))
    log.sync()
    segment = segments(tmp_path)[0]
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"entry 2", b"entry 9"))
    assert log.read(1, 2) == entries(1, 2)
    with pytest.raises(StorageError, match="entry 2 cannot be read") as raised:
        log.read(1, 4)
    assert raised.value.sqlstate == "XX001"
    log.close()


# ---- errors while running ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "number", "sqlstate"),
    [("sync_error", errno.EIO, "58030"), ("write_error", errno.ENOSPC, "53100")],
)
def test_after_an_error_the_log_is_out_of_use(
    tmp_path: Path, field: str, number: int, sqlstate: str
) -> None:
    files = FaultyFiles()
    log = RaftLog.open(tmp_path, files)
    log.append(entries(1, 3))
    log.sync()
    files.write_limit = 30
    setattr(files, field, number)
    log.append(entries(3, 5))
    with pytest.raises(StorageError) as raised:
        log.sync()
    assert raised.value.sqlstate == sqlstate
    setattr(files, field, None)
    for call in (log.sync, lambda: log.append([]), lambda: log.truncate_suffix(1)):
        with pytest.raises(StorageError, match="out of use") as again:
            call()
        assert again.value.sqlstate == sqlstate
    assert log.read(1, 3) == entries(1, 3)
    log = reopened(log, tmp_path)
    assert contents(log)[:2] == entries(1, 3)
    log.append(entries(log.last_index + 1, log.last_index + 2))
    log.sync()
    log.close()
