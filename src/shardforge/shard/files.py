"""Where a replica's engine and log come from, and how a snapshot takes the engine's place.

On disk a snapshot is staged in a folder of its own and becomes the shard's in three steps, of which the first decides:

    data.staged/ is durable and renamed data.ready/  ->  the log begins anew behind it  ->  it replaces data/

A crash after the first is finished by the next `open`; one before it leaves nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from shardforge.errors import StorageError
from shardforge.shard.command import applied_of
from shardforge.shard.log import MemoryLog, ShardLog
from shardforge.storage.engine import Compression, Engine
from shardforge.storage.files import OsFiles
from shardforge.storage.layout import DataDirectory, ShardMetadata
from shardforge.storage.memory import MemoryEngine
from shardforge.storage.rocksdb import RocksEngine, SharedMemory
from shardforge.storage.wal import RaftLog


class ShardFiles(Protocol):
    """One replica's storage. Every method blocks."""

    def open(self) -> tuple[Engine, ShardLog]:
        """Engine and log as they were left. Raises StorageError XX001 when they do not fit each other."""
        ...

    def stage(self) -> Engine:
        """An empty engine beside the present one; an earlier one is dropped."""
        ...

    def install(self, staged: Engine, old: Engine, log: ShardLog) -> Engine:
        """Put the staged engine in the old one's place, durably, and the log behind it. Both engines are closed."""
        ...

    def record(self, voters: tuple[int, ...], epoch: int) -> None:
        """Note the replicas where people look for them."""
        ...


class MemoryFiles:
    """A replica that lives and dies with the process."""

    def __init__(self, engine: MemoryEngine | None = None, log: MemoryLog | None = None) -> None:
        self.engine = engine or MemoryEngine()
        self.log = log or MemoryLog()

    def open(self) -> tuple[Engine, ShardLog]:
        """The engine and the log."""
        return self.engine, self.log

    def stage(self) -> Engine:
        """An empty engine."""
        return MemoryEngine()

    def install(self, staged: Engine, old: Engine, log: ShardLog) -> Engine:
        """Put the staged engine in the old one's place."""
        assert isinstance(staged, MemoryEngine)
        staged.flush()
        _begin_anew(log, staged)
        self.engine = staged
        old.close()
        return staged

    def record(self, voters: tuple[int, ...], epoch: int) -> None:
        """Nobody looks."""


class DiskFiles:
    """A replica in its folder of the data directory."""

    def __init__(
        self, directory: DataDirectory, shard: int, memory: SharedMemory, compression: Compression
    ) -> None:
        self._directory = directory
        self._shard = shard
        self._folder = directory.shard(shard)
        self._memory = memory
        self._compression = compression
        self._staged = self._folder.path / "data.staged"
        self._ready = self._folder.path / "data.ready"
        self._files = OsFiles()

    def open(self) -> tuple[Engine, ShardLog]:
        """Engine and log as they were left, after finishing the installation of a snapshot."""
        log = RaftLog.open(self._folder.wal)
        _remove(self._staged)
        if self._ready.exists():
            self._replace(log)
        return self._engine(self._folder.data), log

    def stage(self) -> Engine:
        """An empty engine in a folder of its own."""
        _remove(self._staged)
        return self._engine(self._staged)

    def install(self, staged: Engine, old: Engine, log: ShardLog) -> Engine:
        """Put the staged folder in the old one's place."""
        staged.flush()
        staged.close()
        old.close()
        self._rename(self._staged, self._ready)
        self._replace(log)
        return self._engine(self._folder.data)

    def record(self, voters: tuple[int, ...], epoch: int) -> None:
        """Write the replicas into metadata.toml."""
        known = self._directory.read_metadata(self._shard)
        self._directory.write_metadata(
            ShardMetadata(known.id, known.start, known.end, epoch, voters)
        )

    def _replace(self, log: ShardLog) -> None:
        engine = self._engine(self._ready)
        try:
            _begin_anew(log, engine)
        finally:
            engine.close()
        _remove(self._folder.data)
        self._rename(self._ready, self._folder.data)

    def _rename(self, source: Path, target: Path) -> None:
        self._files.rename(source, target)
        self._files.sync_folder(self._folder.path)

    def _engine(self, path: Path) -> Engine:
        return RocksEngine(path, self._memory, self._compression)


def _begin_anew(log: ShardLog, engine: Engine) -> None:
    """Let the log continue from the engine's state, unless it holds that entry already."""
    applied = applied_of(engine)
    if not applied.index:
        raise StorageError("the snapshot has no applied index", "XX001")
    if log.term(applied.index) != applied.term:
        log.reset(applied.index, applied.term)
        log.sync()


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
