"""Where a replica's engine and log come from, how a snapshot takes the engine's place, and how a split makes another.

On disk a snapshot is staged in a folder of its own and becomes the shard's in three steps, of which the first decides:

    data.staged/ is durable and renamed data.ready/  ->  the log begins anew behind it  ->  it replaces data/

A crash after the first is finished by the next `open`; one before it leaves nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol, TypeAlias

from msgspec.structs import replace

from shardforge.errors import StorageError
from shardforge.ids import NodeId, ShardId
from shardforge.shard.command import applied_of
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.log import MemoryLog, ShardLog
from shardforge.shard.split import Division, begin
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

    def record(self, shard: ShardDescriptor, replicas: tuple[NodeId, ...]) -> None:
        """Note span, epoch and replicas where people look for them, and a start does."""
        ...

    def fork(self, division: Division, engine: Engine) -> ShardFiles | None:
        """Make the child of a division out of the parent's engine, durably; None: it is there already."""
        ...


class MemoryFiles:
    """A replica that lives and dies with the process."""

    def __init__(
        self, engine: MemoryEngine | None = None, log: MemoryLog | None = None, shelf: Shelf | None = None
    ) -> None:  # fmt: skip
        self.engine = engine or MemoryEngine()
        self.log = log or MemoryLog()
        self._shelf = {} if shelf is None else shelf

    def open(self) -> tuple[Engine, ShardLog]:
        """The engine and the log, as they were left."""
        if self.engine.closed:
            self.engine = self.engine.crash(
                self.engine.unflushed_count
            )  # closed in order: nothing is lost
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

    def record(self, shard: ShardDescriptor, replicas: tuple[NodeId, ...]) -> None:
        """Nobody looks."""

    def fork(self, division: Division, engine: Engine) -> ShardFiles | None:
        """Make the child of a division, unless the shelf has it."""
        child = division.child
        if child.id in self._shelf:
            return None
        assert isinstance(engine, MemoryEngine)
        with engine.lock:
            files = MemoryFiles(MemoryEngine(dict(engine.pairs)), shelf=self._shelf)
        begin(division, files.engine, files.log)
        files.engine.flush()
        files.log.sync()
        self._shelf[child.id] = (child, files)
        return files


Shelf: TypeAlias = dict[ShardId, tuple[ShardDescriptor, MemoryFiles]]
"""The shards that came out of splits on one node with replicas in memory, as they were made."""


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

    def record(self, shard: ShardDescriptor, replicas: tuple[NodeId, ...]) -> None:
        """Write them into metadata.toml."""
        self._directory.write_metadata(metadata_of(replace(shard, voters=replicas)))

    def fork(self, division: Division, engine: Engine) -> ShardFiles | None:
        """Make the child's folder beside the parent's, from a checkpoint."""
        child = division.child
        if self._directory.shard(child.id).path.exists():
            return None
        draft = self._directory.draft_shard(metadata_of(child))
        engine.checkpoint(draft.data)
        log = RaftLog.open(draft.wal)
        forked = self._engine(draft.data)
        try:
            begin(division, forked, log)
            forked.flush()
            log.sync()
        finally:
            forked.close()
            log.close()
        self._directory.place_shard(child.id)
        return DiskFiles(self._directory, child.id, self._memory, self._compression)

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


Forked: TypeAlias = tuple[ShardFiles, Engine, ShardLog]
"""A child's files, and what they hold, opened."""


def fork(files: ShardFiles, division: Division, engine: Engine) -> Forked | None:
    """Make and open the child of a division; None: it is there already, and older than this entry's replay. Blocks."""
    made = files.fork(division, engine)
    return None if made is None else (made, *made.open())


def metadata_of(shard: ShardDescriptor) -> ShardMetadata:
    """The descriptor as metadata.toml keeps it."""
    return ShardMetadata(
        shard.id, shard.span.start, shard.span.end, shard.epoch, tuple(shard.voters)
    )


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
