"""The few file operations that durability rests on, in one place, so that tests can make them fail.

Durable means: `sync` returned for the file's bytes, and `sync_folder` for its name. `OsFiles` is the real one;
tests wrap it to tear writes, flip bits, fill the disk and fail syncs.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol

from shardforge.errors import StorageError


class Files(Protocol):
    """Operations on files by descriptor and path; each raises OSError."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor for reading and writing; with `create` the file must not exist."""
        ...

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        ...

    def reserve(self, descriptor: int, offset: int, size: int) -> None:
        """Allocate room and make the file that long, with zeros; syncs are cheaper within it."""
        ...

    def truncate(self, descriptor: int, size: int) -> None:
        """Make the file that long."""
        ...

    def sync(self, descriptor: int) -> None:
        """Return once the file's bytes and size are on disk."""
        ...

    def close(self, descriptor: int) -> None:
        """Release a descriptor."""
        ...

    def read(self, path: Path, offset: int = 0, size: int | None = None) -> bytes:
        """Up to `size` bytes (default all) from `offset`."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name, replacing what has it."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Return once the names in the folder are on disk."""
        ...


class OsFiles:
    """The operating system's files."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor for reading and writing; with `create` the file must not exist."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        return os.open(path, flags, 0o600)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        written = os.pwrite(descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)

    def reserve(self, descriptor: int, offset: int, size: int) -> None:
        """Allocate room and make the file that long, with zeros; syncs are cheaper within it."""
        os.posix_fallocate(descriptor, offset, size)

    def truncate(self, descriptor: int, size: int) -> None:
        """Make the file that long."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Return once the file's bytes and size are on disk."""
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        """Release a descriptor."""
        os.close(descriptor)

    def read(self, path: Path, offset: int = 0, size: int | None = None) -> bytes:
        """Up to `size` bytes (default all) from `offset`."""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name, replacing what has it."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def sync_folder(self, path: Path) -> None:
        """Return once the names in the folder are on disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(files: Files, path: Path, data: bytes) -> None:
    """Make `path` hold exactly `data`, durably: a crash leaves the old content or the new."""
    draft = path.with_name(path.name + ".draft")
    with contextlib.suppress(FileNotFoundError):
        files.remove(draft)
    descriptor = files.open(draft, create=True)
    try:
        files.write(descriptor, data, 0)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.rename(draft, path)
    files.sync_folder(path.parent)


def failure(error: OSError, doing: str) -> StorageError:
    """What a client is told when a file operation fails."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"could not {doing}: {error.strerror}", "53100")
    return StorageError(f"could not {doing}: {error.strerror or error}", "58030")
