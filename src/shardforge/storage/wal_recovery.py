"""Reads a log's files after a stop, and tells a torn tail from damage. Changes nothing.

    Damage      an unreadable place that was durable (before the mark, or before the end that the next
                segment's header states), or that an intact record follows; a segment that is missing; a
                file that is shorter than what was durable. The log is refused: XX001, naming what is lost.
    Torn tail   anything else unreadable at the very end: writes that no sync had covered. It is cut.

The mark is written after each sync but not itself synced: it may lag behind the durable end, never lead it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardforge.errors import StorageError
from shardforge.storage.files import Files
from shardforge.storage.wal_format import (
    BASE,
    CUT,
    ENTRY,
    HARD,
    HEADER_SIZE,
    START,
    Header,
    LogRecord,
    Mark,
    next_intact,
    records,
    unpack_entry,
    unpack_hard,
    unpack_header,
    unpack_index,
    unpack_mark,
    unpack_position,
)
from shardforge.storage.wal_index import LogIndex, Place

MARK_NAME: Final = "mark"
_SEGMENT_NAME: Final = re.compile(r"[0-9]{16}\.log")
_NOTHING: Final = Mark(0, 0)


def segment_name(sequence: int) -> str:
    """The file name of a segment."""
    return f"{sequence:016d}.log"


def segments_in(folder: Path) -> dict[int, Path]:
    """The segment files of a log by sequence, ascending."""
    paths = sorted(path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name))
    return {int(path.stem): path for path in paths}


@dataclass(slots=True)
class Segment:
    """A segment that counts, and where its content ends."""

    header: Header
    path: Path
    data: bytes
    end: int


@dataclass(slots=True)
class Recovered:
    """The log as its files tell it."""

    index: LogIndex
    at_mark: LogIndex
    """Indexes and terms as of the mark."""
    segments: list[Segment]
    """Those that count, oldest first; none in a new log."""
    leftovers: list[Path]
    """Segments that were replaced, or created and never synced."""
    mark: Mark
    """The durable end as far as known; what lies after it must be synced anew."""
    torn_bytes: int
    """Bytes of torn tail after the last segment's end, zeros at its end left out."""


def recover(files: Files, folder: Path) -> Recovered:
    """Read the log in `folder`.

    Raises: StorageError XX001 for damage, naming file, offset and what is lost; OSError.
    """
    mark = _read_mark(files, folder)
    paths = segments_in(folder)
    if not paths:
        if mark != _NOTHING:
            raise _damage(folder, 0, "every segment of the log is missing", 0)
        return Recovered(LogIndex(), LogIndex(), [], [], mark, 0)
    segments, leftovers = _chain(files, paths, mark)
    if not segments:
        if mark != _NOTHING:
            raise _damage(folder, 0, "every durable segment of the log is missing", 0)
        return Recovered(LogIndex(), LogIndex(), [], leftovers, mark, 0)
    if mark.sequence > segments[-1].header.sequence:
        path = folder / segment_name(mark.sequence)
        raise _damage(path, 0, "the segment is missing, but was durable", 0)
    replay = _Replay(mark)
    for segment in segments[:-1]:
        replay.whole_segment(segment)
    torn = replay.last_segment(segments[-1])
    if replay.index.base_term < 0:
        raise _damage(segments[0].path, 0, "the segments before it are missing", 0)
    known = mark if mark.sequence >= segments[0].header.sequence else _NOTHING
    return Recovered(replay.index, replay.at_mark or replay.index, segments, leftovers, known, torn)


def _read_mark(files: Files, folder: Path) -> Mark:
    try:
        return unpack_mark(files.read(folder / MARK_NAME)) or _NOTHING
    except FileNotFoundError:
        return _NOTHING


def _chain(files: Files, paths: dict[int, Path], mark: Mark) -> tuple[list[Segment], list[Path]]:
    """From the newest segment back through the one that each header names."""
    chain: list[Segment] = []
    leftovers: list[Path] = []
    expected, expected_end = 0, 0  # what the segment found last says about its predecessor
    for sequence in sorted(paths, reverse=True):
        path = paths[sequence]
        if chain and sequence > expected:
            leftovers.append(path)  # replaced when a restart wrote its tail anew
            continue
        if chain and sequence < expected:
            break
        data = files.read(path)
        header = unpack_header(data)
        if header is None or header.sequence != sequence:
            durable = bool(chain) or sequence <= mark.sequence
            if durable or next_intact(data, sequence, 0) is not None:
                raise _damage(path, 0, "the segment's header cannot be read", 0)
            leftovers.append(path)  # created, and never synced
            continue
        end = expected_end if chain else len(data)
        if len(data) < end:
            raise _damage(path, len(data), f"the file ends there, but was durable to {end}", 0)
        chain.append(Segment(header, path, data[:end], end))
        expected, expected_end = header.previous, header.previous_end
    if chain and expected and any(sequence < expected for sequence in paths):
        path = chain[-1].path.with_name(segment_name(expected))
        raise _damage(path, 0, "the segment is missing", 0)
    return chain[::-1], leftovers


