"""An engine in a sorted map, which can lose everything that was not flushed.

For the simulator, for tests, and for `storage.engine = "memory"`. A snapshot is an undo list: each write
saves the value that it replaces in every open snapshot. A crash is `crash()`, which returns the engine
that a restart would find. A checkpoint is one file of length-prefixed pairs.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from sortedcontainers import SortedDict

from shardforge.storage.engine import EngineClosedError, Pair, Write

_SCAN_CHUNK = 256
_CHECKPOINT_NAME = "pairs"
_LENGTHS = struct.Struct("<II")


class MemorySnapshot:
    """The state of a memory engine at one moment."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine
        self._pairs = engine.pairs
        self.undo: SortedDict = SortedDict()
        """What writes since then replaced: key -> old value, None if it was absent."""

    def get(self, key: bytes) -> bytes | None:
        """The value under exactly `key`."""
        with self._engine.lock:
            value: bytes | None = self.undo[key] if key in self.undo else self._pairs.get(key)
        return value

    def first(self, start: bytes, end: bytes) -> Pair | None:
        """The first pair of the span."""
        return next(self.scan(start, end), None)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[Pair]:
        """The pairs of the span in key order, or against it."""
        size = 1
        while start < end:
            chunk, edge = self._chunk(start, end, reverse=reverse, size=size)
            yield from chunk
            if edge is None:
                return
            if reverse:
                end = edge
            else:
                start = edge + b"\x00"
            size = _SCAN_CHUNK

    def _chunk(
        self, start: bytes, end: bytes, *, reverse: bool, size: int
    ) -> tuple[list[Pair], bytes | None]:
        """About `size` pairs, and the last key looked at (None at the span's end)."""
        pairs, undo = self._pairs, self.undo
        with self._engine.lock:
            keys = list(islice(_between(pairs, start, end, reverse=reverse), size))
            edge = keys[-1] if len(keys) == size else None
            if edge is not None:
                start, end = (edge, end) if reverse else (start, edge + b"\x00")
            if undo:
                merged = {*keys, *_between(undo, start, end, reverse=False)}
                keys = sorted(merged, reverse=reverse)
            chunk = [(key, undo[key] if key in undo else pairs[key]) for key in keys]
        return [pair for pair in chunk if pair[1] is not None], edge

    def close(self) -> None:
        """Stop saving replaced values for this snapshot."""
        self._engine.forget(self)
        self.undo = SortedDict()


def _between(pairs: SortedDict, start: bytes, end: bytes, *, reverse: bool) -> Iterator[bytes]:
    keys: Iterator[bytes] = pairs.irange(start, end, inclusive=(True, False), reverse=reverse)
    return keys


class MemoryEngine:
    """A sorted map that knows which of its batches are flushed."""

    def __init__(self, pairs: dict[bytes, bytes] | None = None) -> None:
        self.pairs = SortedDict(pairs or {})
        self.lock = threading.RLock()
        self._flushed: dict[bytes, bytes] = dict(pairs or {})
        self._unflushed: list[Sequence[Write]] = []
        self._snapshots: weakref.WeakSet[MemorySnapshot] = weakref.WeakSet()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it is not to be used any more."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError

    def get(self, key: bytes) -> bytes | None:
        """The value under exactly `key`."""
        self._check_open()
        value: bytes | None = self.pairs.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under `keys`, in their order."""
        self._check_open()
        get = self.pairs.get
        return [get(key) for key in keys]

    def first(self, start: bytes, end: bytes) -> Pair | None:
        """The first pair of the span."""
        self._check_open()
        with self.lock:
            for key in _between(self.pairs, start, end, reverse=False):
                return key, self.pairs[key]
        return None

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[Pair]:
        """The pairs of the span in key order, or against it; the state at this call."""
        return self.snapshot().scan(start, end, reverse=reverse)

    def write(self, batch: Sequence[Write]) -> None:
        """Apply all of `batch`, in order, at once."""
        self._check_open()
        with self.lock:
            pairs = self.pairs
            for snapshot in self._snapshots:
                undo = snapshot.undo
                for key, _ in batch:
                    if key not in undo:
                        undo[key] = pairs.get(key)
            _apply(pairs, batch)
            self._unflushed.append(tuple(batch))

    def delete_span(self, start: bytes, end: bytes) -> None:
        """Remove every key of the span."""
        with self.lock:
            self.write([(key, None) for key in _between(self.pairs, start, end, reverse=False)])

    def snapshot(self) -> MemorySnapshot:
        """The state now."""
        self._check_open()
        snapshot = MemorySnapshot(self)
        with self.lock:
            self._snapshots.add(snapshot)
        return snapshot

    def forget(self, snapshot: MemorySnapshot) -> None:
        """Stop saving replaced values for `snapshot`."""
        with self.lock:
            self._snapshots.discard(snapshot)

    def flush(self) -> None:
        """Every batch written so far survives a crash."""
        with self.lock:
            for batch in self._unflushed:
                _apply(self._flushed, batch)
            self._unflushed.clear()

    def crash(self, kept: int = 0) -> MemoryEngine:
        """What a restart finds: the flushed state and the first `kept` unflushed batches."""
        pairs = dict(self._flushed)
        for batch in self._unflushed[:kept]:
            _apply(pairs, batch)
        return MemoryEngine(pairs)

    @property
    def unflushed_count(self) -> int:
        """Batches that a crash may lose."""
        return len(self._unflushed)

    def checkpoint(self, path: Path) -> None:
        """Write the present state to a new folder; `from_checkpoint` reads it."""
        path.mkdir()
        with self.lock, (path / _CHECKPOINT_NAME).open("wb") as file:
            for key, value in self.pairs.items():
                file.write(_LENGTHS.pack(len(key), len(value)) + key + value)

    @classmethod
    def from_checkpoint(cls, path: Path) -> MemoryEngine:
        """An engine with the pairs that `checkpoint` wrote."""
        data = (path / _CHECKPOINT_NAME).read_bytes()
        pairs: dict[bytes, bytes] = {}
        at = 0
        while at < len(data):
            key_size, value_size = _LENGTHS.unpack_from(data, at)
            middle = at + _LENGTHS.size + key_size
            pairs[data[at + _LENGTHS.size : middle]] = data[middle : middle + value_size]
            at = middle + value_size
        return cls(pairs)

    def compact(self, start: bytes, end: bytes) -> None:
        """Nothing to do: removed keys hold no space."""

    def approximate_size(self) -> int:
        """Bytes of keys and values, estimated from a sample."""
        with self.lock:
            sample = list(islice(self.pairs.items(), 1000))
            if not sample:
                return 0
            average = sum(len(key) + len(value) for key, value in sample) / len(sample)
            return int(average * len(self.pairs))

    def statistics(self) -> dict[str, int]:
        """Figures for metrics."""
        return {
            "keys": len(self.pairs),
            "snapshots": len(self._snapshots),
            "unflushed_batches": len(self._unflushed),
        }

    def close(self) -> None:
        """Drop every pair that no restart needs."""
        self._closed = True
        self.pairs = SortedDict()


def _apply(pairs: dict[bytes, bytes], batch: Sequence[Write]) -> None:
    for key, value in batch:
        if value is None:
            pairs.pop(key, None)
        else:
            pairs[key] = value
