"""The data directory: its tree, identity files, lock and format version.

    <data_directory>/
      cluster/cluster.toml  node.toml      identity and membership; written by rename, never in place
              lock                         held while a server uses the directory
      shards/shard_001/data/               the engine's files
                      /wal/                the shard's Raft log
                      /metadata.toml       id, span, epoch, replicas, format version
      logs/

A folder gets its final name only when its content is durable, so what has a name is whole; what ends in
`.draft` or `.removed` is left over from a crash and is removed at the next start.
Invariant: at most one process uses a directory, and never one of a newer format than it knows.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shardforge.errors import StorageError
from shardforge.storage.files import Files, OsFiles, failure, write_whole

FORMAT_VERSION: Final = 1
_OURS: Final = frozenset(("cluster", "shards", "logs", "lost+found"))
_LEFTOVERS: Final = (".draft", ".removed")


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """Which cluster the directory belongs to, and the nodes known to be in it."""

    cluster_id: str
    name: str
    members: tuple[int, ...]
    addresses: tuple[str, ...] = ()
    """Where the members were reached, in their order."""
    observers: tuple[int, ...] = ()
    """The members that never vote."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Which node of which cluster the directory belongs to."""

    node_id: int
    cluster_id: str
    cluster_name: str
    founder: bool = True
    """Whether the node made the cluster's first shards and has them; one that joined was given its own."""


@dataclass(frozen=True, slots=True)
class ShardMetadata:
    """What metadata.toml says of a shard."""

    id: int
    start: bytes
    end: bytes
    epoch: int
    replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShardFolder:
    """The paths of one shard."""

    path: Path

    @property
    def data(self) -> Path:
        """The engine's folder."""
        return self.path / "data"

    @property
    def wal(self) -> Path:
        """The Raft log's folder."""
        return self.path / "wal"

    @property
    def metadata(self) -> Path:
        """The file for people and start-up checks."""
        return self.path / "metadata.toml"


