"""One shard's Raft log on disk: the only write-ahead log there is.

`append`, `set_hard_state`, `truncate_suffix` and `reset` change the log in memory and cost no I/O; `sync` makes
everything up to its call durable with one write and one fdatasync, and belongs on a thread; `make_durable` does the
same and waits, for the fdatasync alone where the write is a small one. One of them at a time; the others may be called
meanwhile and go with the next one.

    wal/0000000000000001.log ...     segments; see `wal_format`
    wal/mark                         the durable end, rewritten in place after each fdatasync, not synced

Opening replays the files (`wal_recovery`), cuts a torn tail, and writes what lies after the mark anew into a
synced segment: after a failed fsync the page cache may show what the disk never got.
After any failed write or sync nothing is retried: the log refuses further use until it is opened again.
Invariant: what `sync` reported durable is returned by every later `open`, or `open` raises XX001.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from shardforge.errors import StorageError
from shardforge.ports import Blocking
from shardforge.storage.files import Files, OsFiles, failure
from shardforge.storage.wal_format import (
    BASE,
    CUT,
    ENTRY,
    FRAME_SIZE,
    HARD,
    START,
    HardState,
    Header,
    Mark,
    pack_entry,
    pack_hard,
    pack_header,
    pack_index,
    pack_mark,
    pack_position,
    pack_record,
    unpack_entry,
    unpack_record,
)
from shardforge.storage.wal_index import LogIndex, Place
from shardforge.storage.wal_recovery import MARK_NAME, Recovered, recover, segment_name

SEGMENT_SIZE: Final = 64 << 20
_READ_SIZE: Final = 1 << 20
_RESERVE_SIZE: Final = 1 << 20
"""Room allocated ahead of the end: an fdatasync inside it took 88 us, one that grew the file 135 us."""
_QUICK_SIZE: Final = 64 << 10
"""So much is written to a file with room for it in the time that a thread would take to begin."""
_UNWRITTEN: Final = Place(0, 0, 0)

Entry = tuple[int, int, bytes]
"""(index, term, data)"""


class _Change(NamedTuple):
    """A record still to be written; `entry` is the entry's index, 0 for other kinds."""

    kind: bytes
    payload: bytes
    entry: int = 0


class _Position(NamedTuple):
    """What a new segment must say of the log before it."""

    last: tuple[int, int]
    base: tuple[int, int]
    hard: HardState


