"""The data directory: made once, locked, refused in words."""

import subprocess
import sys
from pathlib import Path

import pytest

from shardforge.errors import StorageError
from shardforge.storage.layout import FORMAT_VERSION, ClusterIdentity, DataDirectory, ShardMetadata


def open_directory(path: Path, node_id: int = 1, name: str = "main") -> DataDirectory:
    return DataDirectory.open(path, node_id=node_id, cluster_name=name)


def test_the_tree_is_made_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    first = open_directory(path, name='a "quoted\\ näme\x07')
    identity = first.identity
    assert identity.members == (1,)
    first.close()
    assert sorted(str(p.relative_to(path)) for p in path.rglob("*")) == [
        "cluster", "cluster/cluster.toml", "cluster/lock", "cluster/node.toml", "logs", "shards",
    ]  # fmt: skip
    second = open_directory(path, name='a "quoted\\ näme\x07')
    assert second.identity == identity
    second.close()


def test_who_the_others_are_is_kept(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    known = directory.identity
    assert known.observers == ()
    told = ClusterIdentity(known.cluster_id, known.name, (1, 2), ("a:1", "b:1"), (2,))
    directory.write_identity(told)
    assert directory.identity == told
    directory.close()


def test_shards_are_created_read_changed_and_removed(tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "data")
    metadata = ShardMetadata(1, b"", b"h\x00\x10", 1, (1,))
    folder = directory.create_shard(metadata)
    assert folder.path.name == "shard_001"
    assert folder.data.is_dir()
    assert folder.wal.is_dir()
    directory.create_shard(ShardMetadata(12, b"h\x00\x10", b"\xff", 3, (1, 2, 3)))
    assert directory.shard_ids() == [1, 12]
    assert directory.read_metadata(1) == metadata
    changed = ShardMetadata(1, b"", b"h", 2, (1, 5))
    directory.write_metadata(changed)
    assert directory.read_metadata(1) == changed
    assert 'end = "68"' in folder.metadata.read_text()
    directory.remove_shard(12)
    assert directory.shard_ids() == [1]
    directory.close()


def test_what_a_crash_left_half_made_is_removed(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    (directory.shards / "shard_004.draft" / "wal").mkdir(parents=True)
    (directory.shards / "shard_005.removed").mkdir()
    directory.close()
    directory = open_directory(tmp_path)
    assert list(directory.shards.iterdir()) == []
    directory.close()


def test_a_first_start_that_crashed_is_finished(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "cluster" / "node.toml").write_text("half")
    directory = open_directory(tmp_path)
    assert directory.identity.name == "main"
    directory.close()


def test_a_second_server_is_refused_in_one_line(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    program = (
        "import sys; from pathlib import Path; from shardforge.storage.layout import DataDirectory\n"
        "from shardforge.errors import StorageError\n"
        "try: DataDirectory.open(Path(sys.argv[1]), node_id=1, cluster_name='main')\n"
        "except StorageError as e: print(e)"
    )
    source = str(Path(__file__).parents[2] / "src")
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={"PYTHONPATH": source}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.startswith(f'Storage error: data directory "{tmp_path}" is in use')
    assert result.stdout.count("\n") == 1
    directory.close()
    open_directory(tmp_path).close()


@pytest.mark.parametrize(
    ("node_id", "name", "words"),
    [(2, "main", "belongs to node 1, not 2"), (1, "other", 'cluster "main", not "other"')],
)
def test_another_node_or_cluster_is_refused(
    tmp_path: Path, node_id: int, name: str, words: str
) -> None:
    open_directory(tmp_path).close()
    with pytest.raises(StorageError, match=words):
        open_directory(tmp_path, node_id, name)
    open_directory(tmp_path).close()


def test_a_newer_format_is_refused_in_words(tmp_path: Path) -> None:
    open_directory(tmp_path).close()
    file = tmp_path / "cluster" / "cluster.toml"
    file.write_text(file.read_text().replace("= 1\n", f"= {FORMAT_VERSION + 1}\n", 1))
    with pytest.raises(StorageError, match="has format 2, but this version of ShardForge knows"):
        open_directory(tmp_path)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StorageError, match="not empty"):
        open_directory(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_lost_identity_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    directory.create_shard(ShardMetadata(1, b"", b"\xff", 1, (1,)))
    directory.close()
    (tmp_path / "cluster" / "cluster.toml").unlink()
    with pytest.raises(StorageError, match="has shards"):
        open_directory(tmp_path)


@pytest.mark.parametrize("text", ["", "format_version = 1\nid = 9", "\x00", "format_version = 1"])
def test_damaged_metadata_is_named(tmp_path: Path, text: str) -> None:
    directory = open_directory(tmp_path)
    folder = directory.create_shard(ShardMetadata(1, b"", b"\xff", 1, (1,)))
    folder.metadata.write_text(text)
    with pytest.raises(StorageError, match=r"metadata.toml.* is damaged") as raised:
        directory.read_metadata(1)
    assert raised.value.sqlstate == "XX001"
    directory.close()
