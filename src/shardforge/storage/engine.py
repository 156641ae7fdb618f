"""The Engine port: one shard's bytes in key order.

Two implementations, `memory` and `rocksdb`, pass the same tests. Calls are synchronous; what can take
long (`flush`, `checkpoint`, `compact`, long scans) belongs on a thread through the Blocking port.
An engine has no log: a write is durable only once a later `flush()` has returned. After a crash the
engine holds some prefix of the batches written, each whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from shardforge.errors import StorageError

Pair = tuple[bytes, bytes]
Write = tuple[bytes, bytes | None]
"""A key and its new value; None removes the key."""

EngineName = Literal["rocksdb", "memory"]
Compression = Literal["none", "lz4", "zstd", "snappy"]


class EngineClosedError(StorageError):
    """What is read is not on this node any more: the replica was removed, or got another state, meanwhile."""

    default_sqlstate = "40001"

    def __init__(self) -> None:
        super().__init__(
            "the shard that was being read is not on this node any more",
            hint="The transaction might succeed if retried.",
        )


class Reader(Protocol):
    """What an engine and its snapshots have in common. Spans are half-open: start <= key < end."""

    def get(self, key: bytes) -> bytes | None:
        """The value under exactly `key`."""
        ...

    def first(self, start: bytes, end: bytes) -> Pair | None:
        """The first pair of the span; cheaper than a scan."""
        ...

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[Pair]:
        """The pairs of the span in key order, or against it; sees the state at this call."""
        ...


class Snapshot(Reader, Protocol):
    """The engine's state at one moment; later writes do not show."""

    def close(self) -> None:
        """Let the engine forget the state; the snapshot is not used afterwards."""
        ...


class Engine(Reader, Protocol):
    """One shard's bytes. Writes come from one thread at a time; reads and flushes from any."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under `keys`, in their order."""
        ...

    def write(self, batch: Sequence[Write]) -> None:
        """Apply all of `batch`, in order, at once: readers and crashes see all of it or nothing."""
        ...

    def delete_span(self, start: bytes, end: bytes) -> None:
        """Remove every key of the span."""
        ...

    def snapshot(self) -> Snapshot:
        """The state now."""
        ...

    def flush(self) -> None:
        """Return once every write made before the call is durable."""
        ...

    def checkpoint(self, path: Path) -> None:
        """Make `path`, which must not exist, an independent copy of the present state."""
        ...

    def compact(self, start: bytes, end: bytes) -> None:
        """Give back the space of removed keys in the span."""
        ...

    def approximate_size(self) -> int:
        """Bytes held on disk and in memory, roughly."""
        ...

    def statistics(self) -> dict[str, int]:
        """Figures for metrics, by name; the names are the implementation's."""
        ...

    def close(self) -> None:
        """Release files and memory. Does not flush.

        Whoever reads afterwards gets EngineClosedError; snapshots from before go on as long as their files can be read.
        """
        ...