class RaftLog:
    """One shard's log. Made by `open`."""

    def __init__(self, folder: Path, files: Files, segment_size: int) -> None:
        self._folder = folder
        self._files = files
        self._segment_size = segment_size
        self._index = LogIndex()
        self._pending: list[_Change] = []
        self._unwritten: dict[int, _Change] = {}
        self._segments: dict[int, int] = {}
        """Sequence -> where its content ends; the last one is open for writing."""
        self._descriptor = -1
        self._reserved_end = 0
        self._mark_descriptor = -1
        self._sequence = 0
        self._durable_index = 0
        self._failed: StorageError | None = None
        self._state = threading.Lock()
        """Held for moments: index, pending changes."""
        self._writing = threading.Lock()
        """Held through a write and its sync."""
        self.torn_bytes = 0
        """Bytes of torn tail that opening cut."""
        self.synced_bytes = 0
        self.sync_count = 0

    # ---- opening ---------------------------------------------------------------------------------

    @classmethod
    def open(
        cls, folder: Path, files: Files | None = None, *, segment_size: int = SEGMENT_SIZE
    ) -> RaftLog:
        """The log in `folder`, which exists; a new log if it is empty. Blocks.

        Raises: StorageError XX001 for a damaged log, naming file, offset and what is lost.
        """
        log = cls(folder, files or OsFiles(), segment_size)
        try:
            log._recover()
        except OSError as error:
            log.close()
            raise failure(error, f"open the log {folder}") from error
        return log

    def _recover(self) -> None:
        for draft in self._folder.glob("*.draft"):
            self._files.remove(draft)
        found = recover(self._files, self._folder)
        self._index = found.index
        self.torn_bytes = found.torn_bytes
        self._segments = {segment.header.sequence: segment.end for segment in found.segments}
        self._sequence = max(
            [*self._segments, *(int(path.stem) for path in found.leftovers)], default=0
        )
        self._open_mark()
        last = found.segments[-1] if found.segments else None
        settled = last is not None and found.mark == Mark(last.header.sequence, last.end)
        if last is None or not settled or found.torn_bytes or found.leftovers:
            self._write_tail_anew(found)
        else:
            self._descriptor = self._files.open(last.path)
        self._durable_index = self._index.last_index

    def _open_mark(self) -> None:
        path = self._folder / MARK_NAME
        try:
            self._mark_descriptor = self._files.open(path)
        except FileNotFoundError:
            self._mark_descriptor = self._files.open(path, create=True)
            self._files.sync_folder(self._folder)

    def _write_tail_anew(self, found: Recovered) -> None:
        """Put what follows the mark into a new synced segment, which replaces the old tail."""
        index = self._index
        kept = found.mark
        first = index.last_index + 1
        while first - 1 > index.base_index and index.place(first - 1)[:2] >= kept:
            first -= 1
        tail = [
            _Change(ENTRY, pack_entry(*entry), entry[0])
            for entry in self.read(first, index.last_index + 1)
        ]
        # What is kept must hold the entry that the new segment starts after: a reset may have come since.
        known = found.at_mark if kept.sequence else index
        last = min(first - 1, known.last_index)
        start = last, known.term(last) or 0
        position = _Position(start, (index.base_index, index.base_term), index.hard)
        self._create_segment(kept, position, tail)
        replaced = [s for s in self._segments if kept.sequence < s < self._sequence]
        for sequence in replaced:
            del self._segments[sequence]
        for path in (*map(self._path, replaced), *found.leftovers):
            self._files.remove(path)
        if kept.sequence:
            self._segments[kept.sequence] = kept.offset
        self._files.sync_folder(self._folder)

    def _create_segment(
        self, previous: Mark, position: _Position, entries: Sequence[_Change] = ()
    ) -> None:
        """Write a segment whole, sync it, and only then give it its name."""
        files, sequence = self._files, self._sequence + 1
        changes = [
            _Change(START, pack_position(*position.last)),
            _Change(HARD, pack_hard(*position.hard)),
            _Change(BASE, pack_position(*position.base)),
            *entries,
        ]
        header = pack_header(Header(sequence, *previous))
        data, places = _render(sequence, len(header), changes)
        data = header + data
        path = self._path(sequence)
        draft = path.with_suffix(".draft")
        descriptor = files.open(draft, create=True)
        try:
            files.write(descriptor, data, 0)
            files.sync(descriptor)
            files.rename(draft, path)
            files.sync_folder(self._folder)
        except OSError:
            files.close(descriptor)
            raise
        if self._descriptor >= 0:
            files.truncate(self._descriptor, previous.offset)
            files.close(self._descriptor)
        self._descriptor, self._reserved_end = descriptor, 0
        with self._state:
            self._sequence = sequence
            self._segments[sequence] = len(data)
            for change, place in places:
                self._index.placed(change.entry, place)
        files.write(self._mark_descriptor, pack_mark(Mark(sequence, len(data))), 0)

    def close(self) -> None:
        """Release the files, after a sync under way. Does not sync itself."""
        with self._writing:
            for descriptor in (self._descriptor, self._mark_descriptor):
                if descriptor >= 0:
                    self._files.close(descriptor)
            self._descriptor = self._mark_descriptor = -1
            self._failed = self._failed or StorageError(f"the log {self._folder} is closed")

    def _path(self, sequence: int) -> Path:
        return self._folder / segment_name(sequence)

    # ---- what is in it ---------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index last set."""
        return self._index.hard

    @property
    def base_index(self) -> int:
        """The index before the first entry; 0 in a log that was never truncated."""
        return self._index.base_index

    @property
    def last_index(self) -> int:
        """The newest entry's index, durable or not; the base's if there is none."""
        return self._index.last_index

    @property
    def durable_index(self) -> int:
        """The newest entry that a sync has covered."""
        return self._durable_index

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        with self._state:
            return sum(self._segments.values())

    @property
    def segment_count(self) -> int:
        """Segments on disk."""
        return len(self._segments)

    def term(self, index: int) -> int | None:
        """The term of an entry or of the base; None if the index is outside."""
        with self._state:
            return self._index.term(index)

    def read(self, low: int, high: int, *, bytes_max: int = 1 << 62) -> list[Entry]:
        """The entries with low <= index < high, at least one, then up to `bytes_max` bytes.

        Raises: StorageError XX001 if one cannot be read any more.
        """
        with self._state:
            index = self._index
            assert index.base_index < low, "not in the log any more"
            assert high <= index.last_index + 1, "not in the log yet"
            found = [(at, index.place(at), self._unwritten.get(at)) for at in range(low, high)]
        entries: list[Entry] = []
        size = 0
        chunk, chunk_place = b"", _UNWRITTEN
        for position, (at, place, change) in enumerate(found):
            if change is not None:
                entry = unpack_entry(change.payload)
            else:
                if not _covers(chunk_place, place):
                    chunk_place = _run(found, position)
                    chunk = self._read_file(chunk_place)
                entry = self._entry_in(chunk, chunk_place.offset, at, place)
            size += len(entry[2])
            if entries and size > bytes_max:
                break
            entries.append(entry)
        return entries

    def _read_file(self, place: Place) -> bytes:
        path = self._path(place.sequence)
        try:
            return self._files.read(path, place.offset, place.size)
        except OSError as error:
            raise failure(error, f"read the log {path}") from error

    def _entry_in(self, chunk: bytes, chunk_offset: int, index: int, place: Place) -> Entry:
        record = unpack_record(chunk, place.sequence, place.offset, place.offset - chunk_offset)
        if record is not None and record.kind == ENTRY:
            entry = unpack_entry(record.payload)
            if entry[0] == index:
                return entry
        path = self._path(place.sequence)
        raise StorageError(
            f"the log is damaged: {path} at offset {place.offset}: entry {index} cannot be read",
            "XX001",
        )

    # ---- changes, in memory until the next sync --------------------------------------------------

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries; one whose index is taken replaces everything from there on."""
        with self._state:
            self._check_usable()
            index, pending, unwritten = self._index, self._pending, self._unwritten
            for at, term, data in entries:
                if at <= index.last_index:
                    self._forget_from(at)
                index.append(at, term, _UNWRITTEN)
                change = _Change(ENTRY, pack_entry(at, term, data), at)
                unwritten[at] = change
                pending.append(change)

    def set_hard_state(self, term: int, vote: int, commit: int) -> None:
        """Remember what the voter must not forget."""
        with self._state:
            self._check_usable()
            self._index.hard = HardState(term, vote, commit)
            self._pending.append(_Change(HARD, pack_hard(term, vote, commit), 0))

    def truncate_suffix(self, index: int) -> None:
        """Make entries from `index` on void."""
        with self._state:
            self._check_usable()
            self._forget_from(index)
            self._index.cut(index)
            self._pending.append(_Change(CUT, pack_index(index), 0))

    def reset(self, index: int, term: int) -> None:
        """A snapshot up to this entry replaced the state: drop all entries it covers or contradicts."""
        with self._state:
            self._check_usable()
            self._rebase(index, term)
            self._durable_index = max(min(self._durable_index, self._index.last_index), index)

    def _rebase(self, index: int, term: int) -> None:
        self._index.rebase(index, term)
        last = self._index.last_index
        for at in [at for at in self._unwritten if not index < at <= last]:
            del self._unwritten[at]
        self._pending.append(_Change(BASE, pack_position(index, term), 0))

    def _forget_from(self, index: int) -> None:
        self._durable_index = min(self._durable_index, index - 1)
        for at in range(index, self._index.last_index + 1):
            self._unwritten.pop(at, None)

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise StorageError(
                f"the log {self._folder} is out of use after an error: {self._failed.message}",
                self._failed.sqlstate,
                hint="Restart the node.",
            )

    # ---- durability ------------------------------------------------------------------------------

    def sync(self) -> int:
        """Make every change made before the call durable; the newest durable entry's index. Blocks.

        Raises: StorageError 53100 (disk full) or 58030; the log is out of use from then on.
        """
        with self._writing:
            with self._state:
                self._check_usable()
                pending, self._pending = self._pending, []
                position = self._position()
            if pending:
                try:
                    self._write(pending, position)
                except OSError as error:
                    raise self._give_up(error) from error
            return self._durable_index

    async def make_durable(self, blocking: Blocking) -> None:
        """Make every change made before the call durable; no other call may write meanwhile.

        Raises: as `sync` does.
        """
        try:
            begun = self._write_quickly()
            if begun is not None:
                await blocking.datasync(self._descriptor)
                self._written(*begun)
        except OSError as error:
            raise self._give_up(error) from error
        except BaseException:
            gone = StorageError(f"a sync of the log {self._folder} was given up")
            self._failed = self._failed or gone
            raise
        if begun is None:
            await blocking.run(self.sync)

    def _give_up(self, error: OSError) -> StorageError:
        """Nothing is written any more; what to raise."""
        self._failed = failure(error, f"write the log {self._folder}")
        return self._failed

    def _write_quickly(self) -> tuple[int, list[tuple[_Change, Place]]] | None:
        """Write what is pending, if it is little and fits in; what `_written` is to be told. None: nothing was done."""
        with self._state:
            self._check_usable()
            pending, offset = self._pending, self._segments[self._sequence]
            size = sum([len(change.payload) + FRAME_SIZE for change in pending])
            room = min(self._reserved_end, self._segment_size) - offset
            if not pending or size > _QUICK_SIZE or size >= room:
                return None
            self._pending = []
        data, places = _render(self._sequence, offset, pending)
        self._files.write(self._descriptor, data, offset)
        return offset + len(data), places

    def _position(self) -> _Position:
        index = self._index
        last = index.last_index, index.term(index.last_index) or 0
        return _Position(last, (index.base_index, index.base_term), index.hard)

    def _write(self, pending: list[_Change], position: _Position) -> None:
        """Write and sync; start a new segment when this one is full, so that it has no unsynced end."""
        files, sequence = self._files, self._sequence
        offset = self._segments[sequence]
        data, places = _render(sequence, offset, pending)
        end = offset + len(data)
        if end > self._reserved_end:
            with contextlib.suppress(OSError):  # if there is no room, the write says so
                files.reserve(self._descriptor, offset, len(data) + _RESERVE_SIZE)
            self._reserved_end = end + _RESERVE_SIZE
        files.write(self._descriptor, data, offset)
        files.sync(self._descriptor)
        self._written(end, places)
        if end >= self._segment_size:
            self._create_segment(Mark(sequence, end), position)

    def _written(self, end: int, places: list[tuple[_Change, Place]]) -> None:
        """Note that the segment is durable up to `end`."""
        self._files.write(self._mark_descriptor, pack_mark(Mark(self._sequence, end)), 0)
        self.synced_bytes += end - self._segments[self._sequence]
        self.sync_count += 1
        with self._state:
            self._segments[self._sequence] = end
            self._settle(places)

    def _settle(self, places: list[tuple[_Change, Place]]) -> None:
        """Note where entries now are, unless they were replaced or dropped while they were written."""
        for change, place in places:
            if self._unwritten.get(change.entry) is change:
                self._index.placed(change.entry, place)
                del self._unwritten[change.entry]
                if change.entry == self._durable_index + 1:
                    self._durable_index = change.entry

    def truncate_prefix(self, index: int) -> None:
        """Drop durable entries up to `index` and remove the segments that hold no others. Blocks."""
        with self._state:
            self._check_usable()
            if index <= self._index.base_index:
                return
            assert index <= self._durable_index, "only durable entries may be dropped"
            self._rebase(index, self._index.term(index) or 0)
        self.sync()
        with self._writing:
            with self._state:
                first = self._index.base_index + 1
                oldest = self._sequence
                if first <= self._index.last_index:
                    oldest = self._index.place(first).sequence or oldest
                doomed = [sequence for sequence in self._segments if sequence < oldest]
            try:
                for sequence in sorted(doomed):
                    self._files.remove(self._path(sequence))
                    with self._state:
                        del self._segments[sequence]
                if doomed:
                    self._files.sync_folder(self._folder)
            except OSError as error:
                self._failed = failure(error, f"truncate the log {self._folder}")
                raise self._failed from error


def _render(
    sequence: int, offset: int, changes: Iterable[_Change]
) -> tuple[bytes, list[tuple[_Change, Place]]]:
    """The records' bytes from `offset` on, and where each entry's record is."""
    parts: list[bytes] = []
    places: list[tuple[_Change, Place]] = []
    for change in changes:
        record = pack_record(sequence, offset, change.kind, change.payload)
        parts.append(record)
        if change.kind == ENTRY:
            places.append((change, Place(sequence, offset, len(record))))
        offset += len(record)
    return b"".join(parts), places


def _covers(chunk: Place, place: Place) -> bool:
    return (
        chunk.sequence == place.sequence
        and chunk.offset <= place.offset
        and place.offset + place.size <= chunk.offset + chunk.size
    )


def _run(found: Sequence[tuple[int, Place, _Change | None]], position: int) -> Place:
    """The bytes to read at once for the entries from `position` on: one segment, a megabyte."""
    start = found[position][1]
    end = start.offset + start.size
    for _, place, change in islice(found, position + 1, None):
        if (
            change is not None
            or place.sequence != start.sequence
            or end > start.offset + _READ_SIZE
        ):
            break
        end = place.offset + place.size
    return Place(start.sequence, start.offset, end - start.offset)