class DataDirectory:
    """A data directory in use by this process, until `close`. Made by `open`."""

    def __init__(self, path: Path, lock: int, files: Files) -> None:
        self.path = path
        self._lock = lock
        self._files = files

    @classmethod
    def known(cls, path: Path) -> NodeIdentity | None:
        """Whose directory it is; None when it is nobody's yet."""
        if not (path / "cluster" / "cluster.toml").exists():
            return None
        return cls(path, -1, OsFiles()).node

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        node_id: int,
        cluster_name: str,
        joined: str = "",
        files: Files | None = None,
    ) -> DataDirectory:
        """Lock the directory and check that it is this node's; an empty or absent one becomes it.

        `joined`: the id of the cluster that has given a new node its id; a new cluster gets one of its own.

        Raises: StorageError in one line: in use, of a newer format, of another node or cluster, or
        full of something else.
        """
        files = files or OsFiles()
        try:
            if not (path / "cluster" / "cluster.toml").exists():
                _check_free(path)
            for folder in (path, path / "cluster", path / "shards", path / "logs"):
                _make_folder(files, folder)
            directory = cls(path, _take_lock(path), files)
        except OSError as error:
            raise failure(error, f'use data directory "{path}"') from error
        try:
            directory._settle(node_id, cluster_name, joined)
        except OSError as error:
            directory.close()
            raise failure(error, f'use data directory "{path}"') from error
        except StorageError:
            directory.close()
            raise
        return directory

    def _settle(self, node_id: int, cluster_name: str, joined: str) -> None:
        for folder in self.shards.iterdir():
            if folder.name.endswith(_LEFTOVERS):
                shutil.rmtree(folder)
        if not self._cluster_file.exists():
            cluster_id = joined or str(uuid.uuid4())
            mine: dict[str, Value] = {
                "node_id": node_id,
                "cluster_id": cluster_id,
                "founder": int(not joined),
            }
            self._write(self._node_file, mine)
            self.write_identity(ClusterIdentity(cluster_id, cluster_name, (node_id,)))
        identity = self.identity
        if identity.name != cluster_name:
            raise _refusal(self.path, f'belongs to cluster "{identity.name}", not "{cluster_name}"')
        node = self._read(self._node_file)
        if node["node_id"] != node_id:
            raise _refusal(self.path, f"belongs to node {node['node_id']}, not {node_id}")
        if node["cluster_id"] != identity.cluster_id:
            raise _refusal(self.path, "has a node.toml of another cluster")

    # ---- places ----------------------------------------------------------------------------------

    @property
    def logs(self) -> Path:
        """The folder of system.log, query.log and error.log."""
        return self.path / "logs"

    @property
    def shards(self) -> Path:
        """The folder of the shards' folders."""
        return self.path / "shards"

    @property
    def _cluster_file(self) -> Path:
        return self.path / "cluster" / "cluster.toml"

    @property
    def _node_file(self) -> Path:
        return self.path / "cluster" / "node.toml"

    def shard(self, shard_id: int) -> ShardFolder:
        """The paths of a shard, existing or not."""
        return ShardFolder(self.shards / f"shard_{shard_id:03d}")

    # ---- identity --------------------------------------------------------------------------------

    @property
    def identity(self) -> ClusterIdentity:
        """What cluster.toml says."""
        found = self._read(self._cluster_file)
        return ClusterIdentity(
            found["cluster_id"],
            found["name"],
            tuple(found["members"]),
            tuple(found.get("addresses", ())),
            tuple(found.get("observers", ())),
        )

    @property
    def node(self) -> NodeIdentity:
        """Whose directory it is."""
        node = self._read(self._node_file)
        name = self.identity.name
        founder = bool(node.get("founder", 1))
        return NodeIdentity(node["node_id"], node["cluster_id"], name, founder)

    def found_no_more(self) -> None:
        """Note that shards are the cluster's to give and to take: a start without any makes none."""
        node = self._read(self._node_file)
        if node.get("founder", 1):
            mine: dict[str, Value] = {"node_id": node["node_id"], "cluster_id": node["cluster_id"]}
            self._write(self._node_file, {**mine, "founder": 0})

    def write_identity(self, identity: ClusterIdentity) -> None:
        """Replace cluster.toml."""
        self._write(
            self._cluster_file,
            {
                "cluster_id": identity.cluster_id,
                "name": identity.name,
                "members": list(identity.members),
                "addresses": list(identity.addresses),
                "observers": list(identity.observers),
            },
        )

    # ---- shards ----------------------------------------------------------------------------------

    def shard_ids(self) -> list[int]:
        """The shards that are here, ascending."""
        names = [folder.name for folder in self.shards.glob("shard_*")]
        return sorted(int(name.removeprefix("shard_")) for name in names)

    def create_shard(self, metadata: ShardMetadata) -> ShardFolder:
        """Make an empty shard; after a crash it is there whole or not at all."""
        folder = self.shard(metadata.id)
        assert not folder.path.exists(), "the shard is already here"
        draft = ShardFolder(folder.path.with_name(folder.path.name + ".draft"))
        for path in (draft.path, draft.data, draft.wal):
            path.mkdir(mode=0o700)
        self._write_metadata(draft, metadata)
        self._files.rename(draft.path, folder.path)
        self._files.sync_folder(self.shards)
        return folder

    def draft_shard(self, metadata: ShardMetadata) -> ShardFolder:
        """Begin a shard whose engine's folder somebody else makes; `place_shard` ends it."""
        draft = ShardFolder(self.shard(metadata.id).path.with_suffix(".draft"))
        if draft.path.exists():
            shutil.rmtree(draft.path)
        for path in (draft.path, draft.wal):
            path.mkdir(mode=0o700)
        self._write_metadata(draft, metadata)
        return draft

    def place_shard(self, shard_id: int) -> None:
        """Give a drafted shard, durable by now, its name."""
        path = self.shard(shard_id).path
        draft = path.with_suffix(".draft")
        self._files.sync_folder(draft)
        self._files.rename(draft, path)
        self._files.sync_folder(self.shards)

    def remove_shard(self, shard_id: int) -> None:
        """Remove a shard whose engine and log are closed; after a crash it is here whole or gone."""
        path = self.shard(shard_id).path
        removed = path.with_name(path.name + ".removed")
        self._files.rename(path, removed)
        self._files.sync_folder(self.shards)
        shutil.rmtree(removed)

    def read_metadata(self, shard_id: int) -> ShardMetadata:
        """What the shard's metadata.toml says.

        Raises: StorageError XX001 if it cannot be read, or speaks of another shard.
        """
        path = self.shard(shard_id).metadata
        found = self._read(path)
        try:
            metadata = ShardMetadata(
                found["id"],
                bytes.fromhex(found["start"]),
                bytes.fromhex(found["end"]),
                found["epoch"],
                tuple(found["replicas"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f'"{path}" is damaged: {error!r}', "XX001") from error
        if metadata.id != shard_id:
            raise StorageError(f'"{path}" is damaged: it is of shard {metadata.id}', "XX001")
        return metadata

    def write_metadata(self, metadata: ShardMetadata) -> None:
        """Replace the shard's metadata.toml."""
        self._write_metadata(self.shard(metadata.id), metadata)

    def _write_metadata(self, folder: ShardFolder, metadata: ShardMetadata) -> None:
        self._write(
            folder.metadata,
            {
                "id": metadata.id,
                "start": metadata.start.hex(),
                "end": metadata.end.hex(),
                "epoch": metadata.epoch,
                "replicas": list(metadata.replicas),
            },
        )

    # ---- files -----------------------------------------------------------------------------------

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found = tomllib.loads(self._files.read(path).decode())
        except FileNotFoundError as error:
            raise StorageError(f'"{path}" is missing', "XX001") from error
        except ValueError as error:  # TOML and UTF-8 errors alike
            raise StorageError(f'"{path}" is damaged: {error}', "XX001") from error
        version = found.get("format_version")
        if not isinstance(version, int) or version < 1:
            raise StorageError(f'"{path}" is damaged: it has no format version', "XX001")
        if version > FORMAT_VERSION:
            raise StorageError(
                f'data directory "{self.path}" has format {version},'
                f" but this version of ShardForge knows formats up to {FORMAT_VERSION}",
                "F0000",
                hint="Start it with the version of ShardForge that wrote it, or a newer one.",
            )
        return found

    def _write(self, path: Path, values: Mapping[str, Value]) -> None:
        try:
            write_whole(self._files, path, _toml({"format_version": FORMAT_VERSION, **values}))
        except OSError as error:
            raise failure(error, f'write "{path}"') from error

    def close(self) -> None:
        """Let another process use the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


Value = str | int | Sequence[int] | Sequence[str]


def _toml(values: Mapping[str, Value]) -> bytes:
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in values.items()).encode()


def _toml_value(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        escaped = "".join(
            f"\\u{ord(letter):04x}" if letter in '"\\' or not letter.isprintable() else letter
            for letter in value
        )
        return f'"{escaped}"'
    return f"[{', '.join(_toml_value(item) for item in value)}]"


def _refusal(path: Path, what: str) -> StorageError:
    return StorageError(f'data directory "{path}" {what}', "F0000")


def _check_free(path: Path) -> None:
    """A directory without identity may hold only what a first start left behind."""
    if not path.exists():
        return
    if not path.is_dir():
        raise _refusal(path, "is not a directory")
    if {entry.name for entry in path.iterdir()} - _OURS:
        raise _refusal(path, "is not empty, and not a ShardForge data directory")
    shards = path / "shards"
    if shards.exists() and any(shards.glob("shard_*[0-9]")):
        raise StorageError(
            f'data directory "{path}" has shards, but "cluster/cluster.toml" is missing', "XX001"
        )


def _make_folder(files: Files, path: Path) -> None:
    if path.exists():
        return
    path.mkdir(mode=0o700, parents=True)
    files.sync_folder(path.parent)


def _take_lock(path: Path) -> int:
    """A descriptor that holds the directory's lock; the file names the process, for people."""
    descriptor = os.open(path / "cluster" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageError(
            f'data directory "{path}" is in use by another server (process {holder})',
            "55006",
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