class _Replay:
    """Applies records in order; knows where the durable part ends."""

    def __init__(self, mark: Mark) -> None:
        self.index = LogIndex()
        self.at_mark: LogIndex | None = None
        self._mark = mark
        self._started = False
        self._based = False
        """Whether the base is known for good, not just where the first segment left found the log."""

    def whole_segment(self, segment: Segment) -> None:
        """A segment with a successor: every byte up to its stated end must be intact."""
        end = self._records(segment)
        if end != segment.end:
            raise _damage(
                segment.path, end, "a record cannot be read", self.index.last_index, segment
            )

    def last_segment(self, segment: Segment) -> int:
        """The newest segment: sets its end before a torn tail and returns the tail's size."""
        end = self._records(segment)
        durable = self._mark.offset if self._mark.sequence == segment.header.sequence else 0
        if end < durable:
            what = (
                f"the file ends there, but was durable to {durable}"
                if end == segment.end
                else f"a record cannot be read, but was durable (to {durable})"
            )
            raise _damage(segment.path, end, what, self.index.last_index, segment)
        if end < segment.end:
            follower = next_intact(segment.data, segment.header.sequence, end)
            if follower is not None:
                what = f"a record cannot be read, but one at offset {follower.offset} can"
                raise _damage(segment.path, end, what, self.index.last_index, segment)
        torn = segment.data[end:].rstrip(b"\x00")  # zeros are room that was reserved
        segment.end = end
        return len(torn)

    def _records(self, segment: Segment) -> int:
        """Apply the intact records; the offset where they end."""
        end = HEADER_SIZE
        sequence = segment.header.sequence
        for record in records(segment.data, sequence):
            if self.at_mark is None and (sequence, record.offset) >= self._mark:
                self.at_mark = self.index.copy_of_terms()
            if not self._apply(record, sequence):
                raise _damage(
                    segment.path, record.offset, "a record does not follow the one before it",
                    self.index.last_index, segment,
                )  # fmt: skip
            end = record.end
        return end

    def _apply(self, record: LogRecord, sequence: int) -> bool:
        """Apply one record; False if it does not fit what was before it."""
        index = self.index
        match record.kind:
            case kind if kind == ENTRY:
                at, term, _ = unpack_entry(record.payload)
                self._replaces_from(at)
                if not index.base_index < at <= index.last_index + 1:
                    return False
                place = Place(sequence, record.offset, record.end - record.offset)
                index.append(at, term, place)
            case kind if kind == HARD:
                index.hard = unpack_hard(record.payload)
            case kind if kind == CUT:
                at = unpack_index(record.payload)
                self._replaces_from(at)
                index.cut(at)
            case kind if kind == BASE:
                at, term = unpack_position(record.payload)
                self._based = self._based or at >= index.base_index
                index.rebase(at, term)
            case kind if kind == START:
                at, term = unpack_position(record.payload)
                return self._start(at, term)
        return True

    def _replaces_from(self, at: int) -> None:
        """Entries from `at` on are replaced; the removed segments ended before, if it is that low."""
        if at <= self.index.base_index and not self._based:
            self.index.lower_base(at)

    def _start(self, at: int, term: int) -> bool:
        index = self.index
        if not self._started:
            self._started = True
            self._based = at == 0
            index.base_index, index.base_term = at, term
            return True
        if index.term(at) not in (term, -1):
            return False
        index.cut(at + 1)
        return True


def _damage(
    path: Path, offset: int, what: str, kept: int, segment: Segment | None = None
) -> StorageError:
    """The refusal of a damaged log, naming what can and cannot be read."""
    lost = f"Entries after index {kept} are lost."
    if segment is not None:
        seen = _highest_after(segment, offset)
        if seen:
            lost = f"Entries from index {kept + 1} are lost; intact ones up to {seen} follow."
    return StorageError(
        f"the log is damaged: {path} at offset {offset}: {what}",
        "XX001",
        detail=lost,
        hint="Restore this shard's folder from a backup, or rebuild the replica from another node.",
    )


def _highest_after(segment: Segment, offset: int) -> int:
    """The highest entry index that can still be read after a damaged place; 0 if none."""
    highest = 0
    found = next_intact(segment.data, segment.header.sequence, offset)
    while found is not None:
        if found.kind == ENTRY:
            highest = max(highest, unpack_entry(found.payload)[0])
        found = next_intact(segment.data, segment.header.sequence, found.end - 1)
    return highest
